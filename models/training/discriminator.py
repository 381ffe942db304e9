"""A discriminator that judges every patch of a picture (PatchGAN) with spectrally normalized kernels.

As in "Free-Form Image Inpainting with Gated Convolution" (Yu et al., ICCV 2019): strided convolutions, the picture and
the mask as input, one score for every place; so that it judges texture, wherever it is. Spectral normalization: Miyato
et al., ICLR 2018.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

_SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """Scores (B, 1, h, w) of pictures (B, `in_channels`, H, W), H and W at least 2 ** len(widths).

    `spectral` False leaves the kernels as they are, as gradient penalties want it.
    """

    def __init__(self, *, in_channels: int, widths: tuple[int, ...] = (32, 64, 96, 96), spectral: bool = True) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for before, after in zip((in_channels, *widths), widths, strict=False):
            self.levels.append(_kernel(before, after, size=5, stride=2, spectral=spectral))
        self.score = _kernel(widths[-1], 1, size=3, stride=1, spectral=spectral)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.judge(pictures)[0]

    def judge(self, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the scores and the features of every level."""
        features, found = pictures, []
        for level in self.levels:
            features = functional.leaky_relu(level(features), _SLOPE)
            found.append(features)
        scores: Tensor = self.score(features)
        return scores.float(), found


def _kernel(in_channels: int, out_channels: int, *, size: int, stride: int, spectral: bool) -> nn.Module:
    kernel = nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=size // 2)
    nn.init.kaiming_normal_(kernel.weight, a=_SLOPE)
    if kernel.bias is not None:
        nn.init.zeros_(kernel.bias)
    return spectral_norm(kernel) if spectral else kernel
