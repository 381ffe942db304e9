"""Masks of damage that come with an archive: whose they are, what is no mask, and what a run makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from typer.testing import CliRunner

import flows.prefect_settings  # noqa: F401 - before prefect
import tasks.detect
from flows.cli import app
from flows.restore_archive import restore_archive
from models.routing.rules import RoutingOptions, plan_for
from models.types import ImageRecord, ScratchReport
from storage.catalogue import query
from storage.errors import MaskError
from storage.limits import IngestLimits
from storage.locations import Location
from tasks.given_masks import check_masks, given_mask, list_masks, masks_of
from tasks.jobs import RestoreOptions
from tests.flows.conftest import smooth_picture, write_picture
from tests.flows.test_task_rules import CLEAN

HOLE = (slice(30, 50), slice(40, 44))
OPTIONS = RestoreOptions(
    shard_bytes=1,  # a shard for every picture
    device="cpu",
    precision="float32",
    strengths=(("denoise", 0.0), ("deblock", 0.0), ("deblur", 0.0), ("all-in-one", 0.0)),
    write_report=False,
)


def record(path: str = "a/cat.jpg", *, page: int = 0, pages: int = 1, size: tuple[int, int] = (64, 80)) -> ImageRecord:
    known: dict[str, Any] = dict.fromkeys(ImageRecord.__dataclass_fields__)
    known |= {"relative_path": path, "page_index": page, "page_count": pages, "height": size[0], "width": size[1]}
    return ImageRecord(**known)


def write_mask(path: Path, mask: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyvips.Image.new_from_array(mask).write_to_file(str(path))
    return path


def hole(size: tuple[int, int] = (64, 80)) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[HOLE] = 255
    return mask


def look(image: ImageRecord, folder: Path) -> np.ndarray | None:
    uri = Location(str(folder)).uri
    return given_mask(image, uri=uri, masks=masks_of(image.relative_path, list_masks(uri)), limits=IngestLimits())


@pytest.mark.parametrize("name", ["a/cat.jpg.png", "a/cat.png", "a/cat.tif"])
def test_a_mask_has_the_name_of_a_run_or_of_the_picture(tmp_path: Path, name: str) -> None:
    write_mask(tmp_path / name, hole())
    write_mask(tmp_path / "b/cat.png", np.zeros((64, 80), np.uint8))
    found = look(record(), tmp_path)
    assert found is not None
    assert found.sum() == 80


def test_the_name_of_a_run_comes_first_and_pages_have_masks_of_their_own(tmp_path: Path) -> None:
    write_mask(tmp_path / "a/cat.jpg.png", np.zeros((64, 80), np.uint8))
    write_mask(tmp_path / "a/cat.jpg.page1.png", hole())
    write_mask(tmp_path / "a/cat.png", hole())
    first = look(record(), tmp_path)
    assert first is not None
    assert not first.any()
    second = look(record(page=1, pages=2), tmp_path)
    assert second is not None
    assert second.any()
    assert look(record(page=0, pages=2), tmp_path) is None  # which is searched
    assert look(record("dog.jpg"), tmp_path) is None


def test_masks_may_lie_in_a_store(tmp_path: Path) -> None:
    uri = f"memory://{tmp_path.name}/masks"
    data = write_mask(tmp_path / "cat.png", hole()).read_bytes()
    Location(uri).join("a/cat.png").write_bytes_atomic(data)
    masks = masks_of("a/cat.jpg", list_masks(uri))
    found = given_mask(record(), uri=uri, masks=masks, limits=IngestLimits())
    assert found is not None
    assert found.sum() == 80


@pytest.mark.parametrize(
    ("name", "pages", "says"),
    [
        ("a/cat.png", 3, r"says not of which of the 3 pages .* name it a/cat.jpg.page0.png for the first"),
        ("a/cat.jpg.page3.png", 3, "says not of which of the 3 pages"),
        ("a/cat.jpg.page1.png", 1, "is of a page, and a/cat.jpg has only one; name it a/cat.jpg.png"),
    ],
)
def test_a_mask_of_no_page_is_refused(tmp_path: Path, name: str, pages: int, says: str) -> None:
    write_mask(tmp_path / name, hole())
    with pytest.raises(MaskError, match=says):
        look(record(pages=pages), tmp_path)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_damaged_whatever_the_depth_and_the_paint(tmp_path: Path, bits: int, colour: bool) -> None:
    mask = hole().astype(np.uint16) * 257 if bits == 16 else hole()
    if colour:
        mask = np.stack([mask, np.zeros_like(mask), np.zeros_like(mask)], axis=2)
    write_mask(tmp_path / "a/cat.png", mask)
    found = look(record(), tmp_path)
    assert found is not None
    assert np.array_equal(found, hole() > 0)


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (hole((32, 80)), "80 x 32 px, expected 80 x 64"),
        (np.full((64, 80), 90, np.uint8), "grey in 100% of its pixels"),
        (np.full((64, 80), 255, np.uint8), "white all over"),
    ],
)
def test_what_is_no_mask_of_the_picture_is_refused(tmp_path: Path, mask: np.ndarray, says: str) -> None:
    write_mask(tmp_path / "a/cat.png", mask)
    with pytest.raises(MaskError, match=says):
        look(record(), tmp_path)


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/cat.png").write_bytes(b"none")
    with pytest.raises(MaskError, match=r"cat.png cannot be read"):
        look(record(), tmp_path)


def test_folders_that_a_run_reads_or_writes_hold_no_masks(tmp_path: Path) -> None:
    for name in ("source/masks", "out/masks", "masks"):
        (tmp_path / name).mkdir(parents=True)
    places = {"source": str(tmp_path / "source"), "destination": str(tmp_path / "out")}
    check_masks(None, **places)
    check_masks(str(tmp_path / "masks"), **places)
    with pytest.raises(ValueError, match="inside the destination"):
        check_masks(str(tmp_path / "out/masks"), **places)
    with pytest.raises(ValueError, match="inside the source"):
        check_masks(str(tmp_path / "source/masks"), **places)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        check_masks(str(tmp_path / "other"), **places)


@pytest.mark.parametrize("coverage", [1e-6, 0.01, 0.6])
def test_a_given_mask_is_followed_however_little_or_much_it_is(coverage: float) -> None:
    searched = ScratchReport(
        coverage=coverage, components=1, confidence=1.0, threshold=None, mask="m", mask_sha256="s", detector="d"
    )
    options = RoutingOptions(strengths=(("deblock", 0.0),))
    given = plan_for(CLEAN, replace(searched, given=True), options=options)
    assert [step.method_id for step in given.steps] == ["fill"]
    assert "by the mask that was given" in given.reason.lower()
    assert not given.needs_review
    filled = plan_for(CLEAN, searched, options=options).steps
    assert bool(filled) == (coverage == 0.01)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    for seed, name in enumerate(("cat.png", "dog.png")):
        picture = smooth_picture(seed)
        picture[HOLE] = 1.0
        write_picture(folder / name, picture)
    return folder


def test_a_run_fills_what_masks_say_and_searches_the_other_pictures(
    prefect_server: None, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = read(archive / "cat.png").shape[:2]
    masks = tmp_path / "masks"
    write_mask(masks / "cat.png.png", hole(size))
    searched = counted(monkeypatch, "_search")

    def run() -> dict[str, Any]:
        options = replace(OPTIONS, masks=str(masks))
        restore_archive(str(archive), str(tmp_path / "out"), options)
        rows = query(Location(str(tmp_path / "out/catalogue")), "SELECT * FROM images").to_pylist()
        return {row["relative_path"]: row for row in rows}

    rows = run()
    assert searched == ["dog.png"]
    cat = rows["cat.png"]
    assert cat["status"] == "restored"
    assert cat["scratch_detector"].startswith("given-")
    assert cat["scratch_threshold"] is None
    before, after = read(archive / "cat.png"), read(tmp_path / "out/images/cat.png")
    where = hole(size) > 0
    assert np.array_equal(before[~where], after[~where])
    clean = smooth_picture(0)[where] * 255.0
    assert np.abs(after[where] - clean).mean() < 0.3 * np.abs(before[where] - clean).mean()
    assert np.array_equal(read(tmp_path / "out/masks/cat.png.png") > 0, where)

    run()
    assert searched == ["dog.png"]  # nothing has changed: nothing is looked at again
    write_mask(masks / "cat.png.png", np.zeros(size, np.uint8))
    assert run()["cat.png"]["status"] == "untouched"  # a black mask says that nothing is damaged
    assert searched == ["dog.png"]


def test_an_incremental_run_takes_up_pictures_whose_masks_are_new_other_gone_or_mended(
    prefect_server: None, archive: Path, tmp_path: Path
) -> None:
    size, masks = read(archive / "cat.png").shape[:2], tmp_path / "masks"
    bad = write_mask(masks / "dog.png", hole((10, 80)))
    options = replace(OPTIONS, masks=str(masks), incremental=True)

    def changed() -> tuple[int, int]:
        summary = restore_archive(str(archive), str(tmp_path / "out"), options)
        return summary.changed or 0, summary.failed

    first = restore_archive(str(archive), str(tmp_path / "out"), replace(options, incremental=False))
    assert [(path, kind) for path, kind, _ in first.failures] == [("dog.png", "bad_mask")]  # and cat.png is done
    assert changed() == (1, 1)
    bad.unlink()
    write_mask(masks / "cat.png", hole(size))
    assert changed() == (2, 0)
    assert changed() == (0, 0)
    (masks / "cat.png").unlink()
    assert changed() == (1, 0)


def test_masks_of_no_picture_are_a_mistake(archive: Path, tmp_path: Path) -> None:
    write_mask(tmp_path / "masks/horse.png", hole())
    result = CliRunner().invoke(
        app, ["restore", str(archive), str(tmp_path / "out"), "--masks", str(tmp_path / "masks"), "--device", "cpu"]
    )
    assert result.exit_code == 2
    assert "has the name of a picture" in " ".join(result.output.split())


def test_inspect_plans_by_the_masks(archive: Path, tmp_path: Path) -> None:
    write_mask(tmp_path / "masks/cat.png", hole(read(archive / "cat.png").shape[:2]))
    command = ["inspect", str(archive), "--json", "--device", "cpu", "--masks", str(tmp_path / "masks")]
    result = CliRunner().invoke(app, command)
    plans = {entry["path"]: entry["plan"]["reason"] for entry in json.loads(result.stdout)}
    assert "By the mask that was given, 1 damaged places" in plans["cat.png"]


def read(path: Path) -> np.ndarray:
    return np.asarray(pyvips.Image.new_from_file(str(path)).numpy())


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    found: list[str] = []
    body: Callable[..., Any] = getattr(tasks.detect, name)

    def wrapped(image: ImageRecord, **kwargs: Any) -> Any:
        found.append(image.relative_path)
        return body(image, **kwargs)

    monkeypatch.setattr(tasks.detect, name, wrapped)
    return found
