"""Renders of one fault each: noise, blur, JPEG, resolution, lost pixels, damage of the surface, ageing.

Every function takes what a recipe's id names and returns a render. A render's `strength` is a factor on that level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from models.degradations.blur import BoxBlur, GaussianBlur, MotionBlur
from models.degradations.damage_layers import FloatArray
from models.degradations.fading import ColourCast, ColourJitter, Fading, Yellowing
from models.degradations.grain import FilmGrain
from models.degradations.jpeg import JpegCompression, JpegPass, Subsampling
from models.degradations.layer_damage import PAPER_BLENDS, Colour, LayerDamage
from models.degradations.noise import GaussianNoise, PoissonNoise, SaltAndPepperNoise, SpeckleNoise
from models.degradations.operator import Degradation, draw_seed
from models.degradations.pixel_loss import IrregularHoles, PixelLoss, RowLoss
from models.degradations.rendering import Image, Render, Rendered, describe, from_batch, in_turn, to_batch
from models.degradations.resample import resize
from models.degradations.scratches import Blend, damage_image

# Damage that falls beside the picture, or white on white, is drawn again: without any there is nothing to restore.
_ATTEMPTS = 16
_LEAST_COVERAGE = 5e-4
_STAIN_BROWNS: tuple[Colour, Colour] = ((0.45, 0.32, 0.16), (0.85, 0.75, 0.55))


def awgn(sigma: float, *, clip: bool = False) -> Render:
    """White Gaussian noise, as a file holds it if `clip`; else as the protocol of BM3D, DnCNN and their successors."""

    def make(rng: np.random.Generator, strength: float) -> list[GaussianNoise]:
        return [GaussianNoise(sigma=(sigma * strength,), achromatic=(False,), clip=clip, seed=draw_seed(rng))]

    return in_turn(make, clipped=clip)


def awgn_blind(low: float, high: float) -> Render:
    """White Gaussian noise of a sigma drawn uniformly from [low, high], neither clipped nor rounded."""

    def make(rng: np.random.Generator, strength: float) -> list[GaussianNoise]:
        sigma = float(rng.uniform(low, high)) * strength
        return [GaussianNoise(sigma=(sigma,), achromatic=(False,), clip=False, seed=draw_seed(rng))]

    return in_turn(make, clipped=False)


def poisson(peak: float) -> Render:
    """Shot noise with `peak` photons at white; its deviation grows with `strength`."""
    return in_turn(lambda rng, strength: [PoissonNoise(peak=(peak / strength**2,), seed=draw_seed(rng))])


def speckle(sigma: float) -> Render:
    """Multiplicative noise of deviation `sigma` / 255 of the pixel's value."""
    return in_turn(lambda rng, strength: [SpeckleNoise(sigma=(sigma * strength / 255,), seed=draw_seed(rng))])


def salt_pepper(percent: float) -> Render:
    """`percent` of the pixels turn black or white, all channels alike."""
    return in_turn(
        lambda rng, strength: [SaltAndPepperNoise(share=(min(1.0, percent * strength / 100),), seed=draw_seed(rng))]
    )


def film_grain(sigma: float) -> Render:
    """Grain of deviation `sigma` at mid-grey, of a drawn size, black and white in 7 of 10 pictures."""
    return in_turn(lambda rng, strength: [FilmGrain.draw(rng, batch=1, sigma=(sigma * strength, sigma * strength))])


def gaussian_blur(sigma_px: float) -> Render:
    """Round Gaussian blur."""
    return in_turn(
        lambda rng, strength: [
            GaussianBlur(sigma_major_px=(sigma_px * strength,), sigma_minor_px=(sigma_px * strength,), angle=(0.0,))
        ]
    )


# The blur that noise follows where both are one fault: the kernel of NCSR.
NOISY_BLUR_PX = 1.6


