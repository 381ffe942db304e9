"""The measuring chain reproduces figures that are known from the literature, on the standard sets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from storage.locations import Location
from tasks.benchmarking.cases import cases_of, load_case
from tasks.benchmarking.scoring import ScoreOptions, checked_methods, score_jobs, score_part

DATA = Path(os.environ.get("LACUNA_DATA", Path(__file__).parents[3] / "shared" / "data"))


def need(*names: str) -> None:
    for name in names:
        if not (DATA / "test" / name).is_dir():
            pytest.skip(f"SKIPPED: no {DATA / 'test' / name}; set LACUNA_DATA to the folder above test/")


def means(
    target: str, root: Path, *, methods: tuple[str, ...], limit: int | None = None
) -> dict[tuple[str, str], float]:
    cases, _ = cases_of(target, data=str(DATA), seeds=(0,), limit=limit)
    options = ScoreOptions(methods=checked_methods(methods, cases), device="cpu", precision="float32")
    parts = [score_part(job) for job in score_jobs(cases, options=options, destination=Location(root).uri)]
    assert not any(part.failures for part in parts)
    found: dict[tuple[str, str], list[float]] = {}
    for row in (row for part in parts for row in part.rows):
        found.setdefault((f"{row['dataset']} {row['level']}", row["method"]), []).append(row["psnr_db"])
    return {key: float(np.mean(values)) for key, values in found.items()}


@pytest.mark.data
def test_bicubic_reproduces_the_literature(tmp_path: Path) -> None:
    need("Set5", "Set14")
    found = means("sr", tmp_path, methods=())
    known = {"Set5 bicubic/x2": 33.66, "Set5 bicubic/x4": 28.42, "Set14 bicubic/x2": 30.24, "Set14 bicubic/x4": 26.00}
    for group, value in known.items():
        assert found[group, "bicubic-upscale"] == pytest.approx(value, abs=0.05)


@pytest.mark.data
def test_official_pairs_and_masks(tmp_path: Path) -> None:
    need("RL-Restore_test", "dip_inpaint_50")
    found = means("rl-restore", tmp_path, methods=(), limit=4)
    # Input PSNR of the 12 samples as computed by the official program.
    for level, value in (("mild", 20.026), ("moderate", 20.100), ("severe", 19.916)):
        assert found[f"RL-Restore samples official {level}", "input"] == pytest.approx(value, abs=0.01)
    cases, _ = cases_of("inpaint-50", data=str(DATA), seeds=(0,), limit=None)
    assert len(cases) == 11
    masks = {ref.image_id: load_case(ref).mask for ref in cases}
    peppers = masks["peppers256"]
    assert peppers is not None
    assert not peppers[0].any()  # its first row is black, not missing
    assert all(mask is not None and 0.45 < mask.mean() < 0.55 for mask in masks.values())


@pytest.mark.data
@pytest.mark.slow
def test_biharmonic_reproduces_the_authors_masks(tmp_path: Path) -> None:
    need("dip_inpaint_50")
    found = means("inpaint-50", tmp_path, methods=("biharmonic",))
    assert found["11 pictures 50 % missing", "biharmonic"] == pytest.approx(31.94, abs=0.05)
