"""What a method costs whatever it runs on: parameters, and multiply-accumulates per megapixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.benchmarking.baselines import TITLES
from models.method import Context
from models.registry import get_method

_COUNTED_SIDE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """parameters: numbers that were learned, None for a method without a network.

    gmac_per_megapixel: from the method's card, else counted on its network; None where neither says.
    """

    parameters: int | None
    gmac_per_megapixel: float | None


@lru_cache(maxsize=256)
def cost_of(method_id: str) -> Cost:
    """Return what one method costs; building its network needs no weights."""
    if method_id in TITLES:
        return Cost(parameters=None, gmac_per_megapixel=None)
    method = get_method(method_id)
    parameters = sum(parameter.numel() for parameter in method.build().parameters())
    gmac = method.card.gmac_per_megapixel
    # What learns from each picture would do so to be counted, and its passes depend on the picture.
    if gmac is None and parameters and not method.card.fits_each_picture:
        gmac = counted_gmac(method_id)
    return Cost(parameters=parameters or None, gmac_per_megapixel=gmac)


def counted_gmac(method_id: str) -> float:
    """Return the GMAC per megapixel of convolutions and matrix products, counted on a tile of noise without white."""
    method = get_method(method_id)
    network = method.build().eval()
    side = _COUNTED_SIDE + -_COUNTED_SIDE % method.card.size_multiple
    # Around white that may have been clipped some methods do their work twice.
    image = 0.9 * torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 1, side, side) if method.card.needs_mask else None
    if mask is not None:
        mask[..., side // 3 : side // 2, side // 3 : side // 2] = 1.0
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        method(network, image, mask=mask, contexts=[Context()], seed=0)
    return float(counter.get_total_flops()) / 2 / 1e9 / (side * side / 1e6)
