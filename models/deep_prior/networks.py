"""The hourglass with skip connections of Deep Image Prior, and which network a fit is to use.

Ulyanov, Vedaldi and Lempitsky, "Deep Image Prior", CVPR 2018. Without skips it is their encoder-decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, pad

from models.deep_prior.enlarged_convolution import Enlarging, convolve_enlarged, enlarge_twice
from models.deep_prior.resampling import LanczosDownsampler

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
    upsampling: Enlarging | tuple[Enlarging, ...] = "bilinear"
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
    def upsamplings(self) -> tuple[Enlarging, ...]:
        """The kind of upsampling at each scale."""
        if isinstance(self.upsampling, tuple):
            return self.upsampling
        kind: Enlarging = self.upsampling
        return tuple(kind for _ in self.down)

    @property
    def source_scale(self) -> int:
        """The source is as large as the picture."""
        return 1

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
    # Nothing is kept from one iteration to the next: the statistics are always those of the one picture.
    normalization = nn.BatchNorm2d(channels, track_running_stats=False)
    return [convolution, normalization, nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)]


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
        self.normalize = nn.BatchNorm2d(joined, track_running_stats=False)
        self.convolve = reflected(joined, up, kernel=settings.kernel_up)
        self.after = nn.Sequential(*_normalized(self.convolve, up)[1:], *mix)
        self.quick = True

    def forward(self, x: Tensor) -> Tensor:
        deep = self.down(x)
        if self.coarser is not None:
            deep = self.coarser(deep)
        exact = (2 * deep.shape[2], 2 * deep.shape[3]) == tuple(x.shape[2:])
        quick = self.quick and exact and self.convolve.kernel_size == (3, 3)
        mixed: Tensor = self.after(self._quickly(x, deep) if quick else self._plainly(x, deep))
        return mixed

    def _plainly(self, x: Tensor, deep: Tensor) -> Tensor:
        deep = centre_crop(enlarge_twice(deep, kind=self.upsampling), height=x.shape[2], width=x.shape[3])
        joined = deep if self.skip is None else torch.cat([self.skip(x), deep], dim=1)
        convolved: Tensor = self.convolve(self.normalize(joined))
        return convolved

    def _quickly(self, x: Tensor, deep: Tensor) -> Tensor:
        """Normalize and convolve the skip and what is enlarged each by itself."""
        normalize, convolve = self.normalize, self.convolve
        width = normalize.num_features - deep.shape[1]
        convolved = convolve_enlarged(
            deep,
            scale=normalize.weight[width:],
            shift=normalize.bias[width:],
            weight=convolve.weight[:, width:],
            bias=convolve.bias,
            epsilon=normalize.eps,
            kind=self.upsampling,
        )
        if self.skip is None:
            return convolved
        scale, shift = normalize.weight[:width], normalize.bias[:width]
        skipped = batch_norm(self.skip(x), None, None, scale, shift, training=True, eps=normalize.eps)
        return convolved + conv2d(pad(skipped, (1, 1, 1, 1), mode="reflect"), convolve.weight[:, :width])


class SkipNetwork(nn.Module):
    """(1, in_channels, H, W) to (1, out_channels, H, W) in [0, 1]; batch statistics also when the result is taken."""

    def __init__(self, settings: SkipSettings, *, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.hourglass = _Scale(settings, index=0, in_channels=in_channels)
        self.head = nn.Conv2d(settings.up[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # bfloat16 has only 8 significant bits; the result is made in float32.
        return torch.sigmoid(self.head(self.hourglass(x)).float())


def quickened(network: nn.Module, *, quick: bool = True) -> nn.Module:
    """Return the network, from now on computed quickly or as it is written down; the same numbers but for rounding."""
    for module in network.modules():
        if isinstance(module, _Scale):
            module.quick = quick
    return network
