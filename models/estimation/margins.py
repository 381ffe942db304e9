"""Where a picture lies on its page: inside margins of one colour, which say nothing of its faults.

A white border has no noise however noisy the photograph on it is, and hides its fading and its cast, too.
"""

from __future__ import annotations

import numpy as np

from models.estimation.patches import BLOCK, LEVELS, Pixels

# Most that a line of a margin varies, in 8-bit levels: what is left of one after a mild compression.
_PLAIN_LEVELS = 6.0
# Less than this is not what the picture is about, but a seal or a caption on an empty page.
_SMALLEST_PX, _SMALLEST_SHARE = 96, 0.1
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
    rows, columns = slice(0, height), slice(0, width)
    most = _PLAIN_LEVELS / 255.0 * LEVELS.get(image.dtype, 1.0)
    for _ in range(2):  # where margins of two colours meet, one only shows when the other is gone
        rows = _trimmed(rows, image[rows, columns], most=most)
        columns = _trimmed(columns, image[rows, columns].swapaxes(0, 1), most=most)
    sides = rows.stop - rows.start, columns.stop - columns.start
    if min(sides) < _SMALLEST_PX or sides[0] * sides[1] < _SMALLEST_SHARE * height * width:
        return slice(0, height), slice(0, width)
    return rows, columns


def _trimmed(place: slice, lines: Pixels, *, most: float) -> slice:
    """Return `place`, where `lines` are, without the plain ones at either end."""
    first, last = _plain_lines(lines, most=most), _plain_lines(lines[::-1], most=most)
    start = place.start + -(-first // BLOCK) * BLOCK + _SHARED_PX if first else place.start
    stop = place.stop - last - _SHARED_PX if last else place.stop
    return slice(start, max(start, stop))


def _plain_lines(lines: Pixels, *, most: float) -> int:
    """Return how many of the lines are plain before the first that is not."""
    step = max(1, lines.shape[1] // _PIXELS_READ)
    for start in range(0, len(lines), _LINES_READ) if lines.size else ():
        part = lines[start : start + _LINES_READ, ::step]
        varied = np.ptp(part, axis=1).reshape(len(part), -1).max(axis=1) > most
        if varied.any():
            return start + int(varied.argmax())
    return len(lines)
