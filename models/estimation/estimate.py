"""What is wrong with a picture: the classical measurements and the network's reading, weighed against each other.

Only a bounded number of windows and sampled pixels is read, so a 100-megapixel memory map costs what a small one does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.estimation.classical_jpeg import JpegTraces, estimate_jpeg
from models.estimation.classical_noise import estimate_noise
from models.estimation.classical_sharpness import estimate_blur, estimate_scale
from models.estimation.classical_tone import estimate_cast, estimate_fading
from models.estimation.learned import load_network, read_windows
from models.estimation.patches import FloatArray, Pixels, luma, read_patches, saturated, to_unit_rgb
from models.types import DegradationEstimate, Estimated

WINDOWS = 12
# A picture smaller than this has too few pixels for any of the statistics.
_SMALLEST = 32
_SAMPLE_LINES = 160
UNKNOWN = Estimated(value=None, confidence=0.0)


def sample_pixels(image: Pixels, mask: npt.NDArray[np.bool_] | None) -> FloatArray:
    """Return undamaged pixels (N, 3) in [0, 1] from at most 160 rows and 160 columns spread over the picture."""
    rows, columns = (
        np.unique(np.linspace(0, length - 1, min(length, _SAMPLE_LINES)).astype(int)) for length in image.shape[:2]
    )
    chosen = to_unit_rgb(np.stack([np.asarray(image[row])[columns] for row in rows]))
    keep = np.ones(chosen.shape[:2], bool) if mask is None else ~np.asarray(mask[np.ix_(rows, columns)], bool)
    pixels: FloatArray = chosen[keep]
    return pixels


def combine_noise(classical: Estimated, learned: Estimated) -> Estimated:
    """Return the network's noise, checked by the classical value: texture can only add to that one, never hide noise.

    So a learned value well above it is doubted, and the smaller one taken.
    """
    if classical.value is None or learned.value is None:
        return learned
    excess = learned.value / max(1.35 * classical.value + 1.5, 1e-6)
    if excess <= 1:
        return learned
    return Estimated(value=classical.value, confidence=learned.confidence / excess**2)


def combine_blur(classical: Estimated, learned: Estimated, *, noise: float) -> Estimated:
    """Return the blur: the network's reading, doubted where sharp edges that noise cannot explain contradict it."""
    if learned.value is None or classical.value is None:
        return learned
    if noise > 3 or classical.confidence < 0.4 or learned.value <= classical.value + 0.6:
        return learned
    excess = learned.value - classical.value
    return Estimated(value=(learned.value + classical.value) / 2, confidence=learned.confidence * 0.6 / excess)


def combine_jpeg(traces: JpegTraces, learned: Estimated, *, table_quality: float | None) -> Estimated:
    """Return the quality of the strongest compression.

    A comb in the coefficients is a measurement and comes first; the quantization tables of the file are exact for its
    last compression, but an earlier one may have been stronger; the network is asked when something happened after the
    compression that blurred its comb, and is believed only where the grid itself is visible.
    """
    comb = traces.quality
    if comb.value is not None and comb.value < 100 and comb.confidence >= 0.5:
        if table_quality is not None and comb.value > table_quality - 3:
            return Estimated(value=table_quality, confidence=1.0)
        return comb
    if table_quality is not None:
        return Estimated(value=table_quality, confidence=1.0)
    if learned.value is None:
        return comb
    if comb.value is None:  # a grid without a comb: compressed, then changed
        return learned
    if learned.value < 90:  # no comb and no clear grid: believe compression as far as any grid can be seen
        visible = min(1.0, max(0.0, traces.blockiness - 1.04) / 0.08)
        return Estimated(value=learned.value, confidence=learned.confidence * (0.2 + 0.8 * visible))
    return Estimated(value=learned.value, confidence=max(learned.confidence, comb.confidence))


def combine_scale(classical: Estimated, learned: Estimated) -> Estimated:
    """Return the effective scale: the network's reading, less trusted the further the spectrum disagrees."""
    if learned.value is None or classical.value is None or classical.confidence < 0.4:
        return learned
    apart = abs(learned.value - classical.value)
    return Estimated(value=learned.value, confidence=learned.confidence * (1 - 0.5 * min(1.0, apart / 0.4)))


def estimate_windows(windows: FloatArray, *, jpeg_table_quality: float | None, device: str) -> dict[str, Estimated]:
    """Return noise, blur, JPEG quality and scale from windows (N, 96, 96, 3) in [0, 1] cut at multiples of 8."""
    learned = read_windows(windows, network=load_network(device))
    planes = luma(windows) * 255
    green = np.ascontiguousarray(windows[..., 1]) * 255
    classical_noise = estimate_noise(green, ~saturated(windows))
    noise = combine_noise(classical_noise, learned.noise_sigma)
    level = noise.value or 0.0
    jpeg = combine_jpeg(estimate_jpeg(planes), learned.jpeg_quality, table_quality=jpeg_table_quality)
    blur = combine_blur(estimate_blur(planes, noise_sigma=level), learned.blur_sigma_px, noise=level)
    scale = combine_scale(estimate_scale(planes, noise_sigma=level), learned.effective_scale)
    return {"noise_sigma": noise, "blur_sigma_px": blur, "jpeg_quality": jpeg, "effective_scale": scale}


def _check(image: Pixels, scratch_mask: npt.NDArray[Any] | None) -> npt.NDArray[np.bool_] | None:
    """Raise ValueError for a picture or mask of the wrong kind; return the mask as booleans without copying it."""
    to_unit_rgb(image[:1, :1])
    if scratch_mask is None:
        return None
    if scratch_mask.shape != image.shape[:2]:
        raise ValueError(
            f"scratch_mask: expected shape {image.shape[:2]} as the image, got {scratch_mask.shape}; "
            "pass the mask of this page at full resolution"
        )
    if scratch_mask.dtype == np.bool_:
        return scratch_mask
    if scratch_mask.dtype == np.uint8:
        return np.asarray(scratch_mask != 0)
    raise ValueError(f"scratch_mask: expected bool or uint8 (nonzero = damaged), got {scratch_mask.dtype}")


def estimate_degradation(
    image: Pixels,
    *,
    scratch_mask: npt.NDArray[Any] | None,
    scratch_coverage: Estimated,
    jpeg_table_quality: float | None,
    device: str = "cpu",
) -> DegradationEstimate:
    """Return what is wrong with `image`, (H, W) or (H, W, 3) uint8 or uint16 sRGB, each quantity with a confidence.

    scratch_mask: (H, W) bool or uint8, nonzero = damaged; such places are avoided. jpeg_table_quality: the quality that
    the file's quantization tables stand for, None when it is not a JPEG. Pictures under 32 px on a side get unknown
    values. Raises ValueError for another shape or dtype, WeightsError when the network's weights are not as shipped.
    """
    mask = _check(image, scratch_mask)
    pixels = sample_pixels(image, mask)
    fading, cast = estimate_fading(pixels), estimate_cast(pixels)
    if min(image.shape[:2]) < _SMALLEST:
        exact = UNKNOWN if jpeg_table_quality is None else Estimated(value=jpeg_table_quality, confidence=1.0)
        found = dict.fromkeys(("noise_sigma", "blur_sigma_px", "effective_scale"), UNKNOWN) | {"jpeg_quality": exact}
    else:
        windows = read_patches(image, count=WINDOWS, mask=mask)
        found = estimate_windows(windows, jpeg_table_quality=jpeg_table_quality, device=device)
    return DegradationEstimate(**found, scratch_coverage=scratch_coverage, fading=fading, colour_cast=cast)
