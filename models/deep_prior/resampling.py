"""Lanczos shrinking by a whole number, as a fixed convolution that gradients pass through.

Ulyanov et al., "Deep Image Prior", CVPR 2018: the observation model of super-resolution, phase 0.5 and two lobes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad


def lanczos_profile(factor: int, *, lobes: int = 2) -> Tensor:
    """Return the (2·lobes·factor,) float64 profile of the kernel for shrinking `factor` times; it sums to 1."""
    if factor < 1:
        raise ValueError(f"lanczos_profile: got factor {factor}, expected a whole number of at least 1")
    width = 2 * lobes * factor
    taps = [_lanczos(abs(tap + 0.5 - width / 2) / factor, lobes=lobes) for tap in range(width)]
    profile = torch.tensor(taps, dtype=torch.float64)
    return profile / profile.sum()


def _lanczos(distance: float, *, lobes: int) -> float:
    if distance == 0.0:
        return 1.0
    angle = math.pi * distance
    return lobes * math.sin(angle) * math.sin(angle / lobes) / angle**2


class LanczosDownsampler(nn.Module):
    """Shrinks (B, C, H, W) to (B, C, H/factor, W/factor); the border is replicated. Nothing in it is learned."""

    profile: Tensor

    def __init__(self, factor: int, *, lobes: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.register_buffer("profile", lanczos_profile(factor, lobes=lobes).float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        channels, taps = images.shape[1], len(self.profile)
        border = (taps - self.factor) // 2
        kernel = self.profile.to(images).expand(channels, 1, 1, taps)
        framed = pad(images, (border, border, border, border), mode="replicate")
        narrow = conv2d(framed, kernel, stride=(1, self.factor), groups=channels)
        return conv2d(narrow, kernel.transpose(2, 3), stride=(self.factor, 1), groups=channels)
