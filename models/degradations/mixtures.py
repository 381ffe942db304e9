"""RL-Restore's mixed distortions: blur, then noise, then JPEG, each at one of 10 levels ("Crafting a Toolchain for
Image Restoration by Deep Reinforcement Learning", Yu et al., CVPR 2018; the released data/train/*.m).

A combination (blur, noise, jpeg) of levels 1..10 has the total level blur + noise + jpeg - 2. Mild is 9-11 (163 of the
1,000 combinations), moderate 12-17 (434), severe 18-20 (163).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise, product
from typing import Literal

import numpy as np

from models.degradations.blur import WindowedGaussianBlur
from models.degradations.damage_layers import FloatArray
from models.degradations.jpeg import JpegCompression, JpegPass
from models.degradations.noise import GaussianNoise
from models.degradations.operator import Degradation, draw_seed
from models.degradations.rendering import Image, Render, Rendered, describe, from_batch, to_batch

Severity = Literal["mild", "moderate", "severe"]
Levels = tuple[int, int, int]

TOTAL_LEVELS: dict[Severity, tuple[int, int]] = {"mild": (9, 11), "moderate": (12, 17), "severe": (18, 20)}
BLUR_EDGES_PX = tuple(0.5 * index for index in range(11))
NOISE_EDGES = tuple(5.0 * index for index in range(11))
JPEG_EDGES = (100, 80, 60, 50, 40, 35, 30, 25, 20, 15, 10)
_WINDOW_PX = 21


@lru_cache(maxsize=8)
def combinations(severity: Severity) -> tuple[Levels, ...]:
    """Return the (blur, noise, jpeg) levels, each 1..10, whose total level belongs to `severity`."""
    if severity not in TOTAL_LEVELS:
        raise ValueError(f"rl-restore: got severity {severity!r}, expected one of {', '.join(TOTAL_LEVELS)}")
    low, high = TOTAL_LEVELS[severity]
    return tuple(
        (blur, noise, jpeg)
        for blur, noise, jpeg in product(range(1, 11), repeat=3)
        if low <= blur + noise + jpeg - 2 <= high
    )


def _within(edges: tuple[float, ...], level: int, rng: np.random.Generator) -> float:
    start, end = tuple(pairwise(edges))[level - 1]
    return float(start + (end - start) * rng.random())


def of_levels(levels: Levels, rng: np.random.Generator, *, achromatic: bool = False) -> tuple[Degradation, ...]:
    """Return blur, noise and JPEG for a picture, each uniform within its level; achromatic = noise alike in R, G, B."""
    sigma_px = _within(BLUR_EDGES_PX, levels[0], rng)
    noise_sigma = _within(NOISE_EDGES, levels[1], rng)
    quality = round(_within(JPEG_EDGES, levels[2], rng))
    return (
        WindowedGaussianBlur(sigma_px=(sigma_px,), window_px=(_WINDOW_PX,), border="replicate"),
        GaussianNoise(sigma=(noise_sigma,), achromatic=(achromatic,), clip=True, seed=draw_seed(rng)),
        JpegCompression(passes=((JpegPass(quality=quality, subsampling="420"),),)),
    )


def rl_restore(severity: Severity) -> Render:
    """Return the render of one severity: a combination drawn uniformly, then each value uniformly within its level.

    Blur: Gaussian cut to 21x21, border repeated. Noise: clipped to [0, 1], as MATLAB's imnoise. JPEG: 4:2:0, the
    interpolated quality rounded.
    """
    choices = combinations(severity)

    def render(
        image: Image, rng: np.random.Generator, *, strength: float = 1.0, field: FloatArray | None = None
    ) -> Rendered:
        levels = choices[int(rng.integers(len(choices)))]
        operators = of_levels(levels, rng)
        batch = to_batch(image)
        for operator in operators:
            batch = operator.apply(batch)
        grid = {"blur_level": levels[0], "noise_level": levels[1], "jpeg_level": levels[2], "level": sum(levels) - 2}
        return Rendered(image=from_batch(batch), steps=(grid, *(describe(operator) for operator in operators)))

    return render
