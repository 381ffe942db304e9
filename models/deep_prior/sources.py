"""What goes into the network: fixed noise, a grid of coordinates, or what is observed of the picture itself.

Any other picture may be given instead (flash/no-flash).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

SourceKind = Literal["noise", "meshgrid", "picture"]
NOISE_SCALE = 0.1


def noise_source(channels: int, *, height: int, width: int, seed: int) -> Tensor:
    """Return (1, channels, height, width) uniform in [0, 0.1), which is what was published (not -1 to 1)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((1, channels, height, width), generator=generator) * NOISE_SCALE


def meshgrid_source(*, height: int, width: int) -> Tensor:
    """Return (1, 2, height, width): x and y of each pixel, each from 0 to 1."""
    y = torch.arange(height, dtype=torch.float32) / max(height - 1, 1)
    x = torch.arange(width, dtype=torch.float32) / max(width - 1, 1)
    return torch.stack([x[None, :].expand(height, width), y[:, None].expand(height, width)])[None]
