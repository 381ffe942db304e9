"""Patches of which a part is without faults, as margins, frames and burnt-out skies are in a picture full of noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.training.corruption import Corruption, Example, is_grey

_WHITE, _BLACK = 0.4, 0.65


@dataclass(frozen=True, slots=True)
class PartlySpared:
    """Another corruption, of which a part of some patches is spared: plain margins, a plain shape, or what was there.

    A network that has only met patches full of one noise judges it by what lies around: a white margin of 24 px, which
    has none, kept `denoise` from cleaning the picture inside it (docs/decisions/0035). `share`: of patches so treated,
    `plain_share`: of these, where the spared part is one colour, mostly white or black.

    Raises ValueError where the network is given more than a picture, or the loss counts only a part.
    """

    corruption: Corruption
    share: float = 0.25
    plain_share: float = 0.75

    def __call__(self, clean: Tensor, rng: np.random.Generator) -> Example:
        example = self.corruption(clean, rng)
        if example.weight is not None or example.network_input.shape != example.target.shape:
            raise ValueError(
                f"PartlySpared: got {type(self.corruption).__name__}, whose network takes more than a picture, "
                "expected one from picture to picture"
            )
        entry, target = example.network_input.clone(), example.target.clone()
        for before, after in zip(entry, target, strict=True):
            if rng.random() >= self.share:
                continue
            spared = torch.from_numpy(spared_region(after.shape[-2], after.shape[-1], rng=rng))
            if rng.random() < self.plain_share:
                after[:, spared] = torch.from_numpy(_colour(rng, grey=is_grey(after[None])))[:, None]
            before[:, spared] = after[:, spared]
        return Example(entry, target)


def spared_region(height: int, width: int, *, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return a mask (H, W): mostly margins along one to four sides, else an ellipse or one side of a line."""
    kind = rng.random()
    rows, columns = np.mgrid[0:height, 0:width]
    if kind < 0.6:
        sides = rng.random(4) < 0.6
        sides[int(rng.integers(4))] = True
        top, left, bottom, right = (
            int(rng.integers(3, max(4, 2 * length // 5))) if chosen else 0
            for chosen, length in zip(sides, (height, width, height, width), strict=True)
        )
        return np.asarray((rows < top) | (rows >= height - bottom) | (columns < left) | (columns >= width - right))
    if kind < 0.8:
        centre = rng.uniform(0.1, 0.9, 2) * (height, width)
        radius = rng.uniform(0.1, 0.4, 2) * (height, width)
        return np.asarray(((rows - centre[0]) / radius[0]) ** 2 + ((columns - centre[1]) / radius[1]) ** 2 < 1.0)
    angle, distance = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(-0.2, 0.35)
    along = np.cos(angle) * (columns / width - 0.5) + np.sin(angle) * (rows / height - 0.5)
    return np.asarray(along > distance)


def _colour(rng: np.random.Generator, *, grey: bool) -> npt.NDArray[np.float32]:
    kind = rng.random()
    if kind < _WHITE:
        return np.ones(3, np.float32)
    if kind < _BLACK:
        return np.zeros(3, np.float32)
    values = rng.random(1).repeat(3) if grey or kind < 0.8 else rng.random(3)
    return np.asarray(np.rint(values * 255.0) / 255.0, np.float32)
