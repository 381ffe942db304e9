"""Pixels that are gone: single ones at random, an exact number per row and channel, and irregular holes.

Unlike other operators these know exactly what was lost: `masks` says it (True = lost), `apply` sets it to `fill`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.degradations.operator import check_images, draw_seed, draw_uniform

BoolArray: TypeAlias = NDArray[np.bool_]
Shape: TypeAlias = tuple[int, int]

# The bins of Liu et al., "Image Inpainting for Irregular Holes Using Partial Convolutions" (ECCV 2018).
HOLE_RATIO_BINS: tuple[tuple[float, float], ...] = (
    (0.01, 0.1),
    (0.1, 0.2),
    (0.2, 0.3),
    (0.3, 0.4),
    (0.4, 0.5),
    (0.5, 0.6),
)


def lose(images: Tensor, masks: Tensor, *, fill: float) -> Tensor:
    """Return a copy of `images` (B, C, H, W) that is `fill` where `masks` (B, 1 or C, H, W) is True."""
    return images.masked_fill(masks.to(images.device), fill)


def _loss_chances(ratio: float, shape: Shape, field: NDArray[np.float32] | None) -> NDArray[np.float32] | float:
    """The chance of each pixel to be lost: `ratio` everywhere, or following `field` with that mean, at most 1."""
    if field is None:
        return ratio
    if field.shape != shape:
        raise ValueError(f"pixel loss: expected a field of the picture's size {shape}, got {field.shape}")
    return np.asarray(np.minimum(field * (ratio / max(float(field.mean()), 1e-6)), 1), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelLoss:
    """Each pixel is lost with chance `ratio` (Bernoulli), independently, in all channels alike."""

    ratio: tuple[float, ...]
    seed: int
    fill: float = 0.0

    @classmethod
    def draw(
        cls, generator: np.random.Generator, *, batch: int, ratio: tuple[float, float] = (0.3, 0.7), fill: float = 0.0
    ) -> PixelLoss:
        """Draw the chance uniformly from the range."""
        return cls(
            ratio=draw_uniform(generator, low=ratio[0], high=ratio[1], batch=batch),
            seed=draw_seed(generator),
            fill=fill,
        )

    def masks(self, shape: Shape, *, field: NDArray[np.float32] | None = None) -> Tensor:
        """Return what is lost, (B, 1, H, W) bool; `field` (H, W) >= 0 makes the loss heavier where it is high."""
        rng = np.random.default_rng(self.seed)
        chances = [rng.random(shape, np.float32) < _loss_chances(ratio, shape, field) for ratio in self.ratio]
        return torch.from_numpy(np.stack(chances)[:, None])

    def apply(self, images: Tensor) -> Tensor:
        """Return the images with the lost pixels set to `fill`, (B, C, H, W)."""
        check_images(images, batch=len(self.ratio), operator="PixelLoss")
        return lose(images, self.masks((images.shape[2], images.shape[3])), fill=self.fill)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLoss:
    """In every row of every channel exactly ratio * columns distinct pixels, rounded down, are lost, each on its own.

    The corruption of the example-based restoration exercise (ratios 0.4, 0.6, 0.8): a grey picture has one mask, the
    three channels of a colour picture have three.
    """

    ratio: tuple[float, ...]
    seed: int
    fill: float = 0.0

    @classmethod
    def draw(
        cls, generator: np.random.Generator, *, batch: int, ratios: tuple[float, ...] = (0.4, 0.6, 0.8)
    ) -> RowLoss:
        """Draw the ratio of each image from the list."""
        picks = tuple(ratios[int(index)] for index in generator.integers(0, len(ratios), batch))
        return cls(ratio=picks, seed=draw_seed(generator))

    def masks(self, shape: tuple[int, int, int], *, field: NDArray[np.float32] | None = None) -> Tensor:
        """Return what is lost, (B, C, H, W) bool, for `shape` (C, H, W); `field` (H, W) weighs the columns' chances."""
        rng = np.random.default_rng(self.seed)
        lost = []
        for ratio in self.ratio:
            # The smallest of exponential times make a draw without replacement, with chances as 1 / their scale.
            times = rng.random(shape, np.float32)
            if field is not None:
                times = -np.log1p(-times) / (field + np.float32(0.02))
            # Rounded down, but not by the error of a product: 0.29 * 100 is 28.999999999999996.
            count = int(round(ratio * shape[2], 6))
            mask = np.zeros(shape, bool)
            if count:
                chosen = np.argpartition(times, count - 1, axis=2)[:, :, :count]
                np.put_along_axis(mask, chosen, True, axis=2)
            lost.append(mask)
        return torch.from_numpy(np.stack(lost))

    def apply(self, images: Tensor) -> Tensor:
        """Return the images with the lost pixels set to `fill`, (B, C, H, W)."""
        check_images(images, batch=len(self.ratio), operator="RowLoss")
        shape = (images.shape[1], images.shape[2], images.shape[3])
        return lose(images, self.masks(shape), fill=self.fill)