def noisy_blur(sigma: float) -> Render:
    """Round Gaussian blur of `NOISY_BLUR_PX`, then white Gaussian noise of this sigma, clipped."""

    def make(rng: np.random.Generator, strength: float) -> list[Degradation]:
        width = NOISY_BLUR_PX * strength
        blur = GaussianBlur(sigma_major_px=(width,), sigma_minor_px=(width,), angle=(0.0,))
        return [blur, GaussianNoise(sigma=(sigma * strength,), achromatic=(False,), clip=True, seed=draw_seed(rng))]

    return in_turn(make)


def box_blur(width_px: float) -> Render:
    """Mean over a square."""
    return in_turn(lambda rng, strength: [BoxBlur(width_px=(max(1.0, width_px * strength),))])


def motion_blur(length_px: float) -> Render:
    """Straight motion in a drawn direction."""
    return in_turn(
        lambda rng, strength: [MotionBlur.draw(rng, batch=1, length_px=(length_px * strength, length_px * strength))]
    )


def scaled_quality(quality: int, strength: float) -> int:
    """Return the IJG quality whose quantization tables are `strength` times those of `quality` (both 1-100)."""
    percent = (5000 / quality if quality < 50 else 200 - 2 * quality) * strength
    scaled = 5000 / percent if percent > 100 else 100 - percent / 2
    return int(min(100, max(1, round(scaled))))


def jpeg(quality: float, *, subsampling: Subsampling) -> Render:
    """One compression on the picture's own grid."""

    def make(rng: np.random.Generator, strength: float) -> list[JpegCompression]:
        once = JpegPass(quality=scaled_quality(int(quality), strength), subsampling=subsampling)
        return [JpegCompression(passes=((once,),))]

    return in_turn(make)


