"""TIFF and BigTIFF: pages decoded by tifffile at full depth, one at a time, after their headers were checked."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from storage.errors import IngestError
from storage.formats.page import DecodedPage, check_pixels, upright
from storage.limits import IngestLimits

MINISWHITE, MINISBLACK, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
_COMPRESSIONS = {
    1: "none", 2: "ccitt-rle", 3: "ccitt-g3", 4: "ccitt-g4", 5: "lzw", 7: "jpeg", 8: "deflate", 32773: "packbits",
    32946: "deflate", 34712: "jpeg2000", 34925: "lzma", 50000: "zstd", 50001: "webp",
}  # fmt: skip
_REDUCED, _MASK = 1, 4
_EXIF_POINTER, _XMP, _IPTC, _ICC, _ORIENTATION = 34665, 700, 33723, 34675, 274
#: What tifffile and its codecs raise on damaged files.
DECODE_ERRORS = (
    tifffile.TiffFileError, ValueError, RuntimeError, struct.error, EOFError, IndexError, KeyError, TypeError,
    ZeroDivisionError, OverflowError, AttributeError,
)  # fmt: skip


@contextmanager
def open_tiff(data: bytes | Path) -> Iterator[Any]:
    """Yield the open `tifffile.TiffFile`; raises IngestError when the header is damaged or cut off."""
    size = len(data) if isinstance(data, bytes) else data.stat().st_size
    try:
        file = tifffile.TiffFile(io.BytesIO(data) if isinstance(data, bytes) else data)
    except DECODE_ERRORS as error:
        raise _damaged_header(data, size, error) from error
    try:
        yield file
    finally:
        file.close()


def main_pages(file: Any, limits: IngestLimits) -> list[Any]:
    """Return the pages that are pictures, checked: not the thumbnails, pyramid levels or masks beside them."""
    with decoding("The TIFF directories are damaged"):
        count = len(file.pages)
        if count > limits.max_pages:
            text = f"The TIFF has {count} pages; at most {limits.max_pages} are allowed (max_pages)."
            raise IngestError("too_many_pages", text)
        pages = [page.aspage() for page in file.pages]
        found = [page for index, page in enumerate(pages) if not is_auxiliary(page, index)]
        for page in found:
            check_page(page, limits)
        for page in pages:
            check_pixels(int(page.imagewidth), int(page.imagelength), limits)
            check_data(page)
    if not found:
        raise IngestError("truncated", "The TIFF holds no page; its directory is missing. Fetch a whole copy.")
    return found


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Turn what tifffile and its codecs raise on damaged files into IngestError of kind decode_failed."""
    try:
        yield
    except DECODE_ERRORS as error:
        raise IngestError("decode_failed", f"{what} ({error}). Fetch a whole copy.") from error


def is_auxiliary(page: Any, index: int) -> bool:
    """Whether the page is a reduced copy or a mask of a page before it."""
    return index > 0 and bool(int(page.subfiletype) & (_REDUCED | _MASK))


def iter_pages(data: bytes | Path, limits: IngestLimits) -> Iterator[DecodedPage]:
    """Yield the pages one after another, so that only one is in memory; raises IngestError."""
    with open_tiff(data) as file:
        pages = main_pages(file, limits)
        for index, page in enumerate(pages):
            with decoding(f"Page {index} cannot be decoded"):
                decoded = decode_page(file, page, index=index, count=len(pages))
            yield decoded
            del decoded


def check_page(page: Any, limits: IngestLimits) -> None:
    """Raise IngestError unless the page's header is one this module restores."""
    check_pixels(int(page.imagewidth), int(page.imagelength), limits)
    photometric = -1 if page.photometric is None else int(page.photometric)
    bits, samples = page.bitspersample, int(page.samplesperpixel)
    jpeg = int(page.compression) == 7
    base = 3 if photometric in (RGB, YCBCR) else 1
    if photometric not in (MINISWHITE, MINISBLACK, RGB, PALETTE) and not (photometric == YCBCR and jpeg):
        raise _unsupported_colour(page, f"photometric {getattr(page.photometric, 'name', photometric)}")
    if samples not in (base, base + 1) or (photometric == PALETTE and samples != 1):
        raise _unsupported_colour(page, f"{samples} channels")
    if int(page.sampleformat or 1) != 1:
        raise _unsupported_colour(page, f"{getattr(page.sampleformat, 'name', page.sampleformat)} samples")
    if not isinstance(bits, int) or bits not in ((1, 2, 4, 8) if photometric == PALETTE else (1, 8, 16)):
        raise IngestError(
            "unsupported_depth", f"Page {page.index} has {bits} bits per sample; expected 1, 8 or 16. Convert it first."
        )
    if len(page.axes.replace("S", "")) != 2:
        raise _unsupported_colour(page, f"axes {page.axes}")


