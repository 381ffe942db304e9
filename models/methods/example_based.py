"""Internal example-based restoration (Xinglu Wang, 2017): a small network learns from the picture's own known pixels.

A picture up to the tile size (512 px unless the runner is given more) is learned from whole; a larger one tile by tile:
see docs/decisions on methods that learn from the picture. Nothing is learned beforehand, so `build` makes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.deep_prior.budget import iteration_limit
from models.example_based.blind_spot import BlindSpotSettings, fill_with_blind_spots
from models.example_based.faithful import FaithfulSettings, fill_faithfully
from models.example_based.learning import Budget, LearningResult
from models.method import Context, MethodCard, PlainMethod

LICENCE = "Apache-2.0 (written anew from a description; nothing learned beforehand)"
# Tiles are at least four times as large, 512 px: what lies further than a tile away has no influence.
CONTEXT_PX = 128
PATCH_PX = 8


@dataclass(frozen=True, slots=True)
class LearnedFromItself(PlainMethod):
    """Trains a network on every tile and fills its holes; which way is decided by the kind of settings."""

    settings: FaithfulSettings | BlindSpotSettings

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        if mask is None:
            raise ValueError(
                f"{self.card.id}: got no mask, expected (B, 1, H, W) with 1 = missing; detect damage first"
            )
        budget = Budget(steps=iteration_limit())
        filled = [
            self._fill(planes[None], hole[None], budget=budget, seed=seed)
            for planes, hole in zip(image, mask, strict=True)
        ]
        return torch.cat(filled)

    def _fill(self, image: Tensor, missing: Tensor, *, budget: Budget, seed: int) -> Tensor:
        if int((missing == 0).sum()) < 2:
            # Nothing is known that could be learned from.
            return image
        # Grey comes as three equal planes: the author's grey networks take one.
        is_grey = torch.equal(image[:, 0], image[:, 1]) and torch.equal(image[:, 0], image[:, 2])
        planes = image[:, :1] if is_grey else image
        result = self._learned(planes, missing, budget=budget, seed=seed)
        if result.stopped_by == "interrupt":
            raise KeyboardInterrupt
        return result.image.expand(-1, 3, -1, -1)

    def _learned(self, image: Tensor, missing: Tensor, *, budget: Budget, seed: int) -> LearningResult:
        if isinstance(self.settings, FaithfulSettings):
            return fill_faithfully(image, missing, settings=self.settings, seed=seed, budget=budget)
        return fill_with_blind_spots(image, missing, settings=self.settings, seed=seed, budget=budget)


def _card(method_id: str, *, title: str, paper: str) -> MethodCard:
    return MethodCard(
        id=method_id,
        title=title,
        paper=paper,
        purpose="fill",
        licence=LICENCE,
        needs_mask=True,
        size_multiple=PATCH_PX,
        context_px=CONTEXT_PX,
        stochastic=True,
        opt_in=True,
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
)
