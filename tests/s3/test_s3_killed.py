"""kill -9 of the flow or of the S3 server at random moments, from S3 to S3: all ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from drawn_pictures import png
from night import CHECKOUT, content
from real_server import Server

from tasks.jobs import RestoreOptions

pytestmark = [pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(3600)]
PICTURES = 18
FLOW_KILLS = 10
STORE_KILLS = 5
OPTIONS = RestoreOptions(shard_images=2, workers=2, device="cpu", precision="float32", write_report=False)
PROGRAM = (
    "import sys, flows.prefect_settings\nfrom flows.restore_archive import restore_archive\n"
    f"from tasks.jobs import RestoreOptions\nfrom storage.limits import IngestLimits\n"
    f"restore_archive(sys.argv[1], sys.argv[2], {OPTIONS!r})\n"
)


class Runs:
    """Runs of the flow as processes of their own, from one source to places of their own."""

    def __init__(self, filesystem: Any, source: str, *, home: Path) -> None:
        self.filesystem, self.source, self.home = filesystem, source, home
        self.seconds = 0.0

    def start(self, destination: str, *, cached: str) -> subprocess.Popen[bytes]:
        """Begin a run; `cached` names the folder of this machine where its stages are cached."""
        place = str(self.home / cached)
        environment = {**os.environ, "LACUNA_HOME": place, "PREFECT_HOME": place}
        command = [sys.executable, "-c", PROGRAM, self.source, destination]
        null = subprocess.DEVNULL
        return subprocess.Popen(
            command, cwd=CHECKOUT, env=environment, stdout=null, stderr=null, start_new_session=True
        )

    def whole(self, destination: str, *, cached: str) -> None:
        started = time.monotonic()
        with self.start(destination, cached=cached) as process:
            assert process.wait(600) == 0
        self.seconds = self.seconds or time.monotonic() - started

    def strangers(self, destination: str) -> list[str]:
        """Return objects that belong to no finished run: temporary names."""
        return [path for path in self.filesystem.find(destination) if "/.lacuna-" in path or path.endswith(".part")]


@pytest.fixture(scope="module")
def runs(filesystem: Any, bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    source = f"s3://{bucket}/in"
    filesystem.pipe({f"{source}/{n:02d}.png": png(n, noise_sigma=25 * (n % 2)) for n in range(PICTURES)})
    made = Runs(filesystem, source, home=tmp_path_factory.mktemp("homes"))
    made.whole(f"s3://{bucket}/undisturbed", cached="undisturbed")
    return made


def disturbed(runs: Runs, destination: str, *, name: str, disturb: Callable[[subprocess.Popen[bytes]], bool]) -> int:
    """Run until a run comes through, each disturbed at a random moment; return how many were in their work."""
    hits = 0
    while True:
        with runs.start(destination, cached=name) as process:
            hits += disturb(process)
            if process.wait(600) == 0:
                return hits


def check(runs: Runs, destination: str, *, undisturbed: str) -> None:
    rows, outputs = content(runs.filesystem, destination)
    expected_rows, expected_outputs = content(runs.filesystem, undisturbed)
    assert rows == expected_rows
    assert outputs == expected_outputs
    assert runs.strangers(destination) == []


def test_the_flow_is_killed(runs: Runs, bucket: str) -> None:
    moments, kills, number = random.Random(8), 0, 0

    def kill(process: subprocess.Popen[bytes]) -> bool:
        with suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.3, 1.0) * runs.seconds)
            return False
        os.killpg(process.pid, signal.SIGKILL)
        return True

    while kills < FLOW_KILLS:
        number += 1
        destination = f"s3://{bucket}/killed-{number}"
        kills += disturbed(runs, destination, name=f"killed-{number}", disturb=kill)
        check(runs, destination, undisturbed=f"s3://{bucket}/undisturbed")


def test_the_store_is_killed(runs: Runs, server: Server, bucket: str) -> None:
    """The gateway is killed while it serves and comes back after some seconds; the run waits and needs no rerun."""
    moments = random.Random(9)
    for number in range(STORE_KILLS):
        destination = f"s3://{bucket}/without-store-{number}"
        with runs.start(destination, cached=f"without-store-{number}") as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(moments.uniform(0.3, 0.9) * runs.seconds)
            assert process.poll() is None, "it was killed in the run's work"
            server.control("gateway-stop")
            time.sleep(moments.uniform(1.0, 8.0))
            server.control("gateway-start")
            assert process.wait(600) == 0
        check(runs, destination, undisturbed=f"s3://{bucket}/undisturbed")
