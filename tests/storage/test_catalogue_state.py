"""What is current in a catalogue, and how committed rows are noted and taken out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from storage.catalogue import commit_shard, contents, query
from storage.catalogue_state import SOURCE_MISSING, amend_shard, load_state
from storage.catalogue_status import collection_statuses
from storage.errors import CatalogueError
from storage.locations import Location
from storage.run_records import record_outcome, record_settings, recorded_runs

NIGHT = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
A, B = "a" * 64, "b" * 64
SHARD = ("r1", "plates", "s1")
OTHER = ("r2", "plates", "s1")


def row(path: str, *, hours: int = 0, **more: Any) -> dict[str, Any]:
    fixed = {"image_id": path, "relative_path": path, "source_uri": f"file:///in/{path}", "code_version": "1"}
    return {
        **fixed,
        "status": "restored",
        "source_state": "present",
        "finished_at": NIGHT + timedelta(hours=hours),
        **more,
    }


def step(path: str) -> dict[str, Any]:
    fixed = {"image_id": path, "relative_path": path, "step_index": 0, "method_id": "denoise", "strength": 1.0}
    fixed |= {"reason": "", "device": "cpu", "precision": "float32", "seconds": 1.0, "changed_fraction": 1.0}
    return {**fixed, "accepted": True, "note": ""}


def commit(root: Location, shard: tuple[str, str, str], rows: list[dict[str, Any]], *, content: str = A) -> None:
    run_id, collection, shard_id = shard
    steps = [step(item["relative_path"]) for item in rows]
    place = {"run_id": run_id, "collection": collection, "shard_id": shard_id, "content_sha256": content}
    commit_shard(root, **place, images=rows, steps=steps)


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    place = Location(tmp_path / "cat" if request.param == "local" else f"memory://state-{tmp_path.name}")
    commit(place, SHARD, [row("a.png"), row("b.png", status="failed", error_kind="RuntimeError"), row("c.png")])
    return place


def paths(root: Location, table: str = "images") -> list[str]:
    return query(root, f"SELECT relative_path FROM {table} ORDER BY ALL")["relative_path"].to_pylist()


def test_no_catalogue_is_an_empty_state(tmp_path: Path) -> None:
    assert load_state(Location(tmp_path), collection="plates").files == {}


def test_the_state_is_one_entry_per_source_file(root: Location) -> None:
    commit(root, ("r1", "albums", "s1"), [row("z.png")])
    state = load_state(root, collection="plates")
    assert sorted(state.files) == ["a.png", "b.png", "c.png"]
    assert state.stale == {}
    failed = state.files["b.png"]
    assert (failed.shard, failed.unsuccessful, failed.error_kind) == (SHARD, True, "RuntimeError")
    assert not state.files["a.png"].unsuccessful


def test_of_two_rows_the_later_one_is_current(root: Location) -> None:
    commit(root, OTHER, [row("a.png", hours=1), row("c.png", hours=-1)])
    state = load_state(root, collection="plates")
    assert (state.files["a.png"].shard, state.files["c.png"].shard) == (OTHER, SHARD)
    assert state.stale == {SHARD: {"a.png"}, OTHER: {"c.png"}}
    for shard, stale in state.stale.items():
        amend_shard(root, shard, drop=stale)
    assert paths(root) == ["a.png", "b.png", "c.png"]
    assert paths(root, "steps") == ["a.png", "b.png", "c.png"]
    assert load_state(root, collection="plates").stale == {}


def test_amending_changes_what_is_named_and_nothing_else(root: Location) -> None:
    before = query(root, "SELECT * FROM images ORDER BY relative_path").to_pylist()
    notes = {"a.png": {"source_state": SOURCE_MISSING, "source_etag": "e"}}
    amend_shard(root, SHARD, drop={"b.png"}, notes=notes)
    amend_shard(root, SHARD, drop={"b.png"}, notes=notes)  # safe to repeat
    after = query(root, "SELECT * FROM images ORDER BY relative_path").to_pylist()
    assert after == [{**before[0], "source_state": SOURCE_MISSING, "source_etag": "e"}, before[2]]
    assert paths(root, "steps") == ["a.png", "c.png"]
    assert len(contents(root, SHARD)) == 1
    amend_shard(root, SHARD, notes={"a.png": {"source_state": "present", "source_etag": None}})
    amend_shard(root, SHARD, notes=notes)
    assert query(root, "SELECT * FROM images ORDER BY relative_path").to_pylist() == after, "there and back again"


def test_a_shard_without_rows_is_retired(root: Location) -> None:
    commit(root, OTHER, [row("d.png")])
    amend_shard(root, SHARD, drop={"a.png", "b.png", "c.png"})
    assert paths(root) == paths(root, "steps") == ["d.png"]
    amend_shard(root, SHARD, drop={"a.png"})  # gone already
    assert len(root.list("superseded/images")) == 1


def test_a_damaged_file_is_named(root: Location) -> None:
    file = root.join("steps", contents(root, SHARD)[0])
    whole = file.read_bytes()
    for broken in (whole[:20], b"PAR1" + b"\xff" * 40 + whole[44:]):
        file.write_bytes_atomic(broken)
        with pytest.raises(CatalogueError, match="is damaged or gone") as caught:
            amend_shard(root, SHARD, drop={"a.png"})
        assert str(file) in str(caught.value)


def test_an_older_file_left_by_a_crash_is_found_and_moved(root: Location) -> None:
    place = contents(root, SHARD)[0]
    saved = {table: root.join(table, place).read_bytes() for table in ("images", "steps", "metrics")}
    commit(root, SHARD, [row("a.png"), row("c.png")], content=B)
    for table, data in saved.items():  # as if killed before it was moved away; on a disk it is the older one
        root.join(table, place).write_bytes_atomic(data)
    if not root.is_local:
        return  # this store keeps no time that could be set back
    import os

    os.utime(root.join("images", place).local_path, (1, 1))
    state = load_state(root, collection="plates")
    assert (sorted(state.files), state.stale) == (["a.png", "c.png"], {SHARD: set()})
    amend_shard(root, SHARD)
    assert contents(root, SHARD) == [place.replace(A[:16], B[:16])]
    assert len(pd.read_parquet(root.join("images").local_path)) == 2


def test_a_file_of_an_older_schema_still_reads(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    root = Location(tmp_path)
    commit(root, SHARD, [row("a.png")])
    file = root.join("images", contents(root, SHARD)[0]).local_path
    pq.write_table(pq.ParquetFile(file).read().drop_columns(["source_etag", "source_state"]), file)
    assert query(root, "SELECT relative_path, source_etag, source_state FROM images").to_pylist() == [
        {"relative_path": "a.png", "source_etag": None, "source_state": None}
    ]
    assert load_state(root, collection="plates").files["a.png"].source_state is None


def test_status_counts_current_rows_and_knows_the_last_run(tmp_path: Path) -> None:
    root = Location(tmp_path / "catalogue")
    commit(root, SHARD, [row("a.png"), row("b.png", status="failed", error_kind="X")])
    commit(root, OTHER, [row("b.png", hours=1), row("c.png", hours=1, source_state=SOURCE_MISSING)])
    place = {"collection": "plates", "run_id": "r2"}
    record_settings(root, **place, settings={"source": "file:///in"})
    record_settings(root, **place, settings={"source": "never written"})
    assert record_outcome(root, **place, outcome={"finished_at": "2026-11-21T03:00:00+00:00"}, identity="x")
    assert not record_outcome(root, **place, outcome={"finished_at": "2026-11-22T03:00:00+00:00"}, identity="x")
    (found,) = collection_statuses(str(tmp_path))
    assert (found.images, dict(found.by_status), found.source_missing) == (3, {"restored": 3}, 1)
    assert found.failures_by_kind == {}
    assert [(run.run_id, run.images, run.source) for run in found.runs] == [("r1", 1, None), ("r2", 2, "file:///in")]
    assert found.last_run == {"finished_at": "2026-11-21T03:00:00+00:00"}


def test_failures_are_those_that_can_be_tried_again(tmp_path: Path) -> None:
    gone = row("gone.png", status="quarantined", error_kind="X", source_state=SOURCE_MISSING)
    old = row("old.png", status="quarantined", error_kind="Y", source_state=None)
    commit(Location(tmp_path / "catalogue"), SHARD, [row("a.png", status="failed", error_kind="X"), gone, old])
    (found,) = collection_statuses(str(tmp_path))
    assert (found.images, found.failures_by_kind, found.source_missing) == (3, {"X": 1, "Y": 1}, 1)


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    root = Location(tmp_path)
    root.join("runs/plates/r1/settings.json").write_bytes_atomic(b"{")
    with pytest.raises(CatalogueError, match="is no JSON"):
        recorded_runs(root)
