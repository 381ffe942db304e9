"""Seeded structured damage for clean pictures, with the exact mask of what was damaged.

Coverage layers (`damage_layers`) or film-damage overlays (`damage_overlays`) are blended by addition, lighten-only,
screen, darken-only, absorption or plain painting with random opacity, as in "Bringing Old Photos Back to Life"
(CVPR 2020) and RRTN (WACV 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from models.degradations.damage_layers import LAYERS, FloatArray, smooth_noise

Blend: TypeAlias = Literal["add", "lighten", "screen", "darken", "paint", "absorb"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DamageSettings:
    """How much structured damage to draw, and what counts as visible.

    weights: relative frequency of each kind of layer in `LAYERS`. layers_min/max: how many layers are drawn.
    light_share: share of the layers lighter than the picture. scale_min/max: factor on widths and radii (log-uniform).
    change_threshold: smallest visible change, in [0, 1]. coverage_threshold: smallest opacity times coverage.
    lifted_share: share of the light layers that are lifted emulsion (`lay_lifted`).
    overlay_radius_max_px: overlays are scaled so that no solid part of them has a larger radius.
    """

    weights: tuple[tuple[str, float], ...] = (
        ("scratches", 0.28),
        ("film_lines", 0.1),
        ("cracks", 0.18),
        ("folds", 0.1),
        ("dust", 0.16),
        ("hairs", 0.08),
        ("blotches", 0.04),
        ("holes", 0.04),
    )
    layers_min: int = 1
    layers_max: int = 4
    light_share: float = 0.75
    opacity_min: float = 0.35
    scale_min: float = 0.8
    scale_max: float = 1.8
    change_threshold: float = 4 / 255
    coverage_threshold: float = 0.1
    overlay_radius_max_px: float = 14.0
    lifted_share: float = 0.0

    def __post_init__(self) -> None:
        unknown = [kind for kind, _ in self.weights if kind not in LAYERS]
        if unknown:
            raise ValueError(f"unknown kind(s) of damage {unknown}; known kinds: {', '.join(LAYERS)}")
        if not 1 <= self.layers_min <= self.layers_max:
            raise ValueError(f"layers_min must be in 1..layers_max={self.layers_max}, got {self.layers_min}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DamageDraw:
    """Provenance of one layer: what was drawn, how it was blended, how strong and how large."""

    kind: str
    blend: Blend
    opacity: float
    value: float
    scale: float
    coverage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedImage:
    """A damaged picture, its mask (height, width) bool (True = damaged), and the layers that were drawn.

    `change` (height, width) is the largest absolute change over the channels, in [0, 1].
    """

    image: FloatArray
    mask: NDArray[np.bool_]
    change: FloatArray
    draws: tuple[DamageDraw, ...]


def blend_layer(
    image: FloatArray, alpha: FloatArray, value: FloatArray | np.float32 | float, *, blend: Blend
) -> FloatArray:
    """Return `image` (height, width[, 3]) in [0, 1] with `value` laid over it where `alpha` (height, width) says.

    "absorb" multiplies, as a stain does with the light that passes it. `value` is one level, a layer (height, width),
    or a colour (3,) or (height, width, 3) for a picture in colour.
    """
    if blend not in get_args(Blend):
        raise ValueError(f"unknown blend {blend!r}; known blends: {', '.join(get_args(Blend))}")
    layer = np.asarray(value, np.float32)
    if image.ndim == 3:
        alpha = alpha[..., None]
        layer = layer[..., None] if layer.ndim == 2 else layer
    if blend == "add":
        return np.asarray(np.clip(image + alpha * layer, 0, 1), np.float32)
    if blend == "screen":
        return np.asarray(1 - (1 - image) * (1 - alpha * layer), np.float32)
    if blend == "lighten":
        layer = np.maximum(image, layer)
    elif blend == "darken":
        layer = np.minimum(image, layer)
    elif blend == "absorb":
        layer = image * layer
    return np.asarray(image + alpha * (layer - image), np.float32)


def choose_blend(rng: np.random.Generator, *, light: bool) -> tuple[Blend, float]:
    """Draw a blend and the value in [0, 1] it lays down, for damage lighter or darker than the picture."""
    if light:
        blends: tuple[Blend, ...] = ("add", "lighten", "screen", "paint")
        return blends[int(rng.integers(4))], float(rng.uniform(0.55, 1.0))
    blends = ("darken", "paint")
    return blends[int(rng.integers(2))], float(rng.uniform(0.0, 0.3))


def _shape(image: FloatArray) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def lay_damage(
    image: FloatArray,
    coverage: FloatArray,
    rng: np.random.Generator,
    *,
    light: bool,
    opacity_min: float,
    torn: bool = False,
) -> tuple[FloatArray, FloatArray, Blend, float, float]:
    """Blend one coverage layer with a drawn blend, value, paper texture and opacity.

    `torn`: the backing shows and nothing of the picture shines through, as in holes and torn corners.
    Returns the picture, the alpha used, the blend, the opacity and the value.
    """
    blend, value = choose_blend(rng, light=light)
    if torn:
        blend = "paint"
    # Real scratches are more often opaque than faint.
    opacity = float(opacity_min + (1 - opacity_min) * rng.random() ** 0.6)
    texture = rng.uniform(0.0, 0.08) * smooth_noise(_shape(coverage), rng, cell=float(rng.uniform(1.2, 6)))
    layer = np.clip(np.float32(value) + texture.astype(np.float32), 0, 1)
    alpha = coverage * np.float32(opacity)
    return blend_layer(image, alpha, layer, blend=blend), alpha, blend, opacity, value


def lay_lifted(
    image: FloatArray, coverage: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, Blend, float, float]:
    """Lay a layer down as emulsion that broke, curled up and fell off: rough white paper, and a shadow at its side.

    Remnants of the picture stay on the paper, the paper's fibres are as fine as the pixels, and what is wide may be
    white at its edges alone, where the emulsion stands up. Returns what `lay_damage` does; the alpha is that of paper
    and shadow.
    """
    shape = _shape(coverage)
    shift, reach = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.7, 2.6))
    move = np.array([[1, 0, reach * np.cos(shift)], [0, 1, reach * np.sin(shift)]], np.float32)
    shadow = cv2.GaussianBlur(cv2.warpAffine(coverage, move, shape[::-1]), (0, 0), float(rng.uniform(0.5, 1.3)))
    shadow = np.float32(rng.uniform(0.0, 0.75)) * np.clip(shadow - coverage, 0, 1)
    fibres = rng.uniform(0.02, 0.16) * rng.standard_normal(shape, dtype=np.float32)
    fibres += rng.uniform(0.0, 0.12) * smooth_noise(shape, rng, cell=float(rng.uniform(1.2, 5)))
    value = float(rng.uniform(0.6, 1.0))
    paper = np.clip(np.float32(value) + fibres, 0, 1).astype(np.float32)
    if rng.random() < 0.4:
        depth = cv2.distanceTransform((coverage > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
        inside = np.clip((depth - rng.uniform(1.0, 2.0)) / rng.uniform(0.7, 2.0), 0, 1)
        inside *= np.float32(rng.uniform(0.4, 1.0))
        shown = image.mean(axis=2) if image.ndim == 3 else image
        below = shown if rng.random() < 0.5 else np.float32(rng.uniform(0.0, 0.7))
        paper = np.asarray(paper + inside * (below - paper), np.float32)
    remnants = smooth_noise(shape, rng, cell=float(rng.uniform(1.2, 4)))
    gone = np.clip(1.5 + remnants - rng.uniform(0.0, 1.6), 0, 1)
    opacity = float(rng.uniform(0.75, 1.0))
    alpha = np.asarray(coverage * gone * np.float32(opacity), np.float32)
    shaded = blend_layer(image, np.asarray(shadow, np.float32), 0.0, blend="paint")
    laid = blend_layer(shaded, alpha, paper, blend="paint")
    return laid, np.asarray(np.maximum(alpha, shadow), np.float32), "paint", opacity, value


def check_image(image: FloatArray) -> None:
    """Raise ValueError unless `image` is (height, width) or (height, width, 3) float."""
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or image.dtype.kind != "f":
        raise ValueError(
            f"expected a float image (height, width) or (height, width, 3) in [0, 1], got {image.dtype} {image.shape}; "
            "divide 8-bit pictures by 255"
        )


def visible_change(
    image: FloatArray, damaged: FloatArray, alpha: FloatArray, *, settings: DamageSettings
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Return the mask of visible damage and the change, both (height, width), from a picture to its damaged copy."""
    change = np.abs(damaged - image)
    if change.ndim == 3:
        change = change.max(axis=2)
    mask = (change > settings.change_threshold) & (alpha > settings.coverage_threshold)
    return mask, change


