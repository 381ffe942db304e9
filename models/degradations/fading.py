"""Ageing of tone and colour: fading (lost contrast, lifted blacks, changed gamma), casts, yellowing, colour jitter."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourJitter:
    """Every channel is shifted by its own number of 8-bit levels and clipped to [0, 1].

    shift_levels: (red, green, blue) per image. Grey images are shifted by the luma of the shifts. Wan et al.
    (CVPR 2020) draw each from [-20, 20].
    """

    shift_levels: tuple[tuple[float, float, float], ...]

    @classmethod
    def draw(
        cls, generator: np.random.Generator, *, batch: int, shift_levels: tuple[float, float] = (-20.0, 20.0)
    ) -> ColourJitter:
        """Draw three independent shifts per image uniformly from the range."""
        drawn = draw_uniform(generator, low=shift_levels[0], high=shift_levels[1], batch=3 * batch)
        return cls(shift_levels=tuple((drawn[i], drawn[i + 1], drawn[i + 2]) for i in range(0, 3 * batch, 3)))

    def apply(self, images: Tensor) -> Tensor:
        """Return the shifted images, (B, C, H, W)."""
        check_images(images, batch=len(self.shift_levels), operator="ColourJitter")
        return (images + _per_channel(self.shift_levels, images) / 255).clamp_(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Yellowing:
    """Aged paper or varnish: light is absorbed, blue most, and more of it towards the edges of the sheet.

    depth: blue lost in the middle at strength 1, in [0, 1]; green loses 0.35 of it, red 0.08. edge_depth: further blue
    lost at the very edge, fading inwards with `edge_reach` (share of the shorter side). All per image.
    """

    depth: tuple[float, ...]
    edge_depth: tuple[float, ...]
    edge_reach: tuple[float, ...]

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        *,
        batch: int,
        depth: tuple[float, float] = (0.1, 0.45),
        edge_depth: tuple[float, float] = (0.0, 0.3),
        edge_reach: tuple[float, float] = (0.05, 0.3),
    ) -> Yellowing:
        """Draw depth, edge depth and reach uniformly from the ranges."""
        return cls(
            depth=draw_uniform(generator, low=depth[0], high=depth[1], batch=batch),
            edge_depth=draw_uniform(generator, low=edge_depth[0], high=edge_depth[1], batch=batch),
            edge_reach=draw_uniform(generator, low=edge_reach[0], high=edge_reach[1], batch=batch),
        )

    def apply(self, images: Tensor) -> Tensor:
        """Return the yellowed images, (B, C, H, W)."""
        check_images(images, batch=len(self.depth), operator="Yellowing")
        height, width = images.shape[-2:]
        rows = torch.arange(height, dtype=images.dtype, device=images.device)
        columns = torch.arange(width, dtype=images.dtype, device=images.device)
        to_edge = torch.minimum(
            torch.minimum(rows, height - 1 - rows).view(-1, 1), torch.minimum(columns, width - 1 - columns).view(1, -1)
        )
        reach = per_image(self.edge_reach, images) * min(height, width)
        loss = per_image(self.depth, images) + per_image(self.edge_depth, images) * torch.exp(-to_edge / reach)
        absorbed = _per_channel(((0.08, 0.35, 1.0),), images)
        return images * (1 - loss.clamp(max=1) * absorbed)


def _per_channel(values: tuple[tuple[float, float, float], ...], like: Tensor) -> Tensor:
    """Return per-image RGB values as (B, C, 1, 1); their luma for grey images."""
    triples = torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 3, 1, 1)
    if like.shape[1] == 3:
        return triples
    luma = torch.tensor(_LUMA, dtype=like.dtype, device=like.device).view(1, 3, 1, 1)
    return (triples * luma).sum(dim=1, keepdim=True)
