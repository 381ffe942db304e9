"""The five networks of Xinglu Wang's example-based restoration: value and mask planes in, value planes out.

Input (B, 2·C, H, W): C planes of values, 0 where missing, then C planes of the mask, 1 = known. Output (B, C, H, W).
Borders are padded with zeros, which reads as "missing" there. Weights start as in Keras: Glorot uniform, no bias.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from models.example_based.smooth_start import smooth_fill


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A network of the author and the rate he trained it at."""

    widths: tuple[int, ...]
    learning_rate: float = 1e-4


RECIPES: dict[str, Recipe] = {
    "single": Recipe(widths=(64,)),
    "denoise": Recipe(widths=(16,), learning_rate=1e-2),
    "deep": Recipe(widths=(16, 32, 64)),
    "deep_denoise": Recipe(widths=(16, 32, 64)),
    "deep_wide_denoise": Recipe(widths=(32, 64, 128)),
}
SIZE_MULTIPLE = 4


def recipe_of(name: str) -> Recipe:
    """Return the recipe of a network; ValueError names the nearest."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"network: got {name!r}, expected one of {sorted(RECIPES)}{hint}")
    return RECIPES[name]


def build_network(name: str, *, channels: int, seed: int) -> nn.Module:
    """Return a network for `channels` value planes whose weights depend on the seed alone."""
    widths = recipe_of(name).widths
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = _layers(name, channels=channels, widths=widths)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    return network


def _layers(name: str, *, channels: int, widths: tuple[int, ...]) -> nn.Module:
    if name == "single":
        return nn.Sequential(*_convolved(2 * channels, widths[0], kernel=5), *_convolved(widths[0], channels, kernel=5))
    if name == "denoise":
        return AddingAutoencoder(channels, width=widths[0])
    return Hourglass(channels, widths=widths, transposed=name == "deep")


def _convolved(in_channels: int, out_channels: int, *, kernel: int = 3) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2), nn.ReLU()


def _stack(widths: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(*(layer for pair in pairwise(widths) for layer in _convolved(*pair)))


class AddingAutoencoder(nn.Module):
    """Two convolutions, two transposed ones each of which is added to what went in, and a sigmoid ("denoise")."""

    def __init__(self, channels: int, *, width: int) -> None:
        super().__init__()
        self.first, self.second = _stack([2 * channels, width]), _stack([width, width])
        self.back_to_second = nn.Sequential(nn.ConvTranspose2d(width, width, 3, padding=1), nn.ReLU())
        self.back_to_first = nn.ConvTranspose2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, channels, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(first)
        middle = self.back_to_second(second) + second
        return torch.sigmoid(self.head(self.back_to_first(middle) + first).float())


class Hourglass(nn.Module):
    """Two max-pools down and up again, features added across: "deep", "deep_denoise" and "deep_wide_denoise".

    `transposed` ("deep"): learned upsampling, one convolution less at the middle scale, a 3x3 head and a ReLU at the
    end; otherwise nearest upsampling, a 5x5 head and tanh. H and W must be multiples of 4.
    """

    def __init__(self, channels: int, *, widths: tuple[int, ...], transposed: bool) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.transposed, self.in_channels = transposed, 2 * channels
        self.fine = _stack([2 * channels, fine, fine])
        self.middle = _stack([fine, middle] if transposed else [fine, middle, middle])
        self.coarse = _stack([middle, coarse])
        self.up_to_middle = self._up(coarse)
        self.from_coarse = _stack([coarse, coarse, middle] if transposed else [coarse, middle, middle])
        self.up_to_fine = self._up(middle)
        self.from_middle = _stack([middle, fine, fine])
        kernel = 3 if transposed else 5
        self.head = nn.Conv2d(fine, channels, kernel, padding=kernel // 2)
        self.pool = nn.MaxPool2d(2)

    def _up(self, width: int) -> nn.Module:
        if self.transposed:
            return nn.Sequential(nn.ConvTranspose2d(width, width, 2, stride=2), nn.ReLU())
        return nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        middle = self.middle(self.pool(fine))
        coarse = self.coarse(self.pool(middle))
        middle = self.from_coarse(self.up_to_middle(coarse)) + middle
        fine = self.from_middle(self.up_to_fine(middle)) + fine
        values: Tensor = self.head(fine).float()
        return torch.relu(values) if self.transposed else torch.tanh(values)


def network_for_photographs(name: str, *, channels: int, seed: int) -> nn.Module:
    """Return any of the five as it learns from photographs: correcting a smooth fill where it can, else as he wrote it.

    Without the smooth fill it sees 0 where a value is missing and predicts every value. ValueError for another name.
    """
    network = build_network(name, channels=channels, seed=seed)
    return OnSmoothFill(network) if can_correct(network) else network


def can_correct(network: nn.Module) -> bool:
    """Whether a network predicts negative values, too, so that it can correct a picture downwards."""
    return isinstance(network, Hourglass) and not network.transposed


class OnSmoothFill(nn.Module):
    """An hourglass that sees holes filled smoothly and predicts what that lacks; untrained it is the smooth fill.

    Only networks that can predict negative values can correct downwards, that is those ending in tanh.
    """

    def __init__(self, hourglass: nn.Module) -> None:
        super().__init__()
        if not isinstance(hourglass, Hourglass) or not can_correct(hourglass):
            raise ValueError(
                f"OnSmoothFill: got a {type(hourglass).__name__} that ends in sigmoid or ReLU, expected "
                "deep_denoise or deep_wide_denoise; choose one of them or do without the smooth start"
            )
        self.hourglass, self.in_channels = hourglass, hourglass.in_channels
        nn.init.zeros_(hourglass.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        values, known = x.float().chunk(2, dim=1)
        # Planes may have masks of their own.
        planes = (values.flatten(0, 1)[:, None], 1.0 - known.flatten(0, 1)[:, None])
        kind = x.device.type
        # Where only shapes are asked for, on the device "meta", there is nothing to switch off.
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            smooth = smooth_fill(*planes).view(values.shape)
        change: Tensor = self.hourglass(torch.cat([smooth, known], dim=1))
        return smooth + change