DEFAULT_DAMAGE = DamageSettings()


def damage_image(
    image: FloatArray, rng: np.random.Generator, *, settings: DamageSettings = DEFAULT_DAMAGE
) -> DamagedImage:
    """Return `image` (height, width[, 3], float in [0, 1]) with drawn scratches, cracks, dust, holes; and their mask.

    The same image, settings and generator state give the same bytes. Raises ValueError for another kind of image.
    """
    check_image(image)
    image = np.asarray(image, np.float32)
    height, width = image.shape[:2]
    kinds = [kind for kind, _ in settings.weights]
    odds = np.array([weight for _, weight in settings.weights], np.float64)
    damaged, total, draws = image, np.zeros((height, width), np.float32), []
    for _ in range(int(rng.integers(settings.layers_min, settings.layers_max + 1))):
        kind = kinds[int(rng.choice(len(kinds), p=odds / odds.sum()))]
        scale = float(np.exp(rng.uniform(np.log(settings.scale_min), np.log(settings.scale_max))))
        coverage = LAYERS[kind]((height, width), rng, scale=scale)
        light = bool(rng.random() < (0.97 if kind in ("folds", "holes") else settings.light_share))
        if light and settings.lifted_share and rng.random() < settings.lifted_share:
            damaged, alpha, blend, opacity, value = lay_lifted(damaged, coverage, rng)
        else:
            damaged, alpha, blend, opacity, value = lay_damage(
                damaged,
                coverage,
                rng,
                light=light,
                opacity_min=0.9 if kind == "holes" else settings.opacity_min,
                torn=kind == "holes",
            )
        total = np.maximum(total, alpha)
        draws.append(
            DamageDraw(
                kind=kind, blend=blend, opacity=opacity, value=value, scale=scale, coverage=float(coverage.mean())
            )
        )
    mask, change = visible_change(image, damaged, total, settings=settings)
    return DamagedImage(image=damaged, mask=mask, change=change, draws=tuple(draws))
