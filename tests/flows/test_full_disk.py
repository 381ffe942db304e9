"""A disk that is full before a run, and one that fills up in its middle: one sentence, nothing half written."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import flows.prefect_settings  # noqa: F401 - before prefect
from flows.cli import app
from flows.restore_archive import restore_archive
from flows.run_summary import BrokenShardsError
from storage.archives import open_source
from storage.catalogue import query
from storage.errors import NoRoomError
from storage.limits import IngestLimits
from storage.locations import Location
from storage.room import out_of_room
from tasks.jobs import RestoreOptions
from tasks.progress import listening
from tests.flows.conftest import build_archive

OPTIONS = RestoreOptions(shard_images=1, workers=1, device="cpu", precision="float32", write_report=False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 40 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("NO FULL DISK IS TESTED: mounting a small one needs root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass


def test_a_disk_that_is_full_before(small_disk: Path, tmp_path: Path) -> None:
    source = build_archive(tmp_path / "in")
    fill(small_disk)
    ended = CliRunner().invoke(app, ["restore", str(source), str(small_disk / "out")])
    assert ended.exit_code == 2
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "There is no room left for" in ended.stderr
    assert "0.0 MB are free" in ended.stderr
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_no_room_to_unpack_in(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / "scans.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(build_archive(tmp_path / "in"), "in")
    fill(small_disk)
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(NoRoomError, match=f"no room left for {small_disk}.* another place by TMPDIR"):
        open_source(str(packed), limits=IngestLimits())


@pytest.mark.usefixtures("prefect_server")
def test_a_disk_that_fills_up_in_the_middle(small_disk: Path, tmp_path: Path) -> None:
    source, destination = build_archive(tmp_path / "in"), small_disk / "out"
    seen: list[str] = []

    def hear(event: str, count: int, shard: str) -> None:
        if event == "done":
            seen.append(shard)
            fill(small_disk)

    with listening(hear), pytest.raises(BrokenShardsError, match="There is no room left for") as caught:
        restore_archive(str(source), str(destination), OPTIONS)
    summary = caught.value.summary
    assert len(seen) == 1
    assert len(summary.broken_shards) == 1, "no further shard is begun"
    assert summary.remaining > 0
    assert out_of_room(NoRoomError(summary.store_gone or ""))
    done = query(Location(str(destination / "catalogue")), "SELECT relative_path FROM images").to_pylist()
    assert len(done) == 7 - summary.remaining - summary.failed
    assert not [path for path in destination.rglob("*") if path.name.endswith(".part")]

    os.remove(small_disk / "filler")
    again = restore_archive(str(source), str(destination), OPTIONS)
    assert (again.images, again.quarantined, again.failed, again.broken_shards) == (7, 1, 0, ())


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(28, "No space left on device"), True),
        (OSError(122, "Disk quota exceeded"), True),
        (RuntimeError("VipsForeignSave: write error: No space left on device"), True),
        (PermissionError(13, "no"), False),
        (ValueError("4 images"), False),
    ],
)
def test_which_errors_say_so(error: Exception, full: bool) -> None:
    assert out_of_room(error) is full
    outer = RuntimeError("the shard")
    outer.__cause__ = error
    assert out_of_room(outer) is full
