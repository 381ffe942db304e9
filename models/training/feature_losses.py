"""Distances between pictures by the features of a network: perceptual, style, and matching of a discriminator's.

An extractor is any function from pictures (B, 3, H, W) in [0, 1] to feature maps; `LayersOf` makes one of a network
and the names of its layers, such as a classifier whose weights are on this machine, or one of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Extractor = Callable[[Tensor], Sequence[Tensor]]


class LayersOf:
    """Returns what the named layers of a network, frozen, gave for a picture, in the order of the names."""

    def __init__(self, network: nn.Module, *names: str, mean: Sequence[float] = (), std: Sequence[float] = ()) -> None:
        known = dict(network.named_modules())
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise ValueError(f"layers: got {unknown or 'none'}, expected names of {type(network).__name__}'s layers")
        self._network = network.eval().requires_grad_(False)
        self._found: dict[str, Tensor] = {}
        self._names = names
        self._mean = torch.tensor(mean or (0.0,) * 3).view(1, 3, 1, 1)
        self._std = torch.tensor(std or (1.0,) * 3).view(1, 3, 1, 1)
        for name in names:
            known[name].register_forward_hook(self._keeping(name))

    def _keeping(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            self._found[name] = output

        return keep

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        self._network((pictures - self._mean.to(pictures)) / self._std.to(pictures))
        found = [self._found[name] for name in self._names]
        self._found.clear()
        return found


def perceptual_loss(extract: Extractor, output: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of features, summed over layers (Johnson et al., 2016; L1 as in ESRGAN)."""
    with torch.no_grad():
        wanted = extract(target)
    return matching_loss(extract(output), wanted)


def style_loss(extract: Extractor, output: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of Gram matrices, summed over layers (Gatys et al., 2016)."""
    with torch.no_grad():
        wanted = [gram(maps) for maps in extract(target)]
    return matching_loss([gram(maps) for maps in extract(output)], wanted)


def matching_loss(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Return the mean absolute difference of each pair of maps, summed (pix2pixHD, Wang et al., 2018)."""
    differences = [functional.l1_loss(one, other.detach()) for one, other in zip(found, wanted, strict=True)]
    return torch.stack(differences).sum()


def gram(maps: Tensor) -> Tensor:
    """Return the (B, C, C) products of the channels of (B, C, H, W), over their number of values."""
    flat = maps.flatten(2)
    return flat @ flat.transpose(1, 2) / (maps.shape[1] * flat.shape[2])
