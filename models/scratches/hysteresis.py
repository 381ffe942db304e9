"""Turns a probability map into a mask: strong pixels seed components, weaker ones grow them, tiny ones are dropped.

Works strip by strip with a union-find over the strips' borders, so that a 100-megapixel map needs the labels of one
strip at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

IntArray: TypeAlias = NDArray[np.int64]

_STRIP_PIXELS = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Probabilities in [0, 1]: `high` seeds a component, `low` grows it; below `smallest_px` pixels it is dropped.

    A component of more than `largest_share` of the picture and `largest_px` pixels is dropped, too: no scratch is that
    large, but a lattice, a net or a striped cloth of the scene can be, and filling it would destroy the picture.
    """

    high: float
    low: float
    smallest_px: int
    largest_share: float = 0.1
    largest_px: int = 2000

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high <= 1:
            raise ValueError(f"thresholds: expected 0 < low <= high <= 1, got low={self.low}, high={self.high}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The mask (H, W) bool and, per kept component, its area in pixels and mean probability in [0, 1]."""

    mask: NDArray[np.bool_]
    areas: IntArray
    probabilities: NDArray[np.float64]


def _strips(probability: NDArray[np.uint8], low: int, strip_rows: int) -> Iterator[tuple[int, NDArray[np.int32], int]]:
    """Yield top row, labels (0 = background) and number of labels of each strip of the grown mask."""
    for top in range(0, probability.shape[0], strip_rows):
        grown = (probability[top : top + strip_rows] >= low).view(np.uint8)
        count, labels = cv2.connectedComponents(grown, connectivity=8, ltype=cv2.CV_32S)
        yield top, np.asarray(labels, np.int32), count - 1


def _find(parents: IntArray, label: int) -> int:
    while parents[label] != label:
        parents[label] = parents[parents[label]]
        label = int(parents[label])
    return label


def _join(parents: IntArray, above: IntArray, below: IntArray) -> None:
    """Unite the labels (0 = none) of two neighbouring rows that touch, also diagonally."""
    for shift in (-1, 0, 1):
        upper = above[max(0, shift) : len(above) + min(0, shift)]
        lower = below[max(0, -shift) : len(below) + min(0, -shift)]
        touching = (upper > 0) & (lower > 0)
        for a, b in np.unique(np.stack([upper[touching], lower[touching]], axis=1), axis=0).tolist():
            root_a, root_b = _find(parents, a), _find(parents, b)
            parents[max(root_a, root_b)] = min(root_a, root_b)


def grow_mask(probability: NDArray[np.uint8], thresholds: Thresholds, *, strip_rows: int | None = None) -> Components:
    """Return the components of `probability` (H, W; 0-255 = 0-1) that `thresholds` keep."""
    rows = strip_rows or max(64, _STRIP_PIXELS // max(1, probability.shape[1]))
    low, high = max(1, round(thresholds.low * 255)), round(thresholds.high * 255)
    # Entry 0 of every list stands for the background, label 0.
    areas: list[NDArray[np.float64]] = [np.zeros(1)]
    sums: list[NDArray[np.float64]] = [np.zeros(1)]
    peaks: list[NDArray[np.float64]] = [np.zeros(1)]
    offsets: list[int] = [0]
    borders: list[tuple[IntArray, IntArray]] = []
    for top, labels, count in _strips(probability, low, rows):
        flat = np.flatnonzero(labels)
        names, values = labels.reshape(-1)[flat], probability[top : top + rows].reshape(-1)[flat]
        areas.append(np.bincount(names, minlength=count + 1)[1:].astype(np.float64))
        sums.append(np.bincount(names, weights=values, minlength=count + 1)[1:].astype(np.float64))
        peak = np.zeros(count + 1)
        np.maximum.at(peak, names, values)
        peaks.append(peak[1:])
        shift = offsets[-1]
        first, last = (np.where(row > 0, row.astype(np.int64) + shift, 0) for row in (labels[0], labels[-1]))
        borders.append((first, last))
        offsets.append(shift + count)
    parents = np.arange(offsets[-1] + 1, dtype=np.int64)
    for (_, above), (below, _) in pairwise(borders):
        _join(parents, above, below)
    roots = np.array([_find(parents, label) for label in range(len(parents))], np.int64)
    area = np.bincount(roots, weights=np.concatenate(areas), minlength=len(parents))
    total = np.bincount(roots, weights=np.concatenate(sums), minlength=len(parents))
    best = np.zeros(len(parents))
    np.maximum.at(best, roots, np.concatenate(peaks))
    largest = max(float(thresholds.largest_px), thresholds.largest_share * probability.size)
    kept = (best >= high) & (area >= max(1, thresholds.smallest_px)) & (area <= largest)
    mask = np.zeros(probability.shape, np.bool_)
    for (top, labels, count), shift in zip(_strips(probability, low, rows), offsets, strict=False):
        keep = np.concatenate([[False], kept[roots[shift + 1 : shift + count + 1]]])
        mask[top : top + rows] = keep[labels]
    return Components(mask=mask, areas=area[kept].astype(np.int64), probabilities=total[kept] / area[kept] / 255)
