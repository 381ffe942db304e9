"""Picture files to pages and back: one decoder and one rewriter over all formats, chosen by content, never by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from models.types import ImageFormat
from storage.errors import IngestError
from storage.formats import jp2, jpeg, png, tiff, tiff_rewrite, webp
from storage.formats.page import DecodedPage, Samples
from storage.limits import IngestLimits

__all__ = ["DecodedPage", "IngestError", "decode", "iter_pages", "rewrite", "sniff"]

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DECODERS = {"jpeg": jpeg.decode, "png": png.decode, "webp": webp.decode, "jp2": jp2.decode}
_ENCODERS = {"jpeg": jpeg.encode, "png": png.encode, "webp": webp.encode, "jp2": jp2.encode}


def sniff(head: bytes) -> ImageFormat:
    """Return the format the first 12 bytes announce; raises IngestError of kind not_an_image."""
    if head.startswith(_TIFF_SIGNATURES):
        return "tiff"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(png.SIGNATURE):
        return "png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith((jp2.BOX_SIGNATURE, jp2.CODESTREAM_SIGNATURE)):
        return "jp2"
    if len(head) < 12:
        raise IngestError("truncated", f"The file has only {len(head)} bytes; expected a picture. Fetch a whole copy.")
    raise IngestError(
        "not_an_image",
        f"The file begins with {head[:8]!r}; expected JPEG, PNG, TIFF, WebP or JPEG 2000. Remove or convert it.",
    )


def iter_pages(data: bytes | Path, limits: IngestLimits) -> Iterator[DecodedPage]:
    """Yield the pages of a picture file, one in memory at a time; headers are checked before pixels are decoded.

    Raises IngestError, also after some pages when a later one is damaged.
    """
    if isinstance(data, Path) and data.stat().st_size > limits.max_file_bytes:
        raise IngestError(
            "too_large", f"The file has {data.stat().st_size:,} bytes; at most {limits.max_file_bytes:,}."
        )
    kind = sniff(_head(data))
    if kind == "tiff":
        yield from tiff.iter_pages(data, limits)
    else:
        yield _DECODERS[kind](data.read_bytes() if isinstance(data, Path) else data, limits)


def decode(data: bytes | Path, *, limits: IngestLimits) -> list[DecodedPage]:
    """Return all pages of a picture file at full depth in the source's colour space; raises IngestError."""
    return list(iter_pages(data, limits))


def rewrite(
    source: bytes | Path,
    target: Path,
    *,
    replace: Callable[[DecodedPage], Samples],
    limits: IngestLimits,
    largest_scale: int = 1,
) -> None:
    """Write `source` to the file `target` with the upright array that `replace` returns for each page.

    `replace` may change and return the page's own array, or one up to `largest_scale` times larger. Format, depth,
    compression family, ICC, EXIF, IPTC, XMP, DPI, alpha and page count are those of the source (DPI times the scale);
    orientation becomes 1. Raises IngestError for a damaged source.
    """
    kind = sniff(_head(source))
    if kind == "tiff":
        tiff_rewrite.rewrite(source, target, replace, limits, largest_scale=largest_scale)
        return
    data = source.read_bytes() if isinstance(source, Path) else source
    page = _DECODERS[kind](data, limits)
    target.write_bytes(_ENCODERS[kind](page, replace(page), data))


def _head(data: bytes | Path) -> bytes:
    if isinstance(data, bytes):
        return data[:12]
    with data.open("rb") as file:
        return file.read(12)
