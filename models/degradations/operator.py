"""What every degradation operator has in common: drawn once, then a pure function of the images.

An operator is a frozen dataclass that holds, per image of a batch, everything that was drawn (levels, angles, the seed
of the noise). `draw` picks the values from a numpy generator; `apply` only reads them. So an operator is its own
provenance: the same record on the same images and device gives the same pixels, and `dataclasses.asdict` stores it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Degradation(Protocol):
    """A drawn degradation: `apply` maps (B, C, H, W) float images in [0, 1] to degraded ones of the same shape."""

    def apply(self, images: Tensor) -> Tensor:
        """Return the degraded images; never changes its argument."""
        ...


def check_images(images: Tensor, *, batch: int, operator: str) -> None:
    """Raise ValueError unless `images` is a (batch, 1 or 3, H, W) floating tensor."""
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[1] not in (1, 3) or not images.is_floating_point():
        raise ValueError(
            f"{operator}: expected float images (B, 1 or 3, H, W) in [0, 1], got shape {shape}, dtype {images.dtype}; "
            "divide integer images by their maximum and add the missing dimensions first"
        )
    if shape[0] != batch:
        raise ValueError(f"{operator}: drawn for {batch} images, got {shape[0]}; draw again for this batch size")


def per_image(values: Sequence[float], like: Tensor) -> Tensor:
    """Return `values` as a (B, 1, 1, 1) tensor of the dtype and device of `like`."""
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1, 1)


def draw_uniform(generator: np.random.Generator, *, low: float, high: float, batch: int) -> tuple[float, ...]:
    """Draw `batch` values uniformly from [low, high]."""
    if not low <= high:
        raise ValueError(f"expected low <= high, got {low} and {high}; swap them")
    return tuple(float(value) for value in generator.uniform(low, high, batch))


def draw_seed(generator: np.random.Generator) -> int:
    """Draw the seed of a torch generator."""
    return int(generator.integers(0, 2**62))


def torch_generator(seed: int, device: torch.device) -> torch.Generator:
    """Return a torch generator on `device` started at `seed` (its stream differs between CPU and GPU)."""
    return torch.Generator(device=device).manual_seed(seed)
