"""The flow of the deployment `benchmark`: a suite measured, its leaderboard written, failures not hidden."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

import flows.prefect_settings  # noqa: F401 - before prefect
from flows import run_benchmark as benchmarks
from flows.generate_benchmark import MeasuredSuite
from models.benchmarking.detection import TOP_HAT, DetectionRow
from tasks.benchmarking import detection

DATA = Path(os.environ.get("LACUNA_DATA", Path(__file__).parents[3] / "shared" / "data"))
MEASURED = MeasuredSuite(
    suite="sr", methods=("bicubic-upscale",), cases=2, cells=1, computed=1,
    failures=(("b.png", "io", "it could not be read"),), destination="file:///results/sr",
)  # fmt: skip


def test_detectors_have_a_table_too(prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = DetectionRow(detector=TOP_HAT, set="clean", n=87, marked=0.2, marked_worst=0.4)
    monkeypatch.setattr(detection, "measure_detector", lambda name, **_: [replace(row, detector=name)])
    monkeypatch.setattr(detection, "data_identity", lambda data: [("picture.png", 1)])
    results = tmp_path / "results"
    measured = benchmarks.benchmark("scratch-detection", str(results), str(tmp_path), methods=[TOP_HAT], device="cpu")
    assert (measured.methods, measured.computed) == ((TOP_HAT,), 1)
    assert "top-hat,clean,87" in (results / "detection.csv").read_text()
    assert (results / "leaderboard.html").exists()


def test_what_could_not_be_measured_ends_the_run_as_failed(
    prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(benchmarks, "run_benchmark", lambda *_, **__: MEASURED)
    monkeypatch.setattr(benchmarks, "write_leaderboard", lambda root: written.append(root.uri))
    with pytest.raises(benchmarks.UnmeasuredCasesError, match=r"1 cases of sr .*b\.png: it could not be read"):
        benchmarks.benchmark("sr", str(tmp_path / "results"), "/data")
    assert written == [f"file://{tmp_path}/results"]


@pytest.mark.data
def test_a_suite_is_measured_once(prefect_server: None, tmp_path: Path) -> None:
    if not (DATA / "test" / "Set5").is_dir():
        pytest.skip(f"NO DATA at {DATA}: the benchmark deployment is not tried on a suite")
    results = tmp_path / "results"
    first, again = (
        benchmarks.benchmark("sr", str(results), str(DATA), methods=["bicubic-upscale"], device="cpu", limit=1)
        for _ in range(2)
    )
    assert first.computed == first.cells > 0
    assert (again.cells, again.computed) == (first.cells, 0)
    assert "bicubic-upscale" in (results / "leaderboard.csv").read_text()
