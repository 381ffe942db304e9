"""What generator and discriminator want, by five published formulations, and penalties on the discriminator's slope.

Scores are a discriminator's raw outputs, of any shape; every loss is a mean over them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

# vanilla: Goodfellow et al., 2014, with the generator's loss that does not saturate. lsgan: Mao et al., 2017.
# hinge: Lim and Ye, 2017; Miyato et al., 2018. wgan: Arjovsky et al., 2017. relativistic: the average one of
# Jolicoeur-Martineau, 2019, as ESRGAN has it.
Adversary = Literal["vanilla", "lsgan", "hinge", "wgan", "relativistic"]


def discriminator_loss(real: Tensor, fake: Tensor, *, kind: Adversary) -> Tensor:
    """Return the loss of a discriminator that gave these scores to true and to made pictures."""
    if kind == "vanilla":
        return functional.softplus(-real).mean() + functional.softplus(fake).mean()
    if kind == "lsgan":
        return 0.5 * ((real - 1.0).square().mean() + fake.square().mean())
    if kind == "hinge":
        return functional.relu(1.0 - real).mean() + functional.relu(1.0 + fake).mean()
    if kind == "wgan":
        return fake.mean() - real.mean()
    better, worse = functional.softplus(fake.mean() - real), functional.softplus(fake - real.mean())
    return 0.5 * (better.mean() + worse.mean())


def generator_loss(real: Tensor, fake: Tensor, *, kind: Adversary) -> Tensor:
    """Return the loss of the generator; only the relativistic one looks at the scores of true pictures."""
    if kind == "vanilla":
        return functional.softplus(-fake).mean()
    if kind == "lsgan":
        return 0.5 * (fake - 1.0).square().mean()
    if kind in ("hinge", "wgan"):
        return -fake.mean()
    better, worse = functional.softplus(real - fake.mean()), functional.softplus(real.mean() - fake)
    return 0.5 * (better.mean() + worse.mean())


def slope(discriminate: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """Return the squared norm (B,) of the gradient of each picture's summed score, itself differentiable."""
    pictures = pictures.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminate(pictures).sum(), pictures, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def r1_penalty(discriminate: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """Return half of the mean squared slope at true pictures (B, C, H, W) (Mescheder et al., 2018)."""
    return 0.5 * slope(discriminate, real).mean()


def gradient_penalty(
    discriminate: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, *, generator: torch.Generator
) -> Tensor:
    """Return how far slopes between true and made pictures are from 1, squared (WGAN-GP, Gulrajani et al., 2017)."""
    share = torch.rand((len(real), 1, 1, 1), generator=generator).to(real)
    between = share * real + (1.0 - share) * fake.detach()
    return (slope(discriminate, between).clamp_min(1e-12).sqrt() - 1.0).square().mean()
