"""Tiles with blended overlap: where they lie, and how their results become one picture in bounded memory.

Tile starts are multiples of the network's size multiple, so that strided layers see the same phase as on the whole
picture; in an overlap the outer quarter of each tile is discarded and the middle half cross-fades linearly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.method import largest_value


@dataclass(frozen=True, slots=True)
class Tile:
    """A window of the picture; `rows` and `columns` are its size inside the picture, before padding."""

    top: int
    left: int
    rows: int
    columns: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that it covers."""
        return slice(self.top, self.top + self.rows), slice(self.left, self.left + self.columns)

    def enlarged(self, scale: int) -> Tile:
        """Return the same window on the picture enlarged `scale` times."""
        return Tile(*(scale * length for length in (self.top, self.left, self.rows, self.columns)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TileGrid:
    """How a picture of `height` x `width` is cut: all tiles have the padded size `tile_height` x `tile_width`."""

    height: int
    width: int
    tile_height: int
    tile_width: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    overlap: int

    def tiles(self) -> Iterator[Tile]:
        """Row by row, from the top left."""
        for top in self.tops:
            for left in self.lefts:
                rows = min(self.tile_height, self.height - top)
                yield Tile(top, left, rows, min(self.tile_width, self.width - left))

    def enlarged(self, scale: int) -> TileGrid:
        """Return the same cut of the picture enlarged `scale` times."""
        return TileGrid(
            height=scale * self.height,
            width=scale * self.width,
            tile_height=scale * self.tile_height,
            tile_width=scale * self.tile_width,
            tops=tuple(scale * top for top in self.tops),
            lefts=tuple(scale * left for left in self.lefts),
            overlap=scale * self.overlap,
        )


def tile_grid(height: int, width: int, *, tile: int, overlap: int, multiple: int) -> TileGrid:
    """Cut a picture into tiles of `tile` pixels a side that overlap by `overlap` or more.

    Tiles are larger where `multiple` or the overlap asks for it: two tiles' starts lie a whole `multiple` apart.
    """
    tile_height, tops = _axis(height, tile=tile, overlap=overlap, multiple=multiple)
    tile_width, lefts = _axis(width, tile=tile, overlap=overlap, multiple=multiple)
    return TileGrid(
        height=height,
        width=width,
        tile_height=tile_height,
        tile_width=tile_width,
        tops=tops,
        lefts=lefts,
        overlap=overlap,
    )


def _axis(length: int, *, tile: int, overlap: int, multiple: int) -> tuple[int, tuple[int, ...]]:
    # A cross-fade needs an overlap of its own on either side.
    most = math.ceil(max(tile, 2 * overlap, overlap + multiple) / multiple) * multiple
    return evenly_cut(length, most=most, overlap=overlap, multiple=multiple)


def evenly_cut(length: int, *, most: int, overlap: int, multiple: int) -> tuple[int, tuple[int, ...]]:
    """Return the size of the tiles along a side and their starts: as few as `most` allows, no larger than so many need.

    Size and starts are multiples of `multiple`, and so must `most` be, which is at least `overlap` + `multiple`.
    """
    if length <= most:
        return math.ceil(length / multiple) * multiple, (0,)
    largest_step = (most - overlap) // multiple * multiple
    count = math.ceil((length - most) / largest_step) + 1
    step = min(math.ceil((length - overlap) / (count * multiple)) * multiple, largest_step)
    size = min(math.ceil((step + overlap) / multiple) * multiple, most)
    last = math.ceil((length - size) / multiple) * multiple
    return size, (*range(0, last, step), last)


def cut(image: npt.NDArray[Any], tile: Tile, *, grid: TileGrid) -> npt.NDArray[Any]:
    """Return the tile's pixels, reflected at the bottom and right up to the grid's tile size."""
    window = np.asarray(image[tile.window])
    below, right = grid.tile_height - tile.rows, grid.tile_width - tile.columns
    if below == 0 and right == 0:
        return window
    padding = [(0, below), (0, right), *[(0, 0)] * (window.ndim - 2)]
    return np.pad(window, padding, mode="reflect" if min(window.shape[:2]) > 1 else "edge")


class StripBlender:
    """Collects float results of tiles in order and writes finished rows into an integer picture.

    Only one strip, a tile high and the picture wide, is held in float. `grid` gives the result's size, `original` its
    dtype, channels and, where `mask` (True = may change) is given, the exact values of all other pixels.
    """

    def __init__(
        self, original: npt.NDArray[Any], *, grid: TileGrid, mask: npt.NDArray[np.bool_] | None = None
    ) -> None:
        self._original, self._grid, self._mask = original, grid, mask
        self._channels = 1 if original.ndim == 2 else int(original.shape[2])
        self._sums = np.zeros((grid.tile_height, grid.width, self._channels), np.float32)
        self._weights = np.zeros((grid.tile_height, grid.width, 1), np.float32)
        self._strip_top = 0
        self._remaining = len(grid.tops) * len(grid.lefts)
        self.result: npt.NDArray[Any] = np.empty((grid.height, grid.width, *original.shape[2:]), original.dtype)

    def add(self, tile: Tile, values: npt.NDArray[np.float32]) -> None:
        """Blend in one tile's (rows, columns, channels) result in [0, 1]; tiles must come in the grid's order."""
        if tile.top > self._strip_top:
            self._write_rows(tile.top - self._strip_top)
        weight = self._profile(tile)
        columns = slice(tile.left, tile.left + tile.columns)
        self._sums[: tile.rows, columns] += values[: tile.rows, : tile.columns] * weight
        self._weights[: tile.rows, columns] += weight
        self._remaining -= 1
        if self._remaining == 0:
            self._write_rows(self._grid.height - self._strip_top)

    def _profile(self, tile: Tile) -> npt.NDArray[np.float32]:
        rows = _ramp(
            tile.rows, overlap=self._grid.overlap, start=tile.top > 0, end=tile.top + tile.rows < self._grid.height
        )
        columns = _ramp(
            tile.columns,
            overlap=self._grid.overlap,
            start=tile.left > 0,
            end=tile.left + tile.columns < self._grid.width,
        )
        return (rows[:, None] * columns[None, :])[:, :, None]

    def _write_rows(self, count: int) -> None:
        rows = slice(self._strip_top, self._strip_top + count)
        dtype = self.result.dtype
        values = self._sums[:count] / self._weights[:count]
        if not np.isfinite(values).all():
            raise ValueError(
                f"restored rows {rows.start} to {rows.stop - 1}: got NaN or infinite values, expected finite ones; the "
                "method's weights or arithmetic are at fault: try precision float32"
            )
        whole = np.rint(np.clip(values, 0.0, 1.0) * largest_value(dtype)).astype(dtype)
        whole = whole[:, :, 0] if self.result.ndim == 2 else whole
        if self._mask is not None:
            changes = self._mask[rows] if self.result.ndim == 2 else self._mask[rows][:, :, None]
            whole = np.where(changes, whole, self._original[rows])
        self.result[rows] = whole
        for buffer in (self._sums, self._weights):
            kept = buffer.shape[0] - count
            if kept > 0:
                buffer[:kept] = buffer[count:].copy()
            buffer[max(kept, 0) :] = 0.0
        self._strip_top += count


def _ramp(length: int, *, overlap: int, start: bool, end: bool) -> npt.NDArray[np.float32]:
    weights = np.ones(length, np.float32)
    if overlap > 0:
        rise = np.clip((np.arange(overlap) - overlap / 4 + 0.5) / (overlap / 2), 0.0, 1.0).astype(np.float32)
        if start:
            weights[:overlap] *= rise[:length]
        if end:
            weights[-overlap:] *= rise[::-1][-length:]
    return weights
