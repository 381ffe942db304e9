"""Layers shared by the methods' networks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu, pixel_shuffle, pixel_unshuffle

# Slope below zero of the ReLUs of whatever is trained anew.
LEAK = 0.1
# Channels, from the finest level to the coarsest, of a U-Net at the picture's own resolution, and of one that begins at
# half of it, behind a pixel-unshuffle, or whose picture is the small one of an enlargement.
FULL_WIDTHS = (32, 64, 96, 128)
HALF_WIDTHS = (64, 96, 128)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), 3x3, no bias and no normalization: nothing in it depends on the tile's statistics.

    `slope` is the ReLU's below zero. At 0 and without bias, a channel whose answer to plain grey is negative may never
    wake again (docs/decisions/0011).
    """

    def __init__(self, width: int, *, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        features = self.first(x)
        change: Tensor = self.second(leaky_relu(features, self.slope) if self.slope else torch.relu(features))
        return x + change


def residual_stack(width: int, *, count: int, slope: float) -> nn.Sequential:
    """Return `count` residual blocks of the same width, one after another."""
    return nn.Sequential(*(ResidualBlock(width, slope=slope) for _ in range(count)))


class ResidualUNet(nn.Module):
    """Bias-free residual U-Net that predicts what to subtract from its input's first `out_channels` channels.

    Strided 2x2 convolutions go down, transposed 2x2 convolutions come up, skips are added. The layout is that of
    DRUNet (Zhang et al., "Plug-and-Play Image Restoration with Deep Denoiser Prior", TPAMI 2021), narrower and blind.
    `unshuffle` 2: behind the pixel-unshuffle of FFDNet (Zhang et al., TIP 2018), which makes a CPU twice as quick.

    Input (B, in_channels, H, W) with H and W multiples of `size_multiple`; output (B, out_channels, H, W).
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        widths: Sequence[int] = FULL_WIDTHS,
        blocks: int = 2,
        unshuffle: int = 1,
        slope: float = LEAK,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.unshuffle = unshuffle
        self.depth = len(widths) - 1
        self.head = nn.Conv2d(in_channels * unshuffle**2, widths[0], 3, padding=1, bias=False)
        self.encoders = nn.ModuleList(residual_stack(width, count=blocks, slope=slope) for width in widths[:-1])
        self.downs = nn.ModuleList(
            nn.Conv2d(fine, coarse, 2, stride=2, bias=False) for fine, coarse in pairwise(widths)
        )
        self.body = residual_stack(widths[-1], count=blocks, slope=slope)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2, bias=False) for fine, coarse in pairwise(widths)
        )
        self.decoders = nn.ModuleList(residual_stack(width, count=blocks, slope=slope) for width in widths[:-1])
        self.tail = nn.Conv2d(widths[0], out_channels * unshuffle**2, 3, padding=1, bias=False)

    @property
    def size_multiple(self) -> int:
        """What height and width must be multiples of."""
        return self.unshuffle << self.depth

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.tail(self.trunk(self.head(pixel_unshuffle(x, self.unshuffle))))
        return x[:, : self.out_channels] - pixel_shuffle(change, self.unshuffle)

    def trunk(self, features: Tensor) -> Tensor:
        """Everything between the first convolution and the last, (B, widths[0], h, w) in and out."""
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            features = encoder(features)
            skips.append(features)
            features = down(features)
        features = self.body(features)
        for index in reversed(range(len(self.ups))):
            features = self.decoders[index](self.ups[index](features) + skips[index])
        return features


class ResidualUpscaler(ResidualUNet):
    """The same trunk at the resolution of a small RGB picture; it predicts what its bicubic enlargement lacks.

    One convolution and a pixel shuffle make all pixels of the large picture at once (Shi et al., "Real-Time Single
    Image and Video Super-Resolution Using an Efficient Sub-Pixel CNN", CVPR 2016), so that nothing is computed at its
    resolution. Untrained, it is the bicubic enlargement of Keys (a = -0.5).

    Input (B, 3, H, W) with H and W multiples of `size_multiple`; output (B, 3, H·scale, W·scale).
    """

    def __init__(self, *, scale: int, widths: Sequence[int] = HALF_WIDTHS, blocks: int = 2) -> None:
        super().__init__(widths=widths, blocks=blocks)
        self.scale = scale
        self.tail = nn.Conv2d(widths[0], self.out_channels * scale**2, 3, padding=1, bias=False)
        nn.init.zeros_(self.tail.weight)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.tail(self.trunk(self.head(x)))
        return enlarge(x, scale=self.scale) + pixel_shuffle(change, self.scale)


def enlarge(images: Tensor, *, scale: int) -> Tensor:
    """Enlarge (B, C, H, W) a whole number of times by the bicubic of Keys (a = -0.5); a scale of 1 changes nothing."""
    if scale == 1:
        return images
    # Only the antialiased form has a = -0.5; when enlarging there is nothing to smooth.
    return interpolate(images, scale_factor=scale, mode="bicubic", antialias=True)


def pull_push(image: Tensor, mask: Tensor) -> Tensor:
    """Fill the holes of `image` (B, C, H, W) smoothly: averages of known pixels, pulled down and pushed up a pyramid.

    `mask` (B, 1, H, W) is 1 where a pixel is missing; known pixels come back as they were. After Gortler et al., "The
    Lumigraph", SIGGRAPH 1996, section 3.4. The pyramid ends at a single cell, so that holes of any size are filled; a
    picture without any known pixel becomes 0.
    """
    known = 1.0 - mask
    if max(image.shape[-2:]) < 2:
        return image * known
    weight = avg_pool2d(known, 2, ceil_mode=True, count_include_pad=False)
    coarse = avg_pool2d(image * known, 2, ceil_mode=True, count_include_pad=False) / weight.clamp_min(1e-6)
    coarse = pull_push(coarse * (weight > 0), (weight <= 0).to(image.dtype))
    smooth = interpolate(coarse, size=image.shape[-2:], mode="bilinear", align_corners=False)
    return image * known + smooth * mask
