"""Blur and effective resolution from edges and from the spectrum."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from models.estimation.patches import FloatArray
from models.types import Estimated

_STEEPEST = -2.8


@dataclass(frozen=True, slots=True)
class _Reblur:
    """Two Gaussians whose gradients are compared, and how their ratio is read.

    A wider `narrow_px` lets less noise and fewer block edges through, and knows less of blurs below itself. Of the
    edges, that at `percentile` of sharpness counts. `sharp_px`: what those of a sharp picture measure, by lens,
    antialiasing and the pixel itself. Real edges are no ideal steps: `value + min(offset_px + slope * value, value)`
    was fitted to photographs blurred by 0.5 to 3 px (python -m benchmarks.estimation).
    """

    narrow_px: float
    wide_px: float
    percentile: float
    sharp_px: float
    offset_px: float
    slope: float


# Where nothing disturbs them the sharpest edges tell best; elsewhere what is sharpest is noise or a block.
_UNDISTURBED = _Reblur(narrow_px=0.0, wide_px=1.0, percentile=80.0, sharp_px=0.55, offset_px=0.18, slope=0.25)
_DISTURBED = _Reblur(narrow_px=0.7, wide_px=1.5, percentile=50.0, sharp_px=0.5, offset_px=0.12, slope=0.12)
_MUCH_DISTURBED = replace(_DISTURBED, narrow_px=1.0, wide_px=2.0)


def _reblur(*, noise_sigma: float, jpeg_quality: float) -> _Reblur:
    if noise_sigma > 4 or jpeg_quality < 45:
        return _MUCH_DISTURBED
    return _DISTURBED if noise_sigma >= 0.75 or jpeg_quality < 92 else _UNDISTURBED


def _slope(plane: FloatArray) -> FloatArray:
    across = (np.roll(plane, -1, axis=1) - np.roll(plane, 1, axis=1)) / 2
    down = (np.roll(plane, -1, axis=0) - np.roll(plane, 1, axis=0)) / 2
    return np.sqrt(across**2 + down**2)


def _smooth(plane: FloatArray, sigma_px: float) -> FloatArray:
    if sigma_px == 0.0:
        return plane
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT), np.float32)


def estimate_blur(planes: FloatArray, *, noise_sigma: float, jpeg_quality: float = 100.0) -> Estimated:
    """Return the sigma in px of the blur of the edges of (N, H, W) luma planes in 8-bit levels.

    A step edge of blur sigma, blurred by Gaussians a < b, has gradients in the ratio sqrt((sigma^2 + b^2) / (sigma^2 +
    a^2)) (Zhuo and Sim, Pattern Recognition 44(9), 2011, with a = 0); a and b grow with noise and compression.
    Confidence grows with the number of edges that stand clear of the noise.
    """
    by = _reblur(noise_sigma=noise_sigma, jpeg_quality=jpeg_quality)
    # Of white noise, what is left in a gradient after the wider Gaussian (of green noise at most; luma has less).
    left = noise_sigma / (2 * math.sqrt(math.pi) * by.wide_px**2)
    floor = max(6.0, 2.5 * noise_sigma if by is _UNDISTURBED else 8.0 * left)
    border = 2 + int(by.narrow_px)
    ratios = []
    for plane in planes:
        before, after = _slope(_smooth(plane, by.narrow_px)), _slope(_smooth(plane, by.wide_px))
        # Only crests of the gradient are edges; their flanks would read as blurred.
        strong = (after > floor) & (after >= cv2.dilate(after, np.ones((3, 3), np.uint8)) - 1e-6)
        strong[:border] = strong[-border:] = False
        strong[:, :border] = strong[:, -border:] = False
        ratios.append(before[strong] / after[strong])
    ratio = np.concatenate(ratios)
    if ratio.size < 20:
        return Estimated(value=None, confidence=0.0)
    squared = max(float(np.percentile(ratio, by.percentile)) ** 2, 1.02)
    sharpened = max(0.0, (by.wide_px**2 - squared * by.narrow_px**2) / (squared - 1) - by.sharp_px**2)
    value = math.sqrt(sharpened)
    value += min(by.offset_px + by.slope * value, value)
    edges = ratio.size / (ratio.size + 150)
    return Estimated(value=value, confidence=0.8 * edges * math.exp(-noise_sigma / 25))


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
