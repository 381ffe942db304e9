"""Traces of JPEG compression in decoded pixels: where its 8x8 grid lies, and how coarsely it quantized.

After decoding, the DCT coefficients of the luma still lie close to multiples of the quantizer steps, as long as nothing
but rounding happened since. The quality is the one whose IJG table makes the coefficients line up (a comb), which clean
texture never imitates; blockiness alone would mistake regular texture for a grid.
(Fan and de Queiroz, IEEE TIP 12(2), 2003.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from models.estimation.patches import FloatArray
from models.types import Estimated

DoubleArray = npt.NDArray[np.float64]

# ITU-T T.81, table K.1: luma steps at quality 50, by vertical and horizontal frequency.
LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_QUALITIES = tuple(range(3, 97))
# Rounding to 8-bit RGB leaves an error of about half a level in a coefficient: finer combs than this are blurred away.
_FINEST_STEP = 3
# Coefficients far above their step count for less and less: their position in the comb suffers from clipped pixels.
_REACH = 4.5
_BLOCKS = 500


def quantizer_steps(quality: int) -> npt.NDArray[np.int64]:
    """Return the (8, 8) luma quantizer steps of libjpeg at an IJG quality of 1-100."""
    if not 1 <= quality <= 100:
        raise ValueError(f"expected an IJG quality of 1 to 100, got {quality}")
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps: npt.NDArray[np.int64] = np.clip((LUMA_TABLE * scale + 50) // 100, 1, 255)
    return steps


@lru_cache(maxsize=1)
def _basis() -> FloatArray:
    position = np.arange(8)
    basis = np.cos(np.pi * np.outer(position, position + 0.5) / 8) / 2
    basis[0] /= math.sqrt(2)
    return basis.astype(np.float32)


@lru_cache(maxsize=1)
def _low_bands() -> npt.NDArray[np.int64]:
    """Return the indices of the AC bands up to the sixth diagonal: the others are mostly zero and would only cost."""
    vertical, horizontal = np.divmod(np.arange(64), 8)
    return np.flatnonzero((vertical + horizontal <= 6) & (vertical + horizontal > 0))


def block_dct(planes: FloatArray, *, offset_y: int, offset_x: int) -> FloatArray:
    """Return (blocks, 8, 8) orthonormal DCT coefficients of all whole blocks of (N, H, W) planes from the offset on."""
    inner = planes[:, offset_y:, offset_x:]
    rows, columns = inner.shape[1] // 8, inner.shape[2] // 8
    blocks = inner[:, : rows * 8, : columns * 8].reshape(len(inner), rows, 8, columns, 8).transpose(0, 1, 3, 2, 4)
    coefficients = _basis() @ np.ascontiguousarray(blocks).reshape(-1, 8, 8) @ _basis().T
    return coefficients.astype(np.float32, copy=False)


def grid_strength(planes: FloatArray) -> DoubleArray:
    """Return (2, 8): how much stronger steps across the rows and columns k, k + 8, ... are than all, as a ratio."""
    strengths = np.ones((2, 8))
    for axis in (0, 1):
        lines = planes if axis else planes.transpose(0, 2, 1)
        # Cubic interpolation across the boundary, minus what is there: smooth content and single edges cancel.
        bend = np.abs(3 * (lines[..., 1:-2] - lines[..., 2:-1]) - (lines[..., :-3] - lines[..., 3:]))
        profile = np.minimum(bend, 40).mean(axis=(0, 1)) + 0.05
        phase = (np.arange(profile.size) + 2) % 8  # entry k is the boundary between columns k + 1 and k + 2
        means = np.array([profile[phase == p].mean() for p in range(8)])
        strengths[axis] = means / np.median(means)
    return strengths


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegTraces:
    """The quality with its confidence, where the grid starts, and how strong its steps are (1 = not at all)."""

    quality: Estimated
    offset_y: int
    offset_x: int
    blockiness: float


def comb_scores(coefficients: FloatArray) -> tuple[DoubleArray, DoubleArray]:
    """Return, per candidate quality, the mean alignment in [-1, 1] of (B, 8, 8) coefficients and its z value."""
    magnitude = np.abs(coefficients.reshape(-1, 64)[:, _low_bands()])
    if len(magnitude) > _BLOCKS:  # the liveliest blocks hold most of the coefficients that are not zero
        magnitude = magnitude[np.argsort(-magnitude.sum(axis=1), kind="stable")[:_BLOCKS]]
    # Drawn ramps and patterns repeat one block: that is one observation, however often it is counted.
    magnitude = np.unique(np.round(magnitude, 1), axis=0)
    scores, evidence = np.zeros(len(_QUALITIES)), np.zeros(len(_QUALITIES))
    for index, quality in enumerate(_QUALITIES):
        steps = quantizer_steps(quality).reshape(64)[_low_bands()].astype(np.float32)
        used = steps >= _FINEST_STEP
        position = magnitude[:, used] / steps[used]
        position = position[(position > 0.5) & (position < _REACH)]
        if position.size >= 40:
            scores[index] = float(np.cos(2 * np.pi * position).mean())
            evidence[index] = scores[index] * math.sqrt(2 * position.size)
    return scores, evidence


def _best_quality(scores: DoubleArray, evidence: DoubleArray) -> int:
    """Return the index of the coarsest table that explains the combs: multiples of 10 are multiples of 5 as well."""
    good = np.flatnonzero(scores >= 0.85 * scores[evidence > 5].max(initial=0.0))
    good = good[evidence[good] > 5]
    if not good.size:
        return int(np.argmax(scores))
    near = good[good <= good[0] + 4]
    return int(near[np.argmax(scores[near])])


def estimate_jpeg(planes: FloatArray) -> JpegTraces:
    """Return the JPEG traces in (N, H, W) luma planes of 8-bit levels, cut at multiples of 8 from the picture's origin.

    Quality 100 with high confidence means that there is no comb and no grid; a grid without a comb (the picture was
    changed after its compression) leaves the quality unknown, with confidence 0.
    """
    strength = grid_strength(planes)
    found = (int(strength[0].argmax()), int(strength[1].argmax()))
    best: tuple[float, float, int, tuple[int, int]] = (0.0, 0.0, 100, (0, 0))
    for offset in dict.fromkeys([(0, 0), found]):
        scores, evidence = comb_scores(block_dct(planes, offset_y=offset[0], offset_x=offset[1]))
        index = _best_quality(scores, evidence)
        if scores[index] > best[0]:
            best = (float(scores[index]), float(evidence[index]), _QUALITIES[index], offset)
    score, z, quality, offset = best
    blockiness = float(np.sqrt(strength[0, offset[0]] * strength[1, offset[1]]))
    if score > 0.25 and z > 6:
        confidence = min(0.98, (score - 0.15) * 3) * (1 - math.exp(-z / 8))
        return JpegTraces(
            quality=Estimated(value=float(quality), confidence=confidence),
            offset_y=offset[0],
            offset_x=offset[1],
            blockiness=blockiness,
        )
    ratio = float(np.sqrt(strength[0].max() * strength[1].max()))
    quality_unknown = Estimated(value=None, confidence=0.0)
    no_trace = Estimated(value=100.0, confidence=0.8)
    return JpegTraces(
        quality=no_trace if ratio < 1.15 else quality_unknown, offset_y=found[0], offset_x=found[1], blockiness=ratio
    )
