"""Blur and effective resolution from edges and from the spectrum."""

from __future__ import annotations

import math

import cv2
import numpy as np

from models.estimation.patches import FloatArray
from models.types import Estimated

# Lenses, antialiasing and the pixel itself: the sharpest edges of a sharp picture measure about this much.
_SHARP_SIGMA_PX = 0.55
_REBLUR_SIGMA_PX = 1.0
_STEEPEST = -2.8


def _slope(plane: FloatArray) -> FloatArray:
    across = (np.roll(plane, -1, axis=1) - np.roll(plane, 1, axis=1)) / 2
    down = (np.roll(plane, -1, axis=0) - np.roll(plane, 1, axis=0)) / 2
    return np.sqrt(across**2 + down**2)


def estimate_blur(planes: FloatArray, *, noise_sigma: float) -> Estimated:
    """Return the sigma in px of the blur of the sharpest edges of (N, H, W) luma planes in 8-bit levels.

    Re-blurring by a known Gaussian weakens a step edge of blur sigma by sqrt(sigma^2 + 1) / sigma (Zhuo and Sim,
    Pattern Recognition 44(9), 2011). Confidence grows with the number of edges that stand clear of the noise.
    """
    ratios = []
    for plane in planes:
        soft = np.asarray(cv2.GaussianBlur(plane, (0, 0), _REBLUR_SIGMA_PX, borderType=cv2.BORDER_REFLECT), np.float32)
        before, after = _slope(plane), _slope(soft)
        strong = after > max(6.0, 2.5 * noise_sigma)
        # Only crests of the gradient are edges; their flanks would read as blurred.
        crest = after >= cv2.dilate(after, np.ones((3, 3), np.uint8)) - 1e-6
        strong &= crest
        strong[[0, 1, -1, -2]] = False
        strong[:, [0, 1, -1, -2]] = False
        ratios.append(before[strong] / after[strong])
    ratio = np.concatenate(ratios)
    if ratio.size < 20:
        return Estimated(value=None, confidence=0.0)
    sharpest = float(np.percentile(ratio, 80))
    sigma = _REBLUR_SIGMA_PX / math.sqrt(max(sharpest**2 - 1, 0.02))
    edges = ratio.size / (ratio.size + 150)
    value = math.sqrt(max(0.0, sigma**2 - _SHARP_SIGMA_PX**2))
    # Real edges are not ideal steps: fitted to photographs blurred by 0.5 to 3 px (python -m benchmarks.estimation).
    value += min(0.25 * value + 0.18, 1.0 * value)
    return Estimated(value=value, confidence=0.8 * edges * math.exp(-noise_sigma / 15))


def radial_spectrum(planes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return frequencies in cycles/px (up to 0.5) and the mean power of (N, S, S) planes in rings of one bin."""
    size = planes.shape[1]
    window = np.hanning(size)[:, None] * np.hanning(size)[None]
    centred = (planes - planes.mean(axis=(1, 2), keepdims=True)) * window.astype(np.float32)
    power = (np.abs(np.fft.rfft2(centred)) ** 2).mean(axis=0)
    vertical, horizontal = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    ring = np.round(np.hypot(vertical, horizontal) * size).astype(int)
    total = np.bincount(ring.ravel(), power.ravel())
    count = np.bincount(ring.ravel())
    top = size // 2
    mean = total[1 : top + 1] / np.maximum(count[1 : top + 1], 1)
    return (np.arange(1, top + 1) / size).astype(np.float32), mean.astype(np.float32)


def estimate_scale(planes: FloatArray, *, noise_sigma: float) -> Estimated:
    """Return the share of the resolution of (N, S, S) luma planes (8-bit levels) that carries detail.

    Natural spectra fall as a power of the frequency; the cut-off is where the power sinks for good to a hundredth of
    that law fitted below a quarter of the Nyquist frequency. Noise hides a cut-off, never makes one up.
    """
    frequency, power = radial_spectrum(planes)
    low = (frequency > 0.03) & (frequency < 0.125)
    if float(power[low].mean()) < 1.0:
        return Estimated(value=None, confidence=0.0)
    slope, _ = np.polyfit(np.log(frequency[low]), np.log(power[low] + 1e-6), 1)
    slope = min(max(float(slope), _STEEPEST), -1.5)  # steeper than any scene: blur has reached the low frequencies
    level = float(np.mean(np.log(power[low] + 1e-6) - slope * np.log(frequency[low])))
    expected = np.exp(level + slope * np.log(frequency))
    window = float((np.hanning(planes.shape[1]) ** 2).sum()) ** 2
    floor = 1.5 * (noise_sigma**2 + 1 / 12) * window  # noise and the rounding to 8 bits
    alive = np.flatnonzero(power - floor > 0.01 * expected)
    last = float(frequency[alive[-1]]) if alive.size else 0.02
    scale = min(1.0, last / 0.47)
    hidden = floor > 0.01 * float(expected[-1])  # the noise is as strong as the detail that is looked for
    sure = 0.2 if hidden else 0.6
    return Estimated(value=max(0.05, scale), confidence=sure)
