"""Small pictures and files that the storage tests share."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from storage.formats.page import to_vips
from storage.limits import IngestLimits

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="Dr\xc3\xa4ger"/></x:xmpmeta>'
)
LIMITS = IngestLimits()


def picture(bits: int = 8, *, grey: bool = False, height: int = 48, width: int = 64) -> Any:
    """A smooth picture with texture that uses the low bits too."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    base = np.stack([0.2 + 0.6 * x, 0.8 - 0.5 * y, 0.5 + 0.3 * np.sin(9 * x * y)], axis=-1)
    noisy = np.clip(base + rng.normal(0, 0.02, base.shape), 0, 1) * (2**bits - 1)
    array = np.rint(noisy).astype(np.uint8 if bits <= 8 else np.uint16)
    return np.ascontiguousarray(array[..., 1]) if grey else array


def exif_block(*, orientation: int = 1, order: str = "<", size: tuple[int, int] = (64, 48)) -> bytes:
    """An EXIF structure: orientation, 300 dpi, an inner directory with pixel dimensions, and a thumbnail link."""
    entry = order + "HHI"
    first = [
        struct.pack(entry, 0x0112, 3, 1) + struct.pack(order + "HH", orientation, 0),
        struct.pack(entry, 0x011A, 5, 1) + struct.pack(order + "I", 200),
        struct.pack(entry, 0x011B, 5, 1) + struct.pack(order + "I", 200),
        struct.pack(entry, 0x0128, 3, 1) + struct.pack(order + "HH", 2, 0),
        struct.pack(entry, 0x8769, 4, 1) + struct.pack(order + "I", 100),
    ]
    inner = [struct.pack(entry, 0xA002 + i, 4, 1) + struct.pack(order + "I", size[i]) for i in range(2)]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    body = head + struct.pack(order + "H", len(first)) + b"".join(first) + struct.pack(order + "I", 160)
    body = body.ljust(100, b"\0") + struct.pack(order + "H", 2) + b"".join(inner) + struct.pack(order + "I", 0)
    return body.ljust(200, b"\0") + struct.pack(order + "II", 300, 1) + b"maker note"


def png_chunk(name: bytes, part: bytes) -> bytes:
    return struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))


def png_bytes(array: Any, *, alpha: Any = None, extra: bytes = b"", **options: Any) -> bytes:
    """A PNG with further chunks placed behind IHDR."""
    data = to_vips(array, alpha).pngsave_buffer(keep="none", **options)
    return bytes(data[:33] + extra + data[33:])


def jpeg_bytes(array: Any, *, quality: int = 85, segments: bytes = b"", **options: Any) -> bytes:
    data = to_vips(array).jpegsave_buffer(Q=quality, keep="none", **options)
    return bytes(data[:2] + segments + data[2:])


def jpeg_segment(code: int, part: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(part) + 2) + part


def tiff_file(path: Path, array: Any, **options: Any) -> Path:
    photometric = options.pop("photometric", "rgb" if array.ndim == 3 else "minisblack")
    writer = {name: options.pop(name) for name in ("bigtiff", "byteorder") if name in options}
    with tifffile.TiffWriter(path, **writer) as file:
        file.write(array, photometric=photometric, metadata=None, **options)
    return path
