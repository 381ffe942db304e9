"""Film grain: noise with a grain size, strongest in the mid-tones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.degradations.blur import filter_separable, gaussian_profiles
from models.degradations.noise import standard_normal
from models.degradations.operator import check_images, draw_seed, draw_uniform, per_image


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmGrain:
    """Spatially correlated noise of standard deviation `sigma` (8-bit grey levels) at mid-grey.

    size_px: standard deviation of the Gaussian that correlates the grain. The amplitude at luminance y is
    sigma * (floor + (1 - floor) * sqrt(4 y (1 - y))): deep shadow and bright highlight show less.
    """

    sigma: tuple[float, ...]
    size_px: tuple[float, ...]
    achromatic: tuple[bool, ...]
    floor: float
    seed: int

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        *,
        batch: int,
        sigma: tuple[float, float] = (2.0, 25.0),
        size_px: tuple[float, float] = (0.3, 1.2),
        achromatic_probability: float = 0.7,
        floor: float = 0.3,
    ) -> FilmGrain:
        """Draw strength and grain size uniformly, and whether the grain is that of a black and white film."""
        return cls(
            sigma=draw_uniform(generator, low=sigma[0], high=sigma[1], batch=batch),
            size_px=draw_uniform(generator, low=size_px[0], high=size_px[1], batch=batch),
            achromatic=tuple(bool(value) for value in generator.random(batch) < achromatic_probability),
            floor=floor,
            seed=draw_seed(generator),
        )

    def apply(self, images: Tensor) -> Tensor:
        """Return the grainy images clipped to [0, 1], (B, C, H, W)."""
        check_images(images, batch=len(self.sigma), operator="FilmGrain")
        noise = standard_normal(images, seed=self.seed, achromatic=self.achromatic)
        profiles = gaussian_profiles(self.size_px)
        # Filtering white noise divides its deviation by the norm of the kernel: (sum of squares) in each direction.
        norm = profiles.pow(2).sum(dim=1).to(images).view(-1, 1, 1, 1)
        grain = filter_separable(noise, profiles) / norm
        luminance = images.clamp(0, 1).mean(dim=1, keepdim=True)
        amplitude = self.floor + (1 - self.floor) * torch.sqrt(4 * luminance * (1 - luminance))
        return (images + grain * amplitude * per_image(self.sigma, images) / 255).clamp_(0, 1)
