"""Choice of the windows of a picture that its estimates are made from: full-resolution pixels, a bounded number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Pixels = npt.NDArray[Any]

PATCH = 96
# Windows start at multiples of the JPEG block, so that the grid of an uncropped JPEG has the same phase in all of them.
BLOCK = 8
_CANDIDATES_PER_SIDE = 8
# A line of one colour varies by no more levels of 255, at least one of a picture beside it by more; how few windows
# without such lines are enough to look at no others.
_EVEN, _VARIED, _ENOUGH = 2.0, 12.0, 4
LEVELS = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}


def to_unit_rgb(pixels: Pixels) -> FloatArray:
    """Return (H, W) or (H, W, 3) uint8, uint16 or floating pixels as (H, W, 3) float32, integers scaled to [0, 1].

    Raises ValueError for another shape or dtype.
    """
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"expected an image (H, W) or (H, W, 3), got shape {pixels.shape}; drop alpha channels first")
    if pixels.dtype in LEVELS:
        unit = pixels.astype(np.float32) / np.float32(LEVELS[pixels.dtype])
    elif np.issubdtype(pixels.dtype, np.floating):
        unit = pixels.astype(np.float32)
    else:
        raise ValueError(f"expected uint8, uint16 or floating pixels, got {pixels.dtype}; convert the image first")
    return np.repeat(unit[:, :, None], 3, axis=2) if unit.ndim == 2 else unit


def luma(rgb: FloatArray) -> FloatArray:
    """Return the BT.601 luma of (..., 3) pixels."""
    return np.ascontiguousarray(rgb @ np.array([0.299, 0.587, 0.114], np.float32))


def saturated(rgb: FloatArray) -> npt.NDArray[np.bool_]:
    """Return where any channel of (..., 3) pixels in [0, 1] is at (or within 2 of 255 levels of) an end."""
    lowest = np.minimum(np.minimum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])
    highest = np.maximum(np.maximum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])
    return np.asarray((lowest < 2.5 / 255) | (highest > 252.5 / 255))


def crosses_gutter(window: Pixels) -> bool:
    """Return whether rows or columns of one colour run through a window, (H, W) or (H, W, 3), of a picture.

    As the gutters between the pictures of a page, the edge of a margin: where they begin, noise seems to end.
    """
    scale = LEVELS.get(window.dtype, 1.0) / 255.0
    # One channel shows it, and is most of the cost of a choice as it is.
    levels = np.ascontiguousarray(window[..., 1] if window.ndim == 3 else window)
    for axis in (0, 1):
        varied = levels.max(axis=axis) - levels.min(axis=axis)
        if varied.min() <= _EVEN * scale and varied.max() > _VARIED * scale:
            return True
    return False


def without_gutters(windows: Sequence[Pixels]) -> list[int]:
    """Return the indices of the windows that no gutter crosses; of all where these are fewer than four."""
    kept = [index for index, window in enumerate(windows) if not crosses_gutter(window)]
    return kept if len(kept) >= _ENOUGH else list(range(len(windows)))


def choose(windows: list[FloatArray], *, count: int, damage: list[float]) -> list[int]:
    """Return the indices of `count` of the windows (H, W, 3): two thirds the richest in texture, the rest the flattest.

    Textured windows tell blur and compression, flat ones noise. Saturated or damaged windows (share in `damage`) come
    last. Texture is measured after 2x2 averaging, so that noise counts for less. The order is deterministic.
    """
    if len(windows) <= count:
        return list(range(len(windows)))
    texture, penalty = [], []
    for window, share in zip(windows, damage, strict=True):
        # Every second pixel is enough to rank windows, and this is most of the cost of a choice.
        small = cv2.resize(luma(window), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        texture.append(float(np.abs(np.diff(small, axis=0)).mean() + np.abs(np.diff(small, axis=1)).mean()))
        penalty.append(4 * share + max(0.0, float(saturated(window[::2, ::2]).mean()) - 0.05))
    bad = np.array(penalty)
    rich = np.array(texture) * (1 - np.clip(bad, 0, 0.99))
    first = [int(index) for index in np.argsort(-rich, kind="stable")[: count - count // 3]]
    flat = np.array(texture) + 0.2 * bad
    flat[first] = np.inf
    return first + [int(index) for index in np.argsort(flat, kind="stable")[: count // 3]]


def window_starts(length: int, size: int) -> list[int]:
    """Return at most 8 starts of windows of `size` in a line of `length`, spread evenly, at multiples of 8."""
    room = max(0, length - size)
    starts = np.linspace(0, room // BLOCK, min(_CANDIDATES_PER_SIDE, room // size + 1 + (room % size > 0)))
    return sorted({round(float(start)) * BLOCK for start in starts})


def extended(rgb: FloatArray, size: int) -> FloatArray:
    """Return (H, W, 3) grown by mirrored pixels below and to the right to at least size x size."""
    missing = [(0, max(0, size - rgb.shape[0])), (0, max(0, size - rgb.shape[1])), (0, 0)]
    return np.pad(rgb, missing, mode="symmetric") if any(after for _, after in missing) else rgb


def choose_flat(windows: list[FloatArray], *, count: int, damage: list[float]) -> list[int]:
    """Return the indices of the `count` flattest undamaged, unsaturated windows: where noise is easiest to see."""
    order = []
    for window, share in zip(windows, damage, strict=True):
        small = cv2.resize(luma(window), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        texture = float(np.abs(np.diff(small, axis=0)).mean() + np.abs(np.diff(small, axis=1)).mean())
        # A flat window at an end of the range shows no noise, however noisy the picture is.
        ends = max(0.0, float(saturated(window[::2, ::2]).mean()) - 0.02)
        order.append(texture + 0.3 * ends + 0.5 * share)
    return [int(index) for index in np.argsort(order, kind="stable")[:count]]


def read_candidates(
    image: Pixels, *, mask: npt.NDArray[np.bool_] | None = None, size: int = PATCH
) -> tuple[list[FloatArray], list[float]]:
    """Return at most 64 windows (size, size, 3), float32 in [0, 1], spread over the picture, and their damaged shares.

    Nothing else of the picture is read. `mask` (H, W) marks damaged pixels.
    """
    windows, damage = [], []
    for top in window_starts(image.shape[0], size):
        for left in window_starts(image.shape[1], size):
            place = (slice(top, top + size), slice(left, left + size))
            windows.append(extended(to_unit_rgb(np.asarray(image[place])), size))
            damage.append(0.0 if mask is None else float(np.mean(mask[place])))
    return windows, damage


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureWindows:
    """Windows (N, 96, 96, 3) of one picture in [0, 1]: `varied` for all quantities, `flat` for the noise."""

    varied: FloatArray
    flat: FloatArray


def read_patches(
    image: Pixels, *, mask: npt.NDArray[np.bool_] | None = None, varied: int = 12, flat: int = 16
) -> PictureWindows:
    """Return the chosen windows of a picture, away from damage, gutters and margins where that is possible."""
    windows, damage = read_candidates(image, mask=mask)
    kept = without_gutters(windows)
    windows, damage = [windows[index] for index in kept], [damage[index] for index in kept]
    first = choose(windows, count=varied, damage=damage)
    second = choose_flat(windows, count=flat, damage=damage)
    return PictureWindows(
        varied=np.stack([windows[index] for index in first]), flat=np.stack([windows[index] for index in second])
    )
