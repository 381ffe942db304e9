"""How much of each of several results goes into a picture, from place to place, and putting them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
_STRIP_PIXELS = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """Shares at the nodes of a grid; between them they go over linearly, beyond the outermost they stay.

    rows (R,) and columns (C,): where the nodes lie, in pixels, rising. values (R, C, K + 1), summing to 1: of each of K
    results, and last of the picture as it is.
    """

    rows: FloatArray
    columns: FloatArray
    values: FloatArray

    def means(self) -> FloatArray:
        """Return the mean share of each result, and of the picture as it is (K + 1,), over the nodes."""
        return np.asarray(self.values.mean(axis=(0, 1)), np.float32)

    def of_rows(self, top: int, bottom: int, *, width: int) -> FloatArray:
        """Return the shares (bottom - top, width, K + 1) of some rows of a picture."""
        first, second, further = _between(self.rows, np.arange(top, bottom))
        lines = self.values[first] + further[:, None, None] * (self.values[second] - self.values[first])
        first, second, further = _between(self.columns, np.arange(width))
        found = lines[:, first] + further[None, :, None] * (lines[:, second] - lines[:, first])
        return np.asarray(found, np.float32)


def _between(nodes: FloatArray, places: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], FloatArray]:
    """Return for every place the node before, the one after, and how far it is from the one to the other."""
    found = np.interp(places, nodes, np.arange(len(nodes)))
    first = np.minimum(found.astype(np.int64), len(nodes) - 1)
    return first, np.minimum(first + 1, len(nodes) - 1), np.asarray(found - first, np.float32)


def mixed(
    image: npt.NDArray[Any], results: Sequence[npt.NDArray[Any]], *, shares: Shares, strength: float = 1.0
) -> npt.NDArray[Any]:
    """Return the mixture of `results` and `image`, all (H, W) or (H, W, 3) of one dtype, `strength` of the way to it.

    Where the picture's own share is 1 its values are kept exactly.
    """
    height, width = image.shape[:2]
    out = np.empty_like(image)
    whole = np.issubdtype(image.dtype, np.integer)
    step = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        found = shares.of_rows(top, bottom, width=width)
        before = image[top:bottom].astype(np.float32)
        change = np.zeros_like(before)
        for index, result in enumerate(results):
            share = found[..., index] if image.ndim == 2 else found[..., index, None]
            change += share * (result[top:bottom].astype(np.float32) - before)
        after = before + np.float32(strength) * change
        out[top:bottom] = np.rint(after) if whole else after
    return out
