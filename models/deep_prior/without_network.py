"""Enlarging without a network: what the data term alone, or with total variation, makes of the same small picture.

Ulyanov, Vedaldi and Lempitsky, "Deep Image Prior", CVPR 2018, supplement, "prior effect", and the authors' notebook of
it: the unknowns are the values of the large picture, which start as the noise that a network would be given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.deep_prior.data_terms import SmallPicture
from models.deep_prior.sources import noise_source

# Keeps the gradient of the root finite where neighbours are equal; 1e-4 of a grey level of 8 bits, squared, is 1.5e-13.
_FLAT = 1e-13


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSettings:
    """Adam's steps and rate on values in [0, 1]; `tv_weight` of the sum of gradient lengths beside the mean square."""

    iterations: int = 2000
    learning_rate: float = 0.01
    tv_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.learning_rate <= 0.0 or self.tv_weight < 0.0:
            raise ValueError(
                f"PixelSettings: got {self.iterations} iterations at {self.learning_rate} with a weight of "
                f"{self.tv_weight}, expected at least 1, a rate above 0 and no negative weight"
            )


NO_PRIOR = PixelSettings()
TV_PRIOR = PixelSettings(tv_weight=1e-7)


def total_variation(picture: Tensor) -> Tensor:
    """Return the sum over (1, C, H, W) of the lengths of its gradients; the last row and column have none."""
    across = (picture[:, :, :-1, 1:] - picture[:, :, :-1, :-1]).square()
    down = (picture[:, :, 1:, :-1] - picture[:, :, :-1, :-1]).square()
    return (across + down + _FLAT).sqrt().sum()


def enlarge_without_network(image: Tensor, *, factor: int, settings: PixelSettings, seed: int) -> Tensor:
    """Return a picture (1, C, H, W) in [0, 1], `factor` times as large as `image` (1, C, h, w), that shrinks to it."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(image.device.type, enabled=False):
        term = SmallPicture(image.clone(), factor)
        channels, height, width = term.shape
        values = noise_source(channels, height=height, width=width, seed=seed).to(image.device).requires_grad_()
        optimizer = torch.optim.Adam([values], lr=settings.learning_rate)
        for _ in range(settings.iterations):
            optimizer.zero_grad(set_to_none=True)
            loss = term.loss(values)
            if settings.tv_weight > 0.0:
                loss = loss + settings.tv_weight * total_variation(values)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return values.detach().clamp(0, 1)
