"""The quality a JPEG was saved at, from its luminance quantization table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# ITU-T T.81 Annex K, table K.1, in row order.
_ANNEX_K_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=np.int64,
)
_ZIGZAG = np.array(sorted(range(64), key=lambda i: (i // 8 + i % 8, (i // 8 if (i // 8 + i % 8) % 2 else i % 8))))
# Beyond this relative misfit the table follows another recipe (Photoshop, cameras) and a number would mislead.
_WORST_MISFIT = 0.25


def ijg_table(quality: int) -> npt.NDArray[np.int64]:
    """Return the 64 luminance steps, zigzag order, that the IJG library writes at `quality` 1-100."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    table: npt.NDArray[np.int64] = np.clip((_ANNEX_K_LUMA.ravel()[_ZIGZAG] * scale + 50) // 100, 1, 255)
    return table


_ALL_TABLES = np.stack([ijg_table(quality) for quality in range(1, 101)])


def table_quality(table: npt.ArrayLike) -> tuple[float | None, float]:
    """Return (quality 1-100, confidence 0-1) of a luminance table of 64 steps in zigzag order.

    Least squares against Annex K scaled as IJG does: exact, with confidence 1, for tables IJG made. (None, 0) when the
    best fit misses by a quarter of the mean step.
    """
    steps = np.asarray(table, dtype=np.int64)
    errors = ((_ALL_TABLES - steps) ** 2).sum(axis=1)
    best = int(errors.argmin())
    if errors[best] == 0:
        return float(best + 1), 1.0
    misfit = float(np.abs(_ALL_TABLES[best] - steps).mean() / steps.mean())
    if misfit > _WORST_MISFIT:
        return None, 0.0
    return float(best + 1), 1.0 - misfit / _WORST_MISFIT
