"""What treatments do to a small part of a picture, in numbers: evidence for what they would bring to all of it.

A denoiser that takes away white noise of one strength everywhere has found noise; one that takes away structure, where
structure is, has found texture. Which it is shows in the difference it makes, however unsure every estimate is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.estimation.patches import FloatArray, without_gutters
from models.margins import inside_margins
from models.routing.treatments import GRAIN, TREATMENTS

TRIAL_SIDE = 96
# Positions of the window that are looked at, a side, and which of them is taken: of those sorted by contrast, the one
# three quarters up. Empty margins show nothing, and the strongest edges are not what most of a picture is.
_POSITIONS, _RANK = 5, 0.75
_NUMBERS_EACH = 15
_LOG_FLOOR = 0.05
# Which of a treatment's numbers are the RMS of its change where the picture is flat and how alike that is from pixel to
# pixel, and from where on they are those of grain (docs/decisions/0039).
_FLAT, _BESIDE = 1, 3
_GRAIN_RMS, _GRAIN_BESIDE = 2.5, 0.3
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def trial_size() -> int:
    """Return how many numbers a trial gives."""
    count = len(TREATMENTS)
    return _NUMBERS_EACH * count + count * (count - 1) + 1


def trial_window(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a copy of what of `image`, (H, W) or (H, W, 3), treatments are tried on: TRIAL_SIDE px a side or less."""
    top, left = trial_corner(image)
    return np.ascontiguousarray(image[top : top + TRIAL_SIDE, left : left + TRIAL_SIDE])


def trial_corner(image: npt.NDArray[Any]) -> tuple[int, int]:
    """Return the upper left corner of that window, in no plain margin, across no gutter."""
    rows, columns = inside_margins(image)
    starts = rows.start, columns.start
    spans = [max(0, lines.stop - lines.start - TRIAL_SIDE) for lines in (rows, columns)]
    corners = [
        (starts[0] + round(row * spans[0] / (_POSITIONS - 1)), starts[1] + round(column * spans[1] / (_POSITIONS - 1)))
        for row in range(_POSITIONS)
        for column in range(_POSITIONS)
    ]
    corners = list(dict.fromkeys(corners))
    windows = [image[top : top + TRIAL_SIDE, left : left + TRIAL_SIDE] for top, left in corners]
    kept = without_gutters(windows)
    corners, windows = [corners[index] for index in kept], [windows[index] for index in kept]
    order = np.argsort([float(window[::4, ::4].std()) for window in windows], kind="stable")
    return corners[int(order[int(_RANK * (len(order) - 1))])]


def trial_evidence(window: npt.NDArray[Any], results: Sequence[npt.NDArray[Any]]) -> FloatArray:
    """Return the (trial_size(),) float32 numbers of one window, (H, W) or (H, W, 3), and its results, same dtype.

    Of each result: how large the change is, in all, where the picture is flat, and in its slow and coloured parts; how
    alike it is from pixel to pixel; how heavy its tails are; whether it follows a grid of 8 px; what becomes of detail.
    Of each pair: how alike their changes are. Last, how much of the picture is in what `denoise` takes away.
    """
    before, luma = _levels(window), _luma(_levels(window))
    after = [_levels(result) for result in results]
    first = _luma(after[0])
    slope = np.hypot(cv2.Sobel(first, cv2.CV_32F, 1, 0), cv2.Sobel(first, cv2.CV_32F, 0, 1))
    busy = cv2.GaussianBlur(slope, (0, 0), 2)
    flat = busy <= np.median(busy)
    changes = [_luma(result) - luma for result in after]
    numbers: list[float] = []
    for result, change in zip(after, changes, strict=True):
        numbers += _of_change(change, flat=flat)
        numbers += _of_detail(_luma(result), luma, flat=flat)
        numbers.append(_log_rms(_colour(result) - _colour(before)))
        numbers += [float(np.log(level + 0.1)) for level in np.quantile(np.abs(change), (0.5, 0.9, 0.99))]
    for i, change in enumerate(changes):
        for other in changes[:i]:
            numbers += [_likeness(change, other), _log_rms(change - other)]
    numbers.append(_likeness(changes[0] - changes[0].mean(), first - first.mean(), floor=0.3))
    return np.asarray(numbers, np.float32)


