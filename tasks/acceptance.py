"""Do no harm: what a step did to a picture, and whether that is what the estimate promised.

Everything here reads the pictures in strips, so that a 100-megapixel scan costs the memory of a strip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.types import DegradationEstimate, Plan, plain_id

Pixels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_STRIP_PIXELS = 1 << 21
# Averaged over blocks of at least 10 x 10 pixels, or of as many as the noise has levels, noise and detail vanish.
_COLOUR_SIDE, _COLOUR_BLOCK = 48, 10
# What changes within blocks of this many px a side is noise and detail.
_FINE_BLOCK = 8
LARGEST_COLOUR_SHIFT = 4.0
# Noise of single pixels is clipped, so that what it does to the mean is reckoned before blocks are averaged.
_CLIPPED_SIDE = 512
# White noise of variance s2 adds 2 s2 to the squared difference of neighbours, in each of two directions.
_NOISE_ENERGY = 4.0
# Grain, and noise under compression, are not known well enough to say how much must stay.
_KEPT_DETAIL = {"denoise": 0.4, "degrain": 0.0, "deblock": 0.4, "deblur": 0.9, "upscale": 0.4, "mixed": 0.0}
_LARGEST_SHARPENING = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one step did. Energies: mean squared difference of neighbouring pixels outside the mask, 8-bit levels².

    colour_shift: mean CIEDE2000 difference of the pictures averaged down until noise and detail are gone, beyond what
    clipping had done to the noise that was taken away.
    """

    changed_fraction: float
    colour_shift: float
    energy_before: float
    energy_after: float

    @property
    def detail_retention(self) -> float | None:
        """Gradient energy after over before; None for a picture without any."""
        return self.energy_after / self.energy_before if self.energy_before > 0 else None


def compare(before: Pixels, after: Pixels, *, mask: Mask | None = None) -> Change:
    """Return what changed between two pictures of one shape and dtype; pixels under `mask` count as changed only.

    Clipped noise makes white darker and black lighter on average, and a step that takes it away changes them back.
    """
    if before.shape != after.shape or before.dtype != after.dtype:
        raise ValueError(
            f"restored picture: got {after.dtype} {after.shape}, expected {before.dtype} {before.shape}; "
            "the method broke its contract"
        )
    changed, energies, counted, taken = 0, np.zeros(2), 0, np.zeros(2)
    for rows in _strips(before.shape):
        first, second = np.asarray(before[rows]), np.asarray(after[rows])
        differs = first != second
        changed += int(np.count_nonzero(differs.any(axis=2) if differs.ndim == 3 else differs))
        kept = None if mask is None else ~mask[rows]
        sums = [_gradient_energy(part, kept) for part in (first, second)]
        energies += [sums[0][0], sums[1][0]]
        counted += sums[0][1]
        taken += _variance_taken(first, second)
    energies /= max(counted, 1)
    noise = float(np.sqrt(max(taken[0], 0.0) / max(taken[1], 1.0)))
    return Change(
        changed_fraction=changed / (before.shape[0] * before.shape[1]),
        colour_shift=_colour_shift(before, after, noise_sigma=noise) if changed else 0.0,
        energy_before=float(energies[0]),
        energy_after=float(energies[1]),
    )


def is_expected(plan: Plan, method_id: str) -> bool:
    """Whether a gain was predicted of a method, by more than its uncertainty."""
    return any(gain.beyond_doubt for gain in plan.alternatives if gain.treatment == (plain_id(method_id),))


def refusal_of_step(change: Change, *, method_id: str, plan: Plan, estimate: DegradationEstimate) -> str | None:
    """Return why the result of one step of a plan must not be kept, or None; see `refusal`."""
    from models.registry import get_method

    purpose = get_method(method_id).card.purpose
    return refusal(change, purpose=purpose, estimate=estimate, expected=is_expected(plan, method_id))


