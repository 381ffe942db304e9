"""JPEG 2000 (JP2 boxes or a bare codestream): decoded by OpenJPEG; rewritten without loss, all boxes kept."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import imagecodecs
import numpy as np

from storage.errors import IngestError
from storage.formats.page import (
    DecodedPage,
    Samples,
    check_pixels,
    enlargement,
    fitting_alpha,
    join_alpha,
    split_alpha,
)
from storage.limits import IngestLimits

BOX_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
CODESTREAM_SIGNATURE = b"\xff\x4f\xff\x51"
_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF_UUID = b"JpgTiffExif->JP2"
_IPTC_UUID = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
_SRGB, _GREY, _SYCC = 16, 17, 18
# The encoder writes these anew; the palette is already applied to the pixels.
_DECODED = {b"jP  ", b"ftyp", b"jp2h", b"jp2c"}
_HEADER_WRITTEN = {b"ihdr", b"bpcc", b"pclr", b"cmap"}


@dataclass(frozen=True, slots=True)
class _Header:
    width: int
    height: int
    components: int
    bits: int
    reversible: bool


def decode(data: bytes, limits: IngestLimits) -> DecodedPage:
    """Return the one page of a JPEG 2000 file of up to 16 bits; raises IngestError."""
    boxes = list(_boxes(data)) if data.startswith(BOX_SIGNATURE) else []
    header = _codestream_header(data, boxes)
    check_pixels(header.width, header.height, limits)
    inner = list(_boxes(next((part for name, part in boxes if name == b"jp2h"), b"")))
    colours = [part for name, part in inner if name == b"colr"]
    enumerated = next((struct.unpack_from(">I", part, 3)[0] for part in colours if part[:1] == b"\1"), _SRGB)
    if enumerated not in (_SRGB, _GREY, _SYCC):
        raise IngestError(
            "unsupported_colour", f"JPEG 2000 colour space {enumerated}; expected sRGB, grey or an ICC profile."
        )
    try:
        array = imagecodecs.jpeg2k_decode(_without_profile(boxes, inner, header) if boxes else data)
    except (RuntimeError, ValueError) as error:
        raise IngestError("decode_failed", f"The JPEG 2000 data are damaged ({error}). Fetch a whole copy.") from error
    if array.dtype not in (np.uint8, np.uint16):
        raise IngestError(
            "unsupported_depth", f"JPEG 2000 samples are {array.dtype}; expected unsigned, up to 16 bits."
        )
    colour, alpha = split_alpha(array)
    uuids = {part[:16]: part[16:] for name, part in reversed(boxes) if name == b"uuid"}
    return DecodedPage(
        array=colour,
        alpha=alpha,
        sample_max=2**header.bits - 1,
        format="jp2",
        compression="jpeg2000-reversible" if header.reversible else "jpeg2000-irreversible",
        bits=header.bits,
        icc=next((part[3:] for part in colours if part[:1] in (b"\2", b"\3")), None),
        exif=uuids.get(_EXIF_UUID),
        iptc=uuids.get(_IPTC_UUID),
        xmp=uuids.get(_XMP_UUID),
        dpi=_density(inner),
    )


def encode(page: DecodedPage, array: Samples, source: bytes) -> bytes:
    """Return a reversible JPEG 2000 of `array` at the source's depth, with the source's colour and metadata boxes."""
    joined = np.ascontiguousarray(np.squeeze(join_alpha(array, fitting_alpha(page, array))))
    boxed = source.startswith(BOX_SIGNATURE)
    encoded = imagecodecs.jpeg2k_encode(
        joined.reshape(array.shape[0], array.shape[1], *joined.shape[2:]),
        codecformat="jp2" if boxed else "j2k",
        reversible=True,
        bitspersample=page.bits,
    )
    if not boxed:
        return bytes(encoded)
    old, new = list(_boxes(source)), list(_boxes(bytes(encoded)))
    palette = any(name == b"pclr" for name, _ in _boxes(dict(old)[b"jp2h"]))
    written = [box for box in _boxes(dict(new)[b"jp2h"]) if box[0] in _HEADER_WRITTEN]
    drop = _HEADER_WRITTEN | ({b"cdef"} if palette else set())
    inner = [(name, part) for name, part in _boxes(dict(old)[b"jp2h"]) if name not in drop]
    kept = [_denser(*_rgb_colour(name, part), scale=enlargement(page, array)) for name, part in inner]
    header = b"".join(_box(name, part) for name, part in [*written, *kept])
    replaced = {b"jp2h": header, b"jp2c": dict(new)[b"jp2c"]}
    return b"".join(_box(name, replaced.pop(name, part)) for name, part in old if name != b"jp2c" or name in replaced)


def _without_profile(boxes: list[tuple[bytes, bytes]], inner: list[tuple[bytes, bytes]], header: _Header) -> bytes:
    """Return the file with its ICC profile replaced by a plain colour space: the decoder would convert by it."""
    palette = any(name == b"pclr" for name, _ in inner)
    plain = struct.pack(">BBBI", 1, 0, 0, _GREY if header.components < 3 and not palette else _SRGB)
    kept = [(name, plain if name == b"colr" and part[:1] != b"\1" else part) for name, part in inner]
    bare = b"".join(_box(name, part) for name, part in kept)
    return b"".join(_box(name, bare if name == b"jp2h" else part) for name, part in boxes if name in _DECODED)


def _denser(name: bytes, part: bytes, *, scale: int) -> tuple[bytes, bytes]:
    """The resolution box of a picture that became larger: numerators times `scale`, where they still fit."""
    if name != b"res " or scale == 1:
        return name, part
    boxes = []
    for inner, value in _boxes(part):
        numbers = list(struct.unpack_from(">HHHHbb", value)) if len(value) >= 10 else []
        if numbers and max(numbers[0], numbers[2]) * scale <= 0xFFFF:
            numbers[0], numbers[2] = numbers[0] * scale, numbers[2] * scale
            value = struct.pack(">HHHHbb", *numbers) + value[10:]
        boxes.append(_box(inner, value))
    return name, b"".join(boxes)


def _rgb_colour(name: bytes, part: bytes) -> tuple[bytes, bytes]:
    """sYCC sources come back as RGB, so their colour box must say sRGB."""
    if name == b"colr" and part[:1] == b"\1" and struct.unpack_from(">I", part, 3)[0] == _SYCC:
        return name, part[:3] + struct.pack(">I", _SRGB)
    return name, part


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        start = place + 8
        if length == 1 and place + 16 <= len(data):
            length, start = struct.unpack_from(">Q", data, start)[0], place + 16
        end = len(data) if length == 0 else place + length
        if end > len(data):
            raise IngestError("truncated", f"The JPEG 2000 file breaks off in its {name!r} box. Fetch a whole copy.")
        if end < start:
            raise IngestError(
                "decode_failed", f"The JPEG 2000 box {name!r} claims {length} bytes; the header is damaged."
            )
        yield name, data[start:end]
        place = end


def _box(name: bytes, part: bytes) -> bytes:
    if len(part) + 8 < 2**32:
        return struct.pack(">I4s", len(part) + 8, name) + part
    return struct.pack(">I4sQ", 1, name, len(part) + 16) + part


def _codestream_header(data: bytes, boxes: list[tuple[bytes, bytes]]) -> _Header:
    stream = next((part for name, part in boxes if name == b"jp2c"), b"") if boxes else data
    if not stream.startswith(CODESTREAM_SIGNATURE) or len(stream) < 48:
        raise IngestError("truncated", "The JPEG 2000 file holds no whole codestream header. Fetch a whole copy.")
    if not stream.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise IngestError(
            "truncated", f"The JPEG 2000 codestream breaks off after {len(data):,} bytes; expected an end marker."
        )
    right, bottom, left, top = struct.unpack_from(">IIII", stream, 8)
    components = struct.unpack_from(">H", stream, 40)[0]
    depths = {stream[42 + 3 * index] for index in range(min(components, (len(stream) - 42) // 3))}
    if len(depths) != 1 or max(depths) > 15:
        raise IngestError(
            "unsupported_depth",
            "JPEG 2000 samples are signed, of mixed depth or over 16 bits; expected unsigned, up to 16 bits.",
        )
    return _Header(right - left, bottom - top, components, max(depths) + 1, _is_reversible(stream))


def _is_reversible(stream: bytes) -> bool:
    place = 2
    while place + 14 <= len(stream):
        code, length = struct.unpack_from(">HH", stream, place)
        if code == 0xFF52:
            return stream[place + 13] == 1
        if code == 0xFF90:
            return False
        place += 2 + length
    return False


def _density(inner: list[tuple[bytes, bytes]]) -> tuple[float, float] | None:
    resolutions = dict(_boxes(next((part for name, part in inner if name == b"res "), b"")))
    part = resolutions.get(b"resc", resolutions.get(b"resd"))
    if part is None or len(part) < 10:
        return None
    y, y_under, x, x_under, y_power, x_power = struct.unpack_from(">HHHHbb", part)
    if not (y_under and x_under):
        return None
    return (x / x_under * 10.0**x_power * 0.0254, y / y_under * 10.0**y_power * 0.0254)
