"""WebP: decoded by libvips; rewritten with the ICC, EXIF and XMP chunks of the source."""

from __future__ import annotations

import struct

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

_HAS_ICC, _HAS_ALPHA, _HAS_EXIF, _HAS_XMP = 0x20, 0x10, 0x08, 0x04
_LOSSY_QUALITY = 95


def decode(data: bytes, limits: IngestLimits) -> DecodedPage:
    """Return the one page of a WebP file; raises IngestError."""
    chunks = dict(reversed(_chunks(data)))
    if b"ANIM" in chunks:
        raise IngestError("unsupported_animation", "The WebP is an animation; expected a single picture.")
    image = _load(data, limits)
    exif = chunks.get(b"EXIF")
    if exif is not None:
        exif = exif.removeprefix(b"Exif\0\0")
    turn = exif_fields.orientation(exif)
    colour, alpha = split_alpha(_pixels(image))
    return DecodedPage(
        array=upright(colour, turn),
        alpha=None if alpha is None else upright(alpha, turn),
        sample_max=255,
        format="webp",
        compression="webp-lossless" if b"VP8L" in chunks else "webp",
        bits=8,
        orientation=turn,
        icc=chunks.get(b"ICCP"),
        exif=exif,
        xmp=chunks.get(b"XMP "),
        dpi=exif_fields.dpi(exif),
    )


def encode(page: DecodedPage, array: Samples, source: bytes) -> bytes:
    """Return a WebP of upright `array`: lossless if the source was, else quality 95; alpha and metadata kept."""
    lossless = page.compression == "webp-lossless"
    encoded = to_vips(array, fitting_alpha(page, array)).webpsave_buffer(
        lossless=lossless, exact=True, Q=75 if lossless else _LOSSY_QUALITY, smart_subsample=True, effort=4, keep="none"
    )
    pixels = [(name, part) for name, part in _chunks(encoded) if name in (b"ALPH", b"VP8 ", b"VP8L")]
    before = [(b"ICCP", page.icc)] if page.icc else []
    after = [(b"EXIF", exif_fields.reset_orientation(page.exif, scale=enlargement(page, array)))] if page.exif else []
    after += [(b"XMP ", exif_fields.reset_xmp_orientation(page.xmp))] if page.xmp else []
    flags = (_HAS_ICC if page.icc else 0) | (_HAS_EXIF if page.exif else 0) | (_HAS_XMP if page.xmp else 0)
    flags |= _HAS_ALPHA if page.alpha is not None else 0
    height, width = array.shape[:2]
    extended = struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = [(b"VP8X", extended), *before, *pixels, *after] if flags else pixels
    body = b"WEBP" + b"".join(_chunk(name, part) for name, part in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _load(data: bytes, limits: IngestLimits) -> pyvips.Image:
    try:
        image = pyvips.Image.webpload_buffer(data, fail_on="error")
    except pyvips.Error as error:
        raise _damaged(error) from error
    check_pixels(image.width, image.height, limits)
    return image


def _pixels(image: pyvips.Image) -> Samples:
    try:
        samples: Samples = image.numpy()
        return samples
    except pyvips.Error as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> IngestError:
    return IngestError(
        "decode_failed", f"The WebP data are damaged ({' '.join(str(error).split())}). Fetch a whole copy."
    )


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    size = struct.unpack_from("<I", data, 4)[0]
    if size + 8 > len(data):
        raise IngestError("truncated", f"The WebP has {len(data):,} of {size + 8:,} bytes. Fetch a whole copy.")
    found: list[tuple[bytes, bytes]] = []
    place = 12
    while place + 8 <= size + 8:
        name, length = struct.unpack_from("<4sI", data, place)
        if place + 8 + length > len(data):
            raise IngestError("truncated", f"The WebP breaks off in its {name!r} chunk. Fetch a whole copy.")
        found.append((name, data[place + 8 : place + 8 + length]))
        place += 8 + length + (length & 1)
    return found


def _chunk(name: bytes, part: bytes) -> bytes:
    return name + struct.pack("<I", len(part)) + part + (b"\0" if len(part) & 1 else b"")
