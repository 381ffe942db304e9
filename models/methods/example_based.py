"""Example-based restoration (Xinglu Wang, 2017): a small network learns to fill from examples.

Internal: from the picture's own known pixels, beginning with nothing, so that `build` makes nothing. External: from
photographs, once. Online: what was learned from photographs goes on learning from the picture. A picture up to the tile
size (512 px unless the runner is given more) is learned from whole; a larger one tile by tile: see docs/decisions on
methods that learn from the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.deep_prior.budget import iteration_limit
from models.example_based.blind_spot import BlindSpotSettings, fill_with_blind_spots
from models.example_based.faithful import FaithfulSettings, fill_faithfully
from models.example_based.learning import Budget, LearningResult
from models.example_based.networks import OnSmoothFill, build_network
from models.method import (
    LEARNED_LICENCE,
    Context,
    MethodCard,
    PlainMethod,
    nothing_known,
    required_mask,
    without_repeated_planes,
)

LICENCE = "Apache-2.0 (written anew from a description; nothing learned beforehand)"
# Tiles are at least four times as large, 512 px: what lies further than a tile away has no influence.
CONTEXT_PX = 128
PATCH_PX = 8
WIDE, NARROW = "deep_wide_denoise", "deep_denoise"
# Weights of both, and what one pass of them costs in multiplications.
WEIGHTS = {WIDE: "example-external", NARROW: "example-external-narrow"}
GMAC_PER_MEGAPIXEL = {WIDE: 87.0, NARROW: 23.6}
# A tenth of the rate of a network that knows nothing: it is to be adapted, not taught anew.
ONLINE = BlindSpotSettings(steps=600, learning_rate=1e-4, validate_every=25, patience=8)


@dataclass(frozen=True, slots=True)
class LearnedFromItself(PlainMethod):
    """Trains a network on every tile and fills its holes; which way is decided by the kind of settings."""

    settings: FaithfulSettings | BlindSpotSettings

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        def learn(tile: Tensor, missing: Tensor, budget: Budget) -> LearningResult:
            # Grey comes as three equal planes: the author's grey networks take one.
            planes = without_repeated_planes(tile)
            if isinstance(self.settings, FaithfulSettings):
                return fill_faithfully(planes, missing, settings=self.settings, seed=seed, budget=budget)
            return fill_with_blind_spots(planes, missing, settings=self.settings, seed=seed, budget=budget)

        return _tile_by_tile(image, required_mask(mask, method_id=self.card.id), learn=learn)


@dataclass(frozen=True, slots=True)
class LearnedFromPhotographs(PlainMethod):
    """Fills by a network that was trained on photographs; with settings, after it has learned from the tile."""

    online: BlindSpotSettings | None = None
    network: str = WIDE

    def build(self) -> nn.Module:
        return OnSmoothFill(build_network(self.network, channels=3, seed=0))

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        holes, settings = required_mask(mask, method_id=self.card.id), self.online
        if settings is None:
            known = (1.0 - holes).expand_as(image)
            predicted: Tensor = network(torch.cat([image * known, known], dim=1))
            return torch.where((known > 0) | nothing_known(holes), image, predicted.to(image.dtype))

        def learn(tile: Tensor, missing: Tensor, budget: Budget) -> LearningResult:
            return fill_with_blind_spots(tile, missing, settings=settings, seed=seed, budget=budget, network=network)

        return _tile_by_tile(image, holes, learn=learn)


def _tile_by_tile(image: Tensor, holes: Tensor, *, learn: Callable[[Tensor, Tensor, Budget], LearningResult]) -> Tensor:
    """Return what `learn` makes of each tile (1, 3, H, W) with its holes; an interrupt of one ends them all."""
    budget = Budget(steps=iteration_limit())
    filled = []
    for planes, hole in zip(image, holes, strict=True):
        tile, missing = planes[None], hole[None]
        if int((missing == 0).sum()) >= 2:  # else nothing is known that could be learned from
            result = learn(tile, missing, budget)
            if result.stopped_by == "interrupt":
                raise KeyboardInterrupt
            tile = result.image.expand(-1, 3, -1, -1)
        filled.append(tile)
    return torch.cat(filled)


def _card(
    method_id: str,
    *,
    title: str,
    paper: str,
    licence: str = LICENCE,
    weights: str | None = None,
    gmac_per_megapixel: float | None = None,
    fits_each_picture: bool = True,
) -> MethodCard:
    return MethodCard(
        id=method_id,
        title=title,
        paper=paper,
        purpose="fill",
        licence=licence,
        needs_mask=True,
        size_multiple=PATCH_PX,
        context_px=CONTEXT_PX,
        gmac_per_megapixel=gmac_per_megapixel,
        weights=weights,
        stochastic=fits_each_picture,
        opt_in=True,
        fits_each_picture=fits_each_picture,
    )


METHODS = (
    LearnedFromItself(
        _card(
            "example-internal",
            title="Learning from the picture's own pixels, some hidden (minutes)",
            paper="Networks of Xinglu Wang, Image restoration, 2017; blind spots of Krull et al., CVPR 2019",
        ),
        BlindSpotSettings(),
    ),
    LearnedFromItself(
        _card(
            "example-internal-faithful",
            title="Learning from the picture's own patches as first published: a baseline that barely fills (minutes)",
            paper="Xinglu Wang, Image restoration (course project), 2017",
        ),
        FaithfulSettings(),
    ),
    LearnedFromPhotographs(
        _card(
            "example-external",
            title="Learning from photographs, by a network of the example-based work",
            paper="Network of Xinglu Wang, Image restoration (course project), 2017, on a smooth fill",
            licence=LEARNED_LICENCE,
            weights=WEIGHTS[WIDE],
            gmac_per_megapixel=GMAC_PER_MEGAPIXEL[WIDE],
            fits_each_picture=False,
        )
    ),
    LearnedFromPhotographs(
        _card(
            "example-external-narrow",
            title="Learning from photographs, by the narrow network of the example-based work",
            paper="Network of Xinglu Wang, Image restoration (course project), 2017, on a smooth fill",
            licence=LEARNED_LICENCE,
            weights=WEIGHTS[NARROW],
            gmac_per_megapixel=GMAC_PER_MEGAPIXEL[NARROW],
            fits_each_picture=False,
        ),
        network=NARROW,
    ),
    LearnedFromPhotographs(
        _card(
            "example-online",
            title="Learning from photographs, then from the picture's own pixels, some hidden (minutes)",
            paper="Online learning of Xinglu Wang, 2017; blind spots of Krull et al., CVPR 2019",
            licence=LEARNED_LICENCE,
            weights=WEIGHTS[WIDE],
        ),
        ONLINE,
    ),
    LearnedFromPhotographs(
        _card(
            "example-online-narrow",
            title="Learning from photographs by the narrow network, then from the picture's own pixels (minutes)",
            paper="Online learning of Xinglu Wang, 2017; blind spots of Krull et al., CVPR 2019",
            licence=LEARNED_LICENCE,
            weights=WEIGHTS[NARROW],
        ),
        ONLINE,
        network=NARROW,
    ),
)