def decode_page(file: Any, page: Any, *, index: int, count: int) -> DecodedPage:
    """Return the decoded page, upright, white as the largest value."""
    array = pixels(page)
    photometric, bits = int(page.photometric), int(page.bitspersample)
    alpha = None
    if array.ndim == 3 and array.shape[2] in (2, 4):
        array, alpha = array[..., :-1].squeeze(-1) if array.shape[2] == 2 else array[..., :-1], array[..., -1]
    if photometric == PALETTE:
        array, bits = expand_palette(page, array)
    sample_max = 2**bits - 1
    if photometric == MINISWHITE:
        array = array.dtype.type(sample_max) - array
    turn = tag_orientation(page)
    return DecodedPage(
        array=upright(array, turn),
        alpha=None if alpha is None else upright(alpha, turn),
        sample_max=sample_max,
        format="tiff",
        compression=_COMPRESSIONS.get(int(page.compression), str(int(page.compression))),
        bits=bits,
        page_index=index,
        page_count=count,
        orientation=turn,
        icc=tag_bytes(file, page, _ICC),
        exif=b"" if _EXIF_POINTER in page.tags else None,
        iptc=tag_bytes(file, page, _IPTC),
        xmp=tag_bytes(file, page, _XMP),
        dpi=_density(page),
    )


def pixels(page: Any) -> Any:
    """Return the stored samples (H, W) or (H, W, C), uint8 or uint16; raises IngestError."""
    with decoding(f"Page {page.index} cannot be decoded"):
        array = page.asarray(maxworkers=1)
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    if page.axes.startswith("S"):
        array = np.ascontiguousarray(np.moveaxis(array, 0, -1))
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def tag_bytes(file: Any, page: Any, code: int) -> bytes | None:
    """Return the raw bytes of a tag's value, in the file's byte order, or None."""
    tag = page.tags.get(code)
    if tag is None or not 0 < tag.valuebytecount <= 64_000_000:
        return None
    file.filehandle.seek(tag.valueoffset)
    return bytes(file.filehandle.read(tag.valuebytecount))


def tag_orientation(page: Any) -> int:
    """Return the page's orientation 1-8; 1 when absent or senseless."""
    tag = page.tags.get(_ORIENTATION)
    value = 1 if tag is None else tag.value
    return int(value) if value in range(1, 9) else 1


def expand_palette(page: Any, indices: Any) -> tuple[Any, int]:
    colours = np.asarray(page.colormap, dtype=np.uint16).T  # (entries, 3)
    # 8-bit values are written as v * 257, by some as v * 256, by others as they are.
    step = next((step for step in (257, 256) if (colours % step == 0).all()), 1)
    if step > 1 or int(colours.max(initial=0)) <= 255:
        colours = (colours // step).astype(np.uint8)
    if int(indices.max(initial=0)) >= len(colours):
        raise IngestError(
            "decode_failed", f"Page {page.index} uses colours its palette of {len(colours)} does not hold."
        )
    return colours[indices], 8 * colours.dtype.itemsize


def check_data(page: Any) -> None:
    """Raise IngestError of kind truncated when strips or tiles are missing or lie beyond the end of the file."""
    size = page.parent.filehandle.size
    offsets, counts = page.dataoffsets, page.databytecounts
    wanted = int(np.prod(page.chunked)) if page.chunked else 1
    missing = [
        place for place, count in zip(offsets, counts, strict=False) if not place or not count or place + count > size
    ]
    short = (
        int(page.compression) == 1
        and sum(counts) * 8 < page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample
    )
    if missing or short or len(offsets) < wanted or len(counts) < wanted:
        raise IngestError(
            "truncated",
            f"Page {page.index}: {max(len(missing), wanted - len(offsets))} of {wanted} strips or tiles lie beyond the "
            f"{size:,} bytes of the file or are too short. Fetch a whole copy.",
        )


def _density(page: Any) -> tuple[float, float] | None:
    unit = page.tags.get(296)
    factor = {2: 1.0, 3: 2.54}.get(int(unit.value) if unit is not None else 2)
    values = [page.tags.get(code) for code in (282, 283)]
    if factor is None or any(value is None for value in values):
        return None
    try:
        x, y = (value.value[0] / value.value[1] * factor for value in values if value is not None)
    except (ZeroDivisionError, TypeError, IndexError):
        return None
    return (x, y) if x > 0 and y > 0 else None


def _unsupported_colour(page: Any, got: str) -> IngestError:
    text = f"Page {page.index} has {got}; expected 8- or 16-bit grey or RGB, with or without alpha. Convert it first."
    return IngestError("unsupported_colour", text)


def _damaged_header(data: bytes | Path, size: int, error: Exception) -> IngestError:
    """Tell a file cut off before or inside its first directory from one whose header is wrong."""
    stream = io.BytesIO(data) if isinstance(data, bytes) else data.open("rb")
    with stream:
        head = stream.read(16)
        order = "<" if head[:2] == b"II" else ">"
        wide = head[2:4] in (b"\x2b\0", b"\0\x2b")
        link, count, entry = ("Q", "Q", 20) if wide else ("I", "H", 12)
        whole = len(head) >= (16 if wide else 8)
        offset = struct.unpack_from(order + link, head, 8 if wide else 4)[0] if whole else size
        stream.seek(min(offset, size))
        counted = stream.read(struct.calcsize(count))
    end = offset + struct.calcsize(count)
    if len(counted) == struct.calcsize(count):
        end += entry * min(struct.unpack(order + count, counted)[0], 4096)
    if end > size:
        text = f"The TIFF has {size:,} bytes, its first directory ends at {end:,}. Fetch a whole copy."
        return IngestError("truncated", text)
    return IngestError("decode_failed", f"The TIFF header is damaged ({error}). Fetch a whole copy.")
