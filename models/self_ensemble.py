"""Any method on the eight flips and quarter turns of a picture, whose results are turned back and averaged.

Timofte, Rothe and Van Gool, "Seven ways to improve example-based single image super resolution", CVPR 2016 (there
"enhanced prediction"). What a network gets wrong differs from view to view; the mean is right more often, at eight
times the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.method import Context, Method, MethodCard
from models.types import thorough_id

VIEWS = tuple((turns, flipped) for turns in range(4) for flipped in (False, True))


@dataclass(frozen=True, slots=True)
class SelfEnsemble:
    """The mean of a method's results on all views; weights, and what must be known of a picture, are the method's."""

    method: Method

    @property
    def card(self) -> MethodCard:
        plain = self.method.card
        work = plain.gmac_per_megapixel
        return replace(
            plain,
            id=thorough_id(plain.id),
            title=f"{plain.title}; mean of {len(VIEWS)} flips and turns",
            paper=f"{plain.paper}; self-ensemble after Timofte et al., Seven Ways to Improve, CVPR 2016",
            gmac_per_megapixel=None if work is None else len(VIEWS) * work,
            opt_in=True,
        )

    def build(self) -> nn.Module:
        return self.method.build()

    def statistics(self, image: npt.NDArray[Any]) -> tuple[float, ...]:
        return self.method.statistics(image)

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        def result(view: tuple[int, bool]) -> Tensor:
            hole = None if mask is None else seen(mask, view)
            found = self.method(network, seen(image, view), mask=hole, contexts=contexts, seed=seed)
            return unseen(found.float(), view)

        total = result(VIEWS[0])
        for view in VIEWS[1:]:
            total = total + result(view)
        return total / len(VIEWS)


def seen(images: Tensor, view: tuple[int, bool]) -> Tensor:
    """Return (B, C, H, W) turned by quarters to the left and then perhaps flipped left to right."""
    turns, flipped = view
    turned = torch.rot90(images, turns, (2, 3))
    turned = turned.flip(3) if flipped else turned
    return turned.contiguous(memory_format=torch.channels_last)


def unseen(images: Tensor, view: tuple[int, bool]) -> Tensor:
    """Return what `seen` was given."""
    turns, flipped = view
    return torch.rot90(images.flip(3) if flipped else images, -turns, (2, 3))