def jpeg_double(quality: float) -> Render:
    """Compressed at `quality` on a shifted grid, then again at a quality drawn from [quality, 95] on its own grid.

    The case that breaks blind deblockers (Jiang et al., "FBCNN", ICCV 2021): the last compression is the milder one.
    """

    def make(rng: np.random.Generator, strength: float) -> list[JpegCompression]:
        shift = int(rng.integers(1, 64))  # never (0, 0)
        second = int(rng.integers(int(quality), 96))
        passes = (
            JpegPass(quality=scaled_quality(int(quality), strength), offset_y=shift // 8, offset_x=shift % 8),
            JpegPass(quality=scaled_quality(second, strength)),
        )
        return [JpegCompression(passes=(passes,))]

    return in_turn(make)


def bicubic(scale: float) -> Render:
    """Shrunk by MATLAB's antialiased bicubic; above strength 1 blurred before, by 0.25 * scale px per unit."""
    factor = int(scale)

    def render(
        image: Image, rng: np.random.Generator, *, strength: float = 1.0, field: FloatArray | None = None
    ) -> Rendered:
        batch, steps = to_batch(image), []
        if strength > 1:
            sigma_px = 0.25 * factor * (strength - 1)
            blur = GaussianBlur(sigma_major_px=(sigma_px,), sigma_minor_px=(sigma_px,), angle=(0.0,))
            batch = blur.apply(batch)
            steps.append(describe(blur))
        small = resize(batch, height=image.shape[0] // factor, width=image.shape[1] // factor)
        steps.append({"operator": "resize", "kernel": "bicubic", "antialias": True, "scale": factor})
        return Rendered(image=from_batch(small), steps=tuple(steps), scale=factor)

    return render


def _lossy(
    make: Callable[[np.random.Generator], PixelLoss | RowLoss | IrregularHoles],
) -> Render:
    def render(
        image: Image, rng: np.random.Generator, *, strength: float = 1.0, field: FloatArray | None = None
    ) -> Rendered:
        loss = make(rng)
        height, width = image.shape[:2]
        if isinstance(loss, RowLoss):
            planes = loss.masks((1 if image.ndim == 2 else 3, height, width), field=field)
            lost = planes[0].numpy().transpose(1, 2, 0)
            mask = np.ascontiguousarray(lost[:, :, 0] if image.ndim == 2 else lost)
        else:
            mask = loss.masks((height, width), field=field)[0, 0].numpy()
        full = mask if mask.ndim == image.ndim else mask[..., None]
        damaged = np.where(full, np.float32(loss.fill), image).astype(np.float32)
        return Rendered(image=damaged, steps=(describe(loss),), mask=mask)

    return render


def pixels(percent: float) -> Render:
    """Each pixel lost with chance `percent` / 100; set to 0."""
    return _lossy(lambda rng: PixelLoss(ratio=(percent / 100,), seed=draw_seed(rng)))


def rows(percent: float) -> Render:
    """Exactly percent * columns // 100 pixels lost in each row of each channel; set to 0."""
    return _lossy(lambda rng: RowLoss(ratio=(percent / 100,), seed=draw_seed(rng)))


def irregular_holes(low: float, high: float) -> Render:
    """Holes drawn as strokes that take a share in (low, high] of the picture; set to 0."""
    return _lossy(lambda rng: IrregularHoles.draw(rng, batch=1, bins=((low, high),)))


def _layered(make: Callable[[np.random.Generator], LayerDamage]) -> Render:
    def render(
        image: Image, rng: np.random.Generator, *, strength: float = 1.0, field: FloatArray | None = None
    ) -> Rendered:
        for _ in range(_ATTEMPTS):
            layer = make(rng)
            damaged, mask = layer.damage(to_batch(image))
            if mask.float().mean() >= _LEAST_COVERAGE:
                break
        return Rendered(image=from_batch(damaged), steps=(describe(layer),), mask=mask[0, 0].numpy())

    return render


def stains() -> Render:
    """Water stains or foxing that absorb light."""
    blends: tuple[Blend, ...] = ("absorb",)
    return _layered(
        lambda rng: LayerDamage.draw(
            rng, batch=1, kinds=("water_stains", "foxing"), blends=blends, colours=_STAIN_BROWNS, opacity=(0.5, 1.0)
        )
    )


def paper_texture() -> Render:
    """Paper fibres and creases by addition, lighten-only or screen."""
    return _layered(
        lambda rng: LayerDamage.draw(rng, batch=1, kinds=("paper_texture",), blends=PAPER_BLENDS, opacity=(0.4, 1.0))
    )


def tears() -> Render:
    """Tears and torn holes in which the sheet behind shows; laid over or painted."""
    return _layered(
        lambda rng: LayerDamage.draw(
            rng, batch=1, kinds=("tears", "holes"), blends=(*PAPER_BLENDS, "paint"), opacity=(0.85, 1.0)
        )
    )


def synthetic_scratches() -> Render:
    """Scratches, cracks, folds, dust, hair, blotches and holes of `damage_image`."""

    def render(
        image: Image, rng: np.random.Generator, *, strength: float = 1.0, field: FloatArray | None = None
    ) -> Rendered:
        for _ in range(_ATTEMPTS):
            damaged = damage_image(image, rng)
            if damaged.mask.mean() >= _LEAST_COVERAGE:
                break
        steps = tuple(asdict(draw) for draw in damaged.draws)
        return Rendered(image=damaged.image, steps=steps, mask=damaged.mask)

    return render


def fading() -> Render:
    """Lost contrast, then a colour cast, mostly towards yellow."""
    return in_turn(lambda rng, strength: [Fading.draw(rng, batch=1), ColourCast.draw(rng, batch=1)])


def yellowing() -> Render:
    """Yellowed paper, more at the edges."""
    return in_turn(lambda rng, strength: [Yellowing.draw(rng, batch=1)])


def colour_jitter(levels: float) -> Render:
    """Each channel shifted by up to `levels` 8-bit levels."""
    return in_turn(lambda rng, strength: [ColourJitter.draw(rng, batch=1, shift_levels=(-levels, levels))])


def clean() -> Render:
    """No damage: what must be left alone."""

    def render(
        image: Image, rng: np.random.Generator, *, strength: float = 1.0, field: FloatArray | None = None
    ) -> Rendered:
        return Rendered(image=image.copy(), steps=())

    return render
