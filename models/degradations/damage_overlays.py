"""Film-damage overlays (RGBA pictures whose alpha is the damage) laid over clean pictures, seeded.

Made for the MIT-licensed overlays of FilmDamageSimulator: hair, lint, dirt, dots, scratches, smut, spots,
sprinkles, stains.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from models.degradations.damage_layers import FloatArray
from models.degradations.scratches import (
    DEFAULT_DAMAGE,
    DamagedImage,
    DamageDraw,
    DamageSettings,
    check_image,
    lay_damage,
    visible_change,
)


def overlay_coverage(
    overlay: NDArray[np.uint8], shape: tuple[int, int], rng: np.random.Generator, *, radius_max_px: float = 14.0
) -> tuple[FloatArray, float]:
    """Return a randomly flipped, turned, scaled and moved crop of the overlay's alpha (height, width) and its scale.

    `overlay` is RGBA (h, w, 4) uint8, or its alpha alone (h, w). Its scale is such that no solid part of it exceeds
    `radius_max_px`: a stain of half a picture cannot be told from an object of the scene.
    """
    if overlay.dtype != np.uint8 or overlay.ndim not in (2, 3) or (overlay.ndim == 3 and overlay.shape[2] != 4):
        raise ValueError(
            f"expected an 8-bit overlay (h, w, 4) RGBA or its alpha (h, w), got {overlay.dtype} {overlay.shape}; "
            "read the file with its alpha channel"
        )
    height, width = shape
    alpha = overlay if overlay.ndim == 2 else overlay[..., 3]
    rows, columns = np.nonzero(alpha > 25)
    pick = int(rng.integers(len(rows))) if len(rows) else 0
    # A damaged pixel of the overlay lands somewhere inside the picture, so that no crop comes out empty.
    anchor = np.array([columns[pick], rows[pick]]) if len(rows) else np.array(alpha.shape[::-1]) / 2
    place = rng.uniform(0.1, 0.9, 2) * (width, height)
    angle, scale = rng.uniform(0, 2 * np.pi), float(np.exp(rng.uniform(np.log(0.5), np.log(1.6))))
    scale = min(scale, radius_max_px * float(rng.uniform(0.4, 1.0)) / max(1.0, _solid_radius(alpha)))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    turn = scale * np.array([[flip * np.cos(angle), -np.sin(angle)], [flip * np.sin(angle), np.cos(angle)]])
    matrix = np.concatenate([turn, (place - turn @ anchor)[:, None]], axis=1)
    source = alpha if scale > 0.75 else cv2.GaussianBlur(alpha, (0, 0), 0.45 / scale)
    coverage = cv2.warpAffine(source, matrix, (width, height), flags=cv2.INTER_LINEAR)
    return coverage.astype(np.float32) * np.float32(1 / 255), scale


def _solid_radius(alpha: NDArray[np.uint8]) -> float:
    """Radius in pixels of the largest disc that fits into the damage."""
    small = cv2.resize(alpha, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    distance = cv2.distanceTransform((small > 60).astype(np.uint8), cv2.DIST_L2, 3)
    return 2 * float(distance.max(initial=0.0))


def overlay_damage(
    image: FloatArray,
    overlay: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    name: str = "overlay",
    settings: DamageSettings = DEFAULT_DAMAGE,
) -> DamagedImage:
    """Return `image` (height, width[, 3], float in [0, 1]) with one overlay laid over it, and its mask of damage."""
    check_image(image)
    image = np.asarray(image, np.float32)
    shape = (image.shape[0], image.shape[1])
    coverage, scale = overlay_coverage(overlay, shape, rng, radius_max_px=settings.overlay_radius_max_px)
    if rng.random() < 0.5:
        coverage = np.minimum(coverage * np.float32(rng.uniform(1, 3)), np.float32(1))
    light = bool(rng.random() < settings.light_share)
    damaged, alpha, blend, opacity, value = lay_damage(
        image, coverage, rng, light=light, opacity_min=max(0.5, settings.opacity_min)
    )
    mask, change = visible_change(image, damaged, alpha, settings=settings)
    draw = DamageDraw(
        kind=name, blend=blend, opacity=opacity, value=value, scale=scale, coverage=float(coverage.mean())
    )
    return DamagedImage(image=damaged, mask=mask, change=change, draws=(draw,))
