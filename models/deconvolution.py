"""Deconvolution of a known Gaussian blur by repeated unsharp masking."""

from __future__ import annotations

import torch
from torch import Tensor

from models.degradations.blur import filter_separable, gaussian_profiles

ASSUMED_SIGMA_PX = 1.0
SIGMA_RANGE_PX = (0.3, 4.0)


def believed_sigma(values: list[float | None]) -> tuple[float, ...]:
    """Return the blur σ in px to work with: what was estimated within the trained range, 1 px where nothing was."""
    low, high = SIGMA_RANGE_PX
    return tuple(ASSUMED_SIGMA_PX if value is None else min(max(value, low), high) for value in values)


def van_cittert(images: Tensor, *, sigma_px: tuple[float, ...], iterations: int = 3) -> Tensor:
    """Return x after `iterations` of x += y - G x from x = y, G being each image's Gaussian of σ `sigma_px`.

    `images` (B, C, H, W); one σ per image. One iteration is unsharp masking. Van Cittert, "Zum Einfluß der Spaltbreite
    auf die Intensitätsverteilung in Spektrallinien II", Zeitschrift für Physik 69, 1931. Noise grows with every
    iteration. Raises ValueError when the number of σ is not that of the images.
    """
    if len(sigma_px) != images.shape[0]:
        raise ValueError(f"van_cittert: expected one σ for each of {images.shape[0]} images, got {len(sigma_px)}")
    profiles = gaussian_profiles(sigma_px)
    sharper = images
    # In bfloat16 the small differences that this lives on would be lost.
    with torch.autocast(images.device.type, enabled=False):
        for _ in range(iterations):
            sharper = sharper + images - filter_separable(sharper, profiles, border="replicate")
    return sharper


def deconvolution_entry(images: Tensor, *, sigma_px: tuple[float, ...]) -> Tensor:
    """Return (B, 7, H, W): the picture sharpened for its σ, what that added to it, and a plane of σ / 4."""
    sigma = torch.tensor(sigma_px, dtype=images.dtype, device=images.device).view(-1, 1, 1, 1) / 4
    plane = sigma.expand(-1, 1, *images.shape[-2:])
    sharper = van_cittert(images, sigma_px=sigma_px)
    return torch.cat([sharper, sharper - images, plane], dim=1)
