"""How two pictures are made comparable before a metric: range, clipping, colour space, border."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]
Plane = npt.NDArray[np.float64]
Channel = Literal["rgb", "y", "grey"]

_GREY = np.array([0.299, 0.587, 0.114])
_Y = np.array([65.481, 128.553, 24.966]) / 255
_CHANNELS = ("rgb", "y", "grey")


def to_unit(image: Pixels, *, round_to_8_bits: bool = False) -> Plane:
    """Return (H, W) or (H, W, 3) uint8, uint16 or float pixels as float64 in [0, 1].

    Integers are divided by their maximum; floats outside [0, 1] are clipped, as writing the picture would do;
    `round_to_8_bits` also rounds as an 8-bit file does. Raises ValueError for other shapes and dtypes.
    """
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise ValueError(
            f"expected a picture (H, W), (H, W, 1) or (H, W, 3), got shape {image.shape}; drop alpha first"
        )
    if image.dtype == np.uint8 or image.dtype == np.uint16:
        unit = image.astype(np.float64) / np.iinfo(image.dtype).max
    elif np.issubdtype(image.dtype, np.floating):
        unit = np.clip(image.astype(np.float64), 0, 1)
    else:
        raise ValueError(f"expected uint8, uint16 or floating pixels, got {image.dtype}; convert the picture first")
    unit = unit[:, :, 0] if unit.ndim == 3 and unit.shape[2] == 1 else unit
    return np.round(unit * 255) / 255 if round_to_8_bits else unit


def select_channel(unit: Plane, channel: Channel) -> Plane:
    """Return the picture itself ("rgb"), BT.601 luma in 16-235 of 255 ("y", as MATLAB's rgb2ycbcr) or full ("grey").

    A picture of one channel is returned as it is, whatever is asked: the papers' convention for grey sets.
    """
    if channel not in _CHANNELS:
        raise ValueError(f"unknown channel {channel!r}; known: {', '.join(_CHANNELS)}")
    if unit.ndim == 2 or channel == "rgb":
        return unit
    return unit @ _Y + 16 / 255 if channel == "y" else unit @ _GREY


def comparable(
    restored: Pixels, reference: Pixels, *, channel: Channel, border: int, round_to_8_bits: bool = False
) -> tuple[Plane, Plane]:
    """Return both pictures in [0, 1], reduced to the channel and without `border` pixels on each side.

    Raises ValueError when the shapes differ or nothing is left.
    """
    if restored.shape != reference.shape:
        raise ValueError(
            f"expected pictures of one shape, got {restored.shape} and {reference.shape}; resize or crop one of them"
        )
    if border < 0 or min(restored.shape[:2]) <= 2 * border:
        raise ValueError(f"a border of {border} leaves nothing of a picture of shape {restored.shape[:2]}")
    inner = (slice(border, restored.shape[0] - border), slice(border, restored.shape[1] - border))
    planes = [
        select_channel(to_unit(image[inner], round_to_8_bits=round_to_8_bits), channel)
        for image in (restored, reference)
    ]
    return planes[0], planes[1]
