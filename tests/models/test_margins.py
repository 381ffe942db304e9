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
from models.estimation.patches import crosses_gutter, without_gutters
from models.margins import between_even_margins, inside_margins
from models.routing.trial_evidence import TRIAL_SIDE, trial_corner
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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_even_margins_are_those_of_one_colour_at_opposite_edges(dtype: type) -> None:
    inner = noisy(dtype=dtype)
    white = np.iinfo(dtype).max
    page = framed(inner, px=(40, 21, 3, 5), colour=white)
    assert between_even_margins(page) == (slice(40, 240), slice(3, 243))
    assert between_even_margins(framed(inner, px=(40, 0, 0, 9), colour=white)) == (slice(0, 240), slice(0, 249))
    other = framed(inner, px=(30, 0, 0, 0), colour=white)
    other = framed(other, px=(0, 30, 0, 0), colour=white // 2)
    assert between_even_margins(other) == (slice(0, 260), slice(0, 240))
    strip = framed(inner[:60], px=(40, 40, 0, 0), colour=white)
    empty = np.full_like(page, white)
    for whole in (inner, strip, empty, page[:1, :1]):
        assert between_even_margins(whole) == (slice(0, whole.shape[0]), slice(0, whole.shape[1]))


@pytest.mark.parametrize("colour", [0, 255])
def test_a_picture_is_restored_as_if_it_had_no_even_margins_and_these_stay(colour: int) -> None:
    inner = noisy()[:96, :112]
    page = framed(inner, px=(24, 16, 40, 8), colour=colour)
    runner = Runner(RunSettings(device="cpu", precision="float32"))
    restored = runner.apply("all-in-one", [page, inner], strengths=[0.5, 0.5])
    np.testing.assert_array_equal(restored[0][24:-16, 40:-8], restored[1])
    untouched = restored[0].copy()
    untouched[24:-16, 40:-8] = colour
    np.testing.assert_array_equal(untouched, np.full_like(page, colour))
    assert (restored[1] != inner).mean() > 0.5


def test_pages_are_enlarged_and_their_holes_filled_margins_and_all() -> None:
    page = framed(noisy()[:72, :80], px=(8, 8, 8, 8), colour=255)
    runner = Runner(RunSettings(device="cpu", precision="float32"))
    assert runner.apply("upscale-x2", [page])[0].shape == (176, 192, 3)
    mask = np.zeros(page.shape[:2], bool)
    mask[2:5, 10:60] = True
    scratched = page.copy()
    scratched[mask] = 90
    filled = runner.apply("fill", [scratched], masks=[mask])[0]
    assert filled[mask].min() > 200
    np.testing.assert_array_equal(filled[~mask], page[~mask])


def album() -> np.ndarray:
    """Two noisy pictures on a white page."""
    page = np.full((420, 800, 3), 255, np.uint8)
    rng = np.random.default_rng(0)
    for columns, picture in ((slice(40, 460), bundled.coffee()), (slice(500, 760), bundled.astronaut())):
        shown = cv2.resize(picture, (columns.stop - columns.start, 280), interpolation=cv2.INTER_AREA)
        page[60:340, columns] = (shown + rng.normal(0, 20, shown.shape)).clip(0, 255)
    return page


def test_noise_of_pictures_is_seen_though_a_white_gutter_lies_between_them() -> None:
    page = album()
    found = estimated(page)
    assert found.noise_sigma.value == pytest.approx(20, abs=3)
    top, left = trial_corner(page)
    assert not crosses_gutter(page[top : top + TRIAL_SIDE, left : left + TRIAL_SIDE])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_gutters_are_lines_of_one_colour_beside_a_picture(dtype: type) -> None:
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1.0
    window = (noisy()[:96, :96] / 255.0 * top).astype(dtype)
    across, along = window.copy(), window[..., 0].copy()
    across[40:44], along[:, 92:] = top, 0
    assert crosses_gutter(across)
    assert crosses_gutter(along)
    assert not crosses_gutter(window)
    assert not crosses_gutter(np.full_like(window, top))
    assert without_gutters([across, window] * 4) == [1, 3, 5, 7]
    assert without_gutters([across, window, across]) == [0, 1, 2]


def test_colours_of_a_page_are_corrected_margins_and_all() -> None:
    page = np.full((160, 200, 3), (228, 214, 180), np.uint8)
    for row in range(60, 110, 12):
        page[row : row + 4, 50:150:3] = (150, 135, 110)
    corrected = Runner(RunSettings(device="cpu", precision="float32")).apply("tonal-range", [page])[0]
    assert (corrected[0, 0] != page[0, 0]).any()
    np.testing.assert_array_equal(corrected[58, 80], corrected[0, 0])
