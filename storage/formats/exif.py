"""Reads and patches the few EXIF fields that restoring a picture touches; every other byte stays as it was."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_INTEGERS = {1: "B", 3: "H", 4: "I", 8: "h", 9: "i", 13: "I"}
_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT = 0x0112, 0x011A, 0x011B, 0x0128
_EXIF_IFD, _WIDTH, _HEIGHT = 0x8769, 0xA002, 0xA003
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[2-8]")


def orientation(exif: bytes | None) -> int:
    """Return EXIF orientation 1-8; 1 when absent or senseless."""
    value = _first_values(exif).get(_ORIENTATION, 1)
    return int(value) if value in range(1, 9) else 1


def dpi(exif: bytes | None) -> tuple[float, float] | None:
    """Return (x, y) dots per inch, or None when absent or without a unit."""
    values = _first_values(exif)
    factor = {2: 1.0, 3: 2.54}.get(int(values.get(_UNIT, 2)))
    x, y = values.get(_X_RESOLUTION, 0.0), values.get(_Y_RESOLUTION, 0.0)
    return None if factor is None or x <= 0 or y <= 0 else (x * factor, y * factor)


def reset_orientation(exif: bytes, *, scale: int = 1) -> bytes:
    """Return `exif` for upright pixels: orientation 1, width and height swapped if turned, no embedded thumbnail.

    The thumbnail goes because it shows the picture before restoration. scale: how many times larger the picture became;
    its width, height and dots per inch grow with it.
    """
    turned = orientation(exif) >= 5
    data = bytearray(exif)
    order = _byte_order(exif)
    if order is None:
        return exif
    sizes: dict[int, int] = {}
    densities: set[int] = set()  # both may be kept in one place
    for tag, kind, _count, place in _entries(exif, _first_offset(exif, order), order):
        if tag == _ORIENTATION and kind in _INTEGERS:
            struct.pack_into(order + _INTEGERS[kind], data, place, 1)
        if tag in (_X_RESOLUTION, _Y_RESOLUTION) and kind == 5:
            densities.add(place)
        if tag == _EXIF_IFD:
            inner = int(_value(exif, order, kind, place))
            sizes |= {t: p for t, k, _, p in _entries(exif, inner, order) if t in (_WIDTH, _HEIGHT) and k in (3, 4)}
    if turned and len(sizes) == 2:
        width, height = sizes[_WIDTH] - 6, sizes[_HEIGHT] - 6  # type and count travel with the value
        data[width : width + 10], data[height : height + 10] = exif[height : height + 10], exif[width : width + 10]
    for place in densities:
        _multiply(data, place, order + "I", scale)
    for place in sizes.values():
        _multiply(
            data, place, order + ("H" if struct.unpack_from(order + "H", data, place - 6)[0] == 3 else "I"), scale
        )
    _drop_thumbnail(data, exif, order)
    return bytes(data)


def reset_xmp_orientation(xmp: bytes) -> bytes:
    """Return the XMP packet with tiff:Orientation, if any, set to 1."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def _multiply(data: bytearray, place: int, code: str, scale: int) -> None:
    """Multiply a number in place; one that would no longer fit stays."""
    value = struct.unpack_from(code, data, place)[0] * scale
    if value < 256 ** struct.calcsize(code):
        struct.pack_into(code, data, place, value)


def _drop_thumbnail(data: bytearray, exif: bytes, order: str) -> None:
    first = _first_offset(exif, order)
    if first + 2 > len(exif):
        return
    link = first + 2 + 12 * struct.unpack_from(order + "H", exif, first)[0]
    if link + 4 <= len(exif):
        data[link : link + 4] = b"\0\0\0\0"


def _byte_order(exif: bytes | None) -> str | None:
    if exif is None or len(exif) < 8:
        return None
    return {b"II": "<", b"MM": ">"}.get(bytes(exif[:2]))


def _first_offset(exif: bytes, order: str) -> int:
    return int(struct.unpack_from(order + "I", exif, 4)[0])


def _entries(exif: bytes, offset: int, order: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield (tag, type, count, place of the value) of one directory, staying inside the bytes."""
    if offset + 2 > len(exif):
        return
    for index in range(struct.unpack_from(order + "H", exif, offset)[0]):
        place = offset + 2 + 12 * index
        if place + 12 > len(exif):
            return
        tag, kind, count = struct.unpack_from(order + "HHI", exif, place)
        value = place + 8
        if _SIZES.get(kind, 1) * count > 4:
            value = struct.unpack_from(order + "I", exif, value)[0]
        if value + min(_SIZES.get(kind, 1), 8) <= len(exif):
            yield tag, kind, count, value


def _value(exif: bytes, order: str, kind: int, place: int) -> float:
    if kind in (5, 10):
        top, bottom = struct.unpack_from(order + ("II" if kind == 5 else "ii"), exif, place)
        return float(top / bottom) if bottom else 0.0
    code = _INTEGERS.get(kind)
    return float(struct.unpack_from(order + code, exif, place)[0]) if code else 0.0


def _first_values(exif: bytes | None) -> dict[int, float]:
    order = _byte_order(exif)
    if exif is None or order is None:
        return {}
    return {
        tag: _value(exif, order, kind, place)
        for tag, kind, _, place in _entries(exif, _first_offset(exif, order), order)
        if tag in (_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT)
    }
