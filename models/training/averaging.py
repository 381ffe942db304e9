"""The running mean of weights: what is validated and exported of trainings whose last steps are noisy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


@torch.no_grad()
def move_mean(mean: Mapping[str, Tensor], state: Mapping[str, Tensor], *, decay: float) -> None:
    """Move `mean` in place by 1 - `decay` of the way to `state`, both of one network; whole numbers are copied.

    Raises KeyError for another network's state.
    """
    for name, value in state.items():
        if value.is_floating_point():
            mean[name].lerp_(value, 1.0 - decay)
        else:
            mean[name].copy_(value)
