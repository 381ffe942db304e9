"""The two other networks that Deep Image Prior compares: a small ResNet and a U-net.

Ulyanov et al., "Deep Image Prior", CVPR 2018, section on large holes, where their skip connections are "highly
detrimental".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from models.deep_prior.networks import NEGATIVE_SLOPE, centre_crop, reflected


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetSettings:
    """`blocks` residual blocks of `width` channels at full resolution."""

    blocks: int = 8
    width: int = 32

    @property
    def source_scale(self) -> int:
        """The source is as large as the picture."""
        return 1

    @property
    def smallest_side(self) -> int:
        """A border of one pixel is reflected, so two are needed."""
        return 2

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        """Return the network with PyTorch's default weights of the current random state."""
        return PriorResNet(self, in_channels=in_channels, out_channels=out_channels)


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetSettings:
    """Widths per scale, finest first. Instance normalization on the way down only."""

    widths: tuple[int, ...] = (8, 16, 32, 64, 128, 128)
    upsampling: Literal["deconvolution", "nearest", "bilinear"] = "deconvolution"

    @property
    def source_scale(self) -> int:
        """The source is as large as the picture."""
        return 1

    @property
    def smallest_side(self) -> int:
        """Instance normalization needs more than one pixel at the coarsest scale."""
        return 2 << (len(self.widths) - 1)

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        """Return the network with PyTorch's default weights of the current random state."""
        return PriorUNet(self, in_channels=in_channels, out_channels=out_channels)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width, track_running_stats=False),
            nn.LeakyReLU(NEGATIVE_SLOPE),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width, track_running_stats=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.change(x)
        return x + change


class PriorResNet(nn.Module):
    """(1, in_channels, H, W) to (1, out_channels, H, W) in [0, 1]."""

    def __init__(self, settings: ResNetSettings, *, in_channels: int, out_channels: int) -> None:
        super().__init__()
        width = settings.width
        self.layers = nn.Sequential(
            reflected(in_channels, width, kernel=3),
            nn.LeakyReLU(NEGATIVE_SLOPE),
            *(_Residual(width) for _ in range(settings.blocks)),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width, track_running_stats=False),
            reflected(width, out_channels, kernel=3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(x).float())


def _twice(in_channels: int, width: int, *, normalize: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_channels, width):
        layers.append(nn.Conv2d(channels, width, 3, padding=1))
        if normalize:
            layers.append(nn.InstanceNorm2d(width))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class _Up(nn.Module):
    def __init__(self, coarse: int, fine: int, *, kind: str) -> None:
        super().__init__()
        self.up: nn.Module = (
            nn.ConvTranspose2d(coarse, fine, 4, stride=2, padding=1)
            if kind == "deconvolution"
            else nn.Sequential(nn.Upsample(scale_factor=2, mode=kind), nn.Conv2d(coarse, fine, 3, padding=1))
        )
        self.mix = _twice(2 * fine, fine, normalize=False)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        enlarged = self.up(coarse)
        kept = centre_crop(fine, height=enlarged.shape[2], width=enlarged.shape[3])
        mixed: Tensor = self.mix(torch.cat([enlarged, kept], dim=1))
        return mixed


class PriorUNet(nn.Module):
    """(1, in_channels, H, W) to (1, out_channels, H, W) in [0, 1]; sides are multiples of 2 per scale."""

    def __init__(self, settings: UNetSettings, *, in_channels: int, out_channels: int) -> None:
        super().__init__()
        widths = settings.widths
        self.start = _twice(in_channels, widths[0], normalize=True)
        self.downs = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), _twice(fine, coarse, normalize=True)) for fine, coarse in pairwise(widths)
        )
        self.ups = nn.ModuleList(_Up(coarse, fine, kind=settings.upsampling) for fine, coarse in pairwise(widths))
        self.head = nn.Conv2d(widths[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.start(x)]
        for down in self.downs:
            levels.append(down(levels[-1]))
        features = levels.pop()
        for up, fine in zip(reversed(self.ups), reversed(levels), strict=True):
            features = up(features, fine)
        return torch.sigmoid(self.head(features).float())
