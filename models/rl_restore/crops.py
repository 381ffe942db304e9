"""What the agent, made for 63 x 63, is shown of a picture of any size: an even grid of 63 x 63 crops.

A side up to 63 px is one crop, mirrored where it is shorter. A longer one is covered by overlapping crops, or sampled
evenly when that would take more than `most` of them.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.method import to_planes
from models.rl_restore.networks import AGENT_SIDE

# More were not better (`python -m benchmarks.rl_restore_views`), and cost as much as restoring their pixels.
MOST_CROPS = 6
Indices = npt.NDArray[np.int64]


def crop_indices(height: int, width: int, *, most: int = MOST_CROPS) -> list[tuple[Indices, Indices]]:
    """Return the rows and the columns (63 each) of every crop: at most `most`, at least one."""
    rows, columns = (math.ceil(length / AGENT_SIDE) for length in (height, width))
    if rows * columns > most:
        shrink = math.sqrt(most / (rows * columns))
        rows = min(most, max(1, round(rows * shrink)))
        columns = max(1, min(columns, most // rows))
    return [(down, across) for down in _spread(height, rows) for across in _spread(width, columns)]


def _spread(length: int, count: int) -> list[Indices]:
    window = np.arange(AGENT_SIDE)
    if length < AGENT_SIDE:
        period = max(1, 2 * (length - 1))
        folded = window % period
        return [np.minimum(folded, period - folded) if length > 1 else np.zeros_like(window)]
    room = length - AGENT_SIDE
    starts = [room / 2] if count == 1 else np.linspace(0, room, count)
    return [window + round(float(start)) for start in starts]


def crops_of_picture(image: npt.NDArray[np.generic], *, most: int = MOST_CROPS) -> Tensor:
    """Return the crops (N, 3, 63, 63) in [0, 1] of an integer picture (H, W) or (H, W, 3)."""
    places = crop_indices(image.shape[0], image.shape[1], most=most)
    return torch.stack([to_planes(image[np.ix_(rows, columns)]) for rows, columns in places])


def crops_of_planes(planes: Tensor, *, most: int = MOST_CROPS) -> Tensor:
    """Return the crops (N, 3, 63, 63) of float planes (3, H, W)."""
    places = crop_indices(planes.shape[1], planes.shape[2], most=most)
    return torch.stack([planes[:, torch.from_numpy(rows)][:, :, torch.from_numpy(columns)] for rows, columns in places])
