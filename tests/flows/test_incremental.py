"""The nightly run: what is new or changed is restored, all else stays as it is, and a killed run goes on."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import flows.prefect_settings  # noqa: F401 - before prefect
import tasks.ingest
import tasks.restore
from flows.restore_archive import restore_archive
from flows.run_summary import RunSummary
from storage.catalogue import query
from storage.catalogue_status import collection_statuses
from storage.locations import Location
from tasks.jobs import RestoreOptions
from tests.flows.conftest import smooth_picture, write_picture

OPTIONS = RestoreOptions(
    shard_images=4,
    device="cpu",
    precision="float32",
    strengths=(("deblock", 0.0), ("deblur", 0.0), ("fill", 0.0)),
    incremental=True,
)
CHECKOUT = Path(__file__).parents[2]
# Columns that say when and how long, where a workspace lies, and which commit of the program ran.
OF_THIS_RUN = ("finished_at", "seconds", "output_uri", "source_uri", "mask_uri", "run_id", "code_version")


def rows(destination: Path, sql: str = "SELECT * FROM images ORDER BY relative_path") -> list[dict[str, Any]]:
    return query(Location(str(destination / "catalogue")), sql).to_pylist()


def content(destination: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in OF_THIS_RUN} for row in rows(destination)]


def held(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file with its time of change and sha256."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in files
    }


def fill(folder: Path, names: range) -> None:
    for number in names:
        name = f"{number:02d}.tif" if number == 7 else f"{number:02d}.png"
        write_picture(folder / name, smooth_picture(number), noise_sigma=25 * (number % 3 == 0))


def night(source: Path) -> None:
    """Three new pictures, one changed, to other bytes of the same size and date, and one removed."""
    for name in ("a/05b", "a/21", "c/22"):
        write_picture(source / f"{name}.png", smooth_picture(int(name[2:4]) + 50), noise_sigma=25)
    changed = source / "a" / "07.tif"
    before = changed.stat()
    write_picture(changed, smooth_picture(77), noise_sigma=20)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert changed.stat().st_size == before.st_size
    (source / "a" / "11.png").unlink()


@pytest.fixture(scope="module")
def first_night(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An archive of twenty pictures and a file that is none, restored once."""
    folder = tmp_path_factory.mktemp("nightly")
    source = folder / "archive"
    fill(source / "a", range(12))
    fill(source / "b", range(12, 20))
    (source / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is not a picture")
    summary = restore_archive(str(source), str(folder / "out"), OPTIONS)
    assert (summary.images, summary.new, summary.quarantined) == (21, 21, 1)
    return source, folder / "out"


@pytest.fixture(scope="module")
def second_night(first_night: tuple[Path, Path]) -> tuple[Path, Path, dict[str, Any], RunSummary]:
    source, out = first_night
    before = {"files": held(out), "rows": rows(out)}
    night(source)
    return source, out, before, restore_archive(str(source), str(out), OPTIONS)


def test_exactly_what_is_new_or_changed_is_restored(second_night: Any) -> None:
    _, out, before, summary = second_night
    assert (summary.images, summary.new, summary.changed, summary.unchanged) == (4, 3, 1, 19)
    after = held(out / "images")
    kept = {name.removeprefix("images/"): said for name, said in before["files"].items() if name.startswith("images/")}
    written = {name for name, said in after.items() if kept.get(name) != said}
    assert written == {"a/05b.png", "a/21.png", "c/22.png", "a/07.tif"}
    assert kept.keys() <= after.keys(), "the output of a removed source stays"


def test_other_rows_stay_as_they_were(second_night: Any) -> None:
    _, out, before, _ = second_night
    now = {row["relative_path"]: row for row in rows(out)}
    for row in before["rows"]:
        path = row["relative_path"]
        if path == "a/11.png":
            assert now[path] == {**row, "source_state": "source_missing"}
        elif path == "a/07.tif":
            assert now[path]["source_sha256"] != row["source_sha256"]
        else:
            assert now[path] == row


def test_every_image_has_one_row_for_whoever_reads_the_prefix(second_night: Any) -> None:
    _, out, _, _ = second_night
    frame = pd.read_parquet(out / "catalogue" / "images")
    assert len(frame) == 24
    assert frame["relative_path"].is_unique
    assert frame["source_state"].value_counts().to_dict() == {"present": 23, "source_missing": 1}
    for table in ("steps", "metrics"):
        paths = set(pd.read_parquet(out / "catalogue" / table)["relative_path"])
        assert {"a/07.tif", "a/21.png"} <= paths <= set(frame["relative_path"])
    steps = pd.read_parquet(out / "catalogue" / "steps")
    assert not steps.duplicated(["relative_path", "step_index"]).any()


def test_outputs_are_what_the_catalogue_says(second_night: Any) -> None:
    _, out, _, _ = second_night
    outputs = {row["relative_path"]: row["output_sha256"] for row in rows(out) if row["output_sha256"]}
    assert {name: said[1] for name, said in held(out / "images").items()} == outputs


def test_nothing_new_touches_nothing(second_night: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out, _, _ = second_night
    times = {path: path.stat().st_mtime_ns for path in [out, *out.rglob("*")]}
    for path in source.rglob("*.png"):
        os.utime(path)  # a newer date is no news
    monkeypatch.setattr(tasks.ingest, "ingest", None)
    summary = restore_archive(str(source), str(out), OPTIONS)
    assert summary.nothing_to_do is not None
    assert "nothing new: all 23 images" in summary.nothing_to_do
    assert "1 failed or were quarantined" in summary.nothing_to_do
    assert {path: path.stat().st_mtime_ns for path in [out, *out.rglob("*")]} == times


def test_a_source_that_comes_back_is_noted_and_not_restored_again(second_night: Any) -> None:
    source, out, _, _ = second_night
    before = held(out / "images")
    write_picture(source / "a" / "11.png", smooth_picture(11))
    summary = restore_archive(str(source), str(out), OPTIONS)
    assert (summary.images, summary.new, summary.changed, summary.nothing_to_do) == (0, 0, 0, None)
    assert {row["source_state"] for row in rows(out)} == {"present"}
    assert held(out / "images") == before
    (source / "a" / "11.png").unlink()
    restore_archive(str(source), str(out), OPTIONS)
    assert sum(row["source_state"] == "source_missing" for row in rows(out)) == 1


# The name of the collection allows its archive to be another place.
SMALL = replace(OPTIONS, shard_images=2, workers=1, collection="archive")


def small_night(source: Path, *, second: bool) -> None:
    if not second:
        fill(source, range(6))
        return
    fill(source, range(6, 9))
    write_picture(source / "03.png", smooth_picture(77), noise_sigma=20)
    (source / "05.png").unlink()


@pytest.fixture(scope="module")
def one_night(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive and what one run made of it, to be copied; an archive may move."""
    folder = tmp_path_factory.mktemp("one")
    small_night(folder / "archive", second=False)
    restore_archive(str(folder / "archive"), str(folder / "out"), SMALL)
    return folder


@pytest.fixture(scope="module")
def undisturbed(one_night: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(one_night, tmp_path_factory.mktemp("undisturbed") / "two")
    small_night(folder / "archive", second=True)
    restore_archive(str(folder / "archive"), str(folder / "out"), SMALL)
    return folder / "out"


class KilledError(Exception):
    """In place of a signal: nothing of the program that follows it is done."""


def _killing(monkeypatch: pytest.MonkeyPatch, place: str, *, after: int) -> None:
    """Have the function at `place` called `after` times and then die."""
    module, _, name = place.rpartition(".")
    real, calls = getattr(sys.modules[module], name), []

    def killing(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) > after:
            raise KilledError
        return real(*args, **kwargs)

    monkeypatch.setattr(place, killing)


@pytest.mark.parametrize(
    ("place", "after"),
    [
        ("tasks.catalogue.commit_shard", 0),  # outputs are written, no row is
        ("tasks.catalogue.commit_shard", 1),
        ("flows.restore_archive.replace_rows", 0),  # a new row is committed, the old one still there
        ("flows.restore_archive.finish_run", 0),
        ("storage.catalogue._move", 0),  # in the middle of a commit
        ("storage.catalogue._move", 1),
    ],
)
def test_killed_and_run_again_equals_undisturbed(
    one_night: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, after: int
) -> None:
    shutil.copytree(one_night, tmp_path, dirs_exist_ok=True)
    source, out = tmp_path / "archive", tmp_path / "out"
    small_night(source, second=True)
    with monkeypatch.context() as patched:
        _killing(patched, place, after=after)
        with pytest.raises(Exception):  # noqa: B017, PT011 - however it comes through the engine
            restore_archive(str(source), str(out), SMALL)
    restore_archive(str(source), str(out), SMALL)
    _check_equal(out, undisturbed)
    assert restore_archive(str(source), str(out), SMALL).nothing_to_do is not None


def _check_equal(out: Path, other: Path) -> None:
    assert content(out) == content(other)
    hashes = [{name: said[1] for name, said in held(folder / "images").items()} for folder in (out, other)]
    assert hashes[0] == hashes[1]
    assert len(pd.read_parquet(out / "catalogue" / "images")) == len(content(other)), "also as anybody reads it"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("night", [1, 2])
def test_killed_by_a_signal_and_run_again_equals_undisturbed(undisturbed: Path, tmp_path: Path, night: int) -> None:
    source, out = tmp_path / "archive", tmp_path / "out"
    program = (
        "import sys, flows.prefect_settings\nfrom flows.restore_archive import restore_archive\n"
        "from tasks.jobs import RestoreOptions\nfrom storage.limits import IngestLimits\n"
        f"restore_archive(sys.argv[1], sys.argv[2], {SMALL!r})\n"
    )
    command = [sys.executable, "-c", program, str(source), str(out)]
    for number in (1, 2):
        small_night(source, second=number == 2)
        if number == night:
            _kill_once(command, out)
        subprocess.run(command, check=True, capture_output=True, cwd=CHECKOUT)
    _check_equal(out, undisturbed)


def _kill_once(command: list[str], out: Path) -> None:
    """Kill the program, with all it started, as soon as it has committed something."""
    images = out / "catalogue" / "images"
    before = set(images.rglob("*.parquet"))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=CHECKOUT, start_new_session=True, **quiet) as process:
        while process.poll() is None and set(images.rglob("*.parquet")) == before:
            time.sleep(0.005)
        assert process.poll() is None, "it ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)


def test_no_shard_begins_after_the_time(prefect_server: None, tmp_path: Path) -> None:
    fill(tmp_path / "archive", range(4))
    past = (datetime.now() - timedelta(minutes=1)).isoformat()
    stopped = restore_archive(str(tmp_path / "archive"), str(tmp_path / "out"), replace(OPTIONS, stop_at=past))
    assert (stopped.images, stopped.remaining) == (0, 4)
    done = restore_archive(str(tmp_path / "archive"), str(tmp_path / "out"), OPTIONS)
    assert (done.images, done.remaining) == (4, 0)


def test_old_pictures_are_compared_after_new_ones_are_restored(
    prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "archive", tmp_path / "out"
    fill(source, range(3))
    restore_archive(str(source), str(out), OPTIONS)
    fill(source, range(3, 4))
    early = datetime.now().astimezone()
    times = chain([early, early], repeat(early + timedelta(hours=2)))  # time for one shard
    monkeypatch.setattr("flows.deadline._now", lambda: next(times))
    stop_at = (early + timedelta(hours=1)).isoformat()
    hurried = restore_archive(str(source), str(out), replace(OPTIONS, stop_at=stop_at))
    assert (hurried.images, hurried.new, hurried.remaining, hurried.unread) == (1, 1, 0, 3)
    assert len(rows(out)) == 4


def test_a_whole_run_with_other_settings_leaves_one_row_to_the_next_increment(
    prefect_server: None, tmp_path: Path
) -> None:
    source, out = tmp_path / "archive", tmp_path / "out"
    fill(source, range(3))
    for seed in (0, 1):
        restore_archive(str(source), str(out), replace(OPTIONS, incremental=False, seed=seed))
    assert len(rows(out)) == 6, "one row per image and run"
    summary = restore_archive(str(source), str(out), OPTIONS)
    assert (summary.images, summary.unchanged) == (0, 3)
    assert len(rows(out)) == 3
    assert restore_archive(str(source), str(out), OPTIONS).nothing_to_do is not None


def test_a_whole_run_notes_what_is_gone_in_rows_of_other_settings(prefect_server: None, tmp_path: Path) -> None:
    source, out = tmp_path / "archive", tmp_path / "out"
    fill(source, range(3))
    for seed in (0, 1):
        restore_archive(str(source), str(out), replace(OPTIONS, incremental=False, seed=seed))
    (source / "02.png").unlink()
    restore_archive(str(source), str(out), replace(OPTIONS, incremental=False, seed=1))
    (found,) = collection_statuses(str(out))
    assert (found.images, found.source_missing) == (3, 1)
    noted = "SELECT relative_path FROM images WHERE source_state = 'source_missing'"
    assert rows(out, noted) == [{"relative_path": "02.png"}]
