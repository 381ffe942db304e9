"""Named, seeded degradations: `get_recipe("awgn/25").apply(image, seed=0)` is a pure function of its three arguments.

`varying:<id>` is the same fault with a strength that varies smoothly over the picture.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.degradations.damage_layers import FloatArray
from models.degradations.operator import draw_seed
from models.degradations.recipe_families import FAMILIES, Family, Task
from models.degradations.rendering import Image, Render, Rendered
from models.degradations.spatial import blend_versions, smooth_field, version_weights

_VARYING = "varying:"
# Features of the field: a third of the shorter side, so that a picture shows both weak and strong parts.
_FIELD_CELL = 1 / 3
_VISIBLE = 4 / 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Degraded:
    """A damaged picture and all that is known about the damage.

    image: (H, W[, 3]) float32. reference: the matching clean picture, float32 in [0, 1]; `scale` times as large.
    mask: True = lost or damaged, (H, W), or (H, W, 3) where channels are lost on their own; None = no such pixels.
    provenance: the recipe, the seed and every drawn value, as JSON.
    clipped: True = `image` is within [0, 1], and every changed pixel is a multiple of 1 / 255, so that an 8-bit file
    holds it exactly. False (awgn) = it exceeds that range and must be stored as floats.
    """

    image: NDArray[np.float32]
    reference: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    provenance: dict[str, Any]
    scale: int = 1
    clipped: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradationRecipe:
    """One way to damage clean pictures. `min_side` is the smallest height and width it takes, in pixels."""

    id: str
    description: str
    paper: str
    task: Task
    min_side: int
    scale: int
    _render: Callable[[Image, int], Rendered] = field(repr=False, compare=False)

    def apply(self, image: NDArray[Any], *, seed: int) -> Degraded:
        """Return the damaged `image`, (H, W) or (H, W, 3), float in [0, 1] or uint8; it is never written to.

        Super-resolution recipes crop the reference to a multiple of their scale first. Raises ValueError for another
        kind of image, one smaller than `min_side`, or a negative seed.
        """
        reference = self._reference(image)
        if not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f"{self.id}: expected a seed of 0 or more, got {seed!r}")
        rendered = self._render(reference, int(seed))
        provenance = {"recipe": self.id, "seed": int(seed), "steps": list(rendered.steps)}
        return Degraded(
            image=_finished(rendered, reference) if rendered.clipped else rendered.image.astype(np.float32, copy=False),
            reference=reference,
            mask=rendered.mask,
            provenance=provenance,
            scale=rendered.scale,
            clipped=rendered.clipped,
        )

    def _reference(self, image: NDArray[Any]) -> Image:
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
            raise ValueError(f"{self.id}: expected a picture (H, W) or (H, W, 3), got shape {image.shape}")
        if min(image.shape[:2]) < self.min_side:
            raise ValueError(
                f"{self.id}: got a picture of {image.shape[0]}x{image.shape[1]}, expected at least "
                f"{self.min_side}x{self.min_side} pixels; leave it out or choose a milder recipe"
            )
        if image.dtype == np.uint8:
            reference = image.astype(np.float32) / np.float32(255)
        elif image.dtype.kind == "f":
            reference = image.astype(np.float32)
            if not (reference.min() >= 0 and reference.max() <= 1):
                raise ValueError(
                    f"{self.id}: expected floats in [0, 1], got {reference.min()} to {reference.max()}; "
                    "divide by the largest possible value"
                )
        else:
            raise ValueError(f"{self.id}: expected float in [0, 1] or uint8, got {image.dtype}; convert it first")
        height, width = (length - length % self.scale for length in reference.shape[:2])
        return np.ascontiguousarray(reference[:height, :width])

    def __reduce__(self) -> tuple[Any, ...]:
        return get_recipe, (self.id,)


def recipe_ids() -> tuple[str, ...]:
    """Return the canonical ids; families with a number take others too, and all but clean take `varying:` before."""
    names: list[str] = []
    for family in FAMILIES:
        names += [f"{family.prefix}{value:g}" for value in family.canonical] or [family.prefix]
    return tuple(names)


def get_recipe(recipe_id: str) -> DegradationRecipe:
    """Return the recipe called `recipe_id`, e.g. "awgn/25", "varying:rl-restore/moderate".

    Raises ValueError that names the nearest id for an unknown one, and the range for a number out of it.
    """
    varying = recipe_id.startswith(_VARYING)
    name = recipe_id.removeprefix(_VARYING)
    family, value = _find(name, recipe_id=recipe_id)
    canonical = f"{family.prefix}{value:g}" if family.canonical else family.prefix
    if varying and family.varying is None:
        raise ValueError(f"{recipe_id}: {canonical!r} has no strength that could vary; use {canonical!r}")
    full = (_VARYING if varying else "") + canonical
    render, base = family.make(value), _stable_hash(full)

    def run(image: Image, seed: int) -> Rendered:
        if varying:
            return _render_varying(image, family=family, render=render, key=(base, seed))
        return render(image, np.random.default_rng((base, seed)))

    return DegradationRecipe(
        id=full,
        description=family.description + (", with a strength that varies over the picture" if varying else ""),
        paper=family.paper,
        task=family.task,
        min_side=family.min_side + math.ceil(family.side_per_unit * value),
        scale=int(value) if family.task == "super-resolution" else 1,
        _render=run,
    )


def _find(name: str, *, recipe_id: str) -> tuple[Family, float]:
    for family in FAMILIES:
        if not family.canonical and family.prefix == name:
            return family, 0.0
    for family in FAMILIES:
        if not family.canonical or not name.startswith(family.prefix):
            continue
        try:
            value = float(f"{float(name.removeprefix(family.prefix)):g}")  # the id is all there is to know
        except ValueError:
            continue
        if not family.low <= value <= family.high or (family.whole and value != int(value)):
            kind = "a whole number" if family.whole else "a number"
            raise ValueError(
                f"recipe {recipe_id!r}: got {value:g}, expected {kind} from {family.low:g} to {family.high:g} "
                f"({family.description}); try {family.prefix}{family.canonical[0]:g}"
            )
        return family, value
    prefix = _VARYING if recipe_id.startswith(_VARYING) else ""
    nearest = difflib.get_close_matches(name, recipe_ids(), n=1, cutoff=0.0)[0]
    raise ValueError(
        f"unknown recipe {recipe_id!r}; did you mean {prefix + nearest!r}? Known: {', '.join(recipe_ids())}"
    )


def _stable_hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _finished(rendered: Rendered, reference: Image) -> Image:
    """The picture clipped and rounded as an 8-bit file would hold it; unchanged pixels keep their exact value."""
    rounded = np.rint(np.clip(rendered.image, 0, 1) * np.float32(255)).astype(np.float32) / np.float32(255)
    if rendered.scale == 1:
        rounded = np.where(rendered.image == reference, reference, rounded)
    return np.asarray(rounded, np.float32)


def _render_varying(image: Image, *, family: Family, render: Render, key: tuple[int, int]) -> Rendered:
    """Render with a smooth random field over the picture; the field's seed and size become the first step."""
    field_seed = draw_seed(np.random.default_rng((*key, 0)))
    rng_key = (*key, 1)

    def field_of(shape: tuple[int, int]) -> tuple[FloatArray, dict[str, Any]]:
        cell_px = max(2.0, min(shape) * _FIELD_CELL)
        told = {"operator": "smooth_field", "seed": field_seed, "cell_px": cell_px, "varying": family.varying}
        return smooth_field(shape, seed=field_seed, cell_px=cell_px), told

    if family.varying == "density":
        strength, told = field_of((image.shape[0], image.shape[1]))
        lossy = render(image, np.random.default_rng(rng_key), field=strength)
        return Rendered(image=lossy.image, steps=(told, *lossy.steps), mask=lossy.mask)
    if family.varying == "opacity":
        once = render(image, np.random.default_rng(rng_key))
        versions = [Rendered(image=image, steps=()), once]
    elif family.varying == "levels":  # the same draw each time, noise included, so that only the level varies
        versions = [render(image, np.random.default_rng(rng_key), strength=level) for level in family.strengths]
    else:
        versions = [render(image, np.random.default_rng((*rng_key, index))) for index in range(3)]
    small = versions[-1].image
    strength, told = field_of((small.shape[0], small.shape[1]))
    blended = blend_versions([np.clip(v.image, 0, 1) if v.clipped else v.image for v in versions], strength)
    return Rendered(
        image=blended,
        steps=(told, *({"version": index, "steps": list(v.steps)} for index, v in enumerate(versions))),
        mask=_blended_mask(versions, strength, blended=blended, reference=image),
        clipped=versions[-1].clipped,
        scale=versions[-1].scale,
    )


def _blended_mask(
    versions: list[Rendered], strength: FloatArray, *, blended: Image, reference: Image
) -> NDArray[np.bool_] | None:
    """Pixels damaged in a version that is seen, as long as they still differ visibly; None where no version has any."""
    if all(version.mask is None for version in versions):
        return None
    mask = np.zeros(strength.shape, bool)
    for version, weight in zip(versions, version_weights(strength, count=len(versions)), strict=True):
        if version.mask is not None:
            mask |= version.mask & (weight > 0.1)
    change = np.abs(blended - reference)
    visible = (change.max(axis=2) if change.ndim == 3 else change) > _VISIBLE
    return np.asarray(mask & visible, np.bool_)
