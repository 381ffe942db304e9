"""A benchmark whose clean pictures, degraded set and results all lie in buckets: the same bytes as on a disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from drawn_pictures import png
from real_server import Server

pytestmark = pytest.mark.s3
CHECKOUT = Path(__file__).parents[2]


def _benchmark(server: Server, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "flows.cli", "benchmark", *arguments, "--json"]
    settings = {**os.environ, **server.settings}
    ended = subprocess.run(
        command, cwd=CHECKOUT, env=settings, capture_output=True, text=True, timeout=200, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


def test_from_clean_pictures_to_a_leaderboard(server: Server, filesystem: Any, place: str, tmp_path: Path) -> None:
    filesystem.pipe({f"{place}/clean/{name}.png".removeprefix("s3://"): png(index) for index, name in enumerate("ab")})
    recipes = ("--recipes", "awgn/25,pixels/50")
    made = _benchmark(server, "generate", "--source", f"{place}/clean", *recipes, "--destination", f"{place}/set")
    assert (made["samples"], made["made"]) == (4, 4)
    again = _benchmark(server, "generate", "--source", f"{place}/clean", *recipes, "--destination", f"{place}/set")
    assert again["made"] == 0
    _benchmark(server, "generate", "--source", f"{place}/clean", *recipes, "--destination", str(tmp_path / "set"))
    manifest = filesystem.cat(f"{place}/set/manifest.parquet".removeprefix("s3://"))
    assert manifest == (tmp_path / "set" / "manifest.parquet").read_bytes()

    run = ("run", f"{place}/set", "--destination", f"{place}/results", "--methods")
    first = _benchmark(server, *run, "telea")
    second = _benchmark(server, *run, "navier-stokes")
    # Two noisy pictures and two with holes: the untouched input on all four, a hole filler on two.
    assert (first["cells"], first["computed"]) == (6, 6)
    assert (second["cells"], second["computed"]) == (8, 2)
    files = _benchmark(server, "leaderboard", f"{place}/results")["files"]
    page = next(name for name in files if name.endswith("leaderboard.html"))
    assert b"navier-stokes" in filesystem.cat(page.removeprefix("s3://"))
