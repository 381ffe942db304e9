"""Benchmarks of learning from one picture: what they measure lies on the device that they were given."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
import torch

from benchmarks import deep_prior, deep_prior_pictures, example_based, example_internal, online_learning
from models.deep_prior.picture_fit import Progress
from models.deep_prior.settings import OWN, PUBLISHED, Preset
from models.deep_prior.without_network import NO_PRIOR

# A device that every machine has and where nothing is computed: a tensor that was left behind is an error there.
NOWHERE = "meta"


class ReachedError(Exception):
    """The fit was about to begin, on this device."""


def reached(given: Any, *_: Any, **options: Any) -> NoReturn:
    devices = {found.device.type for found in (given, *_, *options.values()) if hasattr(found, "device")}
    raise ReachedError(str(devices))


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    y, x = np.mgrid[0:64, 0:96]
    path = tmp_path / "photograph.png"
    cv2.imwrite(str(path), np.stack([2 * x, 3 * y, x + y], axis=-1).astype(np.uint8))
    return path


@pytest.fixture
def half_missing(tmp_path: Path) -> Path:
    folder = tmp_path / "test" / "dip_inpaint_50"
    folder.mkdir(parents=True)
    clean = np.full((64, 64), 120, np.uint8)
    cv2.imwrite(str(folder / "house_GT.png"), clean)
    clean[::2] = 0
    cv2.imwrite(str(folder / "house_masked.png"), clean)
    return tmp_path


def test_fits_begin_on_the_device_that_was_asked_for(
    photograph: Path, half_missing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fit", "denoise", "inpaint", "enlarge", "enlarge_without_network"):
        monkeypatch.setattr(deep_prior, name, reached)
    for name in ("denoise", "inpaint"):
        monkeypatch.setattr(deep_prior_pictures, name, reached)
    noise = {"sigma": 25.0, "crop_px": 32, "device": NOWHERE}
    begun: dict[str, Callable[[], object]] = {
        "curve": lambda: deep_prior.curve(photograph, iterations=5, **noise),
        "denoise": lambda: deep_prior.denoised(photograph, preset=OWN["denoise-two-runs"], **noise),
        "fill": lambda: deep_prior.fill(half_missing, "house", preset=OWN["fill"], crop_px=32, device=NOWHERE),
        "enlarge": lambda: deep_prior.enlarged(photograph, factor=4, preset=PUBLISHED["upscale-4"], device=NOWHERE),
        "no prior": lambda: deep_prior.enlarged(photograph, factor=4, preset=NO_PRIOR, device=NOWHERE),
        "hole": lambda: deep_prior_pictures.hole(device=NOWHERE),
        "flash": lambda: deep_prior_pictures.flash(device=NOWHERE),
    }
    devices = {}
    for name, begin in begun.items():
        with pytest.raises(ReachedError) as found:
            begin()
        devices[name] = str(found.value)
    assert devices == dict.fromkeys(begun, "{'meta'}")


def test_the_same_noise_on_every_device_and_a_crop_that_fits(photograph: Path) -> None:
    clean, noisy = deep_prior.with_noise(photograph, sigma=25.0, crop_px=32, device="cpu")
    again = deep_prior.with_noise(photograph, sigma=25.0, crop_px=32, device="cpu")[1]
    assert clean.shape == (1, 3, 32, 32)
    assert torch.equal(noisy, again)
    assert 0.05 < float((noisy - clean).std()) < 0.1
    with pytest.raises(ValueError, match="got 80 of a picture of 96 x 64 px"):
        deep_prior.with_noise(photograph, sigma=25.0, crop_px=80, device="cpu")


def test_damaged_pictures_lie_on_the_device_too(tmp_path: Path) -> None:
    folder = tmp_path / "test" / "CBSD68"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "one.png"), np.full((40, 40, 3), 90, np.uint8))
    (case,) = example_based.cases(tmp_path, kind="colour", ratio=0.6, count=1, crop_px=32, device=NOWHERE)
    assert (case.clean.device.type, case.lost.device.type) == (NOWHERE, NOWHERE)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize(
    ("module", "given"),
    [
        (deep_prior, ["curve", "PICTURE", "--out", "OUT"]),
        (deep_prior, ["denoise", "PICTURE", "--out", "OUT"]),
        (deep_prior, ["fill", "DATA", "--out", "OUT"]),
        (deep_prior, ["enlarge", "PICTURE", "--out", "OUT"]),
        (deep_prior_pictures, ["hole", "--out", "OUT"]),
        (example_based, ["--data", "DATA"]),
        (example_internal, ["PICTURE"]),
        (online_learning, ["--data", "DATA", "--out", "OUT"]),
    ],
)
def test_a_gpu_that_is_not_there_ends_the_command_in_a_sentence(
    module: Any, given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", *given, "--device", "cuda", "--threads", "1"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 2
    assert "got 'cuda', but torch sees no CUDA device; use --device cpu or auto" in capsys.readouterr().err


def test_a_filling_in_part_is_not_taken_for_a_whole_one(
    half_missing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "lines.jsonl"
    seen: list[tuple[int, int | None]] = []

    def remember(*_: object, preset: Preset, crop_px: int | None, device: str) -> dict[str, Any]:
        seen.append((preset.fit.iterations, crop_px))
        return {"iterations": 7}

    monkeypatch.setattr(deep_prior, "fill", remember)
    part = ["--crop-px", "32", "--iterations", "100"]
    for more in ([], part, part, []):
        command = ["fill", str(half_missing), "--pictures", "house", "--out", str(out), "--device", "cpu", *more]
        monkeypatch.setattr(sys, "argv", ["benchmark", *command, "--threads", "1"])
        deep_prior.main()
    # Each of the two was measured once.
    assert seen == [(OWN["fill"].fit.iterations, None), (100, 32)]


def test_each_way_to_enlarge_has_lines_of_its_own(
    photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "lines.jsonl"
    monkeypatch.setattr(deep_prior, "enlarged", lambda *_, **given: {"iterations": given["preset"] == NO_PRIOR})
    for preset in ("published", "no-prior", "no-prior"):
        command = ["enlarge", str(photograph), "--out", str(out), "--preset", preset, "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["benchmark", *command, "--threads", "1"])
        deep_prior.main()
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["kind"], line["iterations"]) for line in lines] == [
        ("enlarge", False),
        ("enlarge, no-prior", True),
    ]
    wrong = ["enlarge", str(photograph), "--out", str(out), "--preset", "tv-prior", "--factor", "8"]
    monkeypatch.setattr(sys, "argv", ["benchmark", *wrong])
    with pytest.raises(SystemExit):
        deep_prior.main()


def test_what_was_interrupted_is_kept_and_measured_again(tmp_path: Path) -> None:
    out, ends = tmp_path / "found.jsonl", ["interrupt", "iterations"]

    def measure(_: str) -> dict[str, Any]:
        return {"stopped_by": ends.pop(0)}

    with pytest.raises(SystemExit) as ended:
        deep_prior.measured(out, ["a.png"], measure, kind="curve")
    assert ended.value.code == 130
    for _ in range(2):
        deep_prior.measured(out, ["a.png"], measure, kind="curve")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["stopped_by"] for line in lines] == ["interrupt", "iterations"]


def test_a_long_fit_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    told = deep_prior.Teller()
    for iteration in [*range(1, 100), *range(1, 40)]:  # two runs of one picture
        told(
            Progress(
                iteration=iteration,
                iterations=100,
                loss=0.0,
                score=None,
                best_iteration=1,
                seconds=2.0 * iteration,
                best=lambda: torch.zeros(1),
            )
        )
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "30 of 100 iterations at most, 2.00 s each, up to 2 min left"
    assert [line.split()[0] for line in said] == ["30", "60", "90", "30"]
