"""Noise level from the statistics of small blocks: smallest eigenvalue of patch covariance, and wavelet median.

Both assume white noise and read the part of the picture that natural detail fills least. On clean texture they report
the texture (up to 9 grey levels), so they are trusted only well above that; the network tells the two apart.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from models.estimation.patches import FloatArray
from models.estimation.rounded import rounded
from models.types import Estimated

BoolArray = npt.NDArray[np.bool_]
DoubleArray = npt.NDArray[np.float64]
_erf = np.vectorize(math.erf, otypes=[np.float64])
_SIDE = 7
_DIMENSION = _SIDE * _SIDE
# Simulated: the root of the smallest eigenvalue of white noise is 1 - 0.93 sqrt(d / n) for n patches at stride 2.
_SHRINK = 0.93
# Strong noise leaves a few pixels at the ends of the range everywhere; patches with more than this share are left out.
_MOST_UNUSABLE = 0.15


def smallest_eigenvalue_sigma(planes: FloatArray, usable: BoolArray) -> float | None:
    """Return the noise sigma of (N, H, W) planes from the smallest eigenvalue of the covariance of 7x7 patches.

    Same unit as the planes. Patches with more than a few unusable pixels are left out; None with fewer than 200 left.
    The smallest eigenvalue of a sample is too small by (1 - sqrt(d / n))^2 (Marchenko and Pastur), which is undone.
    (Pyatykh, Hesser and Zheng, IEEE TIP 22(2), 2013.)
    """
    patches = np.lib.stride_tricks.sliding_window_view(planes, (_SIDE, _SIDE), axis=(1, 2))[:, ::2, ::2]
    bad = _unusable_share(usable)[:, ::2, ::2] > _MOST_UNUSABLE
    # In double precision: what other threads leave free decides how the product is split, and so its last digits.
    chosen = patches[~bad].reshape(-1, _DIMENSION).astype(np.float64)
    if len(chosen) < 200:
        return None
    centred = chosen - chosen.mean(axis=0)
    covariance = centred.T @ centred / len(chosen)
    smallest = max(0.0, float(np.linalg.eigvalsh(covariance)[0]))
    shrink = 1 - _SHRINK * math.sqrt(_DIMENSION / len(chosen))
    return math.sqrt(smallest) / shrink


def _unusable_share(usable: BoolArray) -> FloatArray:
    """Return (N, H - 6, W - 6): the share of unusable pixels in the 7x7 patch that starts there."""
    shares = [cv2.blur((~plane).astype(np.float32), (_SIDE, _SIDE)) for plane in usable]
    half = _SIDE // 2
    return np.stack(shares)[:, half:-half, half:-half].astype(np.float32)


def wavelet_sigma(planes: FloatArray, usable: BoolArray) -> float | None:
    """Return the noise sigma of (N, H, W) planes: median absolute diagonal Haar coefficient / 0.6745.

    (Donoho and Johnstone, Biometrika 81, 1994.) None with fewer than 200 usable 2x2 blocks.
    """
    height, width = planes.shape[1] // 2 * 2, planes.shape[2] // 2 * 2
    blocks = planes[:, :height, :width].reshape(len(planes), height // 2, 2, width // 2, 2)
    good = usable[:, :height, :width].reshape(len(planes), height // 2, 2, width // 2, 2).mean(axis=(2, 4)) > 0.5
    diagonal = (blocks[:, :, 0, :, 0] - blocks[:, :, 0, :, 1] - blocks[:, :, 1, :, 0] + blocks[:, :, 1, :, 1]) / 2
    values = np.abs(diagonal[good])
    return float(np.median(values)) / 0.6745 if values.size >= 200 else None


def _clipped_variance(mean: DoubleArray, sigma: float) -> DoubleArray:
    """Return the variance of N(mean, sigma^2) after cutting to [0, 255], and NaN where too much of it is cut."""
    low, high = -mean / sigma, (255 - mean) / sigma
    density_low, density_high = (np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) for z in (low, high))
    below, above = (0.5 * (1 + np.asarray(_erf(z / math.sqrt(2)))) for z in (low, -high))
    inside = 1 - below - above
    first = mean * inside + sigma * (density_low - density_high) + 255 * above
    second = (mean**2 + sigma**2) * inside + 2 * mean * sigma * (density_low - density_high)
    second += sigma**2 * (low * density_low - high * density_high) + 255**2 * above
    return np.where(below + above < _MOST_UNUSABLE, second - first**2, np.nan)


def undo_clipping(sigma: float, planes: FloatArray) -> float:
    """Return the sigma of the noise before (N, H, W) planes were cut to [0, 255], from the sigma measured after.

    Planes with values outside were not cut: their sigma is returned as it is.
    """
    if sigma < 3 or float(planes.min()) < -0.5 or float(planes.max()) > 255.5:
        return sigma
    height, width = planes.shape[1] // 8 * 8, planes.shape[2] // 8 * 8
    blocks = planes[:, :height, :width].reshape(len(planes), height // 8, 8, width // 8, 8).mean(axis=(2, 4))
    ranked = np.sort(blocks.ravel())
    means, guess = ranked[:: max(1, ranked.size // 96)].astype(np.float64), sigma
    for _ in range(8):
        variance = _clipped_variance(means, guess)
        kept = variance[~np.isnan(variance)]
        if not kept.size:
            return sigma
        guess = min(2 * sigma, guess * sigma / math.sqrt(max(1e-6, float(kept.mean()))))
    return guess


def estimate_noise(planes: FloatArray, usable: BoolArray) -> Estimated:
    """Return the noise sigma in the unit of (N, H, W) planes of 8-bit levels: the smaller of both estimates.

    The confidence grows with the level (below 5 texture and noise look alike here) and with the agreement of the two.
    """
    first, second = smallest_eigenvalue_sigma(planes, usable), wavelet_sigma(planes, usable)
    known = [value for value in (first, second) if value is not None]
    if not known:
        return Estimated(value=None, confidence=0.0)
    sigma = undo_clipping(min(known), planes)
    agreement = min(known) / max(*known, 1e-6) if len(known) == 2 else 0.5
    return rounded(sigma, confidence=agreement * sigma**2 / (sigma**2 + 36))
