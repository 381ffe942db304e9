"""Batches made ahead by threads are those that would be made when asked for, in order, from any step on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.training.ahead import BatchesAhead
from models.training.corruption import BlindJpeg, BlindNoise, Corruption, Example, Holes, MildBlur, Mixture
from models.training.photographs import PatchSettings, Photographs

_PATCHES = PatchSettings(side=32, batch=2, grey_share=0.3)


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    rng = np.random.default_rng(0)
    return Photographs([rng.integers(0, 256, (48, 56, 3)).astype(np.uint8) for _ in range(3)])


@pytest.mark.parametrize("corruption", [BlindNoise(), BlindJpeg(), MildBlur(), Holes(), Mixture()])
def test_threads_make_the_same_batches(photographs: Photographs, corruption: Corruption) -> None:
    def batches(rng: np.random.Generator) -> Example:
        return corruption(photographs.patches(_PATCHES, rng=rng), rng)

    with (
        BatchesAhead(batches, seed=3, device="cpu", turns=2) as asked,
        BatchesAhead(batches, seed=3, device="cpu", turns=2, workers=3) as ahead,
    ):
        for step in (5, 6, 7):
            for turn in (0, 1):
                (one, rng), (other, other_rng) = asked.take(step, turn=turn), ahead.take(step, turn=turn)
                assert torch.equal(one.network_input, other.network_input)
                assert torch.equal(one.target, other.target)
                assert rng.random() == other_rng.random()


def test_the_fault_of_a_batch_is_raised_at_its_step() -> None:
    def batches(rng: np.random.Generator) -> Example:
        if float(rng.random()) == first:
            raise OSError("no such photograph")
        return Example(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))

    first = float(np.random.default_rng((0, 2)).random())
    with BatchesAhead(batches, seed=0, device="cpu", workers=2) as ahead:
        ahead.take(0)
        ahead.take(1)
        with pytest.raises(OSError, match="no such photograph"):
            ahead.take(2)
