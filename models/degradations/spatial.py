"""Damage that is not the same everywhere: a smooth random field that blends differently damaged versions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.degradations.damage_layers import FloatArray, smooth_noise


def smooth_field(shape: tuple[int, int], *, seed: int, cell_px: float) -> FloatArray:
    """Return a smooth random field (height, width) in [0, 1] that reaches both ends; features of about `cell_px`."""
    noise = smooth_noise(shape, np.random.default_rng(seed), cell=cell_px)
    low, high = float(noise.min()), float(noise.max())
    return np.asarray((noise - np.float32(low)) / np.float32(max(high - low, 1e-6)), np.float32)


def version_weights(field: FloatArray, *, count: int) -> list[FloatArray]:
    """Return `count` weights (height, width) that sum to 1: 0 of the field is the first version, 1 the last."""
    if count < 2:
        raise ValueError(f"version_weights: expected at least 2 versions to blend, got {count}")
    position = field * np.float32(count - 1)
    return [np.clip(1 - np.abs(position - np.float32(index)), 0, 1) for index in range(count)]


def blend_versions(versions: Sequence[NDArray[np.float32]], field: FloatArray) -> NDArray[np.float32]:
    """Return the versions (height, width[, 3]) blended pixel by pixel as `field` (height, width) says."""
    weights = version_weights(field, count=len(versions))
    total = np.zeros_like(versions[0])
    for version, weight in zip(versions, weights, strict=True):
        total += version * (weight[..., None] if version.ndim == 3 else weight)
    return total
