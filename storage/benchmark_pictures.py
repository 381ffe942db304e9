"""Pictures of a benchmark as bytes: decoded to sRGB whatever their format, stored as plain PNG that repeats to the bit.

A stored picture holds 8 bits where these hold every value of it, else 16; `exact` says whether nothing was lost.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.codecs import decode
from storage.colour import conversion
from storage.errors import IngestError
from storage.formats.page import to_vips
from storage.limits import IngestLimits

Pixels = npt.NDArray[np.float32]
_LIMITS = IngestLimits()


def decode_picture(data: bytes, *, name: str) -> npt.NDArray[Any]:
    """Return (H, W) or (H, W, 3), uint8 or uint16, sRGB, upright; alpha is left out. Also reads 8-bit BMP.

    Raises IngestError for what is no picture, is damaged, or has more than one page.
    """
    if data[:2] == b"BM":
        return _decode_bmp(data, name=name)
    pages = decode(data, limits=_LIMITS)
    if len(pages) != 1:
        raise IngestError("too_many_pages", f"{name} has {len(pages)} pages; a benchmark takes files of one picture.")
    page = pages[0]
    return conversion(page.icc, grey=page.channels == 1).to_working(page.array, page.sample_max)


def _decode_bmp(data: bytes, *, name: str) -> npt.NDArray[Any]:
    import cv2

    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint8:
        raise IngestError("decode_failed", f"{name} is a BMP file that cannot be decoded; convert it to PNG.")
    colour = found.ndim == 3
    return np.ascontiguousarray(found[:, :, 2::-1] if colour else found)


def as_floats(picture: npt.NDArray[Any]) -> Pixels:
    """Return an integer picture as float32 in [0, 1]."""
    return picture.astype(np.float32) / np.float32(np.iinfo(picture.dtype).max)


def encode_picture(pixels: Pixels) -> tuple[bytes, bool]:
    """Return (PNG, exact): 8 bits if they hold every value, else 16; not exact = clipped and rounded to 8 bits."""
    for kind in (np.uint8, np.uint16):
        levels = np.rint(np.clip(pixels, 0.0, 1.0) * np.iinfo(kind).max).astype(kind)
        if np.array_equal(as_floats(levels), pixels):
            return _png(levels), True
    return _png(np.rint(np.clip(pixels, 0.0, 1.0) * 255).astype(np.uint8)), False


def encode_mask(mask: npt.NDArray[np.bool_]) -> bytes:
    """Return a mask (H, W), or (H, W, 3) where channels are lost on their own, as an 8-bit PNG, 255 = missing."""
    return _png(np.where(mask, np.uint8(255), np.uint8(0)))


def decode_mask(data: bytes, *, name: str) -> npt.NDArray[np.bool_]:
    """Return the mask, (H, W) or (H, W, 3), from the PNG that `encode_mask` made."""
    return np.asarray(decode_picture(data, name=name) > 127)


def pixels_sha256(pixels: Pixels) -> str:
    """Return the sha256 over shape and little-endian float32 values of a picture."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels, dtype="<f4").tobytes())
    return digest.hexdigest()


def _png(levels: npt.NDArray[Any]) -> bytes:
    return bytes(to_vips(levels).pngsave_buffer(compression=6, keep="none"))
