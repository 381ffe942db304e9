"""Noise as scans have it: white, grainy, compressed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from models.training.corruption import BlindNoise
from models.training.scan_noise import NoiseOfScans

GREY = torch.full((12, 3, 64, 64), 0.5)


def likeness(noise: Tensor) -> float:
    """Return the correlation of horizontal neighbours."""
    return float((noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean())


def noise_of(corruption: NoiseOfScans, clean: Tensor) -> Tensor:
    example = corruption(clean, np.random.default_rng(0))
    assert torch.equal(example.target, clean)
    return example.network_input - clean


def test_without_grain_and_compression_it_is_white_noise() -> None:
    corruption = NoiseOfScans(grain_share=0.0, compressed_share=0.0)
    white = BlindNoise(clip_share=0.5)(GREY, np.random.default_rng(0)).network_input
    assert torch.equal(corruption(GREY, np.random.default_rng(0)).network_input, white)
    assert abs(likeness(noise_of(corruption, GREY))) < 0.05


@pytest.mark.parametrize(("size_px", "expected"), [(0.3, 0.07), (0.8, 0.68), (1.3, 0.86)])
def test_grain_is_alike_from_pixel_to_pixel_by_its_size(size_px: float, expected: float) -> None:
    corruption = NoiseOfScans(grain_share=1.0, compressed_share=0.0, size_px=(size_px, size_px))
    assert likeness(noise_of(corruption, GREY)) == pytest.approx(expected, abs=0.06)


def test_what_was_compressed_is_on_blocks_and_half_of_the_rest_holds_values_of_a_file() -> None:
    files = noise_of(NoiseOfScans(grain_share=0.0, compressed_share=1.0, quality=(70, 70)), GREY)
    steps = (files[..., 1:] - files[..., :-1]).abs().mean((0, 1, 2))
    assert float(steps[7::8].mean()) > 1.02 * float(steps[3::8].mean())
    both = NoiseOfScans()(GREY, np.random.default_rng(1)).network_input * 255
    whole = (both - both.round()).abs().flatten(1).amax(1) < 1e-3
    assert 0.4 < float(whole.float().mean()) < 1.0


def test_grey_patches_get_grey_grain() -> None:
    patches = torch.rand(6, 1, 64, 64, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    noise = noise_of(NoiseOfScans(grain_share=1.0, compressed_share=0.5), patches)
    assert float((noise[:, 0] - noise[:, 2]).abs().max()) < 1.5 / 255
