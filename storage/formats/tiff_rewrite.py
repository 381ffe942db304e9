"""Rewrites a TIFF page by page: same byte order, layout, compression family and tags, new pixels where asked for."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from storage.formats.exif import reset_xmp_orientation
from storage.formats.page import DecodedPage, Samples, enlargement, fitting_alpha, to_vips, upright
from storage.formats.tiff import (
    MINISWHITE,
    PALETTE,
    decode_page,
    expand_palette,
    is_auxiliary,
    main_pages,
    open_tiff,
    pixels,
    tag_bytes,
    tag_orientation,
)  # fmt: skip
from storage.limits import IngestLimits

_ENCODABLE = {
    1: None,
    5: "lzw",
    7: "jpeg",
    8: "adobe_deflate",
    32773: "packbits",
    32946: "deflate",
    34925: "lzma",
    50000: "zstd",
}
_PREDICTABLE = {5, 8, 32946, 34925, 50000}
_JPEG_QUALITY = 95
# Exif and GPS directories, and the unused codes that hold their place: tifffile writes no pointers of ours.
_POINTERS = {34665: 34664, 34853: 34851}
_INTEROPERABILITY = 40965
_PIXEL_SIZES = (40962, 40963)
# What the writer derives from pixels and layout; everything else is carried over as raw bytes. Not Photoshop's layers
# (37724) either, which it would show instead of the restored picture.
_STRUCTURAL = {
    254, 255, 256, 257, 258, 259, 262, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 288, 289, 292,
    293, 296, 317, 320, 322, 323, 324, 325, 330, 338, 339, 340, 341, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521,
    529, 530, 531, 532, 37724, _INTEROPERABILITY,
}  # fmt: skip
_XMP = 700
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def rewrite(
    source: bytes | Path,
    target: Path,
    replace: Callable[[DecodedPage], Samples],
    limits: IngestLimits,
    *,
    largest_scale: int = 1,
) -> None:
    """Write `source` to `target` with the upright array `replace` returns for each page: of its depth and size.

    An array may be a whole number of times larger, `largest_scale` at most; dots per inch then grow as well.
    Reduced copies of a page (thumbnails, pyramid levels in the main chain) are made anew from the page before them.
    CCITT compression, which cannot be written, becomes deflate. Sub-directories other than EXIF and GPS are left out.
    """
    with open_tiff(source) as file:
        wanted = main_pages(file, limits)
        size = sum(int(np.prod(page.shape)) * page.dtype.itemsize for page in wanted) * largest_scale**2
        large = file.is_bigtiff or size > 3_900_000_000
        index, shown = 0, None
        with tifffile.TiffWriter(target, bigtiff=large, byteorder=file.byteorder) as writer:
            for place, page in enumerate(file.pages):
                page = page.aspage()
                if is_auxiliary(page, place):
                    _write_reduced(writer, file, page, shown)
                    continue
                decoded = decode_page(file, page, index=index, count=len(wanted))
                index, shown = index + 1, replace(decoded)
                _write_page(writer, file, page, decoded, shown)
        _append_directories(file, target)


def _write_page(writer: Any, file: Any, page: Any, decoded: DecodedPage, array: Samples) -> None:
    photometric = "miniswhite" if int(page.photometric) == MINISWHITE else "minisblack" if array.ndim == 2 else "rgb"
    if photometric == "miniswhite":
        array = array.dtype.type(decoded.sample_max) - array
    scale, alpha = enlargement(decoded, array), fitting_alpha(decoded, array)
    if alpha is not None:
        array = np.concatenate([array[..., None] if array.ndim == 2 else array, alpha[..., None]], axis=2)
    compression = _ENCODABLE.get(int(page.compression), "adobe_deflate")
    if compression == "jpeg" and decoded.alpha is not None:
        compression = "adobe_deflate"
    options: dict[str, Any] = {"photometric": photometric, "compression": compression}
    if compression == "jpeg":
        options["compressionargs"] = {"level": _JPEG_QUALITY}
        if array.ndim == 3:
            options["subsampling"] = (1, 1)  # tifffile itself turns RGB into YCbCr here
    if int(page.compression) in _PREDICTABLE and int(page.predictor) == 2 and decoded.bits >= 8:
        options["predictor"] = True
    if decoded.alpha is not None:
        options["extrasamples"] = [int(page.extrasamples[0])] if page.extrasamples else [0]
    _write(writer, file, page, array.view(np.bool_) if decoded.bits == 1 else array, options, scale=scale)


def _write_reduced(writer: Any, file: Any, page: Any, shown: Samples | None) -> None:
    """Write a thumbnail or mask page: a mask as it was, a reduced copy from the page it belongs to."""
    array, bits = pixels(page), int(page.bitspersample)
    if int(page.photometric) == PALETTE:
        array, bits = expand_palette(page, array)
    array = upright(array, tag_orientation(page))
    inverted = int(page.photometric) == MINISWHITE and array.ndim == 2
    is_copy = int(page.subfiletype) & 1 and bits >= 8
    if shown is not None and is_copy and (array.dtype, array.ndim) == (shown.dtype, shown.ndim):
        image = to_vips(shown)
        scaled = image.resize(array.shape[1] / image.width, vscale=array.shape[0] / image.height).numpy()
        if scaled.shape == array.shape:
            array = np.iinfo(array.dtype).max - scaled if inverted else scaled
    if bits == 1:
        array = array.view(np.bool_)
    options: dict[str, Any] = {
        "photometric": "rgb" if array.ndim == 3 else "miniswhite" if inverted else "minisblack",
        "compression": _ENCODABLE.get(int(page.compression)) and "adobe_deflate",
    }
    _write(writer, file, page, array, options)


def _write(writer: Any, file: Any, page: Any, array: Any, options: dict[str, Any], *, scale: int = 1) -> None:
    if page.is_tiled and page.tilelength % 16 == 0 and page.tilewidth % 16 == 0:
        options["tile"] = (page.tilelength, page.tilewidth)
    elif page.rowsperstrip and tag_orientation(page) < 5:
        options["rowsperstrip"] = min(int(page.rowsperstrip), array.shape[0])
    resolution = [page.tags.get(code) for code in (282, 283)]
    if all(tag is not None for tag in resolution):
        x, y = (tag.value for tag in resolution)
        x, y = (_times(value, scale) for value in ((y, x) if tag_orientation(page) >= 5 else (x, y)))
        options["resolution"] = (x, y)
        unit = page.tags.get(296)
        options["resolutionunit"] = int(unit.value) if unit is not None else 2
    writer.write(
        np.ascontiguousarray(array),
        subfiletype=int(page.subfiletype),
        planarconfig="contig" if array.ndim == 3 else None,
        metadata=None,
        software=False,
        contiguous=False,
        maxworkers=1,
        extratags=_carried_tags(file, page),
        **options,
    )


def _times(fraction: Any, scale: int) -> Any:
    """Return a (numerator, denominator) times `scale`, unchanged where it would no longer fit 32 bits."""
    return (fraction[0] * scale, fraction[1]) if fraction[0] * scale < 2**32 else fraction


def _carried_tags(file: Any, page: Any) -> list[tuple[int, int, int, bytes | int, bool]]:
    tags: list[tuple[int, int, int, bytes | int, bool]] = []
    for tag in page.tags:
        if tag.code in _POINTERS:
            tags.append((_POINTERS[tag.code], 16 if file.is_bigtiff else 4, 1, 0, False))
        elif tag.code not in _STRUCTURAL and (raw := tag_bytes(file, page, tag.code)) is not None:
            raw = reset_xmp_orientation(raw) if tag.code == _XMP and tag_orientation(page) > 1 else raw
            tags.append((tag.code, int(tag.dtype), tag.count, raw, False))
    if 274 in page.tags:
        tags.append((274, 3, 1, 1, False))
    return tags


def _append_directories(source: Any, target: Path) -> None:
    """Copy the EXIF and GPS directories behind the pixels and point the pages at them."""
    pairs = [
        (place, code) for place, page in enumerate(source.pages) for code in _POINTERS if code in page.aspage().tags
    ]
    if not pairs:
        return
    with tifffile.TiffFile(target, mode="r+") as written:
        for place, code in pairs:
            tag = source.pages[place].aspage().tags[code]
            # the entry itself: tifffile's valueoffset of such a tag is already the directory's place
            source.filehandle.seek(tag.offset + (12 if source.is_bigtiff else 8))
            kind = source.byteorder + ("Q" if source.is_bigtiff else "I")
            offset = struct.unpack(kind, source.filehandle.read(struct.calcsize(kind)))[0]
            start = written.filehandle.seek(0, 2)
            start += written.filehandle.write(b"\0" * (start % 2))
            before, after = source.pages[place].aspage(), written.pages[place].aspage()
            scale = math.isqrt(after.imagewidth * after.imagelength // (before.imagewidth * before.imagelength))
            try:
                directory = _copy_directory(source, offset, start, scale=max(1, scale))
            except struct.error:  # the source's own directory is damaged: nothing of it can be carried over
                directory = b"\0" * 24
            written.filehandle.write(directory)
            held = written.pages[place].aspage().tags[_POINTERS[code]]
            held.overwrite(start)
            written.filehandle.seek(held.offset)
            written.filehandle.write(struct.pack(source.byteorder + "H", code))


def _copy_directory(source: Any, offset: int, start: int, *, scale: int = 1, nested: bool = False) -> bytes:
    """Return the directory at `offset` of `source` as bytes to be placed at `start`, with its values behind it.

    Its width and height are multiplied by `scale`.
    """
    order, handle = source.byteorder, source.filehandle
    wide = source.is_bigtiff
    head, entry, link = ("Q", "HHQ", "Q") if wide else ("H", "HHI", "I")
    room, size = struct.calcsize(order + link), struct.calcsize(order + entry)
    handle.seek(offset)
    count = struct.unpack(order + head, handle.read(struct.calcsize(order + head)))[0]
    raw = handle.read(min(count, 4096) * (size + room))
    directory = bytearray(struct.pack(order + head, len(raw) // (size + room)))
    values = bytearray()
    after = start + len(directory) + len(raw) // (size + room) * (size + room) + room
    for place in range(0, len(raw) - size - room + 1, size + room):
        tag, kind, number = struct.unpack_from(order + entry, raw, place)
        value = raw[place + size : place + size + room]
        length = _TYPE_SIZES.get(kind, 1) * number
        if tag in _PIXEL_SIZES and kind in (3, 4) and number == 1:
            code = order + ("H" if kind == 3 else "I")
            size_px = struct.unpack_from(code, value)[0] * scale
            value = struct.pack(code, size_px).ljust(room, b"\0") if size_px < 256 ** struct.calcsize(code) else value
        if tag == _INTEROPERABILITY and not nested:
            place_inside = struct.unpack(order + link, value)[0]
            inner = _copy_directory(source, place_inside, after + len(values), nested=True)
            value = struct.pack(order + link, after + len(values))
            values += inner
        elif room < length <= 64_000_000:
            handle.seek(struct.unpack(order + link, value)[0])
            value = struct.pack(order + link, after + len(values))
            values += handle.read(length)
        values += b"\0" * (len(values) % 2)
        directory += struct.pack(order + entry, tag, kind, number) + value
    return bytes(directory + struct.pack(order + link, 0) + values)
