"""kill -9 of the flow at ten random moments, from S3 to S3: after the rerun all is as if nothing had happened."""

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

from storage.catalogue import query
from storage.locations import Location
from tasks.jobs import RestoreOptions

pytestmark = [pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(3600)]
CHECKOUT = Path(__file__).parents[2]
PICTURES = 18
FLOW_KILLS = 10
OPTIONS = RestoreOptions(shard_images=2, workers=2, device="cpu", precision="float32", write_report=False)
PROGRAM = (
    "import sys, flows.prefect_settings\nfrom flows.restore_archive import restore_archive\n"
    f"from tasks.jobs import RestoreOptions\nfrom storage.limits import IngestLimits\n"
    f"restore_archive(sys.argv[1], sys.argv[2], {OPTIONS!r})\n"
)
# Columns that say when and how long, where a workspace lies, which run it was and of which commit of the program.
OF_THIS_RUN = ("finished_at", "seconds", "output_uri", "source_uri", "mask_uri", "run_id", "code_version")


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

    def content(self, destination: str) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
        """Return the catalogue's rows without what belongs to a run, and every output's bytes."""
        found = query(
            Location(destination).join("catalogue"), "SELECT * FROM images ORDER BY relative_path"
        ).to_pylist()
        rows = [{name: value for name, value in row.items() if name not in OF_THIS_RUN} for row in found]
        outputs = self.filesystem.cat(self.filesystem.find(f"{destination}/images"))
        return rows, {path.split("/images/")[1]: data for path, data in outputs.items()}

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
    rows, outputs = runs.content(destination)
    expected_rows, expected_outputs = runs.content(undisturbed)
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
