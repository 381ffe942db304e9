"""Margins of one colour are no evidence: what is estimated, and restored, is what lies inside them."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from skimage import data as bundled
from torch.nn import functional

from models.estimation.estimate import estimate_degradation
from models.estimation.margins import inside_margins
from models.routing.trial_evidence import trial_corner
from models.run import Runner, RunSettings
from models.types import DegradationEstimate, Estimated


def framed(inner: np.ndarray, *, px: tuple[int, int, int, int], colour: int) -> np.ndarray:
    top, bottom, left, right = px
    return np.pad(inner, ((top, bottom), (left, right), (0, 0))[: inner.ndim], constant_values=colour)


def noisy(*, dtype: type = np.uint8) -> np.ndarray:
    picture = bundled.astronaut()[:200, :240].astype(float)
    values = np.clip(picture + np.random.default_rng(0).normal(0, 20, picture.shape), 0, 255).round()
    return (values * (np.iinfo(dtype).max // 255)).astype(dtype)


def estimated(image: np.ndarray, mask: np.ndarray | None = None) -> DegradationEstimate:
    none = Estimated(value=0.0, confidence=1.0)
    return estimate_degradation(image, scratch_mask=mask, scratch_coverage=none, jpeg_table_quality=None)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("grey", [False, True])
def test_what_is_left_is_the_picture_from_the_next_block_on(dtype: type, grey: bool) -> None:
    inner = noisy(dtype=dtype)
    inner = inner[..., 0] if grey else inner
    page = framed(inner, px=(40, 21, 3, 0), colour=np.iinfo(dtype).max)
    assert inside_margins(page) == (slice(56, 224), slice(24, 243))
    assert inside_margins(inner) == (slice(0, 200), slice(0, 240))


def test_margins_of_two_colours_and_mild_compression_are_margins() -> None:
    rng = np.random.default_rng(1)
    page = framed(framed(noisy(), px=(0, 0, 32, 32), colour=250), px=(32, 32, 0, 0), colour=4)
    page = (page.astype(int) + rng.integers(-2, 3, page.shape)).clip(0, 255).astype(np.uint8)
    assert inside_margins(page) == (slice(48, 216), slice(48, 256))


def test_an_empty_page_and_one_with_a_seal_are_looked_at_whole() -> None:
    empty = np.full((300, 300), 255, np.uint8)
    seal = empty.copy()
    seal[100:140, 100:140] = np.random.default_rng(0).integers(0, 255, (40, 40))
    for page in (empty, seal, empty[:20, :20]):
        assert inside_margins(page) == (slice(0, page.shape[0]), slice(0, page.shape[1]))


@pytest.mark.parametrize("colour", [0, 205, 255])
def test_noise_fading_and_the_place_of_trials_are_those_of_the_picture(colour: int) -> None:
    faded = (60 + noisy() * 0.5).astype(np.uint8)
    page = framed(faded, px=(48, 45, 48, 45), colour=colour)
    inner = faded[16:-16, 16:-16]
    found = estimated(page, np.zeros(page.shape[:2], bool))
    assert found == estimated(inner)
    assert found.noise_sigma.value == pytest.approx(10, abs=2)
    assert tuple(np.subtract(trial_corner(page), 64)) == trial_corner(inner)


def test_noise_of_a_picture_that_was_compressed_on_its_page_is_seen() -> None:
    page = framed(noisy(), px=(37, 29, 33, 51), colour=240)
    compressed = cv2.imdecode(cv2.imencode(".jpg", page, [cv2.IMWRITE_JPEG_QUALITY, 90])[1], cv2.IMREAD_COLOR)
    inner = compressed[64:-64, 64:-64]
    assert estimated(compressed).noise_sigma.value == pytest.approx(estimated(inner).noise_sigma.value, abs=1)


@pytest.mark.parametrize("colour", [0.0, 1.0])
def test_noise_is_taken_from_a_picture_inside_a_clean_margin(colour: float) -> None:
    clean = torch.from_numpy(bundled.astronaut()[:192, 64:256].copy()).permute(2, 0, 1) / 255
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    noisy = (clean + 25 / 255 * noise).clamp(0, 1)
    runner = Runner(RunSettings(device="cpu", precision="float32"))

    def psnr_db(px: int) -> float:
        page = functional.pad(noisy, (px,) * 4, value=colour)
        inside = runner.restore_planes("denoise", page)[:, px : px + 192, px : px + 192]
        return -10 * math.log10(float((inside.clamp(0, 1) - clean).square().mean()))

    assert psnr_db(32) > psnr_db(0) - 0.7
