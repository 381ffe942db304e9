"""The whole flow from S3 to S3: rerun, change, kill -9 at random moments, and no secret in anything it leaves."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from drawn_pictures import archive, png
from real_server import Requests, Server

import flows.prefect_settings  # noqa: F401 - before prefect
import tasks.detect
import tasks.estimate
import tasks.ingest
import tasks.measure
import tasks.restore
import tasks.route
from flows.restore_archive import restore_archive
from flows.run_summary import RunSummary
from storage.archives import open_source
from storage.catalogue import query
from storage.limits import IngestLimits
from storage.locations import Location
from storage.outputs import verify_output
from storage.shards import cut_shards
from tasks.jobs import RestoreOptions

pytestmark = [pytest.mark.s3, pytest.mark.timeout(900)]
CHECKOUT = Path(__file__).parents[2]
OPTIONS = RestoreOptions(shard_images=2, device="cpu", precision="float32")
STAGES = {
    "ingest": tasks.ingest,
    "detect": tasks.detect,
    "estimate": tasks.estimate,
    "route": tasks.route,
    "restore": tasks.restore,
    "measure": tasks.measure,
}
# Columns that say when, how long and where, and so differ between two runs of equal content.
_OF_THIS_RUN = ("run_id", "finished_at", "seconds", "output_uri", "mask_uri", "code_version", "step_seconds")


@dataclass
class Workspace:
    """An archive on S3, where it is restored to, and what the first run said."""

    source: str
    destination: str
    first: RunSummary
    calls: Counter[str] = field(default_factory=Counter)

    def run(self) -> RunSummary:
        return restore_archive(self.source, self.destination, OPTIONS)


def rows(destination: str, table: str = "images") -> list[dict[str, Any]]:
    """The rows of the last run in an order of their own, without what differs between runs of equal content."""
    found = query(Location(destination).join("catalogue"), f"SELECT * FROM {table}").to_pylist()
    kept = [{name: value for name, value in row.items() if name not in _OF_THIS_RUN} for row in found]
    return sorted(kept, key=repr)


def differences(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> list[Any]:
    """What differs, as (path, column, found, expected); rows that one has more come as they are."""
    pairs = list(zip(found, expected, strict=False))
    more = found[len(pairs) :] + expected[len(pairs) :]
    cells = [(one["relative_path"], name, one[name], two[name]) for one, two in pairs for name in one]
    return [cell for cell in cells if cell[2] != cell[3]] + more


def check_outputs(destination: str) -> None:
    """Every output is what its row says, and there is none without a row."""
    found = query(Location(destination).join("catalogue"), "SELECT * FROM images").to_pylist()
    written = {row["output_uri"]: row["output_sha256"] for row in found if row["output_uri"]}
    assert all(verify_output(uri, sha256) for uri, sha256 in written.items())
    images = Location(destination).join("images")
    assert {images.join(path).uri for path in images.list()} == set(written)


@pytest.fixture(scope="module")
def source(filesystem: Any, bucket: str) -> str:
    filesystem.pipe({f"{bucket}/in/{name}": data for name, data in archive().items()})
    return f"s3://{bucket}/in"


@pytest.fixture(scope="module")
def restored(prefect_server: None, source: str, bucket: str) -> Workspace:
    destination = f"s3://{bucket}/out"
    return Workspace(source=source, destination=destination, first=restore_archive(source, destination, OPTIONS))


@pytest.fixture
def counted(restored: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The workspace with every stage's body counted."""
    restored.calls = Counter()
    for name, module in STAGES.items():
        monkeypatch.setattr(module, name, _counting(restored.calls, name, getattr(module, name)))
    return restored


