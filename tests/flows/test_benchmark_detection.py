"""`lacuna benchmark run scratch-detection`: what was measured is kept and shown in every format."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from models.benchmarking import detection as measuring
from models.benchmarking.detection import (
    LEARNED,
    NATIVE,
    TOP_HAT,
    DetectionRow,
    data_identity,
    detector_identity,
    measure_detector,
)
from storage.benchmark_sets import BenchmarkSetError
from storage.locations import Location
from tasks.benchmarking import detection
from tasks.benchmarking.leaderboard import write_leaderboard

DATA = Path(os.environ.get("LACUNA_DATA", Path(__file__).parents[3] / "shared" / "data"))
ROW = DetectionRow(
    detector=TOP_HAT, set="marks", n=3, roc_auc=0.75, precision=0.5, recall=0.25, iou=0.2, marked=0.1, marked_worst=0.3
)
CLEAN = DetectionRow(detector=TOP_HAT, set="clean", n=87, marked=0.2, marked_worst=0.4)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which detectors are measured, in place of the photographs, which are not in the repository."""
    calls: list[str] = []

    def record(detector_id: str, *, data: Path, device: str, limit: int | None) -> list[DetectionRow]:
        calls.append(detector_id)
        return [DetectionRow(**{**asdict(row), "detector": detector_id}) for row in (ROW, CLEAN)]

    monkeypatch.setattr(detection, "measure_detector", record)
    monkeypatch.setattr(detection, "data_identity", lambda data: [("picture.png", 1)])
    return calls


def test_only_what_is_new_is_measured(measured: list[str], tmp_path: Path) -> None:
    root, data = Location(tmp_path / "results"), Location(tmp_path)
    _, first = detection.measure_detection([TOP_HAT], root=root, data=data, device="cpu")
    again, second = detection.measure_detection([TOP_HAT], root=root, data=data, device="cpu")
    both, third = detection.measure_detection([LEARNED], root=root, data=data, device="cpu")
    assert (first, second, third) == (1, 0, 1)
    assert measured == [TOP_HAT, LEARNED]
    assert again == [ROW, CLEAN]
    assert {row.detector for row in both} == {TOP_HAT, LEARNED}
    assert detection.read_detection(root) == both


def test_a_leaderboard_of_detectors_alone(measured: list[str], tmp_path: Path) -> None:
    root = Location(tmp_path / "results")
    detection.measure_detection([TOP_HAT], root=root, data=Location(tmp_path), device="cpu")
    written = {uri.rsplit("/", 1)[-1] for uri in write_leaderboard(root).files}
    assert {"detection.md", "detection.csv", "detection.tex", "leaderboard.html"} <= written
    assert "| top-hat | marks | 3 | 0.7500 | 0.5000 | 0.2500 | 0.2000 | 10.000 | 30.00 |" in _text(root, "detection.md")
    assert "top-hat,clean,87,,,,,0.2,0.4" in _text(root, "detection.csv")
    assert r"marked, \%" in _text(root, "detection.tex")
    assert "0.7500" in _text(root, "leaderboard.html")


def _text(root: Location, name: str) -> str:
    return root.join(name).read_bytes().decode()


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / detection.FILE).write_text("{")
    with pytest.raises(BenchmarkSetError, match=r"detection\.json cannot be read .* measure again"):
        detection.read_detection(Location(tmp_path))


def test_an_absent_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="CBSD68"):
        measuring.clean_pictures(tmp_path)


def test_the_identity_of_a_detector_says_what_it_was_made_of() -> None:
    learned, native, classical = (detector_identity(name) for name in (LEARNED, NATIVE, TOP_HAT))
    assert learned[1:] == native[1:]
    assert learned[2] is not None
    assert classical[2:] == (None, "")


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "masks").is_dir(), reason=f"no data folder {DATA}; set LACUNA_DATA")
def test_real_pictures_are_measured() -> None:
    rows = {row.set: row for row in measure_detector(TOP_HAT, data=DATA, device="cpu", limit=2)}
    assert set(rows) >= {"marks", "damaged, aged", "prints", "prints, intact", "intact", "clean"}
    assert rows["clean"].n == 6
    assert rows["clean"].roc_auc is None
    assert 0 < rows["clean"].marked < 1
    assert rows["marks"].roc_auc is not None
    assert rows["marks"].roc_auc > 0.5
    json.dumps(data_identity(DATA))
