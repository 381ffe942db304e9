"""Natural scene statistics of the luminance: what NIQE and BRISQUE share, computed as their MATLAB releases do.

A. Mittal, A. K. Moorthy, A. C. Bovik, IEEE TIP 21(12), 2012 (BRISQUE); A. Mittal, R. Soundararajan, A. C. Bovik, IEEE
SPL 20(3), 2013 (NIQE). Everything is float64 on the scale 0-255; arithmetic differs from MATLAB's by rounding only.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from scipy.special import gamma as gamma_function

from models.degradations.resample import resize_taps
from models.metrics.planes import Pixels, Plane, select_channel, to_unit

Values = npt.NDArray[np.float64]
Luminance = Literal["grey", "y"]

# The first row of MATLAB's inverse YIQ matrix (rgb2gray); the usual 0.299, 0.587, 0.114 round other pixels up.
_MATLAB_GREY = np.array([0.298936021293775390, 0.587043074451121360, 0.114020904255103250])
_SIZE, _SIGMA = 7, 7 / 6
_ROUNDING = 1e-10
# The shapes tried for a (symmetric or asymmetric) generalised Gaussian: 0.2:0.001:10 in MATLAB.
_SHAPES: Values = 0.2 + 0.001 * np.arange(9801, dtype=np.float64)


def luminance_255(image: Pixels, channel: Luminance = "grey") -> Plane:
    """Return the 8-bit luminance (H, W) of a picture as float64 whole numbers in [0, 255].

    `grey` is MATLAB's rgb2gray (what both releases do), `y` the luma in 16-235 of rgb2ycbcr (usual in
    super-resolution papers). Pictures of one channel are only rounded. Raises ValueError for other shapes and channels.
    """
    if channel not in ("grey", "y"):
        raise ValueError(f"unknown luminance {channel!r}; known: grey, y")
    unit = to_unit(image, round_to_8_bits=True)
    if unit.ndim == 3:
        unit = select_channel(unit, "y") if channel == "y" else unit @ _MATLAB_GREY
    # Half up, as MATLAB rounds positive numbers; the tiny amount keeps x.5 an x.5 after the division by 255.
    whole: Plane = np.floor(unit * 255 + 0.5 + 1e-9)
    return whole


def half_size(plane: Plane) -> Plane:
    """Return MATLAB's imresize(plane, 0.5): antialiased bicubic, (ceil(H/2), ceil(W/2)), not clipped.

    The scale is exactly one half for odd sizes too, which `resize` to a size would not give.
    """
    indices, weights = resize_taps(64, 32, kernel="bicubic", antialias=True)
    taps, before = weights[16], int(2 * 16 - indices[16, 0])
    result = plane
    for _ in range(2):
        size = (result.shape[0] + 1) // 2
        after = 2 * (size - 1) - before + len(taps) - result.shape[0]
        padded = np.pad(result, ((before, after), (0, 0)), mode="symmetric")
        shrunk = np.zeros((size, padded.shape[1]))
        for offset, weight in enumerate(taps):
            shrunk += weight * padded[offset : offset + 2 * size - 1 : 2]
        result = shrunk.T
    return np.ascontiguousarray(result)


def local_normalised(plane: Plane, *, replicate_border: bool) -> tuple[Plane, Plane]:
    """Return the mean-subtracted, contrast-normalised coefficients and the local standard deviation, both (H, W).

    A 7x7 Gaussian window of sigma 7/6; beyond the border the edge is repeated (NIQE) or there are zeros (BRISQUE).
    """
    line = np.exp(-((np.arange(_SIZE) - _SIZE // 2) ** 2) / (2 * _SIGMA**2))
    line /= line.sum()
    border = cv2.BORDER_REPLICATE if replicate_border else cv2.BORDER_CONSTANT

    def blurred(values: Plane) -> Plane:
        return np.asarray(cv2.sepFilter2D(values, cv2.CV_64F, line, line, borderType=border), np.float64)

    mean = blurred(plane)
    deviation = np.sqrt(np.abs(blurred(plane * plane) - mean * mean))
    difference = plane - mean
    # A pixel that equals its mean must count on neither side; rounding alone would give it a sign.
    difference[np.abs(difference) < _ROUNDING] = 0.0
    return difference / (deviation + 1), deviation


@lru_cache(maxsize=1)
def _ratios() -> tuple[Values, Values]:
    """Squared mean magnitude over mean square, and its inverse, for every shape; the first one increases."""
    middle = gamma_function(2 / _SHAPES) ** 2
    ends = gamma_function(1 / _SHAPES) * gamma_function(3 / _SHAPES)
    return middle / ends, ends / middle


def _nearest(table: Values, wanted: Values) -> npt.NDArray[np.int64]:
    """Index of the entry nearest to each wanted value in an increasing table; the first for ties and for NaN."""
    upper = np.clip(np.searchsorted(table, wanted), 1, len(table) - 1)
    lower = upper - 1
    index = np.where(np.abs(table[lower] - wanted) <= np.abs(table[upper] - wanted), lower, upper)
    return np.where(np.isnan(wanted), 0, index).astype(np.int64)


def _root_mean_square(samples: Values, side: npt.NDArray[np.bool_]) -> Values:
    counts = side.sum(axis=1)
    total = np.where(side, samples * samples, 0.0).sum(axis=1)
    root: Values = np.sqrt(np.divide(total, counts, out=np.full(len(samples), np.nan), where=counts > 0))
    return root


def fit_asymmetric(samples: Values) -> tuple[Values, Values, Values]:
    """Return shape, left and right deviation (N,) of the asymmetric generalised Gaussian of each row (N, samples).

    Moment matching over a table of shapes in [0.2, 10] in steps of 0.001. A side without samples (flat blocks) has a
    deviation of NaN and the row the shape 0.2, as in the MATLAB release.
    """
    left, right = _root_mean_square(samples, samples < 0), _root_mean_square(samples, samples > 0)
    square = (samples * samples).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        skew = left / right
        ratio = np.abs(samples).mean(axis=1) ** 2 / square
        wanted = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape: Values = _SHAPES[_nearest(_ratios()[0], wanted)]
    return shape, left, right


def fit_symmetric(samples: Values) -> tuple[float, float]:
    """Return shape and standard deviation of the zero-mean generalised Gaussian of all samples."""
    square = float(np.mean(samples * samples))
    magnitude = float(np.mean(np.abs(samples)))
    if magnitude == 0:
        return float(_SHAPES[0]), 0.0
    falling = _ratios()[1]
    index = int(np.argmin(np.abs(square / magnitude**2 - falling)))
    return float(_SHAPES[index]), float(np.sqrt(square))


def neighbour_mean(shape: Values, left: Values, right: Values) -> Values:
    """Return the mean of an asymmetric generalised Gaussian whose sides have the scales `left` and `right`."""
    mean: Values = (right - left) * gamma_function(2 / shape) / gamma_function(1 / shape)
    return mean


def side_scale(shape: Values) -> Values:
    """Return the factor from a side's deviation to its scale parameter."""
    factor: Values = np.sqrt(gamma_function(1 / shape) / gamma_function(3 / shape))
    return factor
