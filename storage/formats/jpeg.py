"""JPEG: decoded by libvips; rewritten at high quality with every metadata segment of the source copied verbatim."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pyvips

from storage.errors import IngestError
from storage.formats import exif as exif_fields
from storage.formats.jpeg_quality import table_quality
from storage.formats.page import DecodedPage, Samples, check_pixels, enlargement, split_alpha, to_vips, upright
from storage.limits import IngestLimits

_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_ICC, _PHOTOSHOP, _MULTI_PICTURE = b"ICC_PROFILE\0", b"Photoshop 3.0\0", b"MPF\0"
_APP0, _APP1, _APP2, _APP13, _APP14, _COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# libjpeg warns of these although no pixel is wrong.
_HARMLESS = ("extraneous bytes", "unknown JFIF revision", "Unknown Adobe color transform")
_NO_DENSITY = b"JFIF\0\1\1\0\0\1\0\1\0\0"
_LOWEST_QUALITY = 95


@dataclass(frozen=True, slots=True)
class _Header:
    segments: tuple[tuple[int, bytes], ...]
    frame: int
    width: int
    height: int
    components: int
    precision: int

    def payloads(self, marker: int, prefix: bytes) -> list[bytes]:
        return [data for code, data in self.segments if code == marker and data.startswith(prefix)]


def decode(data: bytes, limits: IngestLimits) -> DecodedPage:
    """Return the one page of a JPEG file; raises IngestError."""
    header = _read_header(data)
    check_pixels(header.width, header.height, limits)
    if header.components not in (1, 3):
        raise IngestError(
            "unsupported_colour",
            f"The JPEG has {header.components} channels (CMYK?); expected grey or RGB. Convert it to RGB first.",
        )
    if header.precision != 8:
        raise IngestError("unsupported_depth", f"The JPEG has {header.precision} bits per sample; expected 8.")
    exif = next((part[len(_EXIF) :] for part in header.payloads(_APP1, _EXIF)), None)
    xmp = next((part[len(_XMP) :] for part in header.payloads(_APP1, _XMP)), None)
    turn = exif_fields.orientation(exif)
    colour, _ = split_alpha(_pixels(data))
    quality, confidence = _quality(header)
    return DecodedPage(
        array=upright(colour, turn),
        alpha=None,
        sample_max=255,
        format="jpeg",
        compression="jpeg-progressive" if header.frame == 0xC2 else "jpeg",
        bits=8,
        orientation=turn,
        icc=_profile(header),
        exif=exif,
        iptc=b"".join(header.payloads(_APP13, _PHOTOSHOP)) or None,
        xmp=xmp,
        dpi=_density(header) or exif_fields.dpi(exif),
        jpeg_quality=quality,
        jpeg_quality_confidence=confidence,
    )


def encode(page: DecodedPage, array: Samples, source: bytes) -> bytes:
    """Return a JPEG of upright `array` (H, W[, 3]) uint8 with the metadata of `source`, 4:4:4, quality 95 or better.

    Of a multiple of the page's size, it has as many times the dots per inch.
    """
    header, scale = _read_header(source), enlargement(page, array)
    image = to_vips(array)
    encoded: bytes = image.jpegsave_buffer(
        Q=max(_LOWEST_QUALITY, math.ceil(page.jpeg_quality or 0)),
        subsample_mode="off",
        optimize_coding=True,
        interlace=header.frame == 0xC2,
        keep="none",
    )
    density = next((_denser(part, scale=scale) for part in header.payloads(_APP0, b"JFIF\0")), _NO_DENSITY)
    kept = [_upright_segment(code, part, scale=scale) for code, part in header.segments if _is_metadata(code, part)]
    body = [(code, part) for code, part in _segments(encoded) if code != _APP0]
    start = encoded.index(b"\xff\xda", _end_of_segments(encoded))
    parts = [(_APP0, density), *kept, *body]
    return b"\xff\xd8" + b"".join(_segment(code, part) for code, part in parts) + encoded[start:]


def _pixels(data: bytes) -> Samples:
    try:
        samples: Samples = pyvips.Image.jpegload_buffer(data, fail_on="warning", unlimited=True).numpy()
        return samples
    except pyvips.Error as error:
        text = str(error)
        complaints = [line for line in text.splitlines() if "VipsJpeg:" in line]
        if "premature end of JPEG image" in text:
            raise IngestError(
                "truncated", f"The JPEG breaks off after {len(data):,} bytes. Fetch a whole copy."
            ) from error
        if not complaints or not all(any(word in line for word in _HARMLESS) for line in complaints):
            raise IngestError(
                "decode_failed", f"The JPEG data are damaged ({_last(text)}). Fetch a whole copy."
            ) from error
    try:
        samples = pyvips.Image.jpegload_buffer(data, fail_on="error", unlimited=True).numpy()
        return samples
    except pyvips.Error as error:
        raise IngestError("decode_failed", f"The JPEG data are damaged ({_last(str(error))}).") from error


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "VipsJpeg" in line), lines[-1] if lines else "no reason given")


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (marker, payload) up to the first scan; a file that ends before it is truncated."""
    place = 2
    while True:
        while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] == b"\xff":
            place += 1
        if place + 4 > len(data):
            raise IngestError("truncated", f"The JPEG breaks off in its header, after {len(data):,} bytes.")
        mark, code, length = struct.unpack_from(">BBH", data, place)
        if mark != 0xFF or length < 2:
            raise IngestError("decode_failed", f"The JPEG header is damaged at byte {place:,}; expected a marker.")
        if code == 0xDA:
            return
        if place + 2 + length > len(data):
            raise IngestError("truncated", f"The JPEG breaks off in its header, after {len(data):,} bytes.")
        yield code, data[place + 4 : place + 2 + length]
        place += 2 + length


