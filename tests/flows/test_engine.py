"""The workflow engine's server of one command: begun at once, left to the user's own settings, never left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from flows.engine import _named_in_files, start_engine


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("prefect.toml", "", True),
        (".env", "", True),
        ("pyproject.toml", "[tool.prefect]\n", True),
        ("pyproject.toml", "[tool.ruff]\n", False),
        ("pyproject.toml", "not toml [", False),
        ("other.toml", "[tool.prefect]\n", False),
    ],
)
def test_settings_files_of_the_user_are_left_to_prefect(tmp_path: Path, name: str, text: str, named: bool) -> None:
    (tmp_path / name).write_text(text)
    assert _named_in_files(tmp_path, home=tmp_path / "home") is named


def test_a_profile_of_the_user_is_left_to_prefect(tmp_path: Path) -> None:
    (tmp_path / "profiles.toml").write_text("")
    assert _named_in_files(tmp_path / "elsewhere", home=tmp_path)


def test_no_server_is_started_where_the_user_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "prefect", raising=False)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.setattr(subprocess, "Popen", None)  # calling it fails
    start_engine()
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:1/api"


_PROGRAM = """
import os, sys, time
from flows.engine import start_engine
start_engine()
print(os.environ["PREFECT_API_URL"], flush=True)
if sys.argv[1] == "wait":
    time.sleep(300)
from prefect import flow
@flow
def add(a, b):
    return a + b
print(add(1, 2), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["normal", "killed"])
def test_a_flow_finds_the_server_which_ends_with_the_command(tmp_path: Path, end: str) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-c", _PROGRAM, "wait" if end == "killed" else "run"]
    environment = {**own, "LACUNA_HOME": str(tmp_path / "home"), "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if end == "killed":
            assert _answers(address, timeout=60)  # the request waits in the socket
            process.kill()
        else:
            assert process.stdout.readline().strip() == "3"
    deadline = time.monotonic() + 30
    while _answers(address, timeout=5):
        assert time.monotonic() < deadline, f"the server at {address} outlived its command"
        time.sleep(0.2)
    assert (tmp_path / "home" / "prefect" / "prefect.db").exists()


def _restored(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run `lacuna restore` of tmp_path/in with a home of its own, as a user would who has set nothing."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", "restore", str(tmp_path / "in"), str(tmp_path / "out"), "--json"],
        check=False,
        env={**own, "LACUNA_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_a_damaged_database_is_one_sentence(tmp_path: Path) -> None:
    database = tmp_path / "home" / "prefect" / "prefect.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"no database" * 1000)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"no picture")
    ended = _restored(tmp_path)
    assert ended.returncode == 2
    assert "file is not a database" in ended.stderr
    assert f"delete {database}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_source_without_pictures_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    ended = _restored(tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("lacuna: ")
    assert "holds no pictures" in ended.stderr
    assert "Traceback" not in ended.stderr


def _answers(address: str, *, timeout: float) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=timeout) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
