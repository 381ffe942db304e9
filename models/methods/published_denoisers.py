"""DnCNN (Zhang et al., "Beyond a Gaussian Denoiser", TIP 2017) with its authors' weights for grey pictures, σ 25.

The released weights have their batch normalization merged into the convolutions. Colour pictures are treated plane by
plane, which is what a grey denoiser can do for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from models.method import Context, MethodCard, PlainMethod

DEPTH = 17
WIDTH = 64


class DnCNN(nn.Module):
    """17 convolutions 3x3 that predict the noise of one plane; each plane of the input is a picture of its own."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, *[WIDTH] * (DEPTH - 1), 1)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))

    def forward(self, image: Tensor) -> Tensor:
        planes = image.flatten(0, 1)[:, None]
        noise = planes
        for convolution in self.convolutions[:-1]:
            noise = torch.relu(convolution(noise))
        clean: Tensor = planes - self.convolutions[-1](noise)
        return clean.view(image.shape)


@dataclass(frozen=True, slots=True)
class GreyDenoiser(PlainMethod):
    """A network for grey pictures: three equal planes are computed once, colour plane by plane."""

    def build(self) -> nn.Module:
        return DnCNN()

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        grey = torch.equal(image, image[:, :1].expand_as(image))
        restored: Tensor = network(image[:, :1] if grey else image)
        return restored.expand_as(image)


METHODS = (
    GreyDenoiser(
        MethodCard(
            id="dncnn-25",
            title="DnCNN for noise of σ 25, grey, with its authors' weights",
            paper="Zhang et al., Beyond a Gaussian Denoiser, TIP 2017",
            purpose="denoise",
            licence="MIT (code and weights, by its authors; not shipped)",
            context_px=DEPTH,
            gmac_per_megapixel=1662.3,
            weights="dncnn-25",
            opt_in=True,
        )
    ),
)
