"""Shapes of structured damage, drawn as seeded coverage layers: scratches, cracks, folds, dust, hair, stains, holes.

Every function takes (height, width), a generator and a scale, and returns an anti-aliased coverage (height, width),
float32 in [0, 1]: 0 = intact, 1 = fully covered. `scale` multiplies widths and radii, for scans finer or coarser than
usual. The kinds are those that "Bringing Old Photos Back to Life" (Wan et al., CVPR 2020) and RRTN (Lin and Simo-Serra,
WACV 2024) take from textures.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
Shape: TypeAlias = tuple[int, int]


class LayerFunction(Protocol):
    """Draws one coverage (height, width) of its kind; its generator alone decides what it looks like."""

    def __call__(self, shape: Shape, rng: np.random.Generator, *, scale: float) -> FloatArray:
        """Return the coverage, float32 in [0, 1]."""
        ...


# Strokes are drawn larger and averaged down, so that a line of 0.7 px keeps its true, sub-pixel coverage.
_OVERSAMPLING = 3
_OVERSAMPLED_PIXELS_MAX = 12_000_000


class _Canvas:
    """An oversampled drawing surface whose coordinates are pixels of the final layer."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.factor = _OVERSAMPLING if height * width * _OVERSAMPLING**2 <= _OVERSAMPLED_PIXELS_MAX else 1
        self.surface = np.zeros((height * self.factor, width * self.factor), np.uint8)

    def stroke(self, points: NDArray[np.float64], widths: NDArray[np.float64], strengths: NDArray[np.float64]) -> None:
        """Draw the polyline `points` (N, 2; x, y) segment by segment; a strength of 0 leaves a gap."""
        fixed = np.round(points * (self.factor * 16)).astype(np.int64)
        inside = np.asarray((np.abs(fixed) < 2**30).all(axis=1))
        for index in range(len(fixed) - 1):
            strength = int(255 * strengths[index])
            if strength < 8 or not (inside[index] and inside[index + 1]):
                continue
            thickness = max(1, round(float(widths[index]) * self.factor))
            start, end = fixed[index].tolist(), fixed[index + 1].tolist()
            cv2.line(self.surface, start, end, strength, thickness, cv2.LINE_AA, 4)

    def blob(self, centre: NDArray[np.float64], axes: tuple[float, float], angle: float, strength: float) -> None:
        """Fill an ellipse with half `axes` in pixels, turned by `angle` degrees."""
        x, y = np.round(centre * (self.factor * 16)).astype(int).tolist()
        half = tuple(max(8, round(axis * self.factor * 16)) for axis in axes)
        cv2.ellipse(self.surface, (x, y), half, angle, 0, 360, int(255 * strength), -1, cv2.LINE_AA, 4)

    def polygon(self, points: NDArray[np.float64]) -> None:
        """Fill the closed polygon `points` (N, 2; x, y)."""
        fixed = np.round(points * (self.factor * 16)).astype(np.int32)
        cv2.fillPoly(self.surface, [fixed], 255, cv2.LINE_AA, 4)

    def coverage(self) -> FloatArray:
        surface = self.surface
        if self.factor > 1:
            surface = np.asarray(cv2.resize(surface, (self.width, self.height), interpolation=cv2.INTER_AREA), np.uint8)
        return surface.astype(np.float32) * np.float32(1 / 255)


def smooth_noise(shape: Shape, rng: np.random.Generator, *, cell: float) -> FloatArray:
    """Return noise (height, width) of mean 0 and deviation about 1 whose features measure about `cell` pixels."""
    height, width = shape
    rows, columns = max(2, round(height / cell) + 1), max(2, round(width / cell) + 1)
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def roughen(coverage: FloatArray, rng: np.random.Generator, *, amount: float, cell: float) -> FloatArray:
    """Return `coverage` with a ragged, flaking outline, as where emulsion has broken off."""
    soft = cv2.GaussianBlur(coverage, (0, 0), max(0.6, cell * 0.4))
    noise = smooth_noise((coverage.shape[0], coverage.shape[1]), rng, cell=cell)
    return np.asarray(np.clip((soft + amount * noise * np.sqrt(soft) - 0.35) * 3.0, 0, 1), np.float32)


