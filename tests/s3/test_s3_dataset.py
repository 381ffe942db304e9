"""A data set from a bucket to a bucket: the bytes of a run on disk, only what is missing is made again."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_pictures import png
from real_server import Server

pytestmark = [pytest.mark.s3, pytest.mark.timeout(1800)]
CHECKOUT = Path(__file__).parents[2]
PICTURES = {"a/1.png": png(1), "a/2.png": png(2, noise_sigma=25), "b/3.png": png(3), "b/bad.jpg": b"\xff\xd8 bad"}


def _dataset(server: Server, *arguments: str, code: int = 1) -> dict[str, Any]:
    command = [sys.executable, "-m", "flows.cli", "dataset", *arguments, "--device", "cpu", "--json"]
    settings = {**os.environ, **server.settings}
    ended = subprocess.run(
        command, cwd=CHECKOUT, env=settings, capture_output=True, text=True, timeout=800, check=False
    )
    assert ended.returncode == code, ended.stderr
    assert not any(secret in ended.stdout + ended.stderr for secret in server.secrets)
    return dict(json.loads(ended.stdout)["statistics"])


def _below(filesystem: Any, url: str) -> dict[str, str]:
    """Return {path: sha256} of every object below a URL."""
    root = url.removeprefix("s3://")
    return {
        key.removeprefix(f"{root}/"): hashlib.sha256(filesystem.cat(key)).hexdigest() for key in filesystem.find(root)
    }


def test_from_bucket_to_bucket(server: Server, filesystem: Any, place: str, tmp_path: Path) -> None:
    root = place.removeprefix("s3://")
    filesystem.pipe({f"{root}/in/{name}": data for name, data in PICTURES.items()})
    for name, data in PICTURES.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    made = _dataset(server, f"{place}/in", f"{place}/out", "--shard-size", "2")
    assert (made["samples"], made["made_shards"], made["errors"]) == (4, 2, {"truncated": 1})
    _dataset(server, str(tmp_path / "in"), str(tmp_path / "out"), "--shard-size", "2")
    before = _below(filesystem, f"{place}/out")
    for number in ("000000", "000001"):
        on_disk = hashlib.sha256((tmp_path / "out" / "shards" / f"{number}.tar").read_bytes()).hexdigest()
        assert before[f"shards/{number}.tar"] == on_disk

    filesystem.rm(f"{root}/out/shards/000001.tar")
    again = _dataset(server, f"{place}/in", f"{place}/out", "--shard-size", "2")
    assert (again["made_shards"], again["kept_shards"]) == (1, 1)
    after = _below(filesystem, f"{place}/out")
    shards = [path for path in before if path.startswith(("shards/", "samples/"))]
    assert len(shards) == 4
    assert all(after[path] == before[path] for path in shards)

    files = _dataset(server, f"{place}/out/shards", f"{place}/files", "--layout", "folder", code=0)
    assert files["samples"] == 3
    images = [path for path in _below(filesystem, f"{place}/files") if path.startswith("images/")]
    assert images == ["images/000000/a/1.png", "images/000000/a/2.png", "images/000001/b/3.png"]


def test_a_list_in_a_bucket(server: Server, filesystem: Any, place: str) -> None:
    root = place.removeprefix("s3://")
    filesystem.pipe({f"{root}/{name}": data for name, data in PICTURES.items()})
    listed = io.BytesIO()
    places = ["a/1.png", f"{place}/b/3.png", "a/gone.png", "s3://no-such-bucket-of-lacuna/x.png"]
    pq.write_table(pa.table({"path": places, "label": [1, 2, 3, 4]}), listed)
    filesystem.pipe(f"{root}/list.parquet", listed.getvalue())
    made = _dataset(server, f"{place}/list.parquet", f"{place}/out", "--column", "path")
    assert made["statuses"]["failed"] == 2
    assert made["errors"] == {"missing": 2}
    rows = pq.read_table(io.BytesIO(filesystem.cat(f"{root}/out/samples/000000.parquet"))).to_pylist()
    assert [row["label"] for row in rows] == [1, 2, 3, 4]
