"""Where a detector takes intact photographs for damaged ones: a training that draws more from there unlearns it.

Hard negatives, as in Felzenszwalb et al. (TPAMI 2010) and Shrivastava et al. (OHEM, CVPR 2016): of thousands of places
in a training set only foliage, railings, rough stone and the like still teach a finished detector what is no damage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

# Rows of (picture, row, column): the middles of the places, in pixels.
Places: TypeAlias = NDArray[np.int64]

_CELL_PX = 32
# Below this probability a pixel is far from being marked.
_DOUBTFUL = 0.25


def hard_places(
    photographs: Iterable[NDArray[np.uint8]],
    look: Callable[[NDArray[Any]], NDArray[np.uint8]],
    *,
    count: int,
    rng: np.random.Generator,
) -> Places:
    """Return `count` rows (picture, row, column) drawn from intact `photographs` (H, W) by how wrong `look` is there.

    look: the probability of damage (H, W), 0-255. A cell of 32 pixels a side is drawn in proportion to the root of its
    mean squared probability above 0.25, so that a few hopeless pictures do not become all there is. Raises ValueError
    where nothing is taken for damage.
    """
    rows, mass = [], []
    for index, picture in enumerate(photographs):
        seen = look(picture).astype(np.float32) * np.float32(1 / 255)
        wrong = np.where(seen >= _DOUBTFUL, seen * seen, 0)
        height, width = (side // _CELL_PX for side in picture.shape)
        cells = cv2.resize(
            wrong[: height * _CELL_PX, : width * _CELL_PX], (width, height), interpolation=cv2.INTER_AREA
        )
        for row, column in np.argwhere(cells > 0):
            rows.append((index, int((row + 0.5) * _CELL_PX), int((column + 0.5) * _CELL_PX)))
            mass.append(float(np.sqrt(cells[row, column])))
    if not rows:
        raise ValueError("hard places: the detector takes nothing in these photographs for damage; leave them out")
    shares = np.array(mass) / np.sum(mass)
    return np.array(rows, np.int64)[rng.choice(len(rows), count, p=shares)]
