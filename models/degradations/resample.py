"""Antialiased resizing as MATLAB's imresize does it, and the loss of resolution that a low-resolution scan suffers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.degradations.operator import check_images, draw_uniform

Kernel = Literal["bicubic", "bilinear", "box"]
Weights = npt.NDArray[np.float64]

# Up to this many matrix entries a dense product is the quickest form of a banded one (patches of a training batch).
_DENSE_LIMIT = 1 << 18


def _cubic(x: Weights) -> Weights:
    """Keys' cubic with a = -0.5 (IEEE ASSP 29(6), 1981)."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _triangle(x: Weights) -> Weights:
    result: Weights = np.maximum(1 - np.abs(x), 0.0)
    return result


def _box(x: Weights) -> Weights:
    return ((x >= -0.5) & (x < 0.5)).astype(np.float64)


_KERNELS: dict[str, tuple[Callable[[Weights], Weights], float]] = {
    "bicubic": (_cubic, 4.0),
    "bilinear": (_triangle, 2.0),
    "box": (_box, 1.0),
}


@lru_cache(maxsize=512)
def resize_taps(length: int, size: int, *, kernel: Kernel, antialias: bool) -> tuple[npt.NDArray[np.int64], Weights]:
    """Return indices and weights, both (size, taps), that resize a line of `length` pixels to `size`.

    MATLAB's imresize: pixel centres at half integers, the kernel widened by 1 / scale when shrinking, weights
    normalised, indices mirrored at the ends.
    """
    function, width = _KERNELS[kernel]
    scale = size / length
    shrink = scale if antialias and scale < 1 else 1.0
    width /= shrink
    centre = np.arange(1, size + 1) / scale + 0.5 * (1 - 1 / scale)
    left = np.floor(centre - width / 2)
    index = left[:, None] + np.arange(math.ceil(width) + 2)[None]
    weights = shrink * function(shrink * (centre[:, None] - index))
    weights /= weights.sum(axis=1, keepdims=True)
    mirror = np.concatenate([np.arange(length), np.arange(length - 1, -1, -1)])
    folded = mirror[(index.astype(np.int64) - 1) % (2 * length)]
    used = np.flatnonzero(np.any(weights != 0, axis=0))
    return np.ascontiguousarray(folded[:, used]), np.ascontiguousarray(weights[:, used])


@lru_cache(maxsize=512)
def _dense(length: int, size: int, *, kernel: Kernel, antialias: bool) -> Tensor:
    index, weights = resize_taps(length, size, kernel=kernel, antialias=antialias)
    matrix = np.zeros((size, length))
    np.add.at(matrix, (np.arange(size)[:, None], index), weights)
    return torch.from_numpy(matrix.astype(np.float32))


def _resize_last(images: Tensor, *, size: int, kernel: Kernel, antialias: bool) -> Tensor:
    length = images.shape[-1]
    if length * size <= _DENSE_LIMIT:
        return images @ _dense(length, size, kernel=kernel, antialias=antialias).to(images).T
    index, weights = resize_taps(length, size, kernel=kernel, antialias=antialias)
    result = images.new_zeros(*images.shape[:-1], size)
    for tap in range(index.shape[1]):
        column = torch.from_numpy(index[:, tap]).to(images.device)
        result.addcmul_(images.index_select(-1, column), torch.from_numpy(weights[:, tap]).to(images))
    return result


def resize(images: Tensor, *, height: int, width: int, kernel: Kernel = "bicubic", antialias: bool = True) -> Tensor:
    """Resize (..., H, W) floating images to (..., height, width) as MATLAB's imresize does; the range is not clipped.

    Raises ValueError for an unknown kernel or an empty size.
    """
    if kernel not in _KERNELS:
        raise ValueError(f"resize: unknown kernel {kernel!r}; known: {', '.join(_KERNELS)}")
    if height < 1 or width < 1:
        raise ValueError(f"resize: expected a size of at least 1x1, got {height}x{width}")
    if height != images.shape[-2]:
        turned = _resize_last(images.transpose(-1, -2), size=height, kernel=kernel, antialias=antialias)
        images = turned.transpose(-1, -2)
    if width != images.shape[-1]:
        images = _resize_last(images, size=width, kernel=kernel, antialias=antialias)
    return images.contiguous()


@dataclass(frozen=True, slots=True, kw_only=True)
class LowResolution:
    """Each image is shrunk to `scale` of its size with one kernel and brought back to its size with another."""

    scale: tuple[float, ...]
    shrink_kernel: tuple[Kernel, ...]
    grow_kernel: tuple[Kernel, ...]

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        *,
        batch: int,
        scale: tuple[float, float] = (0.25, 1.0),
        kernels: tuple[Kernel, ...] = ("bicubic",),
    ) -> LowResolution:
        """Draw scales uniformly and kernels from the list."""
        shrink, grow = (tuple(kernels[int(i)] for i in generator.integers(0, len(kernels), batch)) for _ in range(2))
        scales = draw_uniform(generator, low=scale[0], high=scale[1], batch=batch)
        return cls(scale=scales, shrink_kernel=shrink, grow_kernel=grow)

    def apply(self, images: Tensor) -> Tensor:
        """Return the images at their size and the drawn resolution, clipped to [0, 1], (B, C, H, W)."""
        check_images(images, batch=len(self.scale), operator="LowResolution")
        height, width = images.shape[-2:]
        result = images.clone()
        for index, scale in enumerate(self.scale):
            small_height, small_width = max(1, round(height * scale)), max(1, round(width * scale))
            if (small_height, small_width) == (height, width):
                continue
            small = resize(images[index], height=small_height, width=small_width, kernel=self.shrink_kernel[index])
            result[index] = resize(small, height=height, width=width, kernel=self.grow_kernel[index]).clamp_(0, 1)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class UnevenLowResolution:
    """Each image is shrunk by bicubic to its own share of the height and of the width, and brought back to its size.

    `grow_kernel` "box" repeats pixels. As in the degradation of Wan et al. (CVPR 2020), where both shares are drawn
    independently from [0.5, 1] and the way back is nearest or bilinear.
    """

    height_scale: tuple[float, ...]
    width_scale: tuple[float, ...]
    grow_kernel: tuple[Kernel, ...]

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        *,
        batch: int,
        scale: tuple[float, float] = (0.5, 1.0),
        kernels: tuple[Kernel, ...] = ("box", "bilinear"),
    ) -> UnevenLowResolution:
        """Draw both shares uniformly and the kernel from the list."""
        heights, widths = (draw_uniform(generator, low=scale[0], high=scale[1], batch=batch) for _ in range(2))
        grow = tuple(kernels[int(index)] for index in generator.integers(0, len(kernels), batch))
        return cls(height_scale=heights, width_scale=widths, grow_kernel=grow)

    def apply(self, images: Tensor) -> Tensor:
        """Return the images at their size and the drawn resolution, clipped to [0, 1], (B, C, H, W)."""
        check_images(images, batch=len(self.grow_kernel), operator="UnevenLowResolution")
        height, width = images.shape[-2:]
        result = images.clone()
        for index, kernel in enumerate(self.grow_kernel):
            rows, columns = (
                max(1, round(length * share[index]))
                for length, share in ((height, self.height_scale), (width, self.width_scale))
            )
            small = resize(images[index], height=rows, width=columns)
            result[index] = resize(small, height=height, width=width, kernel=kernel).clamp_(0, 1)
        return result
