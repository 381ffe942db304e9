"""Damage for learning what treatments bring: a clean crop and a seeded generator to what an archive may hold.

Every family of the repertoire occurs: nothing at all, noise, JPEG, blur, lost resolution and grain alone, pairs, the
mixtures of RL-Restore at every level, old photographs, scratched ones; each of them also so slight that nothing can be
gained, which must be learned as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.degradations import mixtures, old_photo
from models.degradations.blur import BoxBlur, GaussianBlur, MotionBlur
from models.degradations.fading import ColourCast, Fading
from models.degradations.grain import FilmGrain
from models.degradations.jpeg import JpegCompression, JpegPass
from models.degradations.noise import GaussianNoise, PoissonNoise, SaltAndPepperNoise, SpeckleNoise
from models.degradations.operator import Degradation, draw_seed
from models.degradations.rendering import from_batch, to_batch
from models.degradations.resample import LowResolution
from models.degradations.scratches import damage_image

Picture = npt.NDArray[np.uint8]
Operators = list[Degradation]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Damaged:
    """A picture as an archive holds it, (H, W) or (H, W, 3) uint8, and the clean one of the same shape.

    mask: (H, W), True = scratched, or None. known_mask: whether the detector is taken to have found it.
    table_quality: of the file's quantization tables, None = no JPEG file.
    """

    kind: str
    degraded: Picture
    clean: Picture
    mask: npt.NDArray[np.bool_] | None = None
    known_mask: bool = False
    table_quality: float | None = None


def _chance(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def _noise(rng: np.random.Generator) -> Operators:
    sigma = _log_uniform(rng, 0.7, 55.0)
    # Scans have grain, and noise that was interpolated, as often as white noise.
    kind = int(rng.choice(5, p=[0.45, 0.11, 0.08, 0.31, 0.05]))
    if kind == 0:
        gaussian = GaussianNoise(
            sigma=(sigma,), achromatic=(_chance(rng, 0.2),), clip=_chance(rng, 0.9), seed=draw_seed(rng)
        )
        return [gaussian]
    if kind == 1:
        return [PoissonNoise(peak=(min(2e4, 0.4 * (255 / sigma) ** 2),), seed=draw_seed(rng))]
    if kind == 2:
        return [SpeckleNoise(sigma=(1.6 * sigma / 255,), seed=draw_seed(rng))]
    if kind == 3:
        return [FilmGrain.draw(rng, batch=1, sigma=(0.5, 25.0), floor=0.3 if _chance(rng, 0.6) else 1.0)]
    return [SaltAndPepperNoise.draw(rng, batch=1, share=(0.0005, 0.02), per_channel=_chance(rng, 0.5))]


def _jpeg(rng: np.random.Generator) -> Operators:
    low = _chance(rng, 0.5)
    return [
        JpegCompression.draw(
            rng,
            batch=1,
            quality=(5, 50) if low else (40, 98),
            misaligned_probability=0.15,
            double_probability=0.15,
        )
    ]


def _blur(rng: np.random.Generator) -> Operators:
    kind = int(rng.choice(3, p=[0.75, 0.15, 0.1]))
    if kind == 0:
        return [GaussianBlur.draw(rng, batch=1, sigma_px=(0.2, 3.0), aspect=(0.6, 1.0))]
    if kind == 1:
        return [BoxBlur.draw(rng, batch=1, width_px=(1.2, 6.0))]
    return [MotionBlur.draw(rng, batch=1, length_px=(1.5, 9.0))]


def _any_mixture(rng: np.random.Generator) -> Operators:
    levels = (int(level) for level in rng.integers(1, 11, 3))
    return list(mixtures.of_levels((next(levels), next(levels), next(levels)), rng, achromatic=_chance(rng, 0.15)))


def _set_mixture(rng: np.random.Generator) -> Operators:
    severities = tuple(mixtures.TOTAL_LEVELS)
    choices = mixtures.combinations(severities[int(rng.integers(len(severities)))])
    return list(mixtures.of_levels(choices[int(rng.integers(len(choices)))], rng))


def _pair(rng: np.random.Generator) -> Operators:
    """Two of the three faults, in the order in which they come about."""
    left_out = int(rng.integers(3))
    return [
        operator for index, make in enumerate((_blur, _noise, _jpeg)) if index != left_out for operator in make(rng)
    ]


def _slight(rng: np.random.Generator) -> Operators:
    kind = int(rng.integers(4))
    if kind == 0:
        return [GaussianNoise.draw(rng, batch=1, sigma=(0.3, 3.0), clip=True)]
    if kind == 1:
        return [JpegCompression.draw(rng, batch=1, quality=(88, 99))]
    if kind == 2:
        return [GaussianBlur.draw(rng, batch=1, sigma_px=(0.15, 0.5))]
    return [FilmGrain.draw(rng, batch=1, sigma=(0.3, 3.0))]


# Name, frequency and what it does; scratches come on top of any of them.
_FAMILIES: tuple[tuple[str, float, Callable[[np.random.Generator], Operators]], ...] = (
    ("clean", 0.17, lambda rng: []),
    ("slight", 0.07, _slight),
    ("noise", 0.14, _noise),
    ("jpeg", 0.13, _jpeg),
    ("blur", 0.12, _blur),
    ("low resolution", 0.05, lambda rng: [LowResolution.draw(rng, batch=1, scale=(0.3, 0.97))]),
    ("pair", 0.09, _pair),
    ("any mixture", 0.05, _any_mixture),
    ("rl-restore", 0.09, _set_mixture),
    ("old photo", 0.09, lambda rng: list(old_photo.of_quality(rng))),
)
KINDS = tuple(name for name, _, _ in _FAMILIES)


def damage(clean: Picture, rng: np.random.Generator) -> Damaged:
    """Return `clean`, (H, W) or (H, W, 3) uint8 and at least 64 px on a side, damaged in one way of the repertoire."""
    frequencies = np.array([frequency for _, frequency, _ in _FAMILIES])
    name, _, make = _FAMILIES[int(rng.choice(len(_FAMILIES), p=frequencies / frequencies.sum()))]
    reference = _toned(clean, rng)
    operators = make(rng)
    batch = to_batch(reference.astype(np.float32) / np.float32(255))
    for operator in operators:
        batch = operator.apply(batch).clamp(0, 1)
    mask = None
    if _chance(rng, 0.08):
        scratched = damage_image(from_batch(batch), rng)
        batch, mask = to_batch(np.asarray(scratched.image, np.float32)), scratched.mask
    batch, quality = _as_file(batch, operators if mask is None else [], rng=rng)
    return Damaged(
        kind=name,
        degraded=_levels(batch),
        clean=reference,
        mask=mask,
        known_mask=_chance(rng, 0.7),
        table_quality=quality,
    )


def _toned(clean: Picture, rng: np.random.Generator) -> Picture:
    """Fade and tint a seventh of the pictures: that is for other methods, so the clean one has it, too."""
    operators: Sequence[Any] = ()
    if _chance(rng, 0.15):
        operators = (Fading.draw(rng, batch=1), *([ColourCast.draw(rng, batch=1)] if clean.ndim == 3 else []))
    batch = to_batch(clean.astype(np.float32) / np.float32(255))
    for operator in operators:
        batch = operator.apply(batch)
    return _levels(batch)


def _as_file(batch: Tensor, operators: Sequence[Any], *, rng: np.random.Generator) -> tuple[Tensor, float | None]:
    """Return what is in the file, and the quality of its tables when it is a JPEG; a sixth are saved as one at last."""
    last = operators[-1] if operators else None
    if isinstance(last, JpegCompression):
        final = last.passes[0][-1]
        aligned = final.offset_x == final.offset_y == 0
        return batch, float(final.quality) if aligned and _chance(rng, 0.5) else None
    if not _chance(rng, 0.15):
        return batch, None
    quality = int(rng.integers(85, 99))
    saved = JpegCompression(passes=((JpegPass(quality=quality, subsampling="444"),),)).apply(batch)
    return saved, float(quality)


def _levels(batch: Tensor) -> Picture:
    image = from_batch(torch.clamp(batch, 0, 1))
    return np.asarray(np.rint(image * 255), np.uint8)
