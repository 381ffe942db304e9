"""The engine's database is made at the installation, where its server then finds it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_database_is_made_where_runs_look_for_it(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-m", "flows.engine_database"]
    subprocess.run(command, env={**kept, "LACUNA_HOME": str(tmp_path)}, check=True, timeout=120)
    assert (tmp_path / "prefect" / "prefect.db").stat().st_size > 0
    elsewhere = {**kept, "LACUNA_HOME": str(tmp_path / "other"), "PREFECT_API_URL": "http://127.0.0.1:1/api"}
    subprocess.run(command, env=elsewhere, check=True, timeout=120)
    assert not (tmp_path / "other" / "prefect" / "prefect.db").exists()
