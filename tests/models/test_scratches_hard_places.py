"""Hard places: where intact photographs are taken for damaged, kept by a run that goes on, seen in its patches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.scratches.hard_places import hard_places
from models.scratches.synthesis import PatchSettings, TrainingData, make_patch
from models.scratches.training import Trainer, TrainingSettings


@pytest.fixture(scope="module")
def data() -> TrainingData:
    """A dark photograph and a bright one with a white block in its lower right."""
    bright = np.full((160, 200), 90, np.uint8)
    bright[120:160, 150:200] = 255
    return TrainingData(benchmark_like=(np.full((150, 170), 20, np.uint8),), photographs=(bright,), overlays=())


def _white_is_damage(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(picture == 255, np.uint8(200), np.uint8(30))


def test_places_lie_where_an_intact_picture_is_taken_for_damaged(data: TrainingData) -> None:
    places = hard_places(data.pictures, _white_is_damage, count=50, rng=np.random.default_rng(1))
    assert places.shape == (50, 3)
    assert set(places[:, 0]) == {1}
    assert all(100 <= row < 160 and 140 <= column < 200 for _, row, column in places)
    with pytest.raises(ValueError, match="leave them out"):
        hard_places(data.benchmark_like, _white_is_damage, count=5, rng=np.random.default_rng(1))


@pytest.mark.parametrize("side", [64, 192])
def test_patches_around_hard_places_show_them(data: TrainingData, side: int) -> None:
    places = hard_places(data.pictures, _white_is_damage, count=50, rng=np.random.default_rng(1))
    settings = PatchSettings(side=side, clean_share=1.0, plain_share=1.0, hard_share=1.0)
    shown = [make_patch(replace(data, hard=places), np.random.default_rng(n), settings) for n in range(20)]
    assert all(patch.image.shape == (side, side) for patch in shown)
    assert sum(float(patch.image.max()) == 1.0 for patch in shown) >= 15


def test_a_run_that_goes_on_keeps_its_hard_places(data: TrainingData, tmp_path: Path) -> None:
    given = {"settings": TrainingSettings(steps=2, seed=3, batch=1), "patches": PatchSettings(side=32)}
    trainer = Trainer(data, tmp_path, **given)
    with torch.no_grad():  # everything is damage to it
        trainer.network.logit.bias.fill_(20.0)
    trainer.draw_hard_places(30)
    assert trainer.data.hard is not None
    trainer.save()
    resumed = Trainer(data, tmp_path, **given)
    resumed.resume()
    assert resumed.data.hard is not None
    assert np.array_equal(resumed.data.hard, trainer.data.hard)
