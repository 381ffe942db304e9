"""Blur of lenses, motion and soft scans: Gaussian (round or elongated), box and motion, one kernel per image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.degradations.operator import check_images, draw_uniform

Border = Literal["reflect", "replicate"]


def filter_each(images: Tensor, kernels: Tensor, *, border: Border = "reflect") -> Tensor:
    """Correlate image b of (B, C, H, W) with kernel b of (B, kh, kw), odd sizes; the border is reflected or repeated.

    Raises ValueError when a reflected border would be wider than the image.
    """
    batch, channels, height, width = images.shape
    pad_y, pad_x = kernels.shape[1] // 2, kernels.shape[2] // 2
    if border == "reflect" and (pad_y >= height or pad_x >= width):
        raise ValueError(
            f"filter_each: a {tuple(kernels.shape[1:])} kernel needs a reflected border wider than the "
            f"{height}x{width} image; use border='replicate' or a smaller kernel"
        )
    padded = functional.pad(images, (pad_x, pad_x, pad_y, pad_y), mode=border)
    flat = padded.reshape(1, batch * channels, *padded.shape[2:])
    weight = kernels.to(images).repeat_interleave(channels, dim=0).unsqueeze(1)
    return functional.conv2d(flat, weight, groups=batch * channels).reshape(batch, channels, height, width)


def gaussian_profiles(sigma: tuple[float, ...]) -> Tensor:
    """Return (B, k) normalised sampled Gaussians, each cut at 3.5 of its own sigma, k odd; 0 = identity.

    What a row holds does not depend on the others: a picture is treated alike whatever shares its batch.
    """
    radii = [max(1, math.ceil(3.5 * value)) for value in sigma]
    position = torch.arange(-max(radii, default=1), max(radii, default=1) + 1, dtype=torch.float64)
    widths = torch.tensor(sigma, dtype=torch.float64).clamp(min=1e-3).view(-1, 1)
    inside = position.abs() <= torch.tensor(radii, dtype=torch.float64).view(-1, 1)
    profile = torch.exp(-0.5 * (position / widths) ** 2) * inside
    return profile / profile.sum(dim=1, keepdim=True)


def filter_separable(images: Tensor, profiles: Tensor, *, border: Border = "reflect") -> Tensor:
    """Correlate image b with the (B, k) profile b along columns, then rows."""
    down = filter_each(images, profiles.unsqueeze(2), border=border)
    return filter_each(down, profiles.unsqueeze(1), border=border)


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianBlur:
    """Gaussian blur of standard deviations `sigma_major_px` and `sigma_minor_px`, turned by `angle` radians."""

    sigma_major_px: tuple[float, ...]
    sigma_minor_px: tuple[float, ...]
    angle: tuple[float, ...]
    border: Border = "reflect"

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        *,
        batch: int,
        sigma_px: tuple[float, float] = (0.3, 3.0),
        aspect: tuple[float, float] = (1.0, 1.0),
        border: Border = "reflect",
    ) -> GaussianBlur:
        """Draw the larger sigma uniformly, the smaller as its share `aspect` (1 = round), and the direction."""
        major = draw_uniform(generator, low=sigma_px[0], high=sigma_px[1], batch=batch)
        shares = draw_uniform(generator, low=aspect[0], high=aspect[1], batch=batch)
        minor = tuple(sigma * share for sigma, share in zip(major, shares, strict=True))
        angle = draw_uniform(generator, low=0.0, high=math.pi, batch=batch)
        return cls(sigma_major_px=major, sigma_minor_px=minor, angle=angle, border=border)

    def equivalent_sigma_px(self) -> tuple[float, ...]:
        """Return, per image, the sigma of a round Gaussian with the same mean variance."""
        pairs = zip(self.sigma_major_px, self.sigma_minor_px, strict=True)
        return tuple(math.sqrt((major**2 + minor**2) / 2) for major, minor in pairs)

    def kernels(self) -> Tensor:
        """Return the (B, k, k) kernels, each summing to 1."""
        radius = max(1, math.ceil(3.5 * max(self.sigma_major_px)))
        position = torch.arange(-radius, radius + 1, dtype=torch.float64)
        grid_y, grid_x = torch.meshgrid(position, position, indexing="ij")
        angle = torch.tensor(self.angle, dtype=torch.float64).view(-1, 1, 1)
        major = torch.tensor(self.sigma_major_px, dtype=torch.float64).clamp(min=1e-3).view(-1, 1, 1)
        minor = torch.tensor(self.sigma_minor_px, dtype=torch.float64).clamp(min=1e-3).view(-1, 1, 1)
        along = torch.cos(angle) * grid_x + torch.sin(angle) * grid_y
        across = torch.cos(angle) * grid_y - torch.sin(angle) * grid_x
        kernel = torch.exp(-0.5 * ((along / major) ** 2 + (across / minor) ** 2))
        return kernel / kernel.sum(dim=(1, 2), keepdim=True)

    def apply(self, images: Tensor) -> Tensor:
        """Return the blurred images, (B, C, H, W)."""
        check_images(images, batch=len(self.angle), operator="GaussianBlur")
        if self.sigma_major_px == self.sigma_minor_px:  # round kernels separate: two short passes, not one long
            return filter_separable(images, gaussian_profiles(self.sigma_major_px), border=self.border)
        return filter_each(images, self.kernels(), border=self.border)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowedGaussianBlur:
    """Round Gaussian blur whose kernel is cut to an odd `window_px`, as fspecial('gaussian', window, sigma) makes it.

    RL-Restore cuts at 21 and repeats the border; Wan et al. (CVPR 2020) cut at 3, 5 or 7, well within the Gaussian.
    """

    sigma_px: tuple[float, ...]
    window_px: tuple[int, ...]
    border: Border = "replicate"

    def __post_init__(self) -> None:
        if any(window < 1 or window % 2 == 0 for window in self.window_px):
            raise ValueError(f"WindowedGaussianBlur: expected odd windows of at least 1 px, got {self.window_px}")

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        *,
        batch: int,
        sigma_px: tuple[float, float] = (1.0, 5.0),
        windows_px: tuple[int, ...] = (3, 5, 7),
        border: Border = "replicate",
    ) -> WindowedGaussianBlur:
        """Draw sigma uniformly from the range and the window from the list."""
        windows = tuple(windows_px[int(index)] for index in generator.integers(0, len(windows_px), batch))
        sigmas = draw_uniform(generator, low=sigma_px[0], high=sigma_px[1], batch=batch)
        return cls(sigma_px=sigmas, window_px=windows, border=border)

    def profiles(self) -> Tensor:
        """Return the (B, k) one-dimensional kernels, each summing to 1, zero beyond their window."""
        radius = max(self.window_px) // 2
        position = torch.arange(-radius, radius + 1, dtype=torch.float64)
        widths = torch.tensor(self.sigma_px, dtype=torch.float64).clamp(min=1e-3).view(-1, 1)
        inside = position.abs() <= torch.tensor(self.window_px).view(-1, 1) // 2
        profile = torch.exp(-0.5 * (position / widths) ** 2) * inside
        return profile / profile.sum(dim=1, keepdim=True)

    def apply(self, images: Tensor) -> Tensor:
        """Return the blurred images, (B, C, H, W)."""
        check_images(images, batch=len(self.sigma_px), operator="WindowedGaussianBlur")
        return filter_separable(images, self.profiles(), border=self.border)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxBlur:
    """Mean over a square of `width_px` (any real >= 1; fractional edges are weighted), as of a lens out of focus."""

    width_px: tuple[float, ...]
    border: Border = "reflect"

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        *,
        batch: int,
        width_px: tuple[float, float] = (1.0, 7.0),
        border: Border = "reflect",
    ) -> BoxBlur:
        """Draw the widths uniformly from the range."""
        return cls(width_px=draw_uniform(generator, low=width_px[0], high=width_px[1], batch=batch), border=border)

    def equivalent_sigma_px(self) -> tuple[float, ...]:
        """Return, per image, the standard deviation of the box along an axis."""
        profiles = self.profiles()
        radius = profiles.shape[1] // 2
        position = torch.arange(-radius, radius + 1, dtype=torch.float64)
        return tuple(float(value) for value in (profiles * position**2).sum(dim=1).sqrt())

    def profiles(self) -> Tensor:
        """Return the (B, k) one-dimensional kernels, each summing to 1."""
        radius = max(1, math.ceil((max(self.width_px) - 1) / 2))
        position = torch.arange(-radius, radius + 1, dtype=torch.float64).abs()
        half = torch.tensor(self.width_px, dtype=torch.float64).view(-1, 1) / 2
        profile = (half - position + 0.5).clamp(0, 1)
        return profile / profile.sum(dim=1, keepdim=True)

    def apply(self, images: Tensor) -> Tensor:
        """Return the blurred images, (B, C, H, W)."""
        check_images(images, batch=len(self.width_px), operator="BoxBlur")
        return filter_separable(images, self.profiles(), border=self.border)


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionBlur:
    """Blur along a straight path of `length_px` at `angle` radians."""

    length_px: tuple[float, ...]
    angle: tuple[float, ...]
    border: Border = "reflect"

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        *,
        batch: int,
        length_px: tuple[float, float] = (2.0, 15.0),
        border: Border = "reflect",
    ) -> MotionBlur:
        """Draw length and direction uniformly."""
        return cls(
            length_px=draw_uniform(generator, low=length_px[0], high=length_px[1], batch=batch),
            angle=draw_uniform(generator, low=0.0, high=math.pi, batch=batch),
            border=border,
        )

    def equivalent_sigma_px(self) -> tuple[float, ...]:
        """Return, per image, the sigma of a round Gaussian with the same mean variance (length / sqrt(24))."""
        return tuple(length / math.sqrt(24.0) for length in self.length_px)

    def kernels(self) -> Tensor:
        """Return the (B, k, k) kernels, each summing to 1: points along the path, shared between four pixels."""
        radius = max(1, math.ceil(max(self.length_px) / 2))
        size = 2 * radius + 1
        steps = torch.linspace(-0.5, 0.5, 8 * size, dtype=torch.float64)
        length = torch.tensor(self.length_px, dtype=torch.float64).view(-1, 1)
        angle = torch.tensor(self.angle, dtype=torch.float64).view(-1, 1)
        path_x = radius + steps * length * torch.cos(angle)
        path_y = radius + steps * length * torch.sin(angle)
        position = torch.arange(size, dtype=torch.float64).view(1, 1, -1)
        share_x = (1 - (path_x.unsqueeze(2) - position).abs()).clamp(min=0)
        share_y = (1 - (path_y.unsqueeze(2) - position).abs()).clamp(min=0)
        kernel = torch.einsum("bsy,bsx->byx", share_y, share_x)
        return kernel / kernel.sum(dim=(1, 2), keepdim=True)

    def apply(self, images: Tensor) -> Tensor:
        """Return the blurred images, (B, C, H, W)."""
        check_images(images, batch=len(self.angle), operator="MotionBlur")
        return filter_each(images, self.kernels(), border=self.border)
