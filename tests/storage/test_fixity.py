"""Fixity of outputs, and what killed runs leave behind."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from storage.catalogue import commit_shard
from storage.catalogue_state import SOURCE_MISSING, output_of_another
from storage.errors import CatalogueError
from storage.fixity import check_outputs
from storage.leftovers import Leftover, find_leftovers, remove_leftover
from storage.locations import Location


def output(
    out: Path,
    name: str,
    *,
    run_id: str = "r1",
    hours: int = 0,
    mask: bool = False,
    collection: str = "c",
    source: str = "",
    state: str = "present",
) -> None:
    data = f"{name} of {run_id}".encode()
    Location(out).join("images", name).write_bytes_atomic(data)
    row: dict[str, Any] = {"image_id": name, "relative_path": name, "source_uri": source or name, "code_version": "1"}
    row |= {"status": "restored", "output_sha256": hashlib.sha256(data).hexdigest(), "page_index": 0, "page_count": 1}
    row |= {"finished_at": datetime.now(UTC) + timedelta(hours=hours), "source_state": state}
    if mask:
        row["mask_uri"] = Location(out).join("masks", f"{name}.png").uri
        Location(out).join("masks", f"{name}.png").write_bytes_atomic(b"mask")
    digest = hashlib.sha256(name.encode()).hexdigest()
    place = {"run_id": run_id, "collection": collection, "shard_id": digest[:16], "content_sha256": digest}
    commit_shard(Location(out).join("catalogue"), **place, images=[row])


def test_whole_outputs_are_intact(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    for name in ("a.png", "b/ä b.png"):
        output(tmp_path, name, mask=True)
    report = check_outputs(str(tmp_path), progress=lambda done, total: seen.append((done, total)))
    assert (report.checked, report.intact, report.damaged, report.unrecorded) == (4, 4, (), 0)
    assert seen == [(4, 4)]


def test_what_is_missing_or_changed_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png"):
        output(tmp_path, name, mask=name == "d.png")
    (tmp_path / "images/a.png").unlink()
    (tmp_path / "images/b.png").write_bytes(b"b.png OF r1")  # of the same size
    (tmp_path / "masks/d.png.png").unlink()
    (tmp_path / "images/stray.png").write_bytes(b"?")
    report = check_outputs(str(tmp_path))
    found = [(damage.path, damage.relative_path, damage.problem) for damage in report.damaged]
    assert found == [
        ("images/a.png", "a.png", "missing"),
        ("images/b.png", "b.png", "changed"),
        ("masks/d.png.png", "d.png", "missing"),
    ]
    assert (report.checked, report.intact, report.unrecorded) == (5, 2, 1)


def test_the_last_run_says_what_an_output_should_be(tmp_path: Path) -> None:
    output(tmp_path, "a.png", run_id="r1")
    output(tmp_path, "a.png", run_id="r2", hours=1)
    assert check_outputs(str(tmp_path)).damaged == ()


def test_of_two_sources_with_one_name_the_one_that_was_replaced_is_named(tmp_path: Path) -> None:
    output(tmp_path, "a.png", run_id="r1", collection="one", source="/one/a.png")
    output(tmp_path, "a.png", run_id="r2", collection="two", source="/two/a.png", hours=1)
    for _ in range(50):  # rows that nothing else puts in order change places now and then
        report = check_outputs(str(tmp_path))
        assert [(damage.collection, damage.problem) for damage in report.damaged] == [("one", "changed")]
        assert (report.checked, report.intact) == (2, 1), "whichever row comes first"
    root = Location(tmp_path).join("catalogue")
    for moved in (False, True):
        one = {"collection": "one", "source": "/one", "moved": moved}
        assert output_of_another(root, **one, paths={"a.png"}) == ("a.png", "two", "/two/a.png")
        three = {"collection": "three", "source": "/three", "moved": moved}
        assert output_of_another(root, **three, paths={"b.png"}) is None


def test_one_source_under_two_names_replaces_its_own(tmp_path: Path) -> None:
    output(tmp_path, "a.png", run_id="r1", collection="one", source="/in/a.png")
    output(tmp_path, "a.png", run_id="r2", collection="two", source="/in/a.png", hours=1)
    assert check_outputs(str(tmp_path)).damaged == ()
    root = Location(tmp_path).join("catalogue")
    one = {"collection": "one", "source": "/in", "paths": {"a.png"}}
    assert output_of_another(root, **one, moved=False) is None


def test_a_collection_is_of_one_source_unless_it_has_moved(tmp_path: Path) -> None:
    output(tmp_path, "a.png", collection="scans", source="/one/scans/a.png")
    root = Location(tmp_path).join("catalogue")

    def found(source: str, path: str, *, moved: bool = False) -> Any:
        return output_of_another(root, collection="scans", source=source, paths={path}, moved=moved)

    held = ("a.png", "scans", "/one/scans/a.png")
    assert found("/two/scans", "a.png") == found("/two/scans", "b.png") == found("/one/scans.zip", "a.png") == held
    assert found("/two/scans", "a.png", moved=True) is None
    assert found("/one/scans", "a.png") is None
    output(tmp_path, "a.png", run_id="r2", hours=1, collection="scans", source="/one/scans.tar!/./a.png")
    assert found("/one/scans.tar", "a.png") is None, "the last row counts"


def test_of_a_file_that_is_gone_only_the_output_is_kept(tmp_path: Path) -> None:
    output(tmp_path, "a.png", collection="scans", source="/one/scans/a.png", state=SOURCE_MISSING)
    place = {"collection": "scans", "source": "/two/scans", "moved": False}
    root = Location(tmp_path).join("catalogue")
    assert output_of_another(root, **place, paths={"b.png"}) is None
    assert output_of_another(root, **place, paths={"a.png"}) == ("a.png", "scans", "/one/scans/a.png")


def test_a_destination_that_was_moved_can_be_checked(tmp_path: Path) -> None:
    output(tmp_path / "before", "a.png", mask=True)
    (tmp_path / "before").rename(tmp_path / "after")
    assert check_outputs(str(tmp_path / "after")).intact == 2


def test_without_a_catalogue_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="no catalogue"):
        check_outputs(str(tmp_path))


LEFT = ("images/a/.0123456789abcdef.part", ".lacuna-77-1234567", "report/.preview-ab_12XYZ", "report/.report.html.77")
KEPT = ("images/a/x.png", "images/.0123456789abcdef.png", "images/.hidden", "images/a/.0123.part", "masks/x.png.part")


def test_only_leftovers_of_ours_and_only_old_ones_are_found(tmp_path: Path) -> None:
    for name in (*LEFT, *KEPT):
        Location(tmp_path).join(name).write_bytes_atomic(b"12345")
    assert list(find_leftovers(str(tmp_path), older_than_seconds=3600)) == []
    for path in tmp_path.rglob("*"):
        os.utime(path, (1e9, 1e9))
    found = list(find_leftovers(str(tmp_path), older_than_seconds=3600))
    assert sorted(leftover.path for leftover in found) == sorted(LEFT)
    assert {(leftover.kind, leftover.bytes) for leftover in found} == {("temporary", 5)}
    assert all((tmp_path / name).exists() for name in LEFT), "finding removes nothing"
    for leftover in found:
        remove_leftover(str(tmp_path), leftover)
        remove_leftover(str(tmp_path), leftover)  # gone already
    assert sorted(Location(tmp_path).list()) == sorted(KEPT)


def test_an_output_cannot_be_removed_as_a_leftover(tmp_path: Path) -> None:
    output(tmp_path, "a.png")
    wrong = Leftover(path="images/a.png", kind="temporary", modified=datetime.now(UTC))
    with pytest.raises(ValueError, match="it stays"):
        remove_leftover(str(tmp_path), wrong)
    assert (tmp_path / "images/a.png").exists()


def test_a_place_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a folder"):
        list(find_leftovers(str(tmp_path / "nowhere"), older_than_seconds=0))
