"""The hourglass with skip connections of Deep Image Prior, and which network a fit is to use.

Ulyanov, Vedaldi and Lempitsky, "Deep Image Prior", CVPR 2018. Without skips it is their encoder-decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from models.deep_prior.resampling import LanczosDownsampler

Upsampling = Literal["nearest", "bilinear"]
Downsampling = Literal["stride", "average", "max", "lanczos2"]
NEGATIVE_SLOPE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipSettings:
    """Widths per scale, finest first: of the way down, the way up and the skips (0 = none).

    `upsampling` is one kind for all scales or one per scale. `mix_up`: a 1x1 convolution after each one upwards.
    """

    down: tuple[int, ...]
    up: tuple[int, ...]
    skip: tuple[int, ...]
    kernel_down: int = 3
    kernel_up: int = 3
    kernel_skip: int = 1
    upsampling: Upsampling | tuple[Upsampling, ...] = "bilinear"
    downsampling: Downsampling = "stride"
    mix_up: bool = True

    def __post_init__(self) -> None:
        lengths = {len(self.down), len(self.up), len(self.skip), len(self.upsamplings)}
        if len(lengths) != 1 or not self.down:
            raise ValueError(
                f"SkipSettings: got {len(self.down)} widths down, {len(self.up)} up, {len(self.skip)} of skips and "
                f"{len(self.upsamplings)} kinds of upsampling; expected the same number, at least one"
            )

    @property
    def upsamplings(self) -> tuple[Upsampling, ...]:
        """The kind of upsampling at each scale."""
        if isinstance(self.upsampling, tuple):
            return self.upsampling
        kind: Upsampling = self.upsampling
        return tuple(kind for _ in self.down)

    @property
    def smallest_side(self) -> int:
        """Height and width below this cannot be reflected at the coarsest scale."""
        return (self.kernel_down // 2 + 1) << len(self.down)

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        """Return the network with PyTorch's default (Kaiming uniform) weights of the current random state."""
        return SkipNetwork(self, in_channels=in_channels, out_channels=out_channels)


def reflected(in_channels: int, out_channels: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution with bias whose border is reflected."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, padding_mode="reflect")


def _normalized(convolution: nn.Module, channels: int) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(channels), nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)]


def _halving(in_channels: int, out_channels: int, *, settings: SkipSettings) -> nn.Module:
    kind = settings.downsampling
    if kind == "stride":
        return reflected(in_channels, out_channels, kernel=settings.kernel_down, stride=2)
    shrink = {"average": nn.AvgPool2d(2), "max": nn.MaxPool2d(2), "lanczos2": LanczosDownsampler(2)}[kind]
    return nn.Sequential(reflected(in_channels, out_channels, kernel=settings.kernel_down), shrink)


def centre_crop(features: Tensor, *, height: int, width: int) -> Tensor:
    """Return the middle `height` x `width` of (B, C, H, W)."""
    top, left = (features.shape[2] - height) // 2, (features.shape[3] - width) // 2
    return features[:, :, top : top + height, left : left + width]


class _Scale(nn.Module):
    """One scale: down, the coarser scales, up again, joined by the skip and mixed."""

    def __init__(self, settings: SkipSettings, *, index: int, in_channels: int) -> None:
        super().__init__()
        down, up, skip = settings.down[index], settings.up[index], settings.skip[index]
        self.upsampling = settings.upsamplings[index]
        self.skip = (
            nn.Sequential(*_normalized(reflected(in_channels, skip, kernel=settings.kernel_skip), skip))
            if skip
            else None
        )
        self.down = nn.Sequential(
            *_normalized(_halving(in_channels, down, settings=settings), down),
            *_normalized(reflected(down, down, kernel=settings.kernel_down), down),
        )
        coarsest = index == len(settings.down) - 1
        self.coarser = None if coarsest else _Scale(settings, index=index + 1, in_channels=down)
        joined = skip + (down if coarsest else settings.up[index + 1])
        mix = _normalized(nn.Conv2d(up, up, 1), up) if settings.mix_up else []
        self.up = nn.Sequential(
            nn.BatchNorm2d(joined), *_normalized(reflected(joined, up, kernel=settings.kernel_up), up), *mix
        )

    def forward(self, x: Tensor) -> Tensor:
        deep = self.down(x)
        if self.coarser is not None:
            deep = self.coarser(deep)
        aligned = False if self.upsampling == "bilinear" else None
        deep = interpolate(deep, scale_factor=2, mode=self.upsampling, align_corners=aligned)
        deep = centre_crop(deep, height=x.shape[2], width=x.shape[3])
        joined = deep if self.skip is None else torch.cat([self.skip(x), deep], dim=1)
        mixed: Tensor = self.up(joined)
        return mixed


class SkipNetwork(nn.Module):
    """(1, in_channels, H, W) to (1, out_channels, H, W) in [0, 1]; batch statistics also when the result is taken."""

    def __init__(self, settings: SkipSettings, *, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.hourglass = _Scale(settings, index=0, in_channels=in_channels)
        self.head = nn.Conv2d(settings.up[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # bfloat16 has only 8 significant bits; the result is made in float32.
        return torch.sigmoid(self.head(self.hourglass(x)).float())