def shows_grain(evidence: FloatArray) -> npt.NDArray[np.bool_]:
    """Return whether each trial, at the end of evidence (P, E), took away grain; (P,).

    What `degrain` takes from flat parts is then of an RMS that can be seen, in grey levels, and alike from pixel to
    pixel. White noise is not alike, and from texture that is, little is taken where the picture is flat.
    """
    start = evidence.shape[1] - trial_size() + _NUMBERS_EACH * TREATMENTS.index(GRAIN)
    rms = np.exp(evidence[:, start + _FLAT]) - _LOG_FLOOR
    return np.asarray((rms >= _GRAIN_RMS) & (evidence[:, start + _BESIDE] >= _GRAIN_BESIDE))


def _of_change(change: FloatArray, *, flat: npt.NDArray[np.bool_]) -> list[float]:
    power = float(np.square(change).mean()) + 1e-3
    beside = 0.5 * (_product(change[:, 1:], change[:, :-1]) + _product(change[1:], change[:-1]))
    further = 0.5 * (_product(change[:, 2:], change[:, :-2]) + _product(change[2:], change[:-2]))
    busy_rms = _rms(change[~flat]) if not flat.all() else _rms(change)
    across, down = np.abs(np.diff(change, axis=1)).mean(axis=0), np.abs(np.diff(change, axis=0)).mean(axis=1)
    return [
        _log_rms(change),
        _log_rms(change[flat]),
        _log_rms(cv2.GaussianBlur(change, (0, 0), 3)),
        beside / power,
        further / power,
        _product(change[1:, 1:], change[:-1, :-1]) / power,
        float(np.log((float((change**4).mean()) + 1e-6) / power**2)),
        float(np.log((_rms(change[flat]) + 0.1) / (busy_rms + 0.1))),
        _grid(across) + _grid(down),
    ]


def _of_detail(after: FloatArray, before: FloatArray, *, flat: npt.NDArray[np.bool_]) -> list[float]:
    fine_after, fine_before = cv2.Laplacian(after, cv2.CV_32F), cv2.Laplacian(before, cv2.CV_32F)
    return [
        float(np.log((_rms(fine_after) + 0.5) / (_rms(fine_before) + 0.5))),
        float(np.log((_rms(fine_after[flat]) + 0.5) / (_rms(fine_before[flat]) + 0.5))),
    ]


def _grid(steps: FloatArray) -> float:
    """Return how far the strongest of eight phases stands out of the steps between neighbouring lines."""
    count = len(steps) // 8 * 8
    if count < 16:
        return 0.0
    phases = steps[:count].reshape(-1, 8).mean(axis=0)
    return float(np.log((phases.max() + 0.05) / (np.median(phases) + 0.05)))


def _levels(image: npt.NDArray[Any]) -> FloatArray:
    scale = 255.0 / np.iinfo(image.dtype).max
    return np.asarray(image, np.float32) * np.float32(scale)


def _luma(image: FloatArray) -> FloatArray:
    return image if image.ndim == 2 else np.asarray(image @ _LUMA, np.float32)


def _colour(image: FloatArray) -> FloatArray:
    return np.zeros((1, 1), np.float32) if image.ndim == 2 else image - image.mean(axis=-1, keepdims=True)


def _rms(values: npt.NDArray[Any]) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def _log_rms(values: npt.NDArray[Any]) -> float:
    return float(np.log(_rms(values) + _LOG_FLOOR))


def _product(one: FloatArray, other: FloatArray) -> float:
    return float((one * other).mean())


def _likeness(one: FloatArray, other: FloatArray, *, floor: float = 0.03) -> float:
    return _product(one, other) / ((_rms(one) + floor) * (_rms(other) + floor))
