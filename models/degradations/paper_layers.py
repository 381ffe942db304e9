"""Damage of the sheet that carries a picture, as seeded coverage layers: water stains, foxing, paper texture, tears.

Every function follows the contract of `damage_layers`: (height, width), a generator and a scale give an anti-aliased
coverage (height, width), float32 in [0, 1].
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from models.degradations.damage_layers import LAYERS, FloatArray, LayerFunction, Shape, roughen, smooth_noise


def _distance_to(shape: Shape, centre: NDArray[np.float64], stretch: float) -> FloatArray:
    rows = (np.arange(shape[0], dtype=np.float32) - np.float32(centre[1])) * np.float32(stretch)
    columns = (np.arange(shape[1], dtype=np.float32) - np.float32(centre[0])) / np.float32(stretch)
    return np.asarray(np.hypot(rows[:, None], columns[None]), np.float32)


def water_stains(shape: Shape, rng: np.random.Generator, *, scale: float) -> FloatArray:
    """One to three water stains, 0.1 to 0.4 of the shorter side, with the darker tide line where the water dried."""
    side = float(min(shape))
    total = np.zeros(shape, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        radius = scale * side * rng.uniform(0.1, 0.4)
        centre = rng.uniform(-0.1, 1.1, 2) * (shape[1], shape[0])
        distance = _distance_to(shape, centre, float(rng.uniform(0.7, 1.4))) / np.float32(radius)
        distance += np.float32(rng.uniform(0.08, 0.22)) * smooth_noise(shape, rng, cell=float(0.35 * radius + 2))
        distance += np.float32(0.02) * smooth_noise(shape, rng, cell=float(0.06 * radius + 1))
        inside = np.clip((1 - distance) / np.float32(0.03) + np.float32(0.5), 0, 1)
        tide = np.exp(-(((distance - 1) / np.float32(rng.uniform(0.03, 0.1))) ** 2))
        total = np.maximum(total, inside * np.maximum(np.float32(rng.uniform(0.2, 0.6)), tide))
    return np.asarray(np.clip(total, 0, 1), np.float32)


def foxing(shape: Shape, rng: np.random.Generator, *, scale: float) -> FloatArray:
    """Foxing: many soft-edged spots of 1 to 6 px, denser in some parts of the sheet."""
    density = np.clip(smooth_noise(shape, rng, cell=0.3 * min(shape)) + rng.uniform(0.2, 1.0), 0, None)
    total = np.zeros(shape, np.float32)
    for radius in (1.0, 2.2, 4.5):
        radius *= scale * float(rng.uniform(0.8, 1.4))
        odds = rng.uniform(0.3, 1.2) * 6e-4 / radius**1.5
        seeds = (rng.random(shape, np.float32) < odds * density).astype(np.float32)
        spots = cv2.GaussianBlur(seeds, (0, 0), radius) * np.float32(2 * np.pi * radius**2)
        total = np.maximum(total, np.clip(spots * np.float32(1.2), 0, 1))
    if total.max() < 0.5:  # a sheet called foxed has at least one spot
        distance = _distance_to(shape, rng.random(2) * (shape[1], shape[0]), 1.0)
        total = np.maximum(total, np.exp(-((distance / np.float32(3 * scale)) ** 2)))
    return np.asarray(total, np.float32)


def paper_texture(shape: Shape, rng: np.random.Generator, *, scale: float) -> FloatArray:
    """Surface of an old sheet: fibres of 1 to 4 px everywhere, worn spots, and a net of fine creases."""
    fibres = smooth_noise(shape, rng, cell=scale * float(rng.uniform(1.2, 2.5)))
    fibres = 0.6 * fibres + 0.4 * smooth_noise(shape, rng, cell=scale * float(rng.uniform(3, 6)))
    worn = smooth_noise(shape, rng, cell=0.2 * min(shape) + 4)
    ridge_cell = scale * float(rng.uniform(20, 60))
    # The zero crossings of a noise are closed lines without ends, as the creases of crumpled paper nearly are.
    ridges = smooth_noise(shape, rng, cell=ridge_cell) + 0.15 * smooth_noise(shape, rng, cell=0.2 * ridge_cell)
    creases = np.exp(-((ridges * np.float32(ridge_cell / (2.5 * scale))) ** 2)) * np.clip(0.5 + 0.5 * worn, 0, 1)
    grain = np.clip(0.12 * fibres + 0.25 * np.clip(worn, 0, 2) * np.clip(fibres, 0, 2), 0, 1)
    return np.asarray(np.clip(np.maximum(grain, creases), 0, 1), np.float32)


def tears(shape: Shape, rng: np.random.Generator, *, scale: float) -> FloatArray:
    """One or two tears from an edge inwards: a ragged open line and the frayed fibres along one side of it."""
    height, width = shape
    side = min(shape)
    total = np.zeros(shape, np.float32)
    for _ in range(int(rng.integers(1, 3))):
        along, far = float(rng.random()), float(rng.integers(0, 2))
        start = np.array([along * width, far * height] if rng.random() < 0.5 else [far * width, along * height])
        inwards = np.array([width / 2, height / 2]) - start
        count = max(4, int(rng.uniform(0.25, 0.8) * side / (4 * scale)))
        walk = np.arctan2(inwards[1], inwards[0]) + rng.normal(0, 0.3) + np.cumsum(rng.normal(0, 0.25, count))
        path = start + 4 * scale * np.cumsum(np.stack([np.cos(walk), np.sin(walk)], 1), 0)
        open_px = scale * rng.uniform(1.0, 4.0)
        core, fray = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        points = np.concatenate([start[None], path])
        beside = points + open_px * rng.uniform(0.5, 2.0) * np.array([-np.sin(walk.mean()), np.cos(walk.mean())])
        for surface, line, factor in ((core, points, 1.0), (fray, beside, 2.5)):
            fixed = np.round(line * 16).astype(np.int32)
            for index in range(count):
                thick = max(1, round(float(factor * open_px * (1 - index / count))))
                cv2.line(surface, fixed[index].tolist(), fixed[index + 1].tolist(), 255, thick, cv2.LINE_AA, 4)
        frayed = roughen(fray.astype(np.float32) * np.float32(1 / 255), rng, amount=0.5, cell=2.0 * scale)
        total = np.maximum(total, np.maximum(core.astype(np.float32) / 255, np.float32(0.7) * frayed))
    return np.minimum(total, np.float32(1))


def elastic(coverage: FloatArray, rng: np.random.Generator, *, amount_px: float, cell_px: float) -> FloatArray:
    """Return `coverage` bent by a smooth random displacement of about `amount_px`, in features of `cell_px`."""
    shape = (coverage.shape[0], coverage.shape[1])
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    shift_y, shift_x = (np.float32(amount_px) * smooth_noise(shape, rng, cell=cell_px) for _ in range(2))
    moved = cv2.remap(coverage, columns + shift_x, rows + shift_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.float32)


PAPER_LAYERS: dict[str, LayerFunction] = {
    "water_stains": water_stains,
    "foxing": foxing,
    "paper_texture": paper_texture,
    "tears": tears,
}

ALL_LAYERS: dict[str, LayerFunction] = {**LAYERS, **PAPER_LAYERS}
