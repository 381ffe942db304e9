"""Structured damage: the seed is all that decides, and the mask says exactly what was changed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.degradations.damage_layers import LAYERS, FloatArray
from models.degradations.damage_overlays import overlay_damage
from models.degradations.scratches import DamageSettings, blend_layer, damage_image


def _picture(*, height: int = 96, width: int = 130, channels: int = 3) -> FloatArray:
    rows, columns = np.mgrid[0:height, 0:width]
    grey = (0.3 + 0.4 * columns / width + 0.1 * np.sin(rows / 7)).astype(np.float32)
    return grey if channels == 1 else np.stack([grey, grey * 0.9, grey * 0.8], axis=2).astype(np.float32)


def _overlay() -> NDArray[np.uint8]:
    overlay = np.zeros((200, 200, 4), np.uint8)
    overlay[95:100, 20:180] = 255
    return overlay


@pytest.mark.parametrize("kind", sorted(LAYERS))
def test_draws_a_coverage_between_zero_and_one(kind: str) -> None:
    coverages = [LAYERS[kind]((90, 120), np.random.default_rng(seed), scale=1.0) for seed in range(8)]
    assert all(coverage.shape == (90, 120) and coverage.dtype == np.float32 for coverage in coverages)
    assert all(coverage.min() >= 0 and coverage.max() <= 1 for coverage in coverages)
    assert sum(float(coverage.max()) > 0.3 for coverage in coverages) >= 3


@pytest.mark.parametrize("channels", [1, 3])
def test_repeats_the_same_bytes_from_the_same_seed(channels: int) -> None:
    picture = _picture(channels=channels)
    first, second, other = (damage_image(picture, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.draws == second.draws
    assert first.image.tobytes() != other.image.tobytes()
    assert first.image.shape == picture.shape
    assert first.mask.shape == picture.shape[:2]


@pytest.mark.parametrize("channels", [1, 3])
def test_lifted_emulsion_shows_paper_and_a_shadow(channels: int) -> None:
    picture = _picture(channels=channels)
    settings = DamageSettings(lifted_share=1.0, light_share=1.0, weights=(("folds", 1.0),), layers_max=1)
    result = damage_image(picture, np.random.default_rng(3), settings=settings)
    assert {draw.blend for draw in result.draws} == {"paint"}
    assert 0 <= result.image.min() <= result.image.max() <= 1
    changed = (result.image - picture)[result.mask]
    assert changed.max() > 0.2
    assert changed.min() < -0.02


def test_never_writes_to_its_argument() -> None:
    picture = _picture()
    before = picture.copy()
    damage_image(picture, np.random.default_rng(1))
    overlay_damage(picture, _overlay(), np.random.default_rng(1))
    assert np.array_equal(picture, before)


@pytest.mark.parametrize("seed", range(6))
def test_marks_exactly_the_visible_change(seed: int) -> None:
    picture, settings = _picture(), DamageSettings()
    damaged = damage_image(picture, np.random.default_rng(seed), settings=settings)
    change = np.abs(damaged.image - picture).max(axis=2)
    assert np.allclose(damaged.change, change)
    assert (change[damaged.mask] > settings.change_threshold).all()
    # Outside the mask only the faint rim of a layer, below a tenth of full opacity, may differ.
    assert change[~damaged.mask].max(initial=0.0) < 0.13
    assert damaged.image.min() >= 0
    assert damaged.image.max() <= 1


def test_overlay_changes_only_what_its_mask_and_rim_cover() -> None:
    picture = _picture(channels=1)
    damaged = overlay_damage(picture, _overlay(), np.random.default_rng(4), name="line")
    assert damaged.mask.any()
    assert damaged.draws[0].kind == "line"
    assert np.abs(damaged.image - picture)[~damaged.mask].max() < 0.13


@pytest.mark.parametrize(
    ("blend", "brighter", "darker"),
    [("add", True, False), ("lighten", True, False), ("screen", True, False), ("darken", False, True)],
)
def test_blends_in_one_direction(blend: str, brighter: bool, darker: bool) -> None:
    picture = _picture(channels=1)
    blended = blend_layer(picture, np.full(picture.shape, 0.5, np.float32), 0.5, blend=blend)  # type: ignore[arg-type]
    assert bool((blended >= picture - 1e-6).all()) is brighter
    assert bool((blended <= picture + 1e-6).all()) is darker


def test_refuses_what_it_cannot_damage() -> None:
    with pytest.raises(ValueError, match="divide 8-bit pictures by 255"):
        damage_image(np.zeros((8, 8), np.uint8), np.random.default_rng(0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="known kinds"):
        DamageSettings(weights=(("scratch", 1.0),))
    with pytest.raises(ValueError, match="RGBA"):
        overlay_damage(_picture(), np.zeros((9, 9, 3), np.uint8), np.random.default_rng(0))
    with pytest.raises(ValueError, match="known blends"):
        blend_layer(_picture(), np.zeros((96, 130), np.float32), 0.5, blend="multiply")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (17, 2), (600, 40)])
def test_damages_pictures_of_any_shape(shape: tuple[int, int]) -> None:
    damaged = damage_image(np.full(shape, 0.4, np.float32), np.random.default_rng(2))
    assert damaged.mask.shape == shape
