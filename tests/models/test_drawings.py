"""Drawn patches: of the right kind, repeatable, grey where a recipe asks for grey, and drawn upon photographs too."""

from __future__ import annotations

import numpy as np
import pytest

from models.training.drawings import drawing
from models.training.photographs import PatchSettings, Photographs

PHOTOGRAPH = np.random.default_rng(5).integers(100, 140, (64, 64, 3)).astype(np.uint8)


@pytest.mark.parametrize("side", [16, 64, 97])
def test_a_drawing_is_a_patch_of_the_side_asked_for_and_repeatable(side: int) -> None:
    photograph = np.full((side, side, 3), 120, np.uint8)
    for seed in range(12):
        first, again = (drawing(side, rng=np.random.default_rng(seed), photograph=photograph) for _ in range(2))
        assert first.shape == (side, side, 3)
        assert first.dtype == np.uint8
        assert np.array_equal(first, again)


def test_drawings_have_sharper_edges_than_photographs_and_are_partly_upon_them() -> None:
    rng = np.random.default_rng(1)
    drawn = [drawing(64, rng=rng, photograph=PHOTOGRAPH) for _ in range(60)]
    steps = [int(np.abs(np.diff(patch.astype(int), axis=1)).max()) for patch in drawn]
    assert np.median(steps) > 100
    upon = [np.mean(np.abs(patch.astype(int) - PHOTOGRAPH).max(axis=2) <= 12) > 0.3 for patch in drawn]
    assert 4 <= sum(upon) <= 30
    assert not any(np.array_equal(patch, PHOTOGRAPH) for patch in drawn)


def test_a_share_of_the_patches_is_drawn_and_none_where_none_is_asked_for() -> None:
    pictures = Photographs([np.tile(PHOTOGRAPH, (2, 2, 1))])
    plain = PatchSettings(side=32, batch=40, half_scale_share=0.0)

    def largest_steps(settings: PatchSettings) -> np.ndarray:
        batch = pictures.patches(settings, rng=np.random.default_rng(2)).numpy()
        assert batch.min() >= 0
        assert batch.max() <= 1
        return np.asarray(np.ptp(batch, axis=(1, 2, 3)))

    assert (largest_steps(plain) < 0.2).all()
    some = PatchSettings(side=32, batch=40, half_scale_share=0.0, drawn_share=0.5, grey_share=1.0)
    assert 8 <= (largest_steps(some) > 0.3).sum() <= 30
    grey = pictures.patches(some, rng=np.random.default_rng(2))
    assert bool((grey == grey[:, :1]).all())
