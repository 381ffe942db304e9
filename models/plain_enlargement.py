"""What a picture is enlarged to without any method: the bicubic beginning of every upscaler, and its strength 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from models.blocks import enlarge
from models.method import to_planes
from models.tiling import StripBlender, cut, tile_grid

# Cubic interpolation reaches 2 px; the outer quarter of an overlap is discarded.
_TILE, _OVERLAP = 512, 16


def as_columns(planes: Tensor, *, image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return (3, H, W) planes as (H, W, channels of the picture)."""
    kept = planes.mean(0, keepdim=True) if image.ndim == 2 else planes
    return kept.permute(1, 2, 0).numpy()


def plainly_enlarged(image: npt.NDArray[Any], *, scale: int) -> npt.NDArray[Any]:
    """Return the bicubic enlargement of a picture (H, W) or (H, W, 3), uint8 or uint16; at a scale of 1 a copy.

    It is what an upscaler of strength 0 makes of it. Tiled, so that no more than a strip is held in float.
    """
    if scale == 1:
        return np.array(image)
    grid = tile_grid(image.shape[0], image.shape[1], tile=_TILE, overlap=_OVERLAP, multiple=1)
    blender = StripBlender(image, grid=grid.enlarged(scale))
    for tile in grid.tiles():
        plain = enlarge(to_planes(cut(image, tile, grid=grid))[None], scale=scale)[0]
        blender.add(tile.enlarged(scale), as_columns(plain, image=image))
    return blender.result
