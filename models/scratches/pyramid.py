"""Coarser copies of a large picture: there the marks of a fine scan are as wide as those the detector has learned.

A crack that is 3 px wide in a small scan is 12 px wide at four times the resolution, where the network takes it for a
part of the scene. Thin marks are seen at native resolution alone, so that coarser copies are looked at besides.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# The shorter side of the coarsest copy is at least this long, as that of the smallest photographs learned from.
COARSEST_SIDE_PX = 320
_STRIP_PIXELS = 4_000_000


def coarser_factors(height: int, width: int) -> tuple[int, ...]:
    """Return how many times smaller the copies are at which a picture is looked at besides: 2, 4, …; () = at none."""
    factors, factor = [], 2
    while min(height, width) // factor >= COARSEST_SIDE_PX:
        factors.append(factor)
        factor *= 2
    return tuple(factors)


def grey_of(picture: NDArray[Any]) -> NDArray[np.float32]:
    """Return (H, W) or (H, W, 3) as grey float32 in [0, 1], with the luma weights of ITU-R BT.601."""
    values = np.asarray(picture, np.float32) * np.float32(1 / np.iinfo(picture.dtype).max)
    return values @ np.array([0.299, 0.587, 0.114], np.float32) if values.ndim == 3 else values


def halved(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the grey picture at half its size, (ceil(H / 2), ceil(W / 2)) uint8; read strip by strip."""
    height, width = picture.shape[:2]
    small = np.empty((-(-height // 2), -(-width // 2)), np.uint8)
    rows = max(2, _STRIP_PIXELS // max(1, width) // 2 * 2)
    for top in range(0, height, rows):
        strip = grey_of(picture[top : top + rows])
        strip = np.pad(strip, ((0, len(strip) % 2), (0, width % 2)), mode="edge")
        mean = (strip[::2, ::2] + strip[1::2, ::2] + strip[::2, 1::2] + strip[1::2, 1::2]) * np.float32(255 / 4)
        small[top // 2 : top // 2 + len(mean)] = np.rint(mean)
    return small


def add_copy(
    mask: NDArray[np.bool_],
    rim: NDArray[np.bool_],
    probability: NDArray[np.uint8],
    *,
    seen: NDArray[np.uint8],
    found: NDArray[np.bool_],
    factor: int,
    low: int,
) -> None:
    """Add what was `seen` and `found` (h, w) in a copy `factor` times smaller to `mask`, `rim`, `probability` (H, W).

    In place and strip by strip. A mark ends where what was seen, interpolated, falls below `low`; half a pixel of the
    copy further out is its rim, which is as much wider in a finer scan as everything else.
    """
    near = cv2.dilate(found.view(np.uint8), np.ones((3, 3), np.uint8))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (factor + 1, factor + 1))
    height, width = seen.shape
    rows = max(1, _STRIP_PIXELS // max(1, width * factor**2))
    for start in range(0, height, rows):
        # Rows of the copy around the strip, for interpolation and rim.
        top, bottom = max(0, start - 2), min(height, start + rows + 2)
        size = (width * factor, (bottom - top) * factor)
        wide = np.asarray(cv2.resize(seen[top:bottom], size, interpolation=cv2.INTER_LINEAR), np.uint8)
        inside = cv2.resize(near[top:bottom], size, interpolation=cv2.INTER_NEAREST) & (wide >= low).view(np.uint8)
        wider = np.asarray(cv2.dilate(inside, kernel))
        place = slice(start * factor, min((start + rows) * factor, len(mask)))
        offset = (start - top) * factor
        strip = slice(offset, offset + place.stop - place.start), slice(0, mask.shape[1])
        mask[place] |= inside.view(np.bool_)[strip]
        rim[place] |= wider.view(np.bool_)[strip]
        np.maximum(probability[place], wide[strip], out=probability[place])