def _walk_values(count: int, rng: np.random.Generator, spread: float, smoothness: int) -> NDArray[np.float64]:
    """Smooth positive factors around 1, for widths and strengths that vary along a stroke."""
    knots = max(2, count // smoothness + 2)
    values = np.interp(np.linspace(0, knots - 1, count), np.arange(knots), rng.normal(0, spread, knots))
    return np.asarray(np.exp(values), np.float64)


def _gaps(count: int, rng: np.random.Generator, share: float, run: int) -> NDArray[np.float64]:
    """1 where a stroke is drawn, 0 in gaps that take about `share` of it in runs of about `run` segments."""
    knots = rng.random(count // max(1, run) + 2)
    return (np.repeat(knots, max(1, run))[:count] >= share).astype(np.float64)


def _arc(start: NDArray[np.float64], angle: float, length: float, bend: float, step: float) -> NDArray[np.float64]:
    count = max(3, int(length / step) + 1)
    angles = angle + bend * np.linspace(-0.5, 0.5, count)
    moves = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (length / count)
    points: NDArray[np.float64] = start + np.cumsum(moves, axis=0) - moves.sum(axis=0) / 2
    return points


def _anywhere(height: int, width: int, rng: np.random.Generator, margin: float = 0.2) -> NDArray[np.float64]:
    return rng.uniform(-margin, 1 + margin, 2) * (width, height)


def scratches(shape: Shape, rng: np.random.Generator, *, scale: float) -> FloatArray:
    """Straight or slightly curved scratches, some nearly parallel, some broken, 0.7 to 6 px wide."""
    height, width = shape
    canvas = _Canvas(height, width)
    reach = float(min(height, width))
    common_angle, parallel = rng.uniform(0, np.pi), rng.random() < 0.4
    for _ in range(int(np.ceil(rng.exponential(2.5)))):
        angle = common_angle + rng.normal(0, 0.06) if parallel else rng.uniform(0, np.pi)
        length = reach * np.exp(rng.uniform(np.log(0.08), np.log(2.0)))
        bend = rng.normal(0, 0.12) if rng.random() < 0.6 else rng.normal(0, 0.9)
        points = _arc(_anywhere(height, width, rng), angle, length, bend, 6.0)
        points += rng.normal(0, rng.choice([0.0, 0.0, 0.35]), points.shape)
        base = scale * np.exp(rng.uniform(np.log(0.7), np.log(6.0 if rng.random() < 0.25 else 2.2)))
        widths = base * _walk_values(len(points), rng, 0.25, 5)
        strengths = np.clip(rng.uniform(0.35, 1.0) * _walk_values(len(points), rng, 0.35, 4), 0, 1)
        if rng.random() < 0.4:
            strengths *= _gaps(len(points), rng, rng.uniform(0.1, 0.6), int(rng.integers(1, 5)))
        taper = np.minimum(1, np.minimum(np.arange(len(points)) + 1, np.arange(len(points), 0, -1)) / 3)
        canvas.stroke(points, widths * (0.4 + 0.6 * taper), strengths)
    return canvas.coverage()


def film_lines(shape: Shape, rng: np.random.Generator, *, scale: float) -> FloatArray:
    """Lines along the transport direction of a film: nearly vertical, thin, long, at times broken or in pairs."""
    height, width = shape
    turned = rng.random() < 0.15
    long, wide = (width, height) if turned else (height, width)
    canvas = _Canvas(long, wide)
    for _ in range(int(np.ceil(rng.exponential(1.5)))):
        middle = np.array([rng.uniform(0, wide), long * (0.5 if rng.random() < 0.6 else rng.uniform(0, 1))])
        length = long * (2.2 if rng.random() < 0.6 else rng.uniform(0.2, 1.0))
        points = _arc(middle, np.pi / 2 + rng.normal(0, 0.012), length, rng.normal(0, 0.03), 8.0)
        points[:, 0] += rng.normal(0, 0.5) * np.cumsum(rng.normal(0, 0.15, len(points)))
        widths = np.full(len(points), scale * rng.uniform(0.7, 2.6))
        strengths = np.clip(rng.uniform(0.3, 1.0) * _walk_values(len(points), rng, 0.3, 4), 0, 1)
        if rng.random() < 0.35:
            strengths *= _gaps(len(points), rng, rng.uniform(0.1, 0.5), int(rng.integers(1, 6)))
        canvas.stroke(points, widths, strengths)
        if rng.random() < 0.2:
            canvas.stroke(points + np.array([scale * rng.uniform(2.5, 6), 0.0]), widths * 0.8, strengths)
    layer = canvas.coverage()
    return np.ascontiguousarray(layer.T) if turned else layer


def _crack_walk(
    canvas: _Canvas, start: NDArray[np.float64], angle: float, rng: np.random.Generator, base: float, depth: int
) -> None:
    reach = float(max(canvas.height, canvas.width))
    count = int(rng.uniform(0.15, 1.1 if depth == 0 else 0.4) * reach / 5) + 4
    wander = rng.uniform(0.08, 0.45)
    home = angle
    angles = np.empty(count)
    for index in range(count):
        angle += rng.normal(0, wander) + 0.15 * (home - angle)
        angles[index] = angle
    steps = rng.uniform(3, 7, count)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = start + np.cumsum(steps, axis=0)
    widths = base * _walk_values(count, rng, 0.45, 3) * np.linspace(1, rng.uniform(0.3, 1), count)
    canvas.stroke(points, widths, np.clip(rng.uniform(0.7, 1.3, count), 0, 1))
    if depth < 2:
        for index in np.flatnonzero(rng.random(count) < rng.uniform(0.0, 0.12))[:6]:
            turn = float(rng.choice([-1, 1]) * rng.uniform(0.4, 1.3))
            _crack_walk(
                canvas, points[index], float(angles[index]) + turn, rng, base * rng.uniform(0.35, 0.9), depth + 1
            )


def cracks(shape: Shape, rng: np.random.Generator, *, scale: float) -> FloatArray:
    """Branching cracks of the emulsion: random walks of varying width with flaking edges."""
    height, width = shape
    canvas = _Canvas(height, width)
    for _ in range(int(rng.integers(1, 3))):
        base = scale * np.exp(rng.uniform(np.log(0.8), np.log(5.5)))
        _crack_walk(canvas, _anywhere(height, width, rng), float(rng.uniform(0, 2 * np.pi)), rng, base, 0)
    layer = canvas.coverage()
    if rng.random() < 0.6:
        layer = roughen(layer, rng, amount=float(rng.uniform(0.1, 0.6)), cell=float(rng.uniform(1.5, 5)) * scale)
    return _halo(layer, rng, scale)


def _halo(coverage: FloatArray, rng: np.random.Generator, scale: float) -> FloatArray:
    """Add, to a third of the layers, the lighter band of lifted emulsion that lies along real cracks and folds."""
    if rng.random() >= 0.35:
        return coverage
    band = cv2.GaussianBlur(coverage, (0, 0), float(rng.uniform(1.0, 2.5)) * scale)
    return np.asarray(np.maximum(coverage, np.float32(rng.uniform(0.3, 0.9)) * band), np.float32)


def folds(shape: Shape, rng: np.random.Generator, *, scale: float) -> FloatArray:
    """Fold lines across the picture: nearly straight, white where the paper shows, broken, with ragged edges."""
    height, width = shape
    canvas = _Canvas(height, width)
    for _ in range(1 if rng.random() < 0.75 else 2):
        upright = rng.random() < 0.5
        angle = (np.pi / 2 if upright else 0) + rng.normal(0, 0.25)
        points = _arc(_anywhere(height, width, rng, 0.0), angle, 2.6 * max(height, width), rng.normal(0, 0.05), 4.0)
        points += rng.normal(0, rng.uniform(0.1, 0.9) * scale, points.shape)
        base = scale * np.exp(rng.uniform(np.log(1.2), np.log(8.0)))
        widths = base * _walk_values(len(points), rng, 0.4, 4)
        if rng.random() < 0.6:
            # The paper shows in flakes: the width swells and runs out instead of ending in clean dashes.
            swell = np.interp(
                np.arange(len(points)), np.arange(0, len(points), 3), rng.normal(0.7, 0.7, -(-len(points) // 3))
            )
            widths = widths * np.clip(swell, 0, 1.5)
        canvas.stroke(points, widths, np.clip(widths / 0.5, 0, 1))
    layer = canvas.coverage()
    layer = roughen(layer, rng, amount=float(rng.uniform(0.1, 0.7)), cell=float(rng.uniform(1.5, 6)) * scale)
    return _halo(layer, rng, scale)


def dust(shape: Shape, rng: np.random.Generator, *, scale: float) -> FloatArray:
    """Specks of dust and dirt, round or elongated, radius 0.5 to 5 px, scattered or in clusters."""
    height, width = shape
    canvas = _Canvas(height, width)
    count = 1 + rng.poisson(np.exp(rng.uniform(np.log(1), np.log(25))) * height * width / 160**2)
    centre, spread = _anywhere(height, width, rng, 0.0), rng.uniform(0.1, 0.4) * min(height, width)
    clustered = rng.random() < 0.35
    for _ in range(min(int(count), 4000)):
        place = centre + rng.normal(0, spread, 2) if clustered else _anywhere(height, width, rng, 0.02)
        radius = scale * np.exp(rng.uniform(np.log(0.5), np.log(5.0 if rng.random() < 0.15 else 1.8)))
        stretch = float(rng.uniform(1, 1.6 if rng.random() < 0.7 else 4))
        canvas.blob(place, (radius * stretch, radius), float(rng.uniform(0, 180)), float(rng.uniform(0.5, 1)))
    layer = canvas.coverage()
    if rng.random() < 0.4:
        layer = np.maximum(layer * np.float32(0.5), roughen(layer, rng, amount=0.3, cell=2.0 * scale))
    return layer


def hairs(shape: Shape, rng: np.random.Generator, *, scale: float) -> FloatArray:
    """Hair and lint lying on the picture: smooth curves that wind, 0.8 to 3.5 px wide."""
    height, width = shape
    canvas = _Canvas(height, width)
    for _ in range(int(rng.integers(1, 4))):
        length = rng.uniform(15, 1.2 * max(30, min(height, width)))
        count = max(6, int(length / 3))
        bends = np.interp(np.arange(count), np.linspace(0, count, 6), rng.normal(0, rng.uniform(0.02, 0.16), 6))
        angles = rng.uniform(0, 2 * np.pi) + np.cumsum(bends)
        points = _anywhere(height, width, rng, 0.05) + 3 * np.cumsum(np.stack([np.cos(angles), np.sin(angles)], 1), 0)
        base = scale * np.exp(rng.uniform(np.log(0.8), np.log(3.5)))
        canvas.stroke(points, base * _walk_values(count, rng, 0.1, 6), np.full(count, rng.uniform(0.5, 1)))
    return canvas.coverage()


def blotches(shape: Shape, rng: np.random.Generator, *, scale: float) -> FloatArray:
    """Blotches and stains with irregular outlines and splashes, radius 3 to 14 px."""
    height, width = shape
    canvas = _Canvas(height, width)
    for _ in range(int(rng.integers(1, 4))):
        radius = scale * np.exp(rng.uniform(np.log(3), np.log(14)))
        canvas.polygon(_ragged_outline(_anywhere(height, width, rng, 0.0), float(radius), rng, rng.uniform(0.1, 0.5)))
    layer = canvas.coverage()
    if rng.random() < 0.5:
        layer = roughen(layer, rng, amount=float(rng.uniform(0.1, 0.5)), cell=float(rng.uniform(2, 7)) * scale)
    if rng.random() < 0.5:
        layer = np.asarray(cv2.GaussianBlur(layer, (0, 0), float(rng.uniform(0.5, 1.5)) * scale), np.float32)
    return np.minimum(layer, np.float32(1))


def _ragged_outline(
    centre: NDArray[np.float64], radius: float, rng: np.random.Generator, roughness: float
) -> NDArray[np.float64]:
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    factors = np.ones_like(angles)
    for order in range(1, 12):
        phase = rng.uniform(0, 2 * np.pi)
        factors += roughness * rng.normal(0, 1) / order**0.8 * np.cos(order * angles + phase) * 0.6
    factors = np.clip(factors, 0.15, 3)
    stretch = rng.uniform(0.6, 1.7)
    offsets = np.stack([np.cos(angles) * stretch, np.sin(angles) / stretch], axis=1)
    return centre + radius * factors[:, None] * offsets


def holes(shape: Shape, rng: np.random.Generator, *, scale: float) -> FloatArray:
    """Torn corners, tears from an edge and holes, with ragged or feathered edges."""
    height, width = shape
    canvas = _Canvas(height, width)
    kind = rng.random()
    if kind < 0.45:
        corner = np.array([width * float(rng.integers(0, 2)), height * float(rng.integers(0, 2))])
        canvas.polygon(_ragged_outline(corner, rng.uniform(0.06, 0.2) * min(height, width), rng, 0.2))
    elif kind < 0.75:
        edge = np.array([rng.uniform(0, width), height * float(rng.integers(0, 2))])
        edge = edge if rng.random() < 0.5 else np.array([width * float(rng.integers(0, 2)), rng.uniform(0, height)])
        inwards = np.array([width / 2, height / 2]) - edge
        angle = np.arctan2(inwards[1], inwards[0]) + rng.normal(0, 0.4)
        count = int(rng.uniform(0.15, 0.7) * min(height, width) / 4) + 3
        walk = angle + np.cumsum(rng.normal(0, 0.2, count))
        points = edge + 4 * np.cumsum(np.stack([np.cos(walk), np.sin(walk)], 1), 0)
        widths = scale * rng.uniform(3, 14) * np.linspace(1, 0.1, count) * _walk_values(count, rng, 0.2, 3)
        canvas.stroke(points, widths, np.ones(count))
    else:
        radius = scale * np.exp(rng.uniform(np.log(4), np.log(14)))
        canvas.polygon(_ragged_outline(_anywhere(height, width, rng, 0.0), float(radius), rng, 0.35))
    layer = roughen(canvas.coverage(), rng, amount=float(rng.uniform(0.05, 0.4)), cell=float(rng.uniform(2, 6)) * scale)
    feather = rng.uniform(0.0, 1.6) * scale
    soft = np.asarray(cv2.GaussianBlur(layer, (0, 0), feather) if feather > 0.4 else layer, np.float32)
    return np.minimum(soft, np.float32(1))


LAYERS: dict[str, LayerFunction] = {
    "scratches": scratches,
    "film_lines": film_lines,
    "cracks": cracks,
    "folds": folds,
    "dust": dust,
    "hairs": hairs,
    "blotches": blotches,
    "holes": holes,
}
