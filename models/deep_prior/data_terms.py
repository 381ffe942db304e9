"""What a fitted picture is compared with: the noisy picture, its known pixels, or a small picture of the same thing.

Every term holds float tensors (1, C, H, W) in [0, 1] and gives a mean squared error; masks are 1 where a pixel is
missing, (1, 1, H, W) or (1, C, H, W). Ulyanov et al., "Deep Image Prior", CVPR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate, mse_loss

from models.deep_prior.resampling import LanczosDownsampler


class DataTerm(Protocol):
    """How far a picture is from what was observed."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the picture to be fitted."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the observation lies, and so where the fit runs."""
        ...

    def loss(self, output: Tensor) -> Tensor:
        """Return the mean squared error of a picture (1, C, H, W)."""
        ...

    def first_guess(self) -> Tensor:
        """Return the observation as a picture (1, C, H, W); black where nothing is known."""
        ...


def _shape(image: Tensor) -> tuple[int, int, int]:
    if image.ndim != 4 or image.shape[0] != 1:
        raise ValueError(f"deep prior: got an observation of shape {tuple(image.shape)}, expected (1, C, H, W)")
    return image.shape[1], image.shape[2], image.shape[3]


@dataclass(frozen=True, slots=True)
class WholePicture:
    """Denoising, JPEG artefacts, flash/no-flash: every pixel counts."""

    observed: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        return _shape(self.observed)

    @property
    def device(self) -> torch.device:
        return self.observed.device

    def loss(self, output: Tensor) -> Tensor:
        return mse_loss(output, self.observed)

    def first_guess(self) -> Tensor:
        return self.observed


@dataclass(frozen=True, slots=True)
class KnownPixels:
    """Inpainting: only known pixels count, but the mean is over all of them, the missing included."""

    observed: Tensor
    missing: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        return _shape(self.observed)

    @property
    def device(self) -> torch.device:
        return self.observed.device

    def loss(self, output: Tensor) -> Tensor:
        known = 1.0 - self.missing
        return mse_loss(output * known, self.observed * known)

    def first_guess(self) -> Tensor:
        return self.observed * (1.0 - self.missing)


class SmallPicture:
    """Super-resolution: the fitted picture, shrunk `factor` times by a Lanczos kernel of two lobes, is compared."""

    def __init__(self, observed: Tensor, factor: int) -> None:
        self.observed, self.factor = observed, factor
        self._shrink = LanczosDownsampler(factor).to(observed.device)

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = _shape(self.observed)
        return channels, height * self.factor, width * self.factor

    @property
    def device(self) -> torch.device:
        return self.observed.device

    def loss(self, output: Tensor) -> Tensor:
        return mse_loss(self._shrink(output), self.observed)

    def first_guess(self) -> Tensor:
        size = self.shape[1:]
        return interpolate(self.observed, size=size, mode="bicubic", align_corners=False).clamp(0, 1)


def keep_known(output: Tensor, observed: Tensor, *, missing: Tensor) -> Tensor:
    """Return `output` where a pixel is missing and the observed value everywhere else."""
    return torch.where(missing > 0, output, observed)


def crop_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Return the centre of (B, C, H, W) whose sides are multiples, as the published experiments cut their pictures."""
    height, width = (side - side % multiple for side in images.shape[2:])
    if height == 0 or width == 0:
        raise ValueError(f"crop_to_multiple: got {tuple(images.shape[2:])} px, expected at least {multiple} each way")
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    return images[:, :, top : top + height, left : left + width]
