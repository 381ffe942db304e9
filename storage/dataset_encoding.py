"""Pictures of a data set in a format of the user's choice: sRGB as loaders expect it, without profile and metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.codecs import iter_pages
from storage.colour import working_max
from storage.formats.page import Samples, enlarged_samples, join_alpha, to_vips
from storage.limits import IngestLimits

# Format to the extension of its files: of all that are read, and of those that pictures can be turned into.
FORMAT_EXTENSIONS = {"jpeg": "jpg", "png": "png", "tiff": "tif", "webp": "webp", "jp2": "jp2"}
EXTENSIONS = {name: FORMAT_EXTENSIONS[name] for name in ("png", "webp", "jpeg")}
DEFAULT_QUALITY = 95


def encode(pixels: npt.NDArray[Any], *, format_name: str, quality: int | None, alpha: Samples | None = None) -> bytes:
    """Return (H, W[, 3]) sRGB samples, uint8 or uint16, as a file; the same pixels give the same bytes.

    PNG keeps 16 bits, the others are rounded to 8. JPEG has no alpha: it is laid over white. quality: 1 to 100 of JPEG
    and WebP, None = 95. Raises ValueError for another format.
    """
    if format_name not in EXTENSIONS:
        raise ValueError(f"--format: got {format_name!r}, expected keep, {', '.join(EXTENSIONS)}")
    samples = np.ascontiguousarray(pixels)
    chosen = DEFAULT_QUALITY if quality is None else quality
    if format_name == "png":
        return bytes(to_vips(samples, alpha).pngsave_buffer(compression=6, keep="none"))
    samples = _eight_bits(samples)
    alpha = None if alpha is None else _eight_bits(alpha)
    if format_name == "webp":
        image = to_vips(samples, alpha)
        return bytes(image.webpsave_buffer(Q=chosen, exact=True, smart_subsample=True, effort=4, keep="none"))
    image = to_vips(samples if alpha is None else _over_white(samples, alpha))
    return bytes(image.jpegsave_buffer(Q=chosen, subsample_mode="off", optimize_coding=True, keep="none"))


def alpha_of(source: Path, *, like: npt.NDArray[Any], limits: IngestLimits) -> Samples | None:
    """Return the alpha of a picture file at size and depth of `like`, None when it has none; raises IngestError."""
    page = next(iter(iter_pages(source, limits)))
    if page.alpha is None:
        return None
    white, wanted = page.sample_max, working_max(page.sample_max)
    alpha = (page.alpha.astype(np.uint32) * wanted + white // 2) // white
    return enlarged_samples(alpha.astype(like.dtype), scale=like.shape[0] // page.height)


def _eight_bits(samples: Samples) -> Samples:
    if samples.dtype == np.uint8:
        return samples
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _over_white(samples: Samples, alpha: Samples) -> Samples:
    share = join_alpha(alpha, None).astype(np.uint32) if samples.ndim == 3 else alpha.astype(np.uint32)
    laid: Samples = ((samples.astype(np.uint32) * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)
    return laid
