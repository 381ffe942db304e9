"""The archive's night end to end, each part a process of its own: Prefect's server, its worker, the S3 server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from drawn_pictures import png
from real_server import Server

from storage.catalogue import query
from storage.errors import CatalogueError
from storage.locations import Location

pytestmark = [pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(1800)]
CHECKOUT = Path(__file__).parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))
NIGHT = """
[collections.scans]
source = "{source}"
destination = "{destination}"
device = "cpu"
precision = "float32"
report = false
"""


@contextmanager
def running(command: list[str], *, log: Path, environment: dict[str, str]) -> Iterator[None]:
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_until(done: Callable[[], bool], *, seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, f"{what}: not within {seconds:.0f} s"
        time.sleep(2)


def rows(destination: str) -> list[dict[str, Any]]:
    try:
        return query(Location(destination).join("catalogue"), "SELECT * FROM images ORDER BY relative_path").to_pylist()
    except CatalogueError:
        return []


def written(filesystem: Any, destination: str) -> dict[str, Any]:
    found = filesystem.find(f"{destination}/images", detail=True)
    return {path.split("/images/")[1]: item["LastModified"] for path, item in found.items()}


@pytest.fixture
def environment(server: Server, tmp_path: Path) -> dict[str, str]:
    """Settings of a Prefect of this test alone; every minute is a night."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    settings = {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    settings |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PORT": str(port)}
    settings |= {"LACUNA_HOME": str(tmp_path / "home"), "LACUNA_CHECKOUT": str(CHECKOUT)}
    settings |= {"LACUNA_NIGHTLY_FILE": str(tmp_path / "nightly.toml"), "LACUNA_VERIFY_DESTINATION": "none"}
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return {**own, **server.settings, **settings, **path}


def test_each_night_takes_what_is_new(filesystem: Any, place: str, environment: dict[str, str], tmp_path: Path) -> None:
    source, destination = f"{place}/in", f"{place}/out"
    filesystem.pipe({f"{source}/{number:02d}.png": png(number) for number in range(20)})
    (tmp_path / "nightly.toml").write_text(NIGHT.format(source=source, destination=destination))
    deployments = (CHECKOUT / "deployments" / "prefect.yaml").read_text()
    every_minute = deployments.replace('cron: "0 2 * * *"', 'cron: "* * * * *"').replace(
        "active: false", "active: true", 1
    )
    (tmp_path / "prefect.yaml").write_text(every_minute)

    def prefect(*arguments: str) -> None:
        ended = subprocess.run([PREFECT, "--no-prompt", *arguments], cwd=CHECKOUT, env=environment,
                               capture_output=True, text=True, check=False)  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def answers() -> bool:
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", int(environment["PORT"]))) == 0

    server = [PREFECT, "server", "start", "--host", "127.0.0.1", "--port", environment["PORT"], "--no-ui"]
    worker = [PREFECT, "worker", "start", "--pool", "lacuna", "--type", "process", "--limit", "1"]
    with running(server, log=tmp_path / "server.log", environment=environment):
        wait_until(answers, seconds=300, what="Prefect's server")
        prefect("work-pool", "create", "lacuna", "--type", "process")
        prefect("deploy", "--prefect-file", str(tmp_path / "prefect.yaml"), "--name", "nightly")
        with running(worker, log=tmp_path / "worker.log", environment=environment):
            wait_until(lambda: len(rows(destination)) == 20, seconds=600, what="the first night")
            before, first = written(filesystem, destination), {row["relative_path"]: row for row in rows(destination)}
            new = [f"{source}/{name}.png" for name in ("05b", "20", "21")]
            filesystem.pipe({path: png(50 + len(path)) for path in [*new, f"{source}/07.png"]})
            old = first["07.png"]["source_sha256"]

            def done() -> bool:
                found = rows(destination)
                now = {row["relative_path"]: row for row in found}
                return len(found) == len(now) == 23 and now["07.png"]["source_sha256"] != old

            wait_until(done, seconds=600, what="the second night")
    after = written(filesystem, destination)
    assert {path for path in after if after[path] != before.get(path)} == {"05b.png", "20.png", "21.png", "07.png"}
    now = rows(destination)
    assert len(now) == 23
    assert [row for row in now if row["relative_path"] in first and row["relative_path"] != "07.png"] == [
        row for path, row in first.items() if path != "07.png"
    ]
