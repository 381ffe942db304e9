"""The decoded page every format module returns, and what they share about pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from models.types import ImageFormat
from storage.errors import IngestError
from storage.limits import IngestLimits

#: (H, W) or (H, W, 3) uint8 or uint16.
Samples = npt.NDArray[Any]
# Results are used once; a cache of them would only hold pixels back from being freed.
pyvips.cache_set_max(0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodedPage:
    """One page: upright pixels in the source's own colour space, and its metadata as found.

    array: (H, W) or (H, W, 3), uint8 or uint16, values in [0, sample_max]; `alpha` (H, W) alike, or None.
    bits: bits per sample in the file. orientation: EXIF 1-8 as found; the pixels are already turned.
    exif: a TIFF structure without the "Exif" prefix. dpi: (x, y) or None.
    """

    array: Samples
    alpha: Samples | None
    sample_max: int
    format: ImageFormat
    compression: str | None
    bits: int
    page_index: int = 0
    page_count: int = 1
    orientation: int = 1
    icc: bytes | None = None
    exif: bytes | None = None
    iptc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    jpeg_quality: float | None = None
    jpeg_quality_confidence: float = 0.0

    @property
    def height(self) -> int:
        return int(self.array.shape[0])

    @property
    def width(self) -> int:
        return int(self.array.shape[1])

    @property
    def channels(self) -> int:
        return 1 if self.array.ndim == 2 else int(self.array.shape[2])


def enlarged_samples(array: Samples, *, scale: int) -> Samples:
    """Return (H, W[, 3]) samples a whole number of times larger, linearly interpolated: never beyond their range."""
    if scale == 1:
        return array
    import cv2

    height, width = (side * scale for side in array.shape[:2])
    # Pixel centres lie at half integers, as enlarging networks have them; vips would keep the corners in place.
    return np.asarray(cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR))


def enlargement(page: DecodedPage, array: Samples) -> int:
    """Return how many times larger `array` is than the page, a whole number; raises ValueError when it is none."""
    scale = int(array.shape[0]) // page.height
    if scale < 1 or array.shape[:2] != (page.height * scale, page.width * scale):
        raise ValueError(
            f"page {page.page_index}: got an array of {array.shape[:2]}, expected {(page.height, page.width)} or a "
            "whole multiple of it"
        )
    return scale


def fitting_alpha(page: DecodedPage, array: Samples) -> Samples | None:
    """Return the page's alpha at the size of `array`, None when it has none."""
    return None if page.alpha is None else enlarged_samples(page.alpha, scale=enlargement(page, array))


def check_pixels(width: int, height: int, limits: IngestLimits) -> None:
    """Raise IngestError when a header claims no pixels, or more than allowed; call before decoding."""
    if width < 1 or height < 1:
        raise IngestError("decode_failed", f"The header says {width} x {height} pixels; expected at least 1 x 1.")
    if width * height > limits.max_pixels:
        raise IngestError(
            "too_many_pixels",
            f"The header says {width} x {height} = {width * height:,} pixels; at most {limits.max_pixels:,} are "
            "allowed (max_pixels). Raise the limit if the file is genuine.",
        )


def upright(array: Any, orientation: int) -> Any:
    """Return (H, W, …) `array` turned as EXIF `orientation` 1-8 asks; anything else leaves it as it is."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def split_alpha(array: Any) -> tuple[Any, Any]:
    """Return (colour, alpha or None) of (H, W), (H, W, 1-4) `array`; colour is (H, W) or (H, W, 3)."""
    if array.ndim == 2:
        return array, None
    bands = array.shape[2]
    if bands not in (1, 2, 3, 4):
        raise IngestError(
            "unsupported_colour", f"The picture has {bands} channels; expected grey or RGB, with or without alpha."
        )
    colour = array[..., 0] if bands < 3 else array[..., :3]
    alpha = array[..., -1] if bands in (2, 4) else None
    return np.ascontiguousarray(colour), None if alpha is None else np.ascontiguousarray(alpha)


def join_alpha(array: Samples, alpha: Samples | None) -> Any:
    """Return (H, W, bands) with alpha as the last band."""
    colour = array[..., None] if array.ndim == 2 else array
    return colour if alpha is None else np.concatenate([colour, alpha[..., None]], axis=2)


def to_vips(array: Samples, alpha: Samples | None = None) -> Any:
    """Return a vips image over the samples, marked as grey or RGB of 8 or 16 bits."""
    joined = np.ascontiguousarray(join_alpha(array, alpha))
    height, width, bands = joined.shape
    wide = joined.dtype == np.uint16
    image = pyvips.Image.new_from_memory(joined.data, width, height, bands, "ushort" if wide else "uchar")
    names = ("grey16", "rgb16") if wide else ("b-w", "srgb")
    return image.copy(interpretation=names[0] if bands < 3 else names[1])
