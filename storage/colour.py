"""Between the colour space of a source and the sRGB working space, by ICC profile, at 8 or 16 bits.

16-bit transforms run without lcms's precomputed tables: those were measured to be off by up to 5442 of 65535.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import imagecodecs
import numpy as np
import numpy.typing as npt

from storage.formats.page import Samples

Result = TypeVar("Result")
_RELATIVE = 1
_NO_TABLES = 256
# Half an 8-bit step: profiles this close to sRGB are sRGB written by someone else.
_SAME = 128
_STRIP_PIXELS = 1_000_000
_MOST_THREADS = 4
# A change of this share of the range counts as new content, for which the source's out-of-gamut rest is dropped.
_NEW_CONTENT = 0.1


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """Return the ICC profile of the working space."""
    return bytes(imagecodecs.cms_profile("srgb"))


@dataclass(frozen=True, slots=True)
class Conversion:
    """How one page's colours become sRGB and back; `profile` None = they are sRGB already.

    `grey` pages stay (H, W) both ways.
    """

    profile: bytes | None
    grey: bool

    def to_working(self, array: Samples, sample_max: int) -> Samples:
        """Return (H, W[, 3]) source samples in [0, sample_max] as sRGB uint8 (sample_max <= 255) or uint16."""
        scaled = _rescale(array, sample_max, working_max(sample_max))
        if self.profile is None:
            return scaled
        if not self.grey:
            return _transform(scaled, self.profile, srgb_profile(), "rgb", "rgb")
        return np.ascontiguousarray(_transform(scaled, self.profile, srgb_profile(), "gray", "rgb")[..., 1])

    def to_source(self, working: Samples, sample_max: int) -> Samples:
        """Return sRGB samples in the source's colour space and range."""
        if self.profile is not None:
            if self.grey:
                triple = np.repeat(working[..., None], 3, axis=2)
                working = _transform(triple, srgb_profile(), self.profile, "rgb", "gray").reshape(working.shape)
            else:
                working = _transform(working, srgb_profile(), self.profile, "rgb", "rgb")
        return _rescale(working, working_max(sample_max), sample_max)


def conversion(icc: bytes | None, *, grey: bool) -> Conversion:
    """Return the conversion for a page with profile `icc`; none, a damaged or an ill-fitting one means sRGB."""
    return _conversion(icc, grey) if icc else Conversion(None, grey)


@lru_cache(maxsize=64)
def _conversion(icc: bytes, grey: bool) -> Conversion:
    if icc[16:20] != (b"GRAY" if grey else b"RGB "):
        return Conversion(None, grey)
    candidate = Conversion(icc, grey)
    axis = np.linspace(0, 65535, 9).astype(np.uint16)
    cube = axis[None] if grey else np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(1, -1, 3)
    try:
        difference = np.abs(candidate.to_working(cube, 65535).astype(np.int64) - cube)
        candidate.to_source(cube, 65535)
    except (RuntimeError, ValueError):
        return Conversion(None, grey)
    return Conversion(None, grey) if int(difference.max()) <= _SAME else candidate


def working_max(sample_max: int) -> int:
    """Return the white of the working copy for a source whose white is `sample_max`: 255 or 65535."""
    return 255 if sample_max <= 255 else 65535


