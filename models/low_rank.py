"""What a network learns beside frozen weights: a matrix of low rank for every kernel, a few numbers instead of all.

After Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. Added to the weights once, when they
are loaded, so that the network is no slower than the one it began as.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_UP, _DOWN = "up", "down"
# What torch's parametrization makes of the name of a weight.
_FROZEN = ".parametrizations.weight.original"
_LEARNED = ".parametrizations.weight.0."


class LowRank(nn.Module):
    """weight + up · down, where a kernel of `shape` (first, …) is read as a matrix (first, everything else).

    `up` (first, rank) begins at zero and `down` (rank, everything else) at random: at first nothing is added.
    """

    def __init__(self, shape: torch.Size, *, rank: int) -> None:
        super().__init__()
        columns = math.prod(shape[1:])
        self.up = nn.Parameter(torch.zeros(shape[0], rank))
        self.down = nn.Parameter(torch.randn(rank, columns) / math.sqrt(columns))

    def forward(self, weight: Tensor) -> Tensor:
        # In half precision, what is added would be rounded before it is added.
        with torch.autocast(weight.device.type, enabled=False):
            return weight + (self.up @ self.down).view_as(weight)


def freeze_beside_low_rank(network: nn.Module, *, rank: int) -> None:
    """Freeze all parameters of `network`, in place, and add factors of `rank` that learn to every convolution.

    Its state has the frozen weights, too, by other names: `plain_name`. Raises ValueError for a rank below 1.
    """
    if rank < 1:
        raise ValueError(f"low rank: got {rank}, expected 1 or more")
    network.requires_grad_(False)
    for layer in [part for part in network.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)]:
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight.shape, rank=rank))


def plain_name(name: str) -> str:
    """Return how a frozen parameter was called before; any other name as it is."""
    return name.removesuffix(_FROZEN) + ".weight" if name.endswith(_FROZEN) else name


def frozen_and_factors(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a network's state into its frozen weights, by their plain names, and factors, as <layer>.up and .down."""
    frozen = {plain_name(name): value for name, value in state.items() if _LEARNED not in name}
    factors = {name.replace(_LEARNED, "."): value for name, value in state.items() if _LEARNED in name}
    return frozen, factors


def merged(frozen: Mapping[str, Tensor], factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with what `factors` (<layer>.up and .down) say added to those of their layers.

    Raises ValueError for factors that do not fit.
    """
    weights = dict(frozen)
    for name, up in factors.items():
        layer, _, kind = name.rpartition(".")
        if kind == _DOWN and f"{layer}.{_UP}" in factors:
            continue
        kernel, down = weights.get(f"{layer}.weight"), factors.get(f"{layer}.{_DOWN}")
        if kind != _UP or kernel is None or down is None or up.shape[0] * down.shape[1] != kernel.numel():
            raise ValueError(f"low rank: got {name} {tuple(up.shape)}, expected factors of a layer of these weights")
        weights[f"{layer}.weight"] = kernel + (up @ down).view_as(kernel)
    return weights
