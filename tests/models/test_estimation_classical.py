"""The classical measurements, each on pictures with a known degradation."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from skimage import data

from models.degradations.jpeg import JpegPass, encode_decode
from models.estimation.classical_jpeg import estimate_jpeg, quantizer_steps
from models.estimation.classical_noise import estimate_noise, smallest_eigenvalue_sigma, undo_clipping, wavelet_sigma
from models.estimation.classical_sharpness import estimate_blur, estimate_scale
from models.estimation.classical_tone import estimate_cast, estimate_fading
from models.estimation.estimate import combine_blur, estimate_windows
from models.estimation.patches import (
    choose,
    choose_flat,
    luma,
    read_candidates,
    read_patches,
    to_unit_rgb,
    window_starts,
)
from models.types import Estimated


def _planes(image: np.ndarray) -> np.ndarray:
    return luma(read_patches(image).varied) * 255


@pytest.mark.parametrize("sigma", [3.0, 20.0])
def test_white_noise_is_measured_to_a_few_percent(sigma: float) -> None:
    planes = np.random.default_rng(1).normal(128, sigma, (8, 96, 96)).astype(np.float32)
    usable = np.ones(planes.shape, bool)
    for estimator in (smallest_eigenvalue_sigma, wavelet_sigma):
        assert estimator(planes, usable) == pytest.approx(sigma, rel=0.04)


def test_noise_without_usable_pixels_is_unknown() -> None:
    planes = np.zeros((1, 96, 96), np.float32)
    estimated = estimate_noise(planes, np.zeros(planes.shape, bool))
    assert (estimated.value, estimated.confidence) == (None, 0.0)


@pytest.mark.parametrize("mean", [70.0, 128.0])
def test_clipping_is_undone(mean: float) -> None:
    planes = np.random.default_rng(1).normal(mean, 50, (8, 96, 96)).clip(0, 255).astype(np.float32)
    assert undo_clipping(float(planes.std()), planes) == pytest.approx(50, rel=0.03)
    assert undo_clipping(40.0, planes - 300) == 40.0


def test_quantizer_tables_are_those_of_libjpeg() -> None:
    assert quantizer_steps(50)[0, 0] == 16
    assert quantizer_steps(90)[0].tolist() == [3, 2, 2, 3, 5, 8, 10, 12]
    assert quantizer_steps(100).max() == 1
    with pytest.raises(ValueError, match="1 to 100"):
        quantizer_steps(0)


@pytest.mark.parametrize("quality", [10, 40, 75, 90])
@pytest.mark.parametrize("offset", [(0, 0), (3, 5)])
def test_blind_jpeg_quality_and_grid(quality: int, offset: tuple[int, int]) -> None:
    jpeg = JpegPass(quality=quality, offset_y=offset[0], offset_x=offset[1])
    traces = estimate_jpeg(_planes(encode_decode(data.astronaut(), jpeg)))
    assert traces.quality.value == pytest.approx(quality, abs=1)
    assert traces.quality.confidence > 0.8
    assert (traces.offset_y, traces.offset_x) == ((-offset[0]) % 8, (-offset[1]) % 8) or quality == 90


@pytest.mark.parametrize("name", ["astronaut", "coffee", "gravel", "camera"])
def test_pictures_that_were_not_compressed_show_no_comb(name: str) -> None:
    quality = estimate_jpeg(_planes(getattr(data, name)())).quality
    assert quality.value is None or quality.value >= 90 or quality.confidence < 0.5


def test_repeated_patterns_are_not_taken_for_compression() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    quality = estimate_jpeg(_planes(ramp)).quality
    assert quality.value is None or quality.value >= 90


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
def test_blur_and_scale_follow_the_blur(sigma: float) -> None:
    planes = _planes(cv2.GaussianBlur(data.astronaut(), (0, 0), sigma))
    assert estimate_blur(planes, noise_sigma=0).value == pytest.approx(sigma, rel=0.35)
    assert estimate_scale(planes, noise_sigma=0).value == pytest.approx(min(1, 0.683 / sigma), rel=0.5)


@pytest.mark.parametrize("sigma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(("noise", "quality"), [(2.0, 100), (8.0, 100), (0.0, 60), (0.0, 20)])
def test_neither_noise_nor_compression_hides_a_blur_or_makes_one_up(sigma: float, noise: float, quality: int) -> None:
    soft = cv2.GaussianBlur(data.astronaut(), (0, 0), sigma) if sigma else data.astronaut()
    noisy = soft + np.random.default_rng(3).normal(0.0, noise, soft.shape) if noise else soft
    seen = np.rint(np.clip(noisy, 0, 255)).astype(np.uint8)
    if quality < 100:
        seen = encode_decode(seen, JpegPass(quality=quality))
    found = estimate_windows(read_patches(seen), jpeg_table_quality=None)["blur_sigma_px"]
    assert found.value is not None
    # Routing asks for 0.75 px before it calls a picture soft; medium edges of a sharp one are not ideally sharp.
    assert found.value < 0.75 if sigma == 0.0 else abs(found.value - sigma) < 0.35


def test_far_apart_neither_the_edges_nor_the_network_are_believed() -> None:
    edges, near, far = (Estimated(value=value, confidence=0.7) for value in (1.5, 1.8, 0.0))
    both = combine_blur(edges, near, noise_sigma=0.0)
    assert (both.value, both.confidence) == (pytest.approx(1.6), 0.7)
    assert combine_blur(edges, far, noise_sigma=0.0).confidence < 0.3
    assert combine_blur(edges, far, noise_sigma=5.0) == edges
    soft = Estimated(value=0.9, confidence=0.7)
    assert combine_blur(soft, far, noise_sigma=5.0).confidence < 0.5  # may be how soft the picture is by itself
    nothing = Estimated(value=None, confidence=0.0)
    unsure, surer = (combine_blur(nothing, near, noise_sigma=sigma).confidence for sigma in (5.0, 0.0))
    assert unsure < surer


def test_sharp_picture_has_no_blur_and_full_scale() -> None:
    planes = _planes(data.astronaut())
    assert (estimate_blur(planes, noise_sigma=0).value or 0) < 0.5
    assert estimate_scale(planes, noise_sigma=0).value == 1


def test_fading_needs_both_ends_to_be_sure() -> None:
    pixels = to_unit_rgb(data.astronaut()).reshape(-1, 3)
    clean, faded = estimate_fading(pixels), estimate_fading(pixels * 0.6 + 0.2)
    night = estimate_fading(pixels * 0.5)
    assert clean.value is not None
    assert clean.value < 0.05
    assert clean.confidence > 0.8
    assert faded.value == pytest.approx(0.36, abs=0.03)
    assert faded.confidence > 0.8
    assert night.confidence < 0.5
    assert estimate_fading(pixels[:10]).value is None


def test_a_toned_monochrome_is_a_sure_cast_and_a_colourful_scene_is_not() -> None:
    grey = np.repeat(to_unit_rgb(data.camera()).reshape(-1, 3)[::5], 1, axis=0)
    toned = estimate_cast((grey * 0.65 + 0.12) * np.array([1, 0.88, 0.62], np.float32))
    assert toned.value is not None
    assert toned.value > 8
    assert toned.confidence > 0.7
    neutral = estimate_cast(grey)
    assert neutral.value == pytest.approx(0, abs=0.1)
    assert neutral.confidence > 0.8
    coffee = estimate_cast(to_unit_rgb(data.coffee()).reshape(-1, 3)[::5])
    assert coffee.confidence < 0.5


def test_windows_start_at_blocks_and_stay_inside() -> None:
    for length in (40, 96, 97, 200, 481, 12000):
        starts = window_starts(length, 96)
        assert 1 <= len(starts) <= 8
        assert all(start % 8 == 0 for start in starts)
        assert length < 96 or starts[-1] + 96 <= length
        assert len(starts) == len(set(starts))


def test_choices_avoid_damage_and_saturation() -> None:
    image = np.zeros((768, 768), np.uint8)
    image[:, 384:] = np.random.default_rng(0).integers(60, 190, (768, 384))
    mask = np.zeros(image.shape, bool)
    mask[:384] = True
    windows, damage = read_candidates(image, mask=mask)
    assert all(damage[index] == 0 for index in choose(windows, count=6, damage=damage)[:4])
    flat = choose_flat(windows, count=6, damage=damage)
    assert all(damage[index] == 0 and windows[index].mean() > 0.3 for index in flat)


def test_kinds_of_pixels() -> None:
    assert to_unit_rgb(np.full((4, 5), 65535, np.uint16)).shape == (4, 5, 3)
    assert to_unit_rgb(np.full((4, 5, 3), 255, np.uint8)).max() == 1
    with pytest.raises(ValueError, match="alpha"):
        to_unit_rgb(np.zeros((4, 5, 4), np.uint8))
    with pytest.raises(ValueError, match="int64"):
        to_unit_rgb(np.zeros((4, 5), np.int64))


def test_the_noise_does_not_depend_on_how_many_threads_multiply() -> None:
    code = (
        "import numpy as np; from models.estimation.classical_noise import estimate_noise;"
        "planes = np.random.default_rng(3).normal(90, 24, (16, 96, 96)).astype(np.float32);"
        "print(repr(estimate_noise(planes, np.ones(planes.shape, bool))))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(printed) == 1, printed
