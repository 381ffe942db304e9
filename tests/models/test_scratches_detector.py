"""The shipped detector: tiles equal the whole, any shape goes in, clean pictures stay clean, damage is found."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import data as pictures
from torch import nn

from models.degradations.scratches import DamageSettings, damage_image
from models.scratches import pyramid
from models.scratches.detector import (
    ScratchDetection,
    detect,
    load_detector,
    mask_for_filling,
    probability_map,
    settings_for,
    spans_of,
)
from models.scratches.hysteresis import Thresholds, grow_mask
from models.scratches.network import SIZE_MULTIPLE, ScratchUNet, prepare_for_inference
from models.scratches.pyramid import coarser_factors, halved


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.set_num_threads(1)
    return load_detector("cpu")


def _scratched(name: str) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    clean = getattr(pictures, name)().astype(np.float32)[:300, :400] / 255
    how = DamageSettings(weights=(("scratches", 0.6), ("cracks", 0.4)), opacity_min=0.8, layers_min=3)
    damaged = damage_image(clean, np.random.default_rng(20), settings=how)
    return np.round(damaged.image * 255).astype(np.uint8), damaged.mask & (damaged.change > 0.15)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_leaves_clean_pictures_alone(network: nn.Module, name: str) -> None:
    assert detect(getattr(pictures, name)(), network=network).coverage < 0.005


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_ranks_plain_scratches_above_the_picture(network: nn.Module, name: str) -> None:
    image, truth = _scratched(name)
    probability = probability_map(image, network=network)
    intact = np.sort(probability[~truth])
    assert (np.searchsorted(intact, probability[truth]) / intact.size).mean() > 0.9


# The shipped thresholds spare clean pictures first; weights trained longer must turn these into passes.
_MISSED = pytest.mark.xfail(reason="the shipped weights find less of these scratches than the aim of 75 %", strict=True)


@pytest.mark.parametrize(
    "name", [pytest.param("astronaut", marks=_MISSED), pytest.param("coffee", marks=_MISSED), "chelsea"]
)
def test_finds_plain_scratches(network: nn.Module, name: str) -> None:
    image, truth = _scratched(name)
    assert detect(image, network=network).mask[truth].mean() > 0.75


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_a_lower_threshold_finds_more_of_them(network: nn.Module, name: str) -> None:
    image, truth = _scratched(name)
    found = [detect(image, network=network, settings=settings_for(value)).mask for value in (None, 0.5)]
    assert found[1][truth].mean() > found[0][truth].mean()
    assert found[1][truth].mean() > 0.8
    assert found[1][~truth].mean() < 0.03


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0])
def test_a_threshold_that_is_no_probability_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        settings_for(threshold)


def test_tiles_give_what_the_whole_gives(network: nn.Module) -> None:
    image, _ = _scratched("astronaut")
    whole = probability_map(image, network=network, tile=512).astype(np.int64)
    tiled = probability_map(image, network=network, tile=192, overlap=128).astype(np.int64)
    difference = np.abs(whole - tiled)
    assert difference.mean() < 1.5
    assert (difference > 40).mean() < 0.005


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (15, 300), (16, 16), (40, 1500), (700, 33), (513, 577)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_takes_any_size(network: nn.Module, shape: tuple[int, int], dtype: type[np.uint8 | np.uint16]) -> None:
    found = detect(np.full((*shape, 3), np.iinfo(dtype).max // 2, dtype), network=network)
    assert found.probability.shape == found.mask.shape == shape
    assert found.probability.dtype == np.uint8
    assert found.mask.dtype == np.bool_
    assert 0 <= found.confidence <= 1
    assert found.coverage == pytest.approx(found.mask.mean())


def test_depth_and_colour_hardly_matter(network: nn.Module) -> None:
    image, _ = _scratched("coffee")
    grey = np.repeat(np.round(image @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None], 3, axis=2)
    eight, sixteen = (probability_map(item, network=network) for item in (grey, grey.astype(np.uint16) * 257))
    assert np.abs(eight.astype(int) - sixteen).max() <= 2
    single = probability_map(grey[..., 0].copy(), network=network)
    assert np.abs(eight.astype(int) - single).mean() < 0.5


def test_reads_a_memory_map(network: nn.Module, tmp_path: Path) -> None:
    image, _ = _scratched("coffee")
    np.save(tmp_path / "picture.npy", image)
    mapped = np.load(tmp_path / "picture.npy", mmap_mode="r")
    assert np.array_equal(detect(mapped, network=network).mask, detect(image, network=network).mask)


def test_refuses_what_is_no_picture(network: nn.Module) -> None:
    with pytest.raises(ValueError, match="uint8 or uint16"):
        detect(np.zeros((20, 20), np.float32), network=network)
    with pytest.raises(ValueError, match="alpha"):
        detect(np.zeros((20, 20, 4), np.uint8), network=network)
    with pytest.raises(ValueError, match="multiple"):
        detect(np.zeros((20, 20), np.uint8), network=network, tile=100)


def test_folding_batch_norms_changes_nothing() -> None:
    torch.manual_seed(3)
    network = ScratchUNet()
    picture = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        for _ in range(3):
            network(picture)
        network.eval()
        before = network(picture)
        after = prepare_for_inference(network)(picture)
    assert torch.allclose(before, after, atol=1e-4)


def test_filling_mask_is_a_little_larger() -> None:
    mask = np.zeros((9, 9), np.bool_)
    mask[4, 4] = True
    found = ScratchDetection(
        probability=mask.astype(np.uint8), mask=mask, coverage=1 / 81, components=1, confidence=1.0
    )
    assert mask_for_filling(found, dilation_px=0).sum() == 1
    assert mask_for_filling(found, dilation_px=1).sum() == 5
    assert not mask_for_filling(found)[0].any()
    assert mask.sum() == 1


def test_hysteresis_keeps_weak_pixels_only_beside_strong_ones() -> None:
    probability = np.zeros((40, 50), np.uint8)
    probability[5, 2:30] = 140
    probability[5, 10] = 250
    probability[20, 2:30] = 140
    probability[30, 40] = 250
    found = grow_mask(probability, Thresholds(high=0.9, low=0.5, smallest_px=3))
    assert found.mask[5, 2:30].all()
    assert found.mask.sum() == 28
    assert found.areas.tolist() == [28]
    assert found.probabilities[0] == pytest.approx((27 * 140 + 250) / 28 / 255)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_hysteresis_by_strips_equals_the_whole(rows: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (41, 37)).astype(np.uint8)
    thresholds = Thresholds(high=0.95, low=0.62, smallest_px=4)
    whole, strips = grow_mask(noise, thresholds, strip_rows=1000), grow_mask(noise, thresholds, strip_rows=rows)
    assert np.array_equal(whole.mask, strips.mask)
    assert sorted(whole.areas.tolist()) == sorted(strips.areas.tolist())
    assert np.allclose(np.sort(whole.probabilities), np.sort(strips.probabilities))


def test_hysteresis_drops_what_is_too_large_for_damage() -> None:
    probability = np.zeros((300, 300), np.uint8)
    probability[::2, 100:200] = 255
    probability[:, 150] = 255
    probability[10:14, 20:60] = 255
    assert grow_mask(probability, Thresholds(high=0.9, low=0.5, smallest_px=3)).mask.sum() == 160


def test_refuses_thresholds_out_of_order() -> None:
    with pytest.raises(ValueError, match="low <= high"):
        Thresholds(high=0.4, low=0.6, smallest_px=1)


@given(length=st.integers(1, 3000), cells=st.integers(4, 40), overlaps=st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_tiles_meet_in_the_middle_of_their_overlap(length: int, cells: int, overlaps: int) -> None:
    tile, overlap = cells * SIZE_MULTIPLE, min(overlaps, cells // 2 - 1) * 2 * SIZE_MULTIPLE
    spans = spans_of(length, tile, overlap)
    assert (spans[0][0], spans[0][2]) == (0, 0)
    assert (spans[-1][1], spans[-1][3]) == (length, length)
    assert all(start % SIZE_MULTIPLE == 0 and stop - start <= tile for start, stop, _, _ in spans)
    assert all(start <= keep_from < keep_to <= stop for start, stop, keep_from, keep_to in spans)
    for before, after in pairwise(spans):
        assert before[3] == after[2] == after[0] + overlap // 2
        assert before[1] - before[3] >= min(overlap // 2, length - before[3])


@pytest.mark.parametrize(
    ("shape", "factors"), [((500, 639), ()), ((640, 640), (2,)), ((3000, 2000), (2, 4)), ((9000, 400), ())]
)
def test_large_pictures_are_looked_at_smaller_too(shape: tuple[int, int], factors: tuple[int, ...]) -> None:
    assert coarser_factors(*shape) == factors


def test_a_copy_of_half_the_size_is_the_mean_of_four_pixels() -> None:
    rng = np.random.default_rng(4)
    picture = rng.integers(0, 256, (7, 10), dtype=np.uint8)
    small = halved(picture)
    assert small.shape == (4, 5)
    assert np.abs(small[:3].astype(float) - picture[:6].reshape(3, 2, 5, 2).mean(axis=(1, 3))).max() <= 0.5
    assert np.abs(small[3].astype(float) - picture[6].reshape(5, 2).mean(axis=1)).max() <= 0.5
    colour = np.repeat(picture[..., None].astype(np.uint16) * 257, 3, axis=2)
    assert np.abs(halved(colour).astype(int) - small).max() <= 1


def test_a_finer_scan_shows_the_same_damage(network: nn.Module) -> None:
    image, truth = _scratched("chelsea")
    fine = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    true = cv2.resize(truth.view(np.uint8), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST).astype(bool)
    found = detect(fine, network=network)
    assert found.mask.shape == fine.shape[:2]
    assert found.coverage == pytest.approx(found.mask.mean())
    assert found.confidence > 0.8
    assert mask_for_filling(found).sum() > found.mask.sum()
    here, there = detect(image, network=network).mask[truth].mean(), found.mask[true].mean()
    assert there > 0.8 * here > 0.4
    native = grow_mask(probability_map(fine, network=network), settings_for(None).thresholds)
    assert native.mask[true].mean() < 0.6 * there


@pytest.mark.parametrize("shape", [(41, 66), (40, 64)])
def test_what_a_copy_shows_is_added_strip_by_strip(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    seen = rng.integers(0, 256, (-(-shape[0] // 2), -(-shape[1] // 2)), dtype=np.uint8)
    found = seen > 180
    results = []
    for pixels in (10**9, 900):
        monkeypatch.setattr(pyramid, "_STRIP_PIXELS", pixels)
        mask, rim, probability = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_), np.full(shape, 9, np.uint8)
        pyramid.add_copy(mask, rim, probability, seen=seen, found=found, factor=2, low=120)
        results.append((mask, rim, probability))
    assert all(np.array_equal(whole, strips) for whole, strips in zip(*results, strict=True))
    mask, rim, probability = results[0]
    assert mask.any()
    assert (rim | ~mask).all()
    assert rim.sum() > mask.sum()
    assert probability.min() >= 9