@dataclass(frozen=True, slots=True, kw_only=True)
class IrregularHoles:
    """Brush strokes of random width and turn until their share of the picture is in (low, high], per image.

    The shares are those of the bins of Liu et al. (ECCV 2018); the strokes are ours, no file of masks is needed.
    """

    ratio_bin: tuple[tuple[float, float], ...]
    target: tuple[float, ...]
    seed: int
    fill: float = 0.0

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        *,
        batch: int,
        bins: tuple[tuple[float, float], ...] = HOLE_RATIO_BINS,
        fill: float = 0.0,
    ) -> IrregularHoles:
        """Draw a bin of the list for each image, and within it the share to reach."""
        picks = tuple(bins[int(index)] for index in generator.integers(0, len(bins), batch))
        target = tuple(float(low + (high - low) * generator.uniform(0.05, 0.95)) for low, high in picks)
        return cls(ratio_bin=picks, target=target, seed=draw_seed(generator), fill=fill)

    def masks(self, shape: Shape, *, field: NDArray[np.float32] | None = None) -> Tensor:
        """Return the holes, (B, 1, H, W) bool; with `field` (H, W) in [0, 1] strokes start where it is high."""
        rng = np.random.default_rng(self.seed)
        holes = [
            stroke_holes(shape, rng, target=target, high=high, field=field)
            for target, (_, high) in zip(self.target, self.ratio_bin, strict=True)
        ]
        return torch.from_numpy(np.stack(holes)[:, None])

    def apply(self, images: Tensor) -> Tensor:
        """Return the images with the holes set to `fill`, (B, C, H, W)."""
        check_images(images, batch=len(self.target), operator="IrregularHoles")
        return lose(images, self.masks((images.shape[2], images.shape[3])), fill=self.fill)


def stroke_holes(
    shape: Shape,
    rng: np.random.Generator,
    *,
    target: float,
    high: float,
    field: NDArray[np.float32] | None = None,
) -> BoolArray:
    """Draw strokes until at least `target` of the picture is covered and at most `high`; returns (H, W) bool."""
    height, width = shape
    pixels = height * width
    canvas = np.zeros(shape, np.uint8)
    shrink = 1.0
    while (covered := cv2.countNonZero(canvas)) < target * pixels:
        # A stroke is a small part of the hole: large bins take wide strokes, and none oversteps the bin by much.
        reach = min(height, width) * shrink * min(1.0, 0.25 + target)
        trial = canvas.copy()
        _stroke(trial, _start(shape, rng, field=field), rng, reach=reach)
        if cv2.countNonZero(trial) <= high * pixels:
            canvas = trial
        elif reach > 3:
            shrink *= 0.7
        else:  # Too fine for strokes: finish with single pixels.
            free = np.flatnonzero(canvas == 0)
            missing = int(np.ceil(target * pixels)) - covered
            canvas.reshape(-1)[rng.choice(free, size=missing, replace=False)] = 1
    return canvas > 0


def _start(shape: Shape, rng: np.random.Generator, *, field: NDArray[np.float32] | None) -> NDArray[np.float64]:
    height, width = shape
    for _ in range(64):
        place = rng.random(2) * (width, height)
        if field is None or rng.random() < field[int(place[1]), int(place[0])] ** 2:
            break
    return place


def _stroke(canvas: NDArray[np.uint8], point: NDArray[np.float64], rng: np.random.Generator, *, reach: float) -> None:
    """Draw one bent stroke with round joints; lengths and widths are shares of `reach` pixels."""
    angle = rng.uniform(0, 2 * np.pi)
    thickness = max(1, round(float(rng.uniform(0.03, 0.12)) * reach))
    for _ in range(int(rng.integers(1, 6))):
        angle += rng.normal(0, 0.8) + (np.pi if rng.random() < 0.15 else 0.0)
        target = point + rng.uniform(0.05, 0.3) * reach * np.array([np.cos(angle), np.sin(angle)])
        start, end = np.round(point).astype(int).tolist(), np.round(target).astype(int).tolist()
        cv2.line(canvas, start, end, 1, thickness)
        cv2.circle(canvas, end, thickness // 2, 1, -1)
        point = target
