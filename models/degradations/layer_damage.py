"""One drawn coverage layer per image as an operator: stains, paper texture, tears, holes and any film damage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.degradations.damage_layers import FloatArray, smooth_noise
from models.degradations.operator import check_images, draw_seed, draw_uniform
from models.degradations.paper_layers import ALL_LAYERS, elastic
from models.degradations.scratches import Blend, blend_layer

Colour = tuple[float, float, float]
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

# What the paper lays over a picture is lighter than it: addition, lighten-only or screen (Wan et al., CVPR 2020).
PAPER_BLENDS: tuple[Blend, ...] = ("add", "lighten", "screen")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDamage:
    """A layer of `kind` (a key of `ALL_LAYERS`) blended over each image with a colour and an opacity.

    scale: factor on widths and radii. elastic_px: by how much the layer is bent (0 = not). texture: deviation of the
    paper grain within the layer, in [0, 1]. visible: smallest opacity times coverage that counts as damaged, and
    `visible_change` the smallest change of a channel.
    """

    kind: tuple[str, ...]
    blend: tuple[Blend, ...]
    colour: tuple[Colour, ...]
    opacity: tuple[float, ...]
    scale: tuple[float, ...]
    elastic_px: tuple[float, ...]
    texture: float
    seed: int
    visible: float = 0.1
    visible_change: float = 4 / 255

    def __post_init__(self) -> None:
        unknown = sorted(set(self.kind) - set(ALL_LAYERS))
        if unknown:
            raise ValueError(f"LayerDamage: unknown kind(s) {unknown}; known: {', '.join(ALL_LAYERS)}")

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        *,
        batch: int,
        kinds: tuple[str, ...] = ("paper_texture", "tears", "holes"),
        blends: tuple[Blend, ...] = PAPER_BLENDS,
        colours: tuple[Colour, Colour] = ((0.7, 0.66, 0.58), (1.0, 1.0, 0.97)),
        opacity: tuple[float, float] = (0.4, 1.0),
        scale: tuple[float, float] = (0.8, 1.8),
        elastic_px: tuple[float, float] = (0.0, 3.0),
        texture: float = 0.05,
    ) -> LayerDamage:
        """Draw kind and blend from the lists, the colour between two, opacity, scale and bend uniformly."""
        shares = draw_uniform(generator, low=0.0, high=1.0, batch=batch)
        dark, light = np.array(colours[0]), np.array(colours[1])
        tints = [(dark + share * (light - dark)).tolist() for share in shares]
        return cls(
            kind=tuple(kinds[int(index)] for index in generator.integers(0, len(kinds), batch)),
            blend=tuple(blends[int(index)] for index in generator.integers(0, len(blends), batch)),
            colour=tuple((tint[0], tint[1], tint[2]) for tint in tints),
            opacity=draw_uniform(generator, low=opacity[0], high=opacity[1], batch=batch),
            scale=draw_uniform(generator, low=scale[0], high=scale[1], batch=batch),
            elastic_px=draw_uniform(generator, low=elastic_px[0], high=elastic_px[1], batch=batch),
            texture=texture,
            seed=draw_seed(generator),
        )

    def _alpha_and_grain(self, index: int, shape: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
        rng = np.random.default_rng((self.seed, index))
        coverage = ALL_LAYERS[self.kind[index]](shape, rng, scale=self.scale[index])
        if self.elastic_px[index] > 0:
            coverage = elastic(coverage, rng, amount_px=self.elastic_px[index], cell_px=max(8.0, min(shape) / 8))
        grain = np.float32(self.texture) * smooth_noise(shape, rng, cell=2.0)
        return coverage * np.float32(self.opacity[index]), grain

    def damage(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the damaged images (B, C, H, W) and what is visibly damaged, (B, 1, H, W) bool, on the CPU."""
        check_images(images, batch=len(self.kind), operator="LayerDamage")
        shape = (images.shape[2], images.shape[3])
        damaged, masks = [], []
        for index, planes in enumerate(images.detach().float().cpu()):
            alpha, grain = self._alpha_and_grain(index, shape)
            image = np.ascontiguousarray(planes.permute(1, 2, 0).numpy())
            image = image[:, :, 0] if image.shape[2] == 1 else image
            result = blend_layer(image, alpha, _layer(self.colour[index], grain, image.ndim), blend=self.blend[index])
            change = np.abs(result - image)
            change = change.max(axis=2) if change.ndim == 3 else change
            masks.append((change > self.visible_change) & (alpha > self.visible))
            damaged.append(result.reshape(*shape, -1).transpose(2, 0, 1))
        return torch.from_numpy(np.stack(damaged)).to(images), torch.from_numpy(np.stack(masks)[:, None])

    def apply(self, images: Tensor) -> Tensor:
        """Return the damaged images, (B, C, H, W)."""
        return self.damage(images)[0]


def _layer(colour: Colour, grain: FloatArray, dimensions: int) -> NDArray[np.float32]:
    """The layer's colour with its grain, (height, width) for a grey picture, (height, width, 3) otherwise."""
    tint = np.array(colour, np.float32)
    if dimensions == 2:
        return np.asarray(np.clip(float(tint @ _LUMA) + grain, 0, 1), np.float32)
    return np.asarray(np.clip(tint + grain[..., None], 0, 1), np.float32)
