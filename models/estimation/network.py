"""A small network that reads noise, blur, JPEG quality and resolution from a few windows of a picture.

Noise is measured rather than guessed: fixed orthonormal 4x4 DCT filters give responses whose variance is exactly that
of white noise, the network only says which responses (place and band) are free of texture, and a small correction is
added to the weighted mean. So its precision grows with the number of windows as a classical estimator's does.
Every quantity comes with the scale of a Laplace distribution around it, learned by maximum likelihood (Kendall and Gal,
NeurIPS 2017): the confidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.estimation.patches import BLOCK

QUANTITIES = ("noise_sigma", "blur_sigma_px", "jpeg_quality", "effective_scale")
# The bands of a 4x4 DCT that pictures fill least, as (vertical, horizontal) frequency.
NOISE_BANDS = ((1, 3), (3, 1), (2, 2), (2, 3), (3, 2), (3, 3))


def dct_filters(size: int) -> Tensor:
    """Return the (size * size, 1, size, size) orthonormal DCT-II filters, vertical frequency first."""
    position = np.arange(size)
    basis = np.cos(np.pi * np.outer(position, position + 0.5) / size) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    filters = np.einsum("ay,bx->abyx", basis, basis).reshape(size * size, 1, size, size)
    return torch.from_numpy(filters.astype(np.float32))


def encode(values: Tensor) -> Tensor:
    """Map (..., 4) quantities in their units (order QUANTITIES) to what the network predicts, each of order 1."""
    noise, blur, quality, scale = values.unbind(-1)
    quality = quality.clamp(1, 100)
    quantizer = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)  # the IJG scale of the tables in percent
    return torch.stack(
        [torch.log1p(noise), torch.log1p(blur), torch.log2(1 + quantizer / 20) / 2, -torch.log2(scale)], dim=-1
    )


def decode(encoded: Tensor) -> Tensor:
    """Inverse of `encode`, with every quantity kept inside its range."""
    noise, blur, quality, scale = encoded.unbind(-1)
    quantizer = 20 * (torch.exp2(2 * quality) - 1)
    quality = torch.where(quantizer > 100, 5000 / quantizer.clamp(min=1), 100 - quantizer / 2).clamp(1, 100)
    return torch.stack(
        [torch.expm1(noise).clamp(min=0), torch.expm1(blur).clamp(min=0), quality, torch.exp2(-scale).clamp(0.05, 1)],
        dim=-1,
    )


class FixedFeatures(nn.Module):
    """Classical measurements of (N, 3, S, S) windows in [0, 1], S a multiple of 8: (N, FixedFeatures.count) values.

    Per frequency ring of the 8x8 DCT of the luma: log mean energy, log lower-quartile energy and share of coefficients
    that would be rounded to zero; log ratio of the steps across the 8x8 grid to the others, at the picture's own grid
    and at the worst of its shifts; ends of the tonal range, brightness, contrast, colourfulness.
    """

    count = 3 * 14 + 4 + 5

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", dct_filters(8)[1:], persistent=False)
        ring = torch.tensor([i + j for i in range(8) for j in range(8)][1:])
        members = functional.one_hot(ring - 1, 14).float()
        self.register_buffer("rings", members / members.sum(dim=0), persistent=False)
        self.filters: Tensor
        self.rings: Tensor

    def forward(self, windows: Tensor) -> Tensor:
        red, green, blue = windows.unbind(1)
        grey = ((0.299 * red + 0.587 * green + 0.114 * blue) * 255).unsqueeze(1)
        coefficients = functional.conv2d(grey, self.filters, stride=8).flatten(2)
        energy = coefficients.square()
        quartile = energy.sort(dim=2).values[:, :, energy.shape[2] // 4]
        zero = (energy < 0.25).to(grey.dtype).mean(dim=2)
        spectrum = [
            torch.log(energy.mean(dim=2) + 0.05) @ self.rings / 4,
            torch.log(quartile + 0.05) @ self.rings / 4,
            zero @ self.rings,
        ]
        ends = [(windows < 2.5 / 255).any(1), (windows > 252.5 / 255).any(1)]
        colour = (red - green).abs() + (blue - green).abs()
        tone = [end.to(grey.dtype).mean(dim=(1, 2)) for end in ends]
        tone += [grey.mean(dim=(1, 2, 3)) / 255, grey.std(dim=(1, 2, 3)) / 64, colour.mean(dim=(1, 2)) * 4]
        steps = [self._grid_steps(grey), self._grid_steps(grey.transpose(2, 3))]
        return torch.cat([*spectrum, *steps, torch.stack(tone, dim=1)], dim=1)

    @staticmethod
    def _grid_steps(grey: Tensor) -> Tensor:
        """Return (N, 2): log ratio of the second differences across columns at the grid, and at the worst phase."""
        bend = (grey[..., 1:-2] - grey[..., 2:-1]) * 3 - (grey[..., :-3] - grey[..., 3:])
        strength = bend.abs().mean(dim=(1, 2))  # one value a column boundary; entry k lies right of column k + 1
        strength = functional.pad(strength, (1, 2))
        phases = strength.reshape(strength.shape[0], -1, BLOCK).sum(dim=1)
        counted = functional.pad(torch.ones_like(strength[:, 1:-2]), (1, 2)).reshape(*strength.shape[:1], -1, BLOCK)
        ratio = torch.log(
            (phases / counted.sum(dim=1) + 0.2) / (strength.sum(dim=1) / counted.sum(dim=(1, 2)) + 0.2)[:, None]
        )
        return torch.stack([ratio[:, BLOCK - 1], ratio.amax(dim=1)], dim=1) * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatorSettings:
    """Widths of the network at half, quarter and eighth resolution, and of its head."""

    widths: tuple[int, int, int] = (24, 48, 64)
    hidden: int = 64


class _Residual(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = features + self.second(functional.relu(self.first(features)))
        return result


class EstimatorNetwork(nn.Module):
    """(P, K, 3, S, S) windows of P pictures in [0, 1] -> (P, 4) encoded quantities and (P, 4) log Laplace scales.

    K is the number of windows of a picture (any), S a multiple of 8. `decode` turns the first into units.
    """

    def __init__(self, settings: EstimatorSettings | None = None) -> None:
        super().__init__()
        settings = settings or EstimatorSettings()
        half, quarter, eighth = settings.widths
        self.fixed = FixedFeatures()
        self.register_buffer("bands", dct_filters(4), persistent=False)
        self.bands: Tensor
        self.register_buffer("kept", torch.tensor([4 * v + h for v, h in NOISE_BANDS]), persistent=False)
        self.kept: Tensor
        self.stem = nn.Sequential(
            nn.Conv2d(3, half, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1)
        )
        self.to_quarter = nn.Conv2d(half, quarter, 3, stride=2, padding=1)
        self.spectrum = nn.Conv2d(15, quarter, 1)
        self.at_quarter = _Residual(quarter)
        self.weigh = nn.Conv2d(quarter, len(NOISE_BANDS), 1)
        self.to_eighth = nn.Conv2d(quarter, eighth, 3, stride=2, padding=1)
        self.at_eighth = _Residual(eighth)
        inputs = 2 * eighth + FixedFeatures.count + 1
        # How many values `describe` returns for a picture.
        self.description_size = inputs + settings.hidden
        self.head = nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, settings.hidden), nn.ReLU())
        self.out = nn.Linear(settings.hidden, 8)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        value, log_scale, _ = self.describe(windows)
        return value, log_scale

    def describe(self, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return values and scales as `forward` does, and (P, description_size) what they were read from."""
        pictures, count = windows.shape[:2]
        flat = windows.flatten(0, 1)
        with torch.autocast(flat.device.type, enabled=False):
            fixed = self.fixed(flat.float())
            planes = (flat.float() * 255).reshape(-1, 1, *flat.shape[2:])
            energy = functional.conv2d(planes, self.bands, stride=4).square()
            energy = energy.reshape(flat.shape[0], 3, 16, *energy.shape[2:]).mean(dim=1)
        image = functional.relu(self.stem((flat - 0.5) * 4))
        quarter = self.to_quarter(image) + self.spectrum(torch.log(energy[:, 1:] + 0.1) / 4)
        quarter = self.at_quarter(functional.relu(quarter))
        base = self._noise(energy[:, self.kept], self.weigh(quarter).float(), pictures)
        eighth = functional.relu(self.at_eighth(functional.relu(self.to_eighth(functional.relu(quarter)))))
        pooled = torch.cat([eighth.float().mean(dim=(2, 3)), eighth.float().amax(dim=(2, 3)) / 4, fixed], dim=1)
        pooled = pooled.reshape(pictures, count, -1).mean(dim=1)
        with torch.autocast(flat.device.type, enabled=False):
            inputs = torch.cat([pooled, base[:, None]], dim=1)
            hidden = self.head(inputs)
            out = self.out(hidden)
        value = out[:, :4] + functional.pad(base[:, None], (0, 3))
        return value, out[:, 4:].clamp(-6, 2), torch.cat([inputs, hidden], dim=1)

    @staticmethod
    def _noise(energy: Tensor, logits: Tensor, pictures: int) -> Tensor:
        """Return (P,) log(1 + sigma) from the weighted mean of the (P * K, bands, h, w) squared responses."""
        weight = functional.softplus(logits) + 1e-4
        weight, energy = weight.reshape(pictures, -1), energy.reshape(pictures, -1)
        variance = (weight * energy).sum(dim=1) / weight.sum(dim=1)
        return torch.log1p(torch.sqrt(variance + 1e-3))
