"""The noise that scans have: white, or grain whose neighbouring pixels are alike, and either of them compressed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from models.degradations.grain import FilmGrain
from models.degradations.jpeg import JpegCompression
from models.training.corruption import BlindNoise, Example, is_grey


@dataclass(frozen=True, slots=True)
class NoiseOfScans:
    """White noise as `white` draws it; of the patches `grain_share` have film grain instead.

    A network that has only met white noise leaves grain of 0.8 px as it is (docs/decisions/0037). Grain has a standard
    deviation of up to `grain_sigma_max` 8-bit levels at mid-grey and is correlated by a Gaussian of `size_px`; in half
    of the patches it is as strong in shadows as elsewhere. `compressed_share` of the patches, grainy ones or not, were
    then saved as JPEG of `quality`; white noise had a σ of `compressed_sigma_max` at most before.
    """

    white: BlindNoise = field(default_factory=lambda: BlindNoise(clip_share=0.5))
    grain_share: float = 0.5
    grain_sigma_max: float = 30.0
    size_px: tuple[float, float] = (0.3, 1.3)
    compressed_share: float = 0.25
    compressed_sigma_max: float = 25.0
    quality: tuple[int, int] = (70, 98)

    def __call__(self, clean: Tensor, rng: np.random.Generator) -> Example:
        noisy = self.white(clean, rng).network_input
        slight = BlindNoise(sigma_max=self.compressed_sigma_max, clip_share=1.0)(clean, rng).network_input
        parts = []
        for index in range(len(clean)):
            one = slice(index, index + 1)
            grainy, compressed = rng.random(2) < (self.grain_share, self.compressed_share)
            part = slight[one] if compressed else noisy[one]
            if grainy:
                part = self._grain(clean[one], rng)
            if compressed:
                part = JpegCompression.draw(rng, batch=1, quality=self.quality).apply(part)
            parts.append(part)
        return Example(torch.cat(parts), clean)

    def _grain(self, clean: Tensor, rng: np.random.Generator) -> Tensor:
        """Return one patch (1, 3, H, W) with grain, as a file holds it."""
        grain = FilmGrain.draw(
            rng,
            batch=1,
            sigma=(0.0, self.grain_sigma_max),
            size_px=self.size_px,
            achromatic_probability=1.0 if is_grey(clean) else 0.5,
            floor=float(rng.choice((0.3, 1.0))),
        )
        return grain.apply(clean).mul(255).round().div(255)
