"""Lacuna's own enlargement by 2 and by 4: a residual U-Net at the resolution of the small picture, pixel-shuffled.

The trunk is that of the other networks (after DRUNet, Zhang et al., TPAMI 2021), the way up that of ESPCN (Shi et al.,
"Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel CNN", CVPR 2016). Trained on pictures
shrunk by antialiased bicubic, as the published tables are: noise, compression and blur are other methods' work and
come first; what is left of them, and the texture of a print's paper, is drawn out as fine lines. Never applied unless
asked for, since it changes the size of an original.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from models.blocks import ResidualUpscaler
from models.method import LEARNED_LICENCE, Context, MethodCard, PlainMethod

PAPER = (
    "Lacuna; after Zhang et al., Plug-and-Play Image Restoration with Deep Denoiser Prior, TPAMI 2021, and Shi et al., "
    "Efficient Sub-Pixel CNN, CVPR 2016"
)
CONTEXT_PX = 24


@dataclass(frozen=True, slots=True)
class Upscaler(PlainMethod):
    """A network that adds to the bicubic enlargement what was lost when the picture was shrunk."""

    def build(self) -> nn.Module:
        return ResidualUpscaler(scale=self.card.scale)

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        enlarged: Tensor = network(image)
        return enlarged


def _upscaler(scale: int, *, gmac_per_megapixel: float) -> Upscaler:
    method_id = f"upscale-x{scale}"
    return Upscaler(
        MethodCard(
            id=method_id,
            title=f"Enlargement {scale} times, with the detail that plain enlargement lacks",
            paper=PAPER,
            purpose="upscale",
            licence=LEARNED_LICENCE,
            scale=scale,
            size_multiple=4,
            context_px=CONTEXT_PX,
            gmac_per_megapixel=gmac_per_megapixel,
            weights=method_id,
            opt_in=True,
        )
    )


# Per megapixel of the small picture.
METHODS = (_upscaler(2, gmac_per_megapixel=524.7), _upscaler(4, gmac_per_megapixel=545.5))