def strips(height: int, width: int) -> list[slice]:
    """Return row slices of about a million pixels, so that temporary arrays stay small."""
    rows = max(1, _STRIP_PIXELS // max(width, 1))
    return [slice(first, min(first + rows, height)) for first in range(0, height, rows)]


def merge(source: Samples, restored: Any, *, how: Conversion, sample_max: int) -> Samples:
    """Write the restored pixels into `source`, in place if it is writable, and return it.

    source: (H, W[, 3]) in its own colours, [0, sample_max]. restored: sRGB of the same shape, 8 or 16 bits as
    `to_working` gives. A pixel whose working value did not change keeps its exact source value. A changed pixel keeps
    what its source colour held beyond the sRGB gamut and rounding, fading out as the change reaches a tenth of the
    range, so that saturated colours of wide-gamut scans are not clipped by a slight denoising.
    """
    out = source if source.flags.writeable else source.copy()

    def merge_rows(rows: slice) -> None:
        working = how.to_working(out[rows], sample_max)
        new = np.asarray(restored[rows])
        changed = _over_channels(np.logical_or, working != new, colour=working.ndim == 3)
        if changed.any():
            out[rows][changed] = _carry(out[rows][changed], working[changed], new[changed], how, sample_max)

    for _ in map_strips(merge_rows, strips(*source.shape[:2])):
        pass
    return out


def map_strips(function: Callable[[slice], Result], slices: list[slice]) -> Iterator[Result]:
    """Yield `function` of every slice in order, a few at a time in threads: the transforms run outside the GIL."""
    workers = min(_MOST_THREADS, os.cpu_count() or 1)
    if workers == 1 or len(slices) == 1:
        yield from map(function, slices)
        return
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(slices), workers):
            yield from pool.map(function, slices[first : first + workers])


def _carry(source: Any, old: Any, new: Any, how: Conversion, sample_max: int) -> Samples:
    """Convert changed pixels (N,) or (N, 3) from `old` to `new` working values."""
    white = working_max(sample_max)
    value: Samples = how.to_source(new[None], sample_max)[0]
    if how.profile is None:
        return value
    step = _over_channels(np.maximum, np.abs(new.astype(np.int32) - old), colour=old.ndim == 2)
    # Inside the gamut a 16-bit value survives the round trip but for rounding, so only its surface is worth a look.
    kept = step < _NEW_CONTENT * white
    if white > 255:
        kept &= _over_channels(np.logical_or, (old == 0) | (old == white), colour=old.ndim == 2)
    if kept.any():
        weight = (1.0 - step[kept] / (_NEW_CONTENT * white)).reshape(-1, *[1] * (value.ndim - 1))
        rest = source[kept].astype(np.float64) - how.to_source(old[kept][None], sample_max)[0]
        value[kept] = np.clip(np.rint(value[kept] + weight * rest), 0, sample_max)
    converted: Samples = value.astype(source.dtype, copy=False)
    return converted


def _over_channels(join: Callable[[Any, Any], Any], array: Any, *, colour: bool) -> Any:
    """Join the last axis of (…, 3), which numpy's own reductions over so short an axis do slowly; grey stays."""
    return join(join(array[..., 0], array[..., 1]), array[..., 2]) if colour else array


def profile_name(icc: bytes | None) -> str | None:
    """Return the description inside an ICC profile (v2 desc or v4 mluc tag), or None."""
    if icc is None or len(icc) < 132:
        return None
    for index in range(min(int.from_bytes(icc[128:132], "big"), 100)):
        entry = icc[132 + 12 * index : 144 + 12 * index]
        if entry[:4] == b"desc":
            start, size = int.from_bytes(entry[4:8], "big"), int.from_bytes(entry[8:12], "big")
            return _text(icc[start : start + min(size, 4096)])
    return None


def _text(tag: bytes) -> str | None:
    if tag[:4] == b"desc":
        text = tag[12 : 12 + int.from_bytes(tag[8:12], "big")].decode("latin-1")
    elif tag[:4] == b"mluc" and len(tag) >= 28:
        length, start = int.from_bytes(tag[20:24], "big"), int.from_bytes(tag[24:28], "big")
        text = tag[start : start + length].decode("utf-16-be", "replace")
    else:
        return None
    return text.strip("\0 ") or None


def _rescale(array: Samples, from_max: int, to_max: int) -> Samples:
    if from_max == to_max:
        return array
    kind: npt.DTypeLike = np.uint8 if to_max <= 255 else np.uint16
    scaled: Samples = ((array.astype(np.uint32) * to_max + from_max // 2) // from_max).astype(kind)
    return scaled


def _transform(array: Samples, first: bytes, second: bytes, colours: str, out_colours: str) -> Samples:
    result: Samples = imagecodecs.cms_transform(
        np.ascontiguousarray(array),
        first,
        second,
        colorspace=colours,
        outcolorspace=out_colours,
        outdtype=array.dtype,
        intent=_RELATIVE,
        flags=_NO_TABLES,
    )
    return result
