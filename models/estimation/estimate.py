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
from models.estimation.evidence import gather_evidence
from models.estimation.learned import describe_windows, load_network
from models.estimation.patches import (
    FloatArray,
    PictureWindows,
    Pixels,
    luma,
    read_patches,
    saturated,
    to_unit_rgb,
)
from models.margins import inside_margins
from models.types import DegradationEstimate, Estimated

# A picture smaller than this has too few pixels for any of the statistics.
_SMALLEST = 32
_SAMPLE_LINES = 160
# Below the first noise level only the network is heard, above the second mostly the classical estimate.
_NOISE_NETWORK, _NOISE_CLASSICAL = 4.0, 10.0
# From this noise on the network sees no blur; edges of sharp pictures read as blurred by up to so much there.
_NOISE_BLINDS, _OWN_SOFTNESS_PX, _OWN_SOFTNESS_DOUBT = 0.75, 1.25, 0.7
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
    """Return the noise: near zero the network's reading, which knows texture; above, mostly the measured eigenvalue.

    The classical value is precise once noise drowns the texture of flat windows. Texture can only add to it, never hide
    noise, so the network never raises it, and a learned value well above it is doubted.
    """
    if classical.value is None or learned.value is None:
        return learned
    if learned.value >= classical.value:
        excess = max(1.0, learned.value / max(1.35 * classical.value + 1.5, 1e-6))
        return Estimated(value=classical.value, confidence=learned.confidence / excess**2)
    weight = min(1.0, max(0.0, (learned.value - _NOISE_NETWORK) / (_NOISE_CLASSICAL - _NOISE_NETWORK)))
    # Where texture has lifted the classical value far above the learned one, it is no longer a refinement.
    weight *= min(1.0, max(0.0, 2.0 - abs(classical.value - learned.value) / (0.15 * learned.value + 1e-6)))
    value = (1 - weight) * learned.value + weight * classical.value
    return Estimated(value=value, confidence=learned.confidence + (1 - learned.confidence) * 0.5 * weight)


def combine_blur(classical: Estimated, learned: Estimated, *, noise_sigma: float) -> Estimated:
    """Return the blur: what the edges measure, corrected by the network where there is no noise.

    Under noise of a level or two the network sees no blur at all, whatever there is (it reads 0.2 px of 2 px at σ 3),
    and edges measure what they did; a small blur may be the picture's own softness then. Without noise each is wrong in
    its own way, and far apart neither is believed.
    """
    noisy = noise_sigma >= _NOISE_BLINDS
    if classical.value is None:  # no edge to see a blur by
        return Estimated(value=learned.value, confidence=learned.confidence * (0.25 if noisy else 0.5))
    if learned.value is None or noisy:
        doubt = _OWN_SOFTNESS_DOUBT if classical.value < _OWN_SOFTNESS_PX else 1.0
        return Estimated(value=classical.value, confidence=classical.confidence * doubt)
    apart = abs(learned.value - classical.value)
    sure = max(learned.confidence, classical.confidence) * min(1.0, 0.6 / max(apart, 0.6))
    return Estimated(value=(2 * classical.value + learned.value) / 3, confidence=sure)


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
    if classical.value is None:  # nothing but flat tone: no detail whose resolution could be told
        return Estimated(value=learned.value, confidence=learned.confidence * 0.5)
    if learned.value is None or classical.confidence < 0.4:
        return learned
    apart = abs(learned.value - classical.value)
    return Estimated(value=learned.value, confidence=learned.confidence * (1 - 0.5 * min(1.0, apart / 0.4)))


def measure_windows(
    windows: PictureWindows, *, jpeg_table_quality: float | None
) -> tuple[dict[str, Estimated], FloatArray]:
    """Return noise, blur, JPEG quality and scale from windows of one picture, cut at multiples of 8, and the evidence.

    The evidence is every number that the four were made of, see `models.estimation.evidence`.
    """
    learned, behind = describe_windows(windows.varied, network=load_network())
    planes = luma(windows.varied) * 255
    green = np.ascontiguousarray(windows.flat[..., 1]) * 255
    flat_noise = estimate_noise(green, ~saturated(windows.flat))
    noise = combine_noise(flat_noise, learned.noise_sigma)
    level = noise.value or 0.0
    traces = estimate_jpeg(planes)
    jpeg = combine_jpeg(traces, learned.jpeg_quality, table_quality=jpeg_table_quality)
    quality = 100.0 if jpeg.value is None else jpeg.value
    edges = estimate_blur(planes, noise_sigma=level, jpeg_quality=quality)
    blur = combine_blur(edges, learned.blur_sigma_px, noise_sigma=level)
    spectrum = estimate_scale(planes, noise_sigma=level)
    scale = combine_scale(spectrum, learned.effective_scale)
    found = {"noise_sigma": noise, "blur_sigma_px": blur, "jpeg_quality": jpeg, "effective_scale": scale}
    evidence = gather_evidence(combined=found, classical=(flat_noise, edges, spectrum), traces=traces, behind=behind)
    return found, evidence


def estimate_windows(windows: PictureWindows, *, jpeg_table_quality: float | None) -> dict[str, Estimated]:
    """Return noise, blur, JPEG quality and scale from windows of one picture, cut at multiples of 8."""
    return measure_windows(windows, jpeg_table_quality=jpeg_table_quality)[0]


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
) -> DegradationEstimate:
    """Return what is wrong with `image`, (H, W) or (H, W, 3) uint8 or uint16 sRGB, each quantity with a confidence.

    scratch_mask: (H, W) bool or uint8, nonzero = damaged; such places are avoided, and so are plain margins.
    jpeg_table_quality: the quality that the file's quantization tables stand for, None when it is not a JPEG. Pictures
    under 32 px on a side get unknown values. Raises ValueError for another shape or dtype, WeightsError when the
    network's weights are not as shipped.
    """
    estimate, _ = estimate_with_evidence(
        image,
        scratch_mask=scratch_mask,
        scratch_coverage=scratch_coverage,
        jpeg_table_quality=jpeg_table_quality,
    )
    return estimate


def estimate_with_evidence(
    image: Pixels,
    *,
    scratch_mask: npt.NDArray[Any] | None,
    scratch_coverage: Estimated,
    jpeg_table_quality: float | None,
) -> tuple[DegradationEstimate, FloatArray | None]:
    """Return what `estimate_degradation` does and the evidence behind it; None for a picture under 32 px on a side."""
    mask = _check(image, scratch_mask)
    place = inside_margins(image)
    image, mask = image[place], None if mask is None else mask[place]
    pixels = sample_pixels(image, mask)
    fading, cast = estimate_fading(pixels), estimate_cast(pixels)
    if min(image.shape[:2]) < _SMALLEST:
        exact = UNKNOWN if jpeg_table_quality is None else Estimated(value=jpeg_table_quality, confidence=1.0)
        found = dict.fromkeys(("noise_sigma", "blur_sigma_px", "effective_scale"), UNKNOWN) | {"jpeg_quality": exact}
        evidence = None
    else:
        windows = read_patches(image, mask=mask)
        found, evidence = measure_windows(windows, jpeg_table_quality=jpeg_table_quality)
    estimate = DegradationEstimate(**found, scratch_coverage=scratch_coverage, fading=fading, colour_cast=cast)
    return estimate, evidence
