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
from models.types import Estimated

BoolArray = npt.NDArray[np.bool_]
_SIDE = 7
_DIMENSION = _SIDE * _SIDE
# Overlapping patches of stride 2 share pixels: about this share of their number counts as independent.
_INDEPENDENT = 0.45


def smallest_eigenvalue_sigma(planes: FloatArray, usable: BoolArray) -> float | None:
    """Return the noise sigma of (N, H, W) planes from the smallest eigenvalue of the covariance of 7x7 patches.

    Same unit as the planes. Patches with an unusable pixel are left out; None with fewer than 200 left. The smallest
    eigenvalue of a sample is too small by (1 - sqrt(d / n))^2 (Marchenko and Pastur), which is undone.
    (Pyatykh, Hesser and Zheng, IEEE TIP 22(2), 2013.)
    """
    patches = np.lib.stride_tricks.sliding_window_view(planes, (_SIDE, _SIDE), axis=(1, 2))[:, ::2, ::2]
    bad = _touches_bad(~usable)[:, ::2, ::2]
    chosen = patches[~bad].reshape(-1, _DIMENSION)
    if len(chosen) < 200:
        return None
    centred = chosen - chosen.mean(axis=0)
    covariance = (centred.T @ centred).astype(np.float64) / len(chosen)
    smallest = max(0.0, float(np.linalg.eigvalsh(covariance)[0]))
    shrink = 1 - math.sqrt(min(0.5, _DIMENSION / (_INDEPENDENT * len(chosen))))
    return math.sqrt(smallest) / shrink


def _touches_bad(bad: BoolArray) -> BoolArray:
    """Return (N, H - 6, W - 6): whether any pixel of the 7x7 patch that starts there is bad."""
    grown = np.stack([cv2.dilate(plane.astype(np.uint8), np.ones((_SIDE, _SIDE), np.uint8)) for plane in bad])
    half = _SIDE // 2
    return grown[:, half:-half, half:-half] > 0


def wavelet_sigma(planes: FloatArray, usable: BoolArray) -> float | None:
    """Return the noise sigma of (N, H, W) planes: median absolute diagonal Haar coefficient / 0.6745.

    (Donoho and Johnstone, Biometrika 81, 1994.) None with fewer than 200 usable 2x2 blocks.
    """
    height, width = planes.shape[1] // 2 * 2, planes.shape[2] // 2 * 2
    blocks = planes[:, :height, :width].reshape(len(planes), height // 2, 2, width // 2, 2)
    good = usable[:, :height, :width].reshape(len(planes), height // 2, 2, width // 2, 2).all(axis=(2, 4))
    diagonal = (blocks[:, :, 0, :, 0] - blocks[:, :, 0, :, 1] - blocks[:, :, 1, :, 0] + blocks[:, :, 1, :, 1]) / 2
    values = np.abs(diagonal[good])
    return float(np.median(values)) / 0.6745 if values.size >= 200 else None


def estimate_noise(planes: FloatArray, usable: BoolArray) -> Estimated:
    """Return the noise sigma in the unit of (N, H, W) planes of 8-bit levels: the smaller of both estimates.

    The confidence grows with the level (below 5 texture and noise look alike here) and with the agreement of the two.
    """
    first, second = smallest_eigenvalue_sigma(planes, usable), wavelet_sigma(planes, usable)
    known = [value for value in (first, second) if value is not None]
    if not known:
        return Estimated(value=None, confidence=0.0)
    sigma = min(known)
    agreement = sigma / max(*known, 1e-6) if len(known) == 2 else 0.5
    return Estimated(value=sigma, confidence=agreement * sigma**2 / (sigma**2 + 36))
