"""Lacuna's own small networks: one bias-free residual U-Net, trained for one purpose each.

The layout follows DRUNet (Zhang et al., TPAMI 2021) at a twentieth of its size, at the picture's own resolution where
something fine must be made anew, behind the pixel-unshuffle of FFDNet (TIP 2018) where noise or blocks must go
(docs/decisions/0024). All are blind but for `deblur`, which is told the estimated blur. Grey pictures come as three
equal planes and were part of the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.blocks import FULL_WIDTHS, HALF_WIDTHS, LEAK, ResidualUNet, pull_push
from models.deconvolution import believed_sigma, deconvolution_entry
from models.highlights import with_highlights
from models.method import LEARNED_LICENCE, Context, MethodCard, PlainMethod, nothing_known, required_mask

PAPER = "Lacuna; after Zhang et al., Plug-and-Play Image Restoration with Deep Denoiser Prior, TPAMI 2021"
GMAC_PER_MEGAPIXEL, CONTEXT_PX = 208.6, 48
# Weights of before docs/decisions/0013.
PLAIN = 0.0


@dataclass(frozen=True, slots=True)
class _UNetMethod(PlainMethod):
    """A method with one residual U-Net. `slope` is what its weights were trained with; their card says it."""

    in_channels: int = 3
    widths: tuple[int, ...] = FULL_WIDTHS
    unshuffle: int = 1
    slope: float = LEAK

    def build(self) -> nn.Module:
        return ResidualUNet(
            in_channels=self.in_channels, widths=self.widths, unshuffle=self.unshuffle, slope=self.slope
        )


@dataclass(frozen=True, slots=True)
class BlindRestorer(_UNetMethod):
    """A network that sees the picture alone, and where noise was clipped at white its negative, if `negatives`."""

    negatives: bool = True

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        restored: Tensor = with_highlights(network, image) if self.negatives else network(image)
        return restored


@dataclass(frozen=True, slots=True)
class Deconvolver(_UNetMethod):
    """A network that sees the picture, the same sharpened for the estimated blur, and that blur's σ."""

    in_channels: int = 7

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        estimates = [context.estimate for context in contexts]
        sigma = believed_sigma([estimate.blur_sigma_px.value if estimate else None for estimate in estimates])
        restored: Tensor = network(deconvolution_entry(image, sigma_px=sigma))
        return restored


@dataclass(frozen=True, slots=True)
class HoleFiller(_UNetMethod):
    """A network that sees the picture with its holes filled smoothly, and the mask as a fourth channel."""

    in_channels: int = 4

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        holes = required_mask(mask, method_id=self.card.id)
        filled: Tensor = network(torch.cat([pull_push(image, holes), holes], dim=1))
        return torch.where(nothing_known(holes), image, filled.to(image.dtype))


def _card(
    method_id: str,
    *,
    title: str,
    purpose: Any,
    needs_mask: bool = False,
    gmac_per_megapixel: float = GMAC_PER_MEGAPIXEL,
    context_px: int = CONTEXT_PX,
) -> MethodCard:
    return MethodCard(
        id=method_id,
        title=title,
        paper=PAPER,
        purpose=purpose,
        licence=LEARNED_LICENCE,
        needs_mask=needs_mask,
        size_multiple=8,
        context_px=context_px,
        gmac_per_megapixel=gmac_per_megapixel,
        weights=method_id,
    )


def _behind_unshuffle(
    method_id: str, *, title: str, purpose: Any, slope: float = LEAK, negatives: bool = True
) -> BlindRestorer:
    card = _card(method_id, title=title, purpose=purpose, gmac_per_megapixel=132.5, context_px=24)
    return BlindRestorer(card, widths=HALF_WIDTHS, unshuffle=2, slope=slope, negatives=negatives)


METHODS = (
    _behind_unshuffle("denoise", title="Blind denoising, σ 0-55, colour and grey", purpose="denoise"),
    _behind_unshuffle("degrain", title="Film grain, and noise that a scanner has interpolated", purpose="degrain"),
    _behind_unshuffle(
        "deblock",
        title="Blind removal of JPEG artefacts, quality 5-95",
        purpose="deblock",
        slope=PLAIN,
        # JPEG's errors are about as often above white as below: it would gain 0.05 dB at quality 90 for twice the work.
        negatives=False,
    ),
    BlindRestorer(
        _card("all-in-one", title="Blur, noise, JPEG and lost resolution that came together", purpose="mixed")
    ),
    Deconvolver(
        _card(
            "deblur",
            title="Sharpening of mild blur of estimated σ, 0.3-2.5 px",
            purpose="deblur",
            gmac_per_megapixel=209.7,
            # The unsharp masking in front of the network reaches three times its Gaussian's radius.
            context_px=72,
        ),
    ),
    HoleFiller(
        _card(
            "fill",
            title="Filling of scratches, cracks and holes by mask",
            purpose="fill",
            needs_mask=True,
            gmac_per_megapixel=208.9,
        )
    ),
)
