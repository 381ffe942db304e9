"""Degradations of "Bringing Old Photos Back to Life" (Wan et al., CVPR 2020; TPAMI 2022): unstructured and structured.

Unstructured is the released code (online_add_degradation_v2: blur, noise, low resolution, JPEG in random order, each
with chance 0.7) plus what only the paper names: box blur and colour jitter. Structured has no released code: layers
of scratches and paper texture, elastically bent, blended by addition, lighten-only or screen with random opacity,
feathered holes in which paper shows, then film grain and blur. Their textures are not public; ours are drawn.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from models.degradations.blur import BoxBlur, WindowedGaussianBlur
from models.degradations.damage_layers import FloatArray
from models.degradations.fading import ColourJitter
from models.degradations.grain import FilmGrain
from models.degradations.jpeg import JpegCompression
from models.degradations.layer_damage import LayerDamage
from models.degradations.noise import GaussianNoise, SaltAndPepperNoise, SpeckleNoise
from models.degradations.operator import Degradation
from models.degradations.rendering import Image, Parameters, Rendered, describe, from_batch, to_batch
from models.degradations.resample import UnevenLowResolution

_CHANCE = 0.7
_LAYERS_MAX = 40
_SCRATCH_LAYERS = ("scratches", "film_lines", "cracks", "folds", "hairs", "dust")


def _blur(rng: np.random.Generator) -> Degradation:
    if rng.random() < 0.5:
        return WindowedGaussianBlur.draw(rng, batch=1, sigma_px=(1.0, 5.0), windows_px=(3, 5, 7), border="reflect")
    return BoxBlur(width_px=(float((3, 5, 7)[int(rng.integers(3))]),))


def _noise(rng: np.random.Generator) -> Degradation:
    pick = int(rng.integers(3))
    if pick == 0:
        return GaussianNoise.draw(rng, batch=1, sigma=(5.0, 50.0), clip=True)
    if pick == 1:
        return SpeckleNoise.draw(rng, batch=1, sigma=(5 / 255, 50 / 255))
    return SaltAndPepperNoise.draw(rng, batch=1, share=(0.0, 0.01), salt_share=(0.3, 0.8), per_channel=True)


def _low_resolution(rng: np.random.Generator) -> Degradation:
    return UnevenLowResolution.draw(rng, batch=1, scale=(0.5, 1.0), kernels=("box", "bilinear"))


def _jpeg(rng: np.random.Generator) -> Degradation:
    return JpegCompression.draw(rng, batch=1, quality=(40, 100), subsampling_420_probability=1.0)


def _jitter(rng: np.random.Generator) -> Degradation:
    return ColourJitter.draw(rng, batch=1, shift_levels=(-20.0, 20.0))


_UNSTRUCTURED = (_blur, _noise, _low_resolution, _jpeg, _jitter)


def of_quality(rng: np.random.Generator) -> list[Degradation]:
    """Return for a picture what a network can undo: all of `unstructured` but the colour jitter, maybe nothing."""
    order = rng.permutation(len(_UNSTRUCTURED) - 1)
    return [_UNSTRUCTURED[int(index)](rng) for index in order if rng.random() < _CHANCE]


def unstructured(
    image: Image, rng: np.random.Generator, *, strength: float = 1.0, field: FloatArray | None = None
) -> Rendered:
    """Blur, noise, low resolution, JPEG and colour jitter in random order, each with chance 0.7; never none of them."""
    chosen: list[int] = []
    while not chosen:
        order = rng.permutation(len(_UNSTRUCTURED))
        chosen = [int(index) for index in order if rng.random() < _CHANCE]
    batch, steps = to_batch(image), []
    for index in chosen:
        operator = _UNSTRUCTURED[index](rng)
        batch = operator.apply(batch)
        steps.append(describe(operator))
    return Rendered(image=from_batch(batch), steps=tuple(steps))


def _layers(rng: np.random.Generator) -> list[LayerDamage]:
    drawn = [
        LayerDamage.draw(rng, batch=1, kinds=_SCRATCH_LAYERS, opacity=(0.35, 1.0))
        for _ in range(int(rng.integers(1, 4)))
    ]
    if rng.random() < 0.5:
        drawn.append(LayerDamage.draw(rng, batch=1, kinds=("paper_texture",), opacity=(0.2, 0.8)))
    if rng.random() < 0.5:
        # Nothing of the picture is left in a hole: the sheet behind shows, feathered by the layer itself.
        drawn.append(LayerDamage.draw(rng, batch=1, kinds=("holes", "tears"), blends=("paint",), opacity=(0.95, 1.0)))
    return drawn


def _age(batch: Tensor, rng: np.random.Generator) -> tuple[Tensor, list[Parameters]]:
    """Film grain and a soft print, of random amount, over picture and damage alike."""
    operators: tuple[Degradation, ...] = (
        FilmGrain.draw(rng, batch=1, sigma=(0.0, 12.0)),
        WindowedGaussianBlur.draw(rng, batch=1, sigma_px=(0.1, 0.9), windows_px=(5,), border="reflect"),
    )
    for operator in operators:
        batch = operator.apply(batch)
    return batch, [describe(operator) for operator in operators]


def structured(
    image: Image, rng: np.random.Generator, *, strength: float = 1.0, field: FloatArray | None = None
) -> Rendered:
    """Scratches, paper texture and holes, then film grain and blur; the mask marks what the layers visibly changed."""
    batch = to_batch(image)
    mask = np.zeros(image.shape[:2], bool)
    steps: list[Parameters] = []
    while not mask.any() and len(steps) < _LAYERS_MAX:  # a drawn scratch may miss a small picture
        for layer in _layers(rng):
            batch, damaged = layer.damage(batch)
            mask |= damaged[0, 0].numpy()
            steps.append(describe(layer))
    batch, aged = _age(batch, rng)
    return Rendered(image=from_batch(batch), steps=(*steps, *aged), mask=mask)


def mixed(
    image: Image, rng: np.random.Generator, *, strength: float = 1.0, field: FloatArray | None = None
) -> Rendered:
    """First unstructured, then structured damage, as in the paper's triplet of clean, degraded and scratched."""
    first = unstructured(image, rng)
    second = structured(np.clip(first.image, 0, 1), rng)
    return Rendered(image=second.image, steps=(*first.steps, *second.steps), mask=second.mask)
