"""Holes wider than a tile: what a tile that holds nothing known is given instead of the damage in it."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from models.blocks import pull_push
from models.method import largest_value, to_planes
from models.tiling import TileGrid

# Pixels that the smooth fill is computed from: what is made of them has no detail to lose.
_LARGEST = 2**20


def without_wide_holes(image: npt.NDArray[Any], mask: npt.NDArray[np.bool_], *, grid: TileGrid) -> npt.NDArray[Any]:
    """Return the picture, its hole filled smoothly if some tile of `grid` lies in it altogether.

    image: (H, W) or (H, W, 3), uint8 or uint16. mask: (H, W), True = missing. A method makes nothing of such a tile and
    returns it as it came, so that the damage would stay and fade into what the tiles around it became.
    """
    if not any(mask[tile.window].all() for tile in grid.tiles()):
        return image
    step = math.ceil(math.sqrt(mask.size / _LARGEST))
    hole = torch.from_numpy(mask[::step, ::step].astype(np.float32))[None, None]
    if bool(hole.all()):
        return image
    smooth = pull_push(to_planes(image[::step, ::step])[None], hole)[0].permute(1, 2, 0).numpy()
    whole = np.rint(smooth * largest_value(image.dtype)).astype(image.dtype)
    filled = cv2.resize(whole if image.ndim == 3 else whole[:, :, 0], mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(mask if image.ndim == 2 else mask[:, :, None], filled, image)
