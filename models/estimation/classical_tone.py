"""Fading and colour cast from the tones a picture uses."""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from models.estimation.patches import FloatArray, luma
from models.estimation.rounded import rounded
from models.types import Estimated

BoolArray = npt.NDArray[np.bool_]


def estimate_fading(pixels: FloatArray) -> Estimated:
    """Return the share of the tonal range that (N, 3) pixels in [0, 1] leave unused, between percentiles 0.1 and 99.9.

    A faded picture has lost both ends. When one end is still used (a night view, a white page, snow) the picture may
    be meant so: the value is given, with low confidence.
    """
    if len(pixels) < 100:
        return Estimated(value=None, confidence=0.0)
    low, high = (float(value) for value in np.percentile(luma(pixels), (0.1, 99.9)))
    black, white = max(0.0, low - 0.02), max(0.0, 0.98 - high)
    unused = min(1.0, black + white)
    both = min(1.0, black / 0.12) * min(1.0, white / 0.12)
    # Hardly anything unused is a sure finding; a lot unused is one only when it is missing at both ends.
    return rounded(unused, confidence=0.9 * max(math.exp(-unused / 0.06), both))


def _neutral_axis(lab: FloatArray) -> tuple[FloatArray, float]:
    """Return (3, 2): the mean a, b of the least coloured tenth of the dark, middle and bright third; and the spread.

    The spread is the median distance of all pixels' a, b from a parabola over the lightness: how colourful the scene
    itself is. A toned monochrome lies on such a curve.
    """
    colour = lab[:, 1:]
    bounds = np.percentile(lab[:, 0], (0, 33.3, 66.7, 100))
    means = []
    for lower, upper in pairwise(bounds):
        third = colour[(lab[:, 0] >= lower) & (lab[:, 0] <= upper)]
        chroma = np.hypot(third[:, 0], third[:, 1])
        means.append(third[chroma <= np.percentile(chroma, 10)].mean(axis=0))
    light = lab[:, 0].astype(np.float64) / 100  # double precision, as the noise: threads must not show
    curve = np.stack([np.ones_like(light), light, light**2], axis=1)
    residual = colour - curve @ np.linalg.lstsq(curve, colour, rcond=None)[0]
    spread = float(np.median(np.linalg.norm(residual, axis=1)))
    return np.stack(means).astype(np.float32), spread


def estimate_cast(pixels: FloatArray) -> Estimated:
    """Return how far (N, 3) pixels in [0, 1] lie from neutral, in CIELAB units: the offset of the least coloured ones.

    A cast moves dark, middle and bright tones the same way and leaves nothing neutral. A sunset or a forest does nearly
    that too, so the confidence stays below one half unless the offset is large beside the colours of the scene itself,
    as in a yellowed or toned monochrome.
    """
    inner = pixels[((pixels > 0.02) & (pixels < 0.98)).all(axis=1)]
    if len(inner) < 100:
        return Estimated(value=None, confidence=0.0)
    lab = np.asarray(cv2.cvtColor(np.ascontiguousarray(inner[None]), cv2.COLOR_RGB2Lab), np.float32)[0]
    axis, spread = _neutral_axis(lab)
    length = float(np.linalg.norm(axis.mean(axis=0)))
    each = float(np.linalg.norm(axis, axis=1).mean())
    agreement = length / each if each > 0.5 else 1.0
    if length < 3:  # neutral tones exist: no cast, surely
        return rounded(length, confidence=0.9)
    stands_out = length**2 / (length**2 + (2.5 * spread) ** 2)
    return rounded(length, confidence=0.95 * agreement**2 * stands_out)