def _counting(calls: Counter[str], name: str, body: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        return body(*args, **kwargs)

    return counted


def test_first_run_leaves_outputs_catalogue_and_report(restored: Workspace, filesystem: Any) -> None:
    summary = restored.first
    assert (summary.images, summary.quarantined, summary.failed, summary.broken_shards) == (9, 1, 0, ())
    assert summary.restored >= 3
    check_outputs(restored.destination)
    assert summary.report_uri == f"{restored.destination}/report/report.html"
    assert b"<html" in filesystem.cat(summary.report_uri)[:2000]
    top = {path.split("/")[2] for path in filesystem.find(restored.destination.removeprefix("s3://"))}
    assert top <= {"images", "catalogue", "report", "masks"}


def test_the_source_is_as_it_was(restored: Workspace, filesystem: Any) -> None:
    prefix = restored.source.removeprefix("s3://")
    held = {path.removeprefix(prefix + "/"): filesystem.cat(path) for path in filesystem.find(prefix)}
    assert held == archive()


def test_rerun_computes_and_writes_nothing(counted: Workspace, filesystem: Any, requests: Requests) -> None:
    place = counted.destination.removeprefix("s3://")
    before = filesystem.find(place, detail=True)
    again = counted.run()
    assert counted.calls == Counter()
    assert again.restored == counted.first.restored
    after = filesystem.find(place, detail=True)
    assert after.keys() == before.keys()
    written = {path for path in after if after[path]["LastModified"] != before[path]["LastModified"]}
    assert all(path.startswith(f"{place}/report/") for path in written)
    assert requests.count("create_multipart_upload") == 0


def test_one_changed_object_recomputes_its_shard_alone(counted: Workspace, filesystem: Any) -> None:
    members = open_source(counted.source, limits=IngestLimits()).members()
    shards = cut_shards(members, target_bytes=OPTIONS.shard_bytes, target_count=OPTIONS.shard_images)
    assert len(shards) > 2
    place = counted.destination.removeprefix("s3://") + "/images"
    before = filesystem.find(place, detail=True)
    changed = "a/noisy_2.png"
    filesystem.pipe(f"{counted.source}/{changed}", png(33, noise_sigma=30))
    try:
        summary = counted.run()
        assert counted.calls == Counter(dict.fromkeys(STAGES, 1))
        assert summary.failed == 0
        after = filesystem.find(place, detail=True)
        (shard,) = [shard for shard in shards if changed in [member.relative_path for member in shard.members]]
        own = {f"{place}/{member.relative_path}" for member in shard.members}
        assert {path for path in after if after[path]["LastModified"] != before[path]["LastModified"]} <= own
        assert after[f"{place}/{changed}"]["ETag"] != before[f"{place}/{changed}"]["ETag"]
        check_outputs(counted.destination)
        assert len(rows(counted.destination)) == 9
    finally:
        filesystem.pipe(f"{counted.source}/{changed}", archive()[changed])
        counted.run()


def test_an_output_that_is_gone_is_made_again(counted: Workspace, filesystem: Any) -> None:
    place = f"{counted.destination}/images/b/deep_noisy.png"
    before = filesystem.cat(place)
    filesystem.rm(place)
    counted.run()
    assert counted.calls == Counter(restore=1, measure=1), "and its preview with it"
    assert filesystem.cat(place) == before


def _command(source: str, destination: str) -> list[str]:
    options = ["--device", "cpu", "--precision", "float32", "--shard-images", "2", "--json"]
    return [sys.executable, "-m", "flows.cli", "restore", source, destination, *options]


def _environment(server: Server, home: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**own, **server.settings, "LACUNA_HOME": str(home)}


@dataclass(frozen=True)
class Undisturbed:
    """A run of the command nobody killed: where it wrote to, and the moments its first row and its end came."""

    destination: str
    home: Path
    first_row_seconds: float
    seconds: float
    said: str


@pytest.fixture(scope="module")
def undisturbed(server: Server, source: str, bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    destination, home = f"s3://{bucket}/undisturbed", tmp_path_factory.mktemp("home")
    started, first_row = time.monotonic(), None
    with subprocess.Popen(
        _command(source, destination), cwd=CHECKOUT, env=_environment(server, home),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        while process.poll() is None:
            if first_row is None and Location(destination).list("images"):
                first_row = time.monotonic() - started
            time.sleep(0.2)
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 1, said  # one quarantined
    assert first_row is not None
    return Undisturbed(destination, home, first_row, time.monotonic() - started, said)


@pytest.mark.parametrize("attempt", range(3))
def test_killed_at_a_random_moment_and_run_again_gives_the_same(
    server: Server, source: str, bucket: str, tmp_path: Path, undisturbed: Undisturbed, attempt: int
) -> None:
    destination = f"s3://{bucket}/killed-{attempt}"
    environment = _environment(server, tmp_path)
    # From when the first file is written to just before the end; not seeded, so that every run tries other moments.
    moment = random.uniform(undisturbed.first_row_seconds - 0.5, undisturbed.seconds - 0.5)
    with subprocess.Popen(
        _command(source, destination), cwd=CHECKOUT, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
    print(f"killed after {moment:.1f} of {undisturbed.seconds:.1f} s: {len(Location(destination).list())} objects")
    again = subprocess.run(
        _command(source, destination), cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )
    assert again.returncode == 1, again.stderr
    for table in ("images", "steps", "metrics"):
        assert differences(rows(destination, table), rows(undisturbed.destination, table)) == []
    check_outputs(destination)
    # They say when it was, and what a shard that was killed after its commit had committed before.
    of_the_run = ("report/", "catalogue/runs/", "catalogue/superseded/")
    names = [sorted(path for path in Location(place).list() if not path.startswith(of_the_run))
             for place in (destination, undisturbed.destination)]  # fmt: skip
    assert [_lasting(name) for name in names[0]] == [_lasting(name) for name in names[1]]


def _lasting(path: str) -> str:
    """The name of an object, of one in the catalogue without the digest that says when its outputs were written."""
    name = path.split("/")[-1]
    return name.rpartition("-")[0] if path.startswith("catalogue/") else name


def test_no_secret_is_left_anywhere(server: Server, undisturbed: Undisturbed, filesystem: Any) -> None:
    left = {"what it said": undisturbed.said.encode()}
    for path in filesystem.find(undisturbed.destination.removeprefix("s3://")):
        left[path] = filesystem.cat(path)
    for file in undisturbed.home.rglob("*"):
        if file.is_file():
            left[str(file)] = file.read_bytes()
    assert any(name.endswith("prefect.db") for name in left)
    assert any("/storage/" in name for name in left), "cached results"
    found = [name for name, data in left.items() for secret in server.secrets if secret.encode() in data]
    assert found == []
