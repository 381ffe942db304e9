"""What a recipe does to a clean batch: (clean patches, seeded generators) to (network input, target, loss weight)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.blocks import pull_push
from models.deconvolution import SIGMA_RANGE_PX, deconvolution_entry
from models.degradations import mixtures, old_photo
from models.degradations.blur import BoxBlur, GaussianBlur
from models.degradations.damage_layers import LAYERS
from models.degradations.jpeg import JpegCompression
from models.degradations.operator import Degradation
from models.degradations.resample import resize


@dataclass(frozen=True, slots=True)
class Example:
    """One training batch. `weight` (B, 1 or C, H, W) or None limits the loss to some values."""

    network_input: Tensor
    target: Tensor
    weight: Tensor | None = None

    def completed(self, output: Tensor) -> Tensor:
        """Return `output` where the loss counts, and the truth elsewhere, as methods put back what is known."""
        return output if self.weight is None else torch.lerp(self.target, output, self.weight)

    def first(self, count: int) -> Example:
        """Return the first pictures of the batch."""
        weight = None if self.weight is None else self.weight[:count]
        return Example(self.network_input[:count], self.target[:count], weight)


Corruption = Callable[[Tensor, np.random.Generator], Example]


def torch_generator(rng: np.random.Generator) -> torch.Generator:
    """Return a torch generator seeded from `rng`, so that one number reproduces a batch."""
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


def is_grey(patch: Tensor) -> bool:
    """Return whether a patch (1, 3, H, W) is black and white: three equal planes."""
    return torch.equal(patch[:, 0], patch[:, 1]) and torch.equal(patch[:, 0], patch[:, 2])


@dataclass(frozen=True, slots=True)
class BlindNoise:
    """Additive white Gaussian noise, σ uniform in [0, sigma_max] (8-bit levels) per patch.

    Grey patches, and `achromatic_share` of all, get the same noise in every channel, as a grey scan does. `clip_share`
    of the patches are clipped and rounded to 8 bits, as files are; the published protocol does neither.
    """

    sigma_max: float = 55.0
    achromatic_share: float = 0.05
    clip_share: float = 0.25

    def __call__(self, clean: Tensor, rng: np.random.Generator) -> Example:
        count = clean.shape[0]
        sigma = torch.from_numpy(rng.uniform(0.0, self.sigma_max / 255.0, (count, 1, 1, 1)).astype(np.float32))
        noise = torch.randn(clean.shape, generator=torch_generator(rng))
        spread = (clean.amax(1) - clean.amin(1)).flatten(1).amax(1)
        chosen = torch.from_numpy(rng.random(count) < self.achromatic_share)
        achromatic = ((spread == 0) | chosen).view(count, 1, 1, 1)
        noise = torch.where(achromatic, noise[:, :1].expand_as(noise), noise)
        noisy = clean + sigma * noise
        as_file = torch.from_numpy(rng.random((count, 1, 1, 1)) < self.clip_share)
        return Example(torch.where(as_file, noisy.clamp(0, 1).mul(255).round().div(255), noisy), clean)


@dataclass(frozen=True, slots=True)
class BlindJpeg:
    """JPEG of quality 5-95, both subsamplings, at times off the grid or twice; a few patches are a little noisy first.

    `low_share` of the patches are drawn from `low_quality`, where the artefacts are. The noise is part of what must go,
    so that noisy scans that were then compressed are cleaned in one step.
    """

    quality: tuple[int, int] = (5, 95)
    low_quality: tuple[int, int] = (5, 50)
    low_share: float = 0.6
    noise_share: float = 0.08
    noise_sigma_max: float = 15.0
    misaligned_share: float = 0.2
    double_share: float = 0.1

    def __call__(self, clean: Tensor, rng: np.random.Generator) -> Example:
        count = clean.shape[0]
        noisy = torch.from_numpy(rng.random((count, 1, 1, 1)) < self.noise_share)
        noise = BlindNoise(sigma_max=self.noise_sigma_max, clip_share=1.0)(clean, rng).network_input
        scanned = torch.where(noisy, noise, clean)
        low = round(count * self.low_share)
        parts = [
            self._compress(part, quality, rng)
            for part, quality in ((scanned[:low], self.low_quality), (scanned[low:], self.quality))
            if len(part)
        ]
        return Example(torch.cat(parts), clean)

    def _compress(self, images: Tensor, quality: tuple[int, int], rng: np.random.Generator) -> Tensor:
        jpeg = JpegCompression.draw(
            rng,
            batch=images.shape[0],
            quality=quality,
            misaligned_probability=self.misaligned_share,
            double_probability=self.double_share,
        )
        return jpeg.apply(images)


@dataclass(frozen=True, slots=True)
class MildBlur:
    """Gaussian, box or none, σ 0.3-2.5 px, then what a file adds: 8 bits, often noise, mostly slight, at times a JPEG.

    A `grainy_share` of the noise is as strong as `grainy_sigma_max`: the estimator sees blur under noise too
    (docs/decisions/0026), and sharpening that has never met grain draws it. The network is told σ as the estimator
    would: off by `sigma_error` of it (standard deviation of the logarithm).
    """

    sigma_px: tuple[float, float] = (0.3, 2.5)
    sharp_share: float = 0.08
    box_share: float = 0.12
    noise_share: float = 0.6
    noise_sigma_max: float = 3.0
    grainy_share: float = 0.4
    grainy_sigma_max: float = 15.0
    jpeg_share: float = 0.25
    jpeg_quality: tuple[int, int] = (50, 98)
    sigma_error: float = 0.12

    def __call__(self, clean: Tensor, rng: np.random.Generator) -> Example:
        count = clean.shape[0]

        def drawn(share: float) -> Tensor:
            return torch.from_numpy(rng.random((count, 1, 1, 1)) < share)

        gaussian = GaussianBlur.draw(rng, batch=count, sigma_px=self.sigma_px, aspect=(1.0, 1.0))
        box = BoxBlur.draw(rng, batch=count)
        boxed, sharp = drawn(self.box_share), drawn(self.sharp_share)
        soft = torch.where(sharp, clean, torch.where(boxed, box.apply(clean), gaussian.apply(clean)))
        slight = BlindNoise(sigma_max=self.noise_sigma_max, clip_share=1.0)(soft, rng).network_input
        grainy = BlindNoise(sigma_max=self.grainy_sigma_max, clip_share=1.0)(soft, rng).network_input
        noise = torch.where(drawn(self.grainy_share), grainy, slight)
        rounded = soft.clamp(0, 1).mul(255).round().div(255)
        scanned = torch.where(drawn(self.noise_share), noise, rounded)
        jpeg = JpegCompression.draw(rng, batch=count, quality=self.jpeg_quality).apply(scanned)
        blurred = torch.where(drawn(self.jpeg_share), jpeg, scanned)
        true = np.where(boxed.flatten(), box.equivalent_sigma_px(), gaussian.equivalent_sigma_px())
        true = np.where(sharp.flatten(), rng.uniform(0.3, 0.8, count), true)
        told = np.clip(true * np.exp(rng.normal(0.0, self.sigma_error, count)), *SIGMA_RANGE_PX)
        return Example(deconvolution_entry(blurred, sigma_px=tuple(told.tolist())), clean)


@dataclass(frozen=True, slots=True)
class Holes:
    """Holes filled smoothly, their mask as a fourth channel: random pixels for some patches, damage shapes for others.

    Shapes are those of `models.degradations.damage_layers`, grown by 1-3 px as the detector's masks are; the loss
    counts the holes alone.
    """

    random_pixel_share: float = 0.45
    layers: tuple[str, ...] = ("scratches", "film_lines", "cracks", "folds", "hairs", "dust", "holes")

    def __call__(self, clean: Tensor, rng: np.random.Generator) -> Example:
        count, _, height, width = clean.shape
        holes = [self._hole(height, width, rng=rng) for _ in range(count)]
        mask = torch.from_numpy(np.stack(holes)[:, None].astype(np.float32))
        return Example(torch.cat([pull_push(clean, mask), mask], dim=1), clean, mask)

    def _hole(self, height: int, width: int, *, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
        if rng.random() < self.random_pixel_share:
            return rng.random((height, width)) < rng.uniform(0.1, 0.85)
        hole = np.zeros((height, width), bool)
        for _ in range(int(rng.integers(1, 4))):
            name = self.layers[int(rng.integers(len(self.layers)))]
            hole |= LAYERS[name]((height, width), rng, scale=float(rng.uniform(0.7, 1.6))) > 0.1
        side = 2 * int(rng.integers(1, 4)) + 1
        grown = cv2.dilate(hole.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
        share = grown.mean()
        return grown > 0 if 0.0 < share < 0.7 else rng.random((height, width)) < 0.5


@dataclass(frozen=True, slots=True)
class LostPixels:
    """Single values lost at random, for the networks of `models.example_based`; the loss counts these alone.

    The input is the values, 0 where lost, and then the planes of the mask, 1 = known. Half of the colour patches lose
    values in each channel by itself, as in the work that these networks come from, the others whole pixels.
    """

    share: tuple[float, float] = (0.2, 0.85)
    channel_share: float = 0.5

    def __call__(self, clean: Tensor, rng: np.random.Generator) -> Example:
        count = clean.shape[0]
        spread = (clean.amax(1) - clean.amin(1)).flatten(1).amax(1)
        by_channel = torch.from_numpy(rng.random(count) < self.channel_share) & (spread > 0)
        share = torch.from_numpy(rng.uniform(*self.share, (count, 1, 1, 1)).astype(np.float32))
        draw = torch.rand(clean.shape, generator=torch_generator(rng))
        draw = torch.where(by_channel.view(count, 1, 1, 1), draw, draw[:, :1].expand_as(draw))
        known = (draw >= share).to(clean.dtype)
        return Example(torch.cat([clean * known, known], dim=1), clean, 1.0 - known)


@dataclass(frozen=True, slots=True)
class Mixture:
    """Several faults at once: blur, noise and JPEG in RL-Restore's ranges, or an old photograph's in random order.

    Levels are drawn uniformly, but those whose total is below `total_level_min` (mild begins at 9) only as often as
    `slight_share` says; a few patches stay as they were. Grey patches get grey noise.
    """

    old_photo_share: float = 0.35
    clean_share: float = 0.04
    total_level_min: int = 8
    slight_share: float = 0.1

    def __call__(self, clean: Tensor, rng: np.random.Generator) -> Example:
        return Example(torch.cat([self._degraded(patch[None], rng) for patch in clean]), clean)

    def _degraded(self, patch: Tensor, rng: np.random.Generator) -> Tensor:
        kind = rng.random()
        grey = is_grey(patch)
        operators: Sequence[Degradation] = ()
        if kind < self.old_photo_share:
            operators = old_photo.of_quality(rng)
        elif kind < 1.0 - self.clean_share:
            operators = mixtures.of_levels(self._levels(rng), rng, achromatic=grey)
        for operator in operators:
            patch = operator.apply(patch)
        if grey:
            patch = patch.mean(1, keepdim=True).expand_as(patch)
        return patch.clamp(0, 1).mul(255).round().div(255)

    def _levels(self, rng: np.random.Generator) -> mixtures.Levels:
        any_level = rng.random() < self.slight_share
        while True:
            blur, noise, jpeg = (int(level) for level in rng.integers(1, 11, 3))
            if any_level or blur + noise + jpeg - 2 >= self.total_level_min:
                return blur, noise, jpeg


@dataclass(frozen=True, slots=True)
class MixtureOfSeverity:
    """RL-Restore's mixtures of one severity, which its agent and the networks it is measured against learn from."""

    severity: mixtures.Severity = "moderate"

    def __call__(self, clean: Tensor, rng: np.random.Generator) -> Example:
        return Example(torch.cat([self.of_patch(patch[None], rng) for patch in clean]), clean)

    def of_patch(self, patch: Tensor, rng: np.random.Generator) -> Tensor:
        """Return one degraded patch (1, 3, H, W), clipped and rounded to 8 bits."""
        choices = mixtures.combinations(self.severity)
        for operator in mixtures.of_levels(choices[int(rng.integers(len(choices)))], rng):
            patch = operator.apply(patch).clamp(0, 1)
        return patch.mul(255).round().div(255)


@dataclass(frozen=True, slots=True)
class Shrunk:
    """MATLAB's antialiased bicubic at 1 / `scale`, most of it rounded to 8 bits as files are; the target is the patch.

    The published tables shrink so. A scan that is noisy or was compressed is cleaned by other methods first.
    """

    scale: int
    as_file_share: float = 0.9

    def __call__(self, clean: Tensor, rng: np.random.Generator) -> Example:
        count, _, height, width = clean.shape
        small = resize(clean, height=height // self.scale, width=width // self.scale).clamp(0, 1)
        as_file = torch.from_numpy(rng.random((count, 1, 1, 1)) < self.as_file_share)
        return Example(torch.where(as_file, small.mul(255).round().div(255), small), clean)
