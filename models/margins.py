"""Where a picture lies on its page: inside margins of one colour, which say nothing of its faults.

A white border has no noise however noisy the photograph on it is, and hides its fading and its cast, too; a network
that sees both takes the picture for cleaner than it is (docs/decisions/0036).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from models.estimation.patches import BLOCK, LEVELS, Pixels

# Most that a line of a margin varies, in 8-bit levels: what is left of one after a mild compression.
_PLAIN_LEVELS = 6.0
# Less than this is not what the picture is about, but a seal or a caption on an empty page.
_SMALLEST_PX, _SMALLEST_SHARE = 96, 0.1
# Most that the pixels of an untouched margin differ, in 8-bit levels, and the smallest picture restored without it.
_EVEN_LEVELS, _SMALLEST_ALONE_PX = 2.0, 64
# A line is judged by so many of its pixels, at least; columns of a large scan lie all over its file.
_PIXELS_READ = 256
_LINES_READ = 64
# A JPEG has blocks of picture and margin; those of its colours have 16 px.
_SHARED_PX = 16


def inside_margins(image: Pixels) -> tuple[slice, slice]:
    """Return rows and columns of `image`, (H, W) or (H, W, 3), without plain margins, from multiples of 8 px on.

    Margins are lines along an edge that hardly vary (8-bit levels for integers, [0, 1] for floats). Up to 23 px of the
    picture are left out rather than one line of a margin left in: where it touches the picture, noise seems to end.
    Everything is returned where nothing is a margin, or where too little would be left.
    """
    height, width = image.shape[:2]
    rows, columns = _without(image, _trimmed, levels=_PLAIN_LEVELS)
    sides = rows.stop - rows.start, columns.stop - columns.start
    if min(sides) < _SMALLEST_PX or sides[0] * sides[1] < _SMALLEST_SHARE * height * width:
        return slice(0, height), slice(0, width)
    return rows, columns


def between_even_margins(image: Pixels) -> tuple[slice, slice]:
    """Return rows and columns of `image`, (H, W) or (H, W, 3), between margins in which there is nothing to restore.

    Such a margin lies along two opposite edges, has one and the same colour there, and ends where the picture, or
    what a compression left of it on the margin, begins. The even sky of a picture is at one edge only, and stays with
    it. Everything is returned where there are no such margins, or less than 64 px a side between them.
    """
    rows, columns = _without(image, _between, levels=_EVEN_LEVELS)
    if min(rows.stop - rows.start, columns.stop - columns.start) < _SMALLEST_ALONE_PX:
        return slice(0, image.shape[0]), slice(0, image.shape[1])
    return rows, columns


def put_between(image: Pixels, restored: Pixels, *, place: tuple[slice, slice]) -> Pixels:
    """Return `image` with `restored` at `place`; `restored` itself, of whatever size, where that is all of it."""
    if image[place].shape == image.shape:
        return restored
    page = np.array(image)
    page[place] = restored
    return page


class _Trim(Protocol):
    """Returns `place`, where `lines` are, without the margins at its ends; `most` as the image's values are."""

    def __call__(self, place: slice, lines: Pixels, *, most: float) -> slice: ...


def _without(image: Pixels, trim: _Trim, *, levels: float) -> tuple[slice, slice]:
    """Return what `trim` leaves of rows and columns, twice: where margins of two colours meet, one hides the other."""
    rows, columns = slice(0, image.shape[0]), slice(0, image.shape[1])
    most = levels / 255.0 * LEVELS.get(image.dtype, 1.0)
    for _ in range(2):
        before = rows, columns
        rows = trim(rows, image[rows, columns], most=most)
        columns = trim(columns, image[rows, columns].swapaxes(0, 1), most=most)
        if (rows, columns) == before:
            break
    return rows, columns


def _between(place: slice, lines: Pixels, *, most: float) -> slice:
    """Return `place`, where `lines` are, without the lines at both ends that have the colour of the first pixel."""
    if not lines.size:
        return place
    colour = lines[0, 0].astype(np.float64)
    first = _even_lines(lines, colour=colour, most=most)
    last = _even_lines(lines[::-1], colour=colour, most=most) if 0 < first < len(lines) else 0
    return slice(place.start + first, place.stop - last) if last else place


def _trimmed(place: slice, lines: Pixels, *, most: float) -> slice:
    """Return `place`, where `lines` are, without the plain ones at either end."""
    first, last = _plain_lines(lines, most=most), _plain_lines(lines[::-1], most=most)
    start = place.start + -(-first // BLOCK) * BLOCK + _SHARED_PX if first else place.start
    stop = place.stop - last - _SHARED_PX if last else place.stop
    return slice(start, max(start, stop))


def _plain_lines(lines: Pixels, *, most: float) -> int:
    """Return how many of the lines are plain, whatever their colour, before the first that is not."""
    return _lines_before(lines, lambda part: np.ptp(part, axis=1), most=most)


def _even_lines(lines: Pixels, *, colour: Pixels, most: float) -> int:
    """Return how many of the lines have this colour all along before the first that has not."""
    return _lines_before(lines, lambda part: np.abs(part - colour).max(axis=1), most=most)


def _lines_before(lines: Pixels, variation: Callable[[Pixels], Pixels], *, most: float) -> int:
    """Return how many lines come before the first whose `variation`, (lines,) or (lines, 3), is above `most`."""
    step = max(1, lines.shape[1] // _PIXELS_READ)
    for start in range(0, len(lines), _LINES_READ) if lines.size else ():
        part = lines[start : start + _LINES_READ, ::step]
        varied = variation(part).reshape(len(part), -1).max(axis=1) > most
        if varied.any():
            return start + int(varied.argmax())
    return len(lines)
