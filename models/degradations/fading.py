"""Ageing of tone and colour: fading (lost contrast, lifted blacks, changed gamma) and yellowing or another cast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.degradations.operator import check_images, draw_uniform, per_image

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fading:
    """Tones are squeezed to [black, white] after a gamma: black + (white - black) * x ** gamma, per image."""

    black: tuple[float, ...]
    white: tuple[float, ...]
    gamma: tuple[float, ...]

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        *,
        batch: int,
        black: tuple[float, float] = (0.05, 0.35),
        white: tuple[float, float] = (0.65, 0.95),
        gamma: tuple[float, float] = (0.7, 1.3),
    ) -> Fading:
        """Draw the lifted black, the dimmed white and the gamma uniformly."""
        return cls(
            black=draw_uniform(generator, low=black[0], high=black[1], batch=batch),
            white=draw_uniform(generator, low=white[0], high=white[1], batch=batch),
            gamma=draw_uniform(generator, low=gamma[0], high=gamma[1], batch=batch),
        )

    def apply(self, images: Tensor) -> Tensor:
        """Return the faded images, (B, C, H, W)."""
        check_images(images, batch=len(self.black), operator="Fading")
        black, white = per_image(self.black, images), per_image(self.white, images)
        return black + (white - black) * images.clamp(0, 1).pow(per_image(self.gamma, images))


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourCast:
    """Each channel is multiplied by a gain <= 1 (a stained support) after the colours are drawn towards grey.

    gain: (red, green, blue) per image. desaturation: share of the colour that is lost, in [0, 1].
    Grey images (one channel) are multiplied by the luma of the gain.
    """

    gain: tuple[tuple[float, float, float], ...]
    desaturation: tuple[float, ...]

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        *,
        batch: int,
        strength: tuple[float, float] = (0.05, 0.4),
        desaturation: tuple[float, float] = (0.0, 0.6),
        yellow_probability: float = 0.7,
    ) -> ColourCast:
        """Draw yellowing (blue lost most, green a little) with the given chance, any other cast otherwise."""
        gains = []
        for depth in draw_uniform(generator, low=strength[0], high=strength[1], batch=batch):
            if generator.random() < yellow_probability:
                losses = (0.0, depth * generator.uniform(0.1, 0.45), depth)
            else:
                losses = tuple(depth * generator.permutation([0.0, generator.uniform(0, 1), 1.0]))
            gains.append((float(1 - losses[0]), float(1 - losses[1]), float(1 - losses[2])))
        lost = draw_uniform(generator, low=desaturation[0], high=desaturation[1], batch=batch)
        return cls(gain=tuple(gains), desaturation=lost)

    def apply(self, images: Tensor) -> Tensor:
        """Return the tinted images, (B, C, H, W)."""
        check_images(images, batch=len(self.gain), operator="ColourCast")
        gain = torch.tensor(self.gain, dtype=images.dtype, device=images.device).view(-1, 3, 1, 1)
        luma = torch.tensor(_LUMA, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
        if images.shape[1] == 1:
            return images * (gain * luma).sum(dim=1, keepdim=True)
        grey = (images * luma).sum(dim=1, keepdim=True)
        return torch.lerp(images, grey.expand_as(images), per_image(self.desaturation, images)) * gain
