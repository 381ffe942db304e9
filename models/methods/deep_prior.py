"""Deep Image Prior (Ulyanov, Vedaldi and Lempitsky, CVPR 2018): a network is fitted to each picture anew.

A picture up to the tile size (512 px unless the runner is given more) is fitted whole. A larger one is fitted tile by
tile, each overlapping the next by half, and blended: see docs/decisions on methods that learn from the picture. Nothing
is learned beforehand, so `build` makes nothing; minutes per megapixel on a GPU, hours on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from models.deep_prior.budget import iteration_limit
from models.deep_prior.fitting import with_budget
from models.deep_prior.picture_fit import FitResult
from models.deep_prior.restoring import denoise_all, enlarge, inpaint_all
from models.deep_prior.settings import (
    DENOISE,
    DENOISE_AUTOENCODING,
    DENOISE_DECODER,
    DENOISE_TWO_RUNS,
    FILL,
    FILL_AUTOENCODING,
    FILL_FAST,
    FILL_TWO_RUNS,
    JPEG,
    UPSCALE_4,
    UPSCALE_8,
    Preset,
)
from models.method import Context, MethodCard, PlainMethod, Purpose, required_mask, without_repeated_planes

PAPER = "Ulyanov, Vedaldi and Lempitsky, Deep Image Prior, CVPR 2018"
AUTOENCODING = "Alkhouri et al., Image Reconstruction via Autoencoding Sequential Deep Image Prior, NeurIPS 2024"
LICENCE = "Apache-2.0 (written anew from the paper and its settings; nothing learned beforehand)"
# Tiles are at least four times as large, 512 px: what lies further than a tile away has no influence.
CONTEXT_PX = 128
# Five scales and the reflection at the coarsest: 2 px << 5.
SIZE_MULTIPLE = 64
# Fits at once on a GPU: of 512 px, each takes 3 GB.
TOGETHER = 8


@dataclass(frozen=True, slots=True)
class FittedPrior(PlainMethod):
    """Fits the preset's network to every tile; fills holes when the card needs a mask, else reproduces all pixels."""

    preset: Preset

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        missing = required_mask(mask, method_id=self.card.id) if self.card.needs_mask else None
        restored = list(torch.split(image, 1))
        # Grey comes as three equal planes: one is fitted, as published for grey pictures.
        planes = [without_repeated_planes(picture) for picture in restored]
        for channels in (1, 3):
            chosen = [
                index
                for index, found in enumerate(planes)
                # From one known pixel nothing can be learned.
                if found.shape[1] == channels and (missing is None or int((missing[index] == 0).sum()) > 1)
            ]
            if chosen:
                results = self._fit(torch.cat([planes[index] for index in chosen]), missing, chosen, seed=seed)
                for index, result in zip(chosen, results, strict=True):
                    restored[index] = _completed(result).expand(-1, 3, -1, -1)
        return torch.cat(restored)

    def _fit(self, images: Tensor, missing: Tensor | None, chosen: list[int], *, seed: int) -> list[FitResult]:
        preset = with_budget(self.preset, iterations=iteration_limit())
        together = 1 if images.device.type == "cpu" else TOGETHER
        if missing is None:
            return denoise_all(images, preset=preset, seed=seed, together=together)
        return inpaint_all(images, missing[chosen], preset=preset, seed=seed, together=together)


@dataclass(frozen=True, slots=True)
class EnlargingPrior(PlainMethod):
    """Fits the preset's network to every tile: of the pictures that shrink to it, the one that the network makes."""

    preset: Preset

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        preset = with_budget(self.preset, iterations=iteration_limit())
        results = [
            enlarge(without_repeated_planes(picture), factor=self.card.scale, preset=preset, seed=seed)
            for picture in torch.split(image, 1)
        ]
        return torch.cat([_completed(result).expand(-1, 3, -1, -1) for result in results])


def _completed(result: FitResult) -> Tensor:
    """The picture; an interrupt, which a library call answers with its best picture, ends a whole run."""
    if result.stopped_by == "interrupt":
        raise KeyboardInterrupt
    return result.image


def _card(method_id: str, *, title: str, purpose: Purpose, paper: str = PAPER) -> MethodCard:
    return MethodCard(
        id=method_id,
        title=title,
        paper=paper,
        purpose=purpose,
        licence=LICENCE,
        needs_mask=purpose == "fill",
        size_multiple=SIZE_MULTIPLE,
        context_px=CONTEXT_PX,
        stochastic=True,
        opt_in=True,
        fits_each_picture=True,
    )


def _enlarging(scale: int, *, preset: Preset) -> EnlargingPrior:
    """What is fitted is as large as the tiles of the other methods, so those of the small picture are smaller."""
    card = _card(
        f"deep-image-prior-x{scale}",
        title=f"Deep Image Prior: enlargement {scale} times (hours on a CPU)",
        purpose="upscale",
    )
    return EnlargingPrior(
        replace(
            card,
            scale=scale,
            size_multiple=SIZE_MULTIPLE // scale,
            context_px=CONTEXT_PX // scale,
            largest_tile=4 * CONTEXT_PX // scale,
        ),
        preset,
    )


METHODS = (
    FittedPrior(
        _card(
            "deep-image-prior", title="Deep Image Prior, stopped by held-out pixels (hours on a CPU)", purpose="fill"
        ),
        FILL,
    ),
    FittedPrior(
        _card(
            "deep-image-prior-fast",
            title="Deep Image Prior, narrow and short, stopped by held-out pixels (minutes)",
            purpose="fill",
        ),
        FILL_FAST,
    ),
    FittedPrior(
        _card(
            "deep-image-prior-two-runs",
            title="Deep Image Prior, the mean of two fits, each stopped by held-out pixels (twice as many hours)",
            purpose="fill",
        ),
        FILL_TWO_RUNS,
    ),
    FittedPrior(
        _card(
            "deep-image-prior-autoencoding",
            title="Autoencoding Deep Image Prior: from the picture, not from noise; held-out pixels stop it (hours)",
            purpose="fill",
            paper=AUTOENCODING,
        ),
        FILL_AUTOENCODING,
    ),
    FittedPrior(
        _card(
            "deep-image-prior-denoise",
            title="Deep Image Prior, stopped by the variance of its outputs (hours on a CPU)",
            purpose="denoise",
        ),
        DENOISE,
    ),
    FittedPrior(
        _card(
            "deep-image-prior-denoise-two-runs",
            title="Deep Image Prior, the mean of two fits, each stopped by its variance (twice as many hours)",
            purpose="denoise",
        ),
        DENOISE_TWO_RUNS,
    ),
    FittedPrior(
        _card(
            "deep-image-prior-denoise-autoencoding",
            title="Autoencoding Deep Image Prior: from the picture, not from noise; its variance stops it (hours)",
            purpose="denoise",
            paper=AUTOENCODING,
        ),
        DENOISE_AUTOENCODING,
    ),
    FittedPrior(
        _card(
            "deep-image-prior-jpeg",
            title="Deep Image Prior against JPEG artefacts, as many iterations as published (an hour on a CPU)",
            purpose="deblock",
        ),
        JPEG,
    ),
    FittedPrior(
        _card(
            "deep-decoder",
            title="Deep decoder: too few parameters to fit noise, so it is not stopped (minutes)",
            purpose="denoise",
            paper="Heckel and Hand, Deep Decoder, ICLR 2019",
        ),
        DENOISE_DECODER,
    ),
    _enlarging(4, preset=UPSCALE_4),
    _enlarging(8, preset=UPSCALE_8),
)
