"""Full-reference fidelity: PSNR, SSIM and multi-scale SSIM, on RGB, luma (16-235) or grey, with a border crop.

Conventions: pictures are uint8, uint16 or float in [0, 1] (floats are clipped); the peak is 1 (255 of 255) for every
channel choice, also for luma in 16-235, as in the super-resolution literature.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from models.metrics.planes import Channel, Pixels, Plane, comparable

# Wang et al., IEEE TIP 13(4), 2004: an 11x11 Gaussian of sigma 1.5; its border of 5 px is left out of the mean.
_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03
# Wang, Simoncelli and Bovik, Asilomar 2003: exponents of the five scales.
_MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def psnr_db(
    restored: Pixels,
    reference: Pixels,
    *,
    channel: Channel = "rgb",
    border: int = 0,
    round_to_8_bits: bool = False,
) -> float:
    """Return the peak signal-to-noise ratio in dB over all pixels and channels; infinite for equal pictures."""
    first, second = comparable(restored, reference, channel=channel, border=border, round_to_8_bits=round_to_8_bits)
    error = float(np.mean((first - second) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


def _blur(plane: Plane) -> Plane:
    smooth = cv2.GaussianBlur(plane, (_WINDOW, _WINDOW), _SIGMA, borderType=cv2.BORDER_REFLECT)
    pad = _WINDOW // 2
    inner: Plane = np.asarray(smooth, np.float64)[pad:-pad, pad:-pad]
    return inner


def _similarity(first: Plane, second: Plane) -> tuple[float, float]:
    """Return the means of SSIM and of its contrast-structure factor of two planes (H, W) in [0, 1]."""
    if min(first.shape[:2]) < _WINDOW:
        raise ValueError(f"SSIM needs at least {_WINDOW}x{_WINDOW} pixels, got {first.shape[:2]}; use PSNR instead")
    c1, c2 = _K1**2, _K2**2
    mean_a, mean_b = _blur(first), _blur(second)
    variance_a = _blur(first * first) - mean_a**2
    variance_b = _blur(second * second) - mean_b**2
    covariance = _blur(first * second) - mean_a * mean_b
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    brightness = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float((structure * brightness).mean()), float(structure.mean())


def _planes(picture: Plane) -> list[Plane]:
    if picture.ndim == 2:
        return [picture]
    return [np.ascontiguousarray(picture[:, :, index]) for index in range(picture.shape[2])]


def ssim(
    restored: Pixels,
    reference: Pixels,
    *,
    channel: Channel = "rgb",
    border: int = 0,
    round_to_8_bits: bool = False,
) -> float:
    """Return the structural similarity in [-1, 1], the mean over the channels (Wang et al. 2004, population moments).

    Raises ValueError for pictures smaller than 11x11.
    """
    first, second = comparable(restored, reference, channel=channel, border=border, round_to_8_bits=round_to_8_bits)
    pairs = zip(_planes(first), _planes(second), strict=True)
    return float(np.mean([_similarity(a, b)[0] for a, b in pairs]))


def _half(plane: Plane) -> Plane:
    height, width = plane.shape[0] // 2 * 2, plane.shape[1] // 2 * 2
    blocks = plane[:height, :width].reshape(height // 2, 2, width // 2, 2)
    half: Plane = blocks.mean(axis=(1, 3))
    return half


def ms_ssim(restored: Pixels, reference: Pixels, *, channel: Channel = "grey", border: int = 0) -> float:
    """Return the five-scale structural similarity in [0, 1], the mean over the channels.

    Negative structure is counted as 0. Raises ValueError when the shorter side is under 176 px (11 px at scale five).
    """
    first, second = comparable(restored, reference, channel=channel, border=border)
    if min(first.shape[:2]) < _WINDOW * 16:
        raise ValueError(
            f"five scales need a shorter side of {_WINDOW * 16} px, got {first.shape[:2]}; use ssim instead"
        )
    values = []
    for a, b in zip(_planes(first), _planes(second), strict=True):
        product = 1.0
        for scale, weight in enumerate(_MS_WEIGHTS):
            whole, structure = _similarity(a, b)
            last = scale == len(_MS_WEIGHTS) - 1
            product *= max(0.0, whole if last else structure) ** weight
            a, b = _half(a), _half(b)
        values.append(product)
    return float(np.mean(values))