def _end_of_segments(data: bytes) -> int:
    return 2 + sum(4 + len(part) for _, part in _segments(data))


def _read_header(data: bytes) -> _Header:
    segments = tuple(_segments(data))
    for code, part in segments:
        if code in _FRAMES and len(part) >= 6:
            precision, height, width, components = struct.unpack_from(">BHHB", part)
            return _Header(segments, code, width, height, components, precision)
    raise IngestError("decode_failed", "The JPEG has no frame header; expected one before the first scan.")


def _quality(header: _Header) -> tuple[float | None, float]:
    """Quality from the table of the first component."""
    frame = next(part for code, part in header.segments if code == header.frame)
    wanted = frame[8] if len(frame) > 8 else 0
    for code, part in header.segments:
        place = 0
        while code == 0xDB and place < len(part):
            wide, number = part[place] >> 4, part[place] & 15
            count = 128 if wide else 64
            steps = part[place + 1 : place + 1 + count]
            if number == wanted and len(steps) == count:
                return table_quality(struct.unpack(">64H", steps) if wide else list(steps))
            place += 1 + count
    return None, 0.0


def _profile(header: _Header) -> bytes | None:
    parts = sorted(header.payloads(_APP2, _ICC), key=lambda part: part[12:13])
    return b"".join(part[14:] for part in parts) or None


def _density(header: _Header) -> tuple[float, float] | None:
    for part in header.payloads(_APP0, b"JFIF\0"):
        if len(part) >= 12:
            unit, x, y = struct.unpack_from(">BHH", part, 7)
            factor = {1: 1.0, 2: 2.54}.get(unit)
            return (x * factor, y * factor) if factor and x and y else None
    return None


def _denser(part: bytes, *, scale: int) -> bytes:
    """Return a JFIF header without thumbnail, its dots per inch or centimetre times `scale`; a mere ratio stays."""
    if scale > 1 and len(part) >= 12 and part[7] in (1, 2):
        x, y = (value * scale for value in struct.unpack_from(">HH", part, 8))
        if max(x, y) <= 0xFFFF:
            return part[:8] + struct.pack(">HH", x, y) + b"\0\0"
    return part[:12] + b"\0\0"


def _is_metadata(code: int, part: bytes) -> bool:
    if code == _APP2 and part.startswith(_MULTI_PICTURE):  # points at further pictures by byte offset
        return False
    return (_APP1 <= code <= 0xEF and code != _APP14) or code == _COMMENT


def _upright_segment(code: int, part: bytes, *, scale: int) -> tuple[int, bytes]:
    if code == _APP1 and part.startswith(_EXIF):
        return code, _EXIF + exif_fields.reset_orientation(part[len(_EXIF) :], scale=scale)
    if code == _APP1 and part.startswith(_XMP):
        return code, exif_fields.reset_xmp_orientation(part)
    return code, part


def _segment(code: int, part: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(part) + 2) + part