def refusal(change: Change, *, purpose: str, estimate: DegradationEstimate, expected: bool = False) -> str | None:
    """Return why a step's result must not be kept, as a sentence, or None when it may.

    purpose: the method's, from its card. A fill changes nothing outside its mask, and a colour correction is asked for:
    neither is judged by colour. expected: `is_expected` of it; lost detail is not held against it then, since what
    hides damage from the estimate (noise under JPEG) does not hide it from a trial. On 167 treated crops of held-back
    photographs the judgement by the estimate alone refused twelve results, all of which had gained, up to 17 dB.
    """
    if purpose not in ("fill", "colour") and change.colour_shift > LARGEST_COLOUR_SHIFT:
        return f"the colours shifted by {change.colour_shift:.1f} CIEDE2000 on average, which this step must not do"
    if purpose not in _KEPT_DETAIL:
        return None
    noise = estimate.noise_sigma.value or 0.0
    explained = _NOISE_ENERGY * noise**2 if purpose == "denoise" else 0.0
    detail = max(change.energy_before - explained, 0.0)
    if not expected and change.energy_after < _KEPT_DETAIL[purpose] * detail:
        share = 1 - change.energy_after / change.energy_before
        return f"{share:.0%} of the detail went away, more than the estimated damage explains"
    if change.energy_before > 0 and change.energy_after > _LARGEST_SHARPENING * change.energy_before:
        return f"the result has {change.energy_after / change.energy_before:.0f} times the detail it began with"
    return None


def _strips(shape: tuple[int, ...]) -> Iterator[slice]:
    rows = max(2, _STRIP_PIXELS // max(shape[1], 1))
    return (slice(top, min(top + rows, shape[0])) for top in range(0, shape[0], rows))


def _gradient_energy(part: Pixels, kept: Mask | None) -> tuple[float, int]:
    """Return the summed squared differences of neighbours in 8-bit grey levels, and over how many pixels."""
    grey = part if part.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_RGB2GRAY)
    levels = grey.astype(np.float32) * np.float32(255 / np.iinfo(part.dtype).max)
    if min(levels.shape) < 2:
        return 0.0, 0
    energy = np.diff(levels, axis=0)[:, :-1] ** 2 + np.diff(levels, axis=1)[:-1] ** 2
    if kept is None:
        return float(energy.sum(dtype=np.float64)), energy.size
    whole = kept[:-1, :-1] & kept[1:, :-1] & kept[:-1, 1:]
    return float(energy[whole].sum(dtype=np.float64)), int(np.count_nonzero(whole))


def _variance_taken(before: Pixels, after: Pixels) -> npt.NDArray[np.float64]:
    """Return by how much the summed variance within blocks of one channel fell, in 8-bit levels², and their count."""
    sums = []
    for picture in (before, after):
        plane = picture if picture.ndim == 2 else picture[:, :, 1]
        rows, columns = (side // _FINE_BLOCK for side in plane.shape)
        whole = plane[: rows * _FINE_BLOCK, : columns * _FINE_BLOCK].astype(np.float32)
        blocks = whole.reshape(rows, _FINE_BLOCK, columns, _FINE_BLOCK) * np.float32(255 / np.iinfo(picture.dtype).max)
        sums.append(blocks.var(axis=(1, 3)).sum(dtype=np.float64))
    return np.array([sums[0] - sums[1], rows * columns], np.float64)


def _colour_shift(before: Pixels, after: Pixels, *, noise_sigma: float) -> float:
    from models.metrics.change import colour_shift

    longest, block = max(before.shape[:2]), max(_COLOUR_BLOCK, round(noise_sigma))
    pictures = [_reduced(one, min(_CLIPPED_SIDE, longest)) / np.iinfo(one.dtype).max for one in (before, after)]
    if noise_sigma > 0:
        pictures[1] = _clipped_mean(pictures[1], noise_sigma / 255)
    first, second = (_reduced(one, min(_COLOUR_SIDE, max(1, longest // block))) for one in pictures)
    return colour_shift(second, first)


def _reduced(picture: Pixels, longest: int) -> Pixels:
    scale = longest / max(picture.shape[:2])
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return np.asarray(cv2.resize(np.asarray(picture), (width, height), interpolation=cv2.INTER_AREA))


def _clipped_mean(values: Pixels, sigma: float) -> Pixels:
    """Return the mean of `values` + normal noise of deviation `sigma`, clipped to [0, 1]."""
    from scipy.special import ndtr

    below, above = -values / sigma, (1.0 - values) / sigma
    inside = values * (ndtr(above) - ndtr(below)) + sigma * (_density(below) - _density(above))
    return np.asarray(inside + ndtr(-above))


def _density(deviations: Pixels) -> Pixels:
    return np.asarray(np.exp(-0.5 * deviations**2) / np.sqrt(2.0 * np.pi))
