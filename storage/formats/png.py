"""PNG: decoded by libvips at full depth; rewritten with the ancillary chunks of the source copied verbatim."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pyvips

from storage.errors import IngestError
from storage.formats import exif as exif_fields
from storage.formats.page import (
    DecodedPage,
    Samples,
    check_pixels,
    enlargement,
    fitting_alpha,
    split_alpha,
    to_vips,
    upright,
)
from storage.limits import IngestLimits

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP_KEYWORD = b"XML:com.adobe.xmp\0"
# These describe the stored samples or the palette of the old file, not the picture.
_NOT_KEPT = {b"tRNS", b"bKGD", b"hIST", b"sBIT", b"sPLT"}
_BEFORE_PALETTE = {b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI"}


def decode(data: bytes, limits: IngestLimits) -> DecodedPage:
    """Return the one page of a PNG file; palettes are expanded to RGB. Raises IngestError."""
    chunks = _chunks(data)
    if chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise IngestError("decode_failed", "The PNG does not begin with a whole IHDR chunk.")
    width, height, bits, colour_type = struct.unpack_from(">IIBB", chunks[0][1])
    check_pixels(width, height, limits)
    if any(name == b"acTL" for name, _ in chunks):
        raise IngestError("unsupported_animation", "The PNG is an animation; expected a single picture.")
    exif = next((part for name, part in chunks if name == b"eXIf"), None)
    turn = exif_fields.orientation(exif)
    colour, alpha = split_alpha(_pixels(data))
    depth = 8 if colour_type == 3 else bits
    if depth < 8:
        colour, alpha = colour // (255 // (2**depth - 1)), None if alpha is None else alpha // (255 // (2**depth - 1))
    return DecodedPage(
        array=upright(colour, turn),
        alpha=None if alpha is None else upright(alpha, turn),
        sample_max=2**depth - 1,
        format="png",
        compression="deflate",
        bits=depth,
        orientation=turn,
        icc=_profile(chunks),
        exif=exif,
        xmp=_xmp(chunks),
        dpi=_density(chunks) or exif_fields.dpi(exif),
    )


def encode(page: DecodedPage, array: Samples, source: bytes) -> bytes:
    """Return a PNG of upright `array` with alpha and metadata of the source, at the source's depth.

    Of a multiple of the page's size, it has as many times the dots per inch.
    """
    chunks, scale = _chunks(source), enlargement(page, array)
    interlaced = chunks[0][1][12] == 1
    low = page.bits < 8 and page.alpha is None and array.ndim == 2
    alpha = fitting_alpha(page, array)
    if page.bits < 8:
        step = np.uint8(255 // page.sample_max)
        array, alpha = array * step, None if alpha is None else alpha * step
    options: dict[str, Any] = {"bitdepth": page.bits} if low else {}
    encoded = to_vips(array, alpha).pngsave_buffer(compression=6, interlace=interlaced, keep="none", **options)
    critical = [(name, part) for name, part in _chunks(encoded) if name[0:1].isupper()]
    ancillary = [(name, part) for name, part in chunks if name[0:1].islower() and name not in _NOT_KEPT]
    kept = [_upright_chunk(name, part, scale=scale) for name, part in ancillary]
    early = [chunk for chunk in kept if chunk[0] in _BEFORE_PALETTE]
    late = [chunk for chunk in kept if chunk[0] not in _BEFORE_PALETTE]
    first_data = next(index for index, (name, _) in enumerate(critical) if name == b"IDAT")
    ordered = [critical[0], *early, *critical[1:first_data], *late, *critical[first_data:]]
    return SIGNATURE + b"".join(_chunk(name, part) for name, part in ordered)


def grey_png(array: Samples) -> bytes:
    """Return (H, W) uint8 `array` as a plain PNG: for masks."""
    return bytes(to_vips(array).pngsave_buffer(compression=6, keep="none"))


def _pixels(data: bytes) -> Samples:
    try:
        samples: Samples = pyvips.Image.pngload_buffer(data, fail_on="error", unlimited=True).numpy()
        return samples
    except pyvips.Error as error:
        reason = " ".join(str(error).split())
        raise IngestError("decode_failed", f"The PNG data are damaged ({reason}). Fetch a whole copy.") from error


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return every (name, payload); a file that ends before IEND is truncated."""
    found: list[tuple[bytes, bytes]] = []
    place = len(SIGNATURE)
    while True:
        if place + 12 > len(data):
            raise IngestError("truncated", f"The PNG breaks off after {len(data):,} bytes. Fetch a whole copy.")
        length, name = struct.unpack_from(">I4s", data, place)
        if place + 12 + length > len(data):
            raise IngestError("truncated", f"The PNG breaks off in its {name!r} chunk, after {len(data):,} bytes.")
        found.append((name, data[place + 8 : place + 8 + length]))
        if name == b"IEND":
            return found
        place += 12 + length


def _chunk(name: bytes, part: bytes) -> bytes:
    return struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))


def _profile(chunks: list[tuple[bytes, bytes]]) -> bytes | None:
    part = next((part for name, part in chunks if name == b"iCCP"), None)
    if part is None:
        return None
    unpacker = zlib.decompressobj()
    try:
        return unpacker.decompress(part[part.index(b"\0") + 2 :], 16_000_000) or None
    except (ValueError, zlib.error):
        return None


def _xmp(chunks: list[tuple[bytes, bytes]]) -> bytes | None:
    part = next((part for name, part in chunks if name == b"iTXt" and part.startswith(_XMP_KEYWORD)), None)
    if part is None or part[len(_XMP_KEYWORD) : len(_XMP_KEYWORD) + 1] != b"\0":
        return part
    return part[len(_XMP_KEYWORD) :].split(b"\0", 4)[-1]


def _density(chunks: list[tuple[bytes, bytes]]) -> tuple[float, float] | None:
    for name, part in chunks:
        if name == b"pHYs" and len(part) == 9 and part[8] == 1:
            x, y, _ = struct.unpack(">IIB", part)
            return (x * 0.0254, y * 0.0254)
    return None


def _upright_chunk(name: bytes, part: bytes, *, scale: int) -> tuple[bytes, bytes]:
    if name == b"eXIf":
        return name, exif_fields.reset_orientation(part, scale=scale)
    if name == b"pHYs" and len(part) == 9:
        x, y, unit = struct.unpack(">IIB", part)
        return name, struct.pack(">IIB", min(x * scale, 2**31 - 1), min(y * scale, 2**31 - 1), unit)
    if name == b"iTXt" and part.startswith(_XMP_KEYWORD):
        return name, exif_fields.reset_xmp_orientation(part)
    return name, part
