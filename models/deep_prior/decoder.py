"""The deep decoder: too few parameters to fit noise, so that it needs no stopping.

Heckel and Hand, "Deep Decoder: Concise Image Representations from Untrained Non-convolutional Networks", ICLR 2019.
No convolution is larger than one pixel; what makes a picture of it is the enlarging between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSettings:
    """`width` channels everywhere; the picture is 2 ** `enlargements` times as large as the source."""

    width: int = 128
    enlargements: int = 5

    @property
    def source_scale(self) -> int:
        """How many times the picture is as large as the source."""
        return 1 << self.enlargements

    @property
    def smallest_side(self) -> int:
        """Normalization needs two pixels of the source; a side is rounded up to the source's scale."""
        return self.source_scale + 1

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        """Return the network with PyTorch's default weights of the current random state."""
        return DeepDecoder(self, in_channels=in_channels, out_channels=out_channels)


class DeepDecoder(nn.Module):
    """(1, in_channels, h, w) to (1, out_channels, h * scale, w * scale) in [0, 1]."""

    def __init__(self, settings: DecoderSettings, *, in_channels: int, out_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, width = in_channels, settings.width
        for index in range(settings.enlargements + 1):
            layers.append(nn.Conv2d(channels, width, 1, bias=False))
            if index < settings.enlargements:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
            layers += [nn.ReLU(), nn.BatchNorm2d(width, track_running_stats=False)]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv2d(width, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.head(self.layers(x)).float())
