"""Tiling arithmetic and memory back-off of the runner, on small exact operators instead of networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models import registry
from models.method import Context, MethodCard, PlainMethod
from models.run import Runner, RunSettings
from models.tiling import StripBlender, cut, tile_grid


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    tile=st.integers(8, 48),
    overlap=st.integers(0, 12),
    multiple=st.sampled_from([1, 4, 8]),
)
@example(height=9, width=9, tile=8, overlap=2, multiple=8)
@settings(max_examples=60, deadline=None)
def test_cutting_and_blending_is_the_identity(height: int, width: int, tile: int, overlap: int, multiple: int) -> None:
    image = np.random.default_rng(height * 91 + width).integers(0, 65536, (height, width, 3)).astype(np.uint16)
    grid = tile_grid(height, width, tile=tile, overlap=overlap, multiple=multiple)
    blender = StripBlender(image, grid=grid)
    for window in grid.tiles():
        piece = cut(image, window, grid=grid)
        assert piece.shape == (grid.tile_height, grid.tile_width, 3)
        assert grid.tile_height % multiple == 0
        assert window.top % multiple == 0
        assert window.left % multiple == 0
        blender.add(window, piece.astype(np.float32) / 65535.0)
    assert np.abs(blender.result.astype(int) - image.astype(int)).max() <= 1


@given(
    length=st.integers(1, 2000),
    tile=st.integers(8, 600),
    overlap=st.integers(0, 150),
    multiple=st.sampled_from([1, 4, 8, 16]),
)
@settings(max_examples=200, deadline=None)
def test_tiles_are_as_small_as_their_number_allows(length: int, tile: int, overlap: int, multiple: int) -> None:
    grid = tile_grid(length, length, tile=tile, overlap=overlap, multiple=multiple)
    side, starts = grid.tile_height, grid.tops
    assert side < max(tile, 2 * overlap, overlap + multiple) + multiple
    assert starts[-1] + side >= length
    assert all(before + side - after >= overlap for before, after in pairwise(starts))
    # What is computed twice is the overlaps and, for each tile, what rounding to a `multiple` costs.
    assert len(starts) * side <= length + (len(starts) - 1) * overlap + len(starts) * 3 * multiple


@dataclass(frozen=True)
class Inverter(PlainMethod):
    """1 - x, on a pretended device that takes at most `largest` pixels at once."""

    largest: int
    seen: list[int]

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        pixels = image.shape[0] * image.shape[2] * image.shape[3]
        if pixels > self.largest:
            raise torch.OutOfMemoryError("pretended")
        self.seen.append(pixels)
        return 1.0 - image


def run_inverter(monkeypatch: pytest.MonkeyPatch, *, largest: int, images: list[Any]) -> tuple[list[Any], list[int]]:
    card = MethodCard(id="inverter", title="t", paper="p", purpose="denoise", licence="l", context_px=8)
    method = Inverter(card, largest, [])
    monkeypatch.setitem(registry._METHODS_BY_ID, "inverter", method)
    runner = Runner(RunSettings(device="cpu", precision="float32", tile=256, batch_pixels=10**6))
    return runner.apply("inverter", images), method.seen


def test_tiles_of_several_pictures_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [np.full((64, 64), value, np.uint8) for value in (10, 20, 30)]
    results, seen = run_inverter(monkeypatch, largest=10**6, images=images)
    assert seen == [3 * 64 * 64]
    assert [int(result[0, 0]) for result in results] == [245, 235, 225]


def test_out_of_memory_halves_the_batch_then_the_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (300, 310)).astype(np.uint8) for _ in range(2)]
    results, seen = run_inverter(monkeypatch, largest=128 * 128, images=images)
    assert max(seen) <= 128 * 128
    for image, result in zip(images, results, strict=True):
        assert np.array_equal(result, 255 - image)


def test_out_of_memory_at_the_smallest_tile_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        run_inverter(monkeypatch, largest=10, images=[np.zeros((300, 300), np.uint8)])


@pytest.mark.parametrize("method", ["fill", "telea"])
@pytest.mark.parametrize("colour", [True, False])
def test_a_hole_wider_than_a_tile_keeps_nothing_of_the_damage(method: str, colour: bool) -> None:
    image = np.full((400, 420, 3), (90, 120, 60), np.uint8)
    mask = np.zeros((400, 420), bool)
    mask[10:390, 10:410] = True
    image[mask] = (255, 0, 255)
    shown = image if colour else np.ascontiguousarray(image[:, :, 1])
    (result,) = Runner(RunSettings(device="cpu", precision="float32", tile=64)).apply(method, [shown], masks=[mask])
    assert np.abs(result.astype(int) - shown[0, 0]).max() <= 12


def test_a_result_that_is_not_finite_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inverter, "__call__", lambda *_, **__: torch.full((1, 3, 64, 64), math.nan))
    with pytest.raises(ValueError, match="got NaN or infinite values"):
        run_inverter(monkeypatch, largest=10**6, images=[np.zeros((64, 64), np.uint8)])


@pytest.mark.parametrize(
    ("settings_", "message"),
    [(RunSettings(device="gpu"), "expected auto, cpu, cuda"), (RunSettings(precision="int8"), "expected one of")],
)
def test_unknown_device_or_precision_is_refused(settings_: RunSettings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Runner(settings_)
