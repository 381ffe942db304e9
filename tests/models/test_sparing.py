"""Training patches of which a part has no fault."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.training.corruption import BlindNoise, Holes
from models.training.sparing import PartlySpared, spared_region

CLEAN = torch.rand(24, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25


def test_spared_parts_are_without_noise_and_the_rest_is_as_it_was() -> None:
    whole = BlindNoise(clip_share=0.0)(CLEAN, np.random.default_rng(3))
    spared = PartlySpared(BlindNoise(clip_share=0.0), share=0.5)(CLEAN, np.random.default_rng(3))
    touched = (spared.network_input != whole.network_input).any(1)
    assert torch.equal(spared.network_input.movedim(1, -1)[touched], spared.target.movedim(1, -1)[touched])
    assert torch.equal(spared.target.movedim(1, -1)[~touched], CLEAN.movedim(1, -1)[~touched])
    share = touched.float().mean((1, 2))
    assert 4 <= int((share > 0).sum()) <= 20
    assert float(share.max()) < 1.0
    plain = (spared.target != CLEAN).any(1).any(2).any(1)
    assert 0 < int(plain.sum()) < int((share > 0).sum()), "some parts are one colour, some what was there"


def test_grey_patches_stay_grey() -> None:
    grey = CLEAN[:, :1].expand(-1, 3, -1, -1)
    found = PartlySpared(BlindNoise(), share=1.0)(grey, np.random.default_rng(0))
    for planes in (found.network_input, found.target):
        assert torch.equal(planes[:, 0], planes[:, 1])
        assert torch.equal(planes[:, 0], planes[:, 2])


def test_regions_leave_something_of_the_patch() -> None:
    rng = np.random.default_rng(1)
    shares = [float(spared_region(64, 48, rng=rng).mean()) for _ in range(200)]
    assert min(shares) >= 0.0
    assert max(shares) < 0.98
    assert 0.2 < float(np.mean(shares)) < 0.7


def test_networks_that_are_told_more_than_a_picture_are_refused() -> None:
    with pytest.raises(ValueError, match="Holes"):
        PartlySpared(Holes())(CLEAN, np.random.default_rng(0))
