"""Noise of sensors and transmission: Gaussian, Poisson (shot), speckle (multiplicative), salt and pepper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.degradations.operator import check_images, draw_seed, draw_uniform, per_image, torch_generator


def _draw_flags(generator: np.random.Generator, *, probability: float, batch: int) -> tuple[bool, ...]:
    return tuple(bool(value) for value in generator.random(batch) < probability)


def standard_normal(images: Tensor, *, seed: int, achromatic: tuple[bool, ...]) -> Tensor:
    """Return N(0, 1) noise shaped like `images`; the same in every channel where `achromatic` is set."""
    noise = torch.randn(
        images.shape, generator=torch_generator(seed, images.device), dtype=images.dtype, device=images.device
    )
    if images.shape[1] > 1 and any(achromatic):
        flag = torch.tensor(achromatic, device=images.device).view(-1, 1, 1, 1)
        noise = torch.where(flag, noise[:, :1], noise)
    return noise


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianNoise:
    """Additive white Gaussian noise; `sigma` per image in 8-bit grey levels (25 means 25 / 255).

    clip: cut the result to [0, 1], as any 8-bit file does; without it the noise stays exactly Gaussian.
    """

    sigma: tuple[float, ...]
    achromatic: tuple[bool, ...]
    clip: bool
    seed: int

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        *,
        batch: int,
        sigma: tuple[float, float] = (0.0, 55.0),
        achromatic_probability: float = 0.0,
        clip: bool = False,
    ) -> GaussianNoise:
        """Draw sigma uniformly from the range, and for each image whether the noise is grey."""
        return cls(
            sigma=draw_uniform(generator, low=sigma[0], high=sigma[1], batch=batch),
            achromatic=_draw_flags(generator, probability=achromatic_probability, batch=batch),
            clip=clip,
            seed=draw_seed(generator),
        )

    def apply(self, images: Tensor) -> Tensor:
        """Return images + sigma / 255 * N(0, 1), (B, C, H, W)."""
        check_images(images, batch=len(self.sigma), operator="GaussianNoise")
        noise = standard_normal(images, seed=self.seed, achromatic=self.achromatic)
        noisy = torch.addcmul(images, noise, per_image(self.sigma, images) / 255)
        return noisy.clamp_(0, 1) if self.clip else noisy


@dataclass(frozen=True, slots=True, kw_only=True)
class PoissonNoise:
    """Shot noise: each pixel becomes Poisson(x * peak) / peak; `peak` = photons counted at full white, per image."""

    peak: tuple[float, ...]
    seed: int

    @classmethod
    def draw(
        cls, generator: np.random.Generator, *, batch: int, peak: tuple[float, float] = (20.0, 1000.0)
    ) -> PoissonNoise:
        """Draw the peak log-uniformly from the range."""
        low, high = float(np.log(peak[0])), float(np.log(peak[1]))
        logs = draw_uniform(generator, low=low, high=high, batch=batch)
        return cls(peak=tuple(float(np.exp(value)) for value in logs), seed=draw_seed(generator))

    def apply(self, images: Tensor) -> Tensor:
        """Return the counted images in [0, 1], (B, C, H, W)."""
        check_images(images, batch=len(self.peak), operator="PoissonNoise")
        peak = per_image(self.peak, images)
        rate = images.clamp(0, 1) * peak
        return (torch.poisson(rate, generator=torch_generator(self.seed, images.device)) / peak).clamp_(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeckleNoise:
    """Multiplicative noise x * (1 + sigma * N(0, 1)), clipped to [0, 1]; `sigma` relative, per image."""

    sigma: tuple[float, ...]
    seed: int

    @classmethod
    def draw(
        cls, generator: np.random.Generator, *, batch: int, sigma: tuple[float, float] = (0.02, 0.25)
    ) -> SpeckleNoise:
        """Draw sigma uniformly from the range."""
        return cls(sigma=draw_uniform(generator, low=sigma[0], high=sigma[1], batch=batch), seed=draw_seed(generator))

    def apply(self, images: Tensor) -> Tensor:
        """Return the speckled images in [0, 1], (B, C, H, W)."""
        check_images(images, batch=len(self.sigma), operator="SpeckleNoise")
        noise = standard_normal(images, seed=self.seed, achromatic=(False,) * len(self.sigma))
        return torch.addcmul(images, images * per_image(self.sigma, images), noise).clamp_(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SaltAndPepperNoise:
    """A `share` of the pixels of each image is set to black or white, in all channels alike or in each on its own.

    salt_share: share of white among the replaced pixels, per image; None = half of them.
    """

    share: tuple[float, ...]
    seed: int
    salt_share: tuple[float, ...] | None = None
    per_channel: bool = False

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        *,
        batch: int,
        share: tuple[float, float] = (0.001, 0.05),
        salt_share: tuple[float, float] | None = None,
        per_channel: bool = False,
    ) -> SaltAndPepperNoise:
        """Draw the share of replaced pixels, and of white ones among them, uniformly from the ranges."""
        shares = draw_uniform(generator, low=share[0], high=share[1], batch=batch)
        seed = draw_seed(generator)
        salt = (
            None if salt_share is None else draw_uniform(generator, low=salt_share[0], high=salt_share[1], batch=batch)
        )
        return cls(share=shares, seed=seed, salt_share=salt, per_channel=per_channel)

    def apply(self, images: Tensor) -> Tensor:
        """Return the images with black and white pixels, (B, C, H, W)."""
        check_images(images, batch=len(self.share), operator="SaltAndPepperNoise")
        shape = (images.shape[0], images.shape[1] if self.per_channel else 1, *images.shape[2:])
        chance = torch.rand(
            shape, generator=torch_generator(self.seed, images.device), dtype=images.dtype, device=images.device
        )
        share = per_image(self.share, images)
        salt = per_image(self.salt_share or (0.5,) * len(self.share), images)
        speck = (chance < share * salt).to(images.dtype)
        return torch.where(chance < share, speck, images)
