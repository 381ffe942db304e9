"""Faded prints: each channel's tonal range is stretched to full, which undoes contrast loss and a dye cast at once.

The per-channel stretch between robust percentiles is the classical answer to dye fading (Gschwind and Frey,
"Electronic imaging, a tool for the reconstruction of faded color photographs", 1994, in its simplest linear form).
It changes colours on purpose, so it is opt-in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.method import Context, MethodCard, PlainMethod, largest_value

LOW_PERCENTILE, HIGH_PERCENTILE = 0.3, 99.7
SAMPLE_SIDE = 1024
SMALLEST_RANGE = 0.2


@dataclass(frozen=True, slots=True)
class TonalRange(PlainMethod):
    """Stretches every channel from its own black and white point to [0, 1]."""

    def statistics(self, image: npt.NDArray[Any]) -> tuple[float, ...]:
        """Return black points, then white points, of the three channels, in [0, 1], from a regular sample of pixels."""
        stride = max(1, max(image.shape[:2]) // SAMPLE_SIDE)
        sample = np.asarray(image[::stride, ::stride], dtype=np.float32) / largest_value(image.dtype)
        planes = np.repeat(sample[:, :, None], 3, axis=2) if sample.ndim == 2 else sample
        return _points(planes.reshape(-1, 3))

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        known = [
            context.statistics or _points(planes.float().flatten(1).T.cpu().numpy())
            for context, planes in zip(contexts, image, strict=True)
        ]
        points = torch.tensor(known, dtype=image.dtype, device=image.device)
        low, high = points[:, :3, None, None], points[:, 3:, None, None]
        return (image - low) / (high - low)


def _points(values: npt.NDArray[np.float32]) -> tuple[float, ...]:
    """Return black points, then white points, of three channels from their values (N, 3) in [0, 1].

    A narrower range than SMALLEST_RANGE is stretched as if it were as wide as that, about the tone that it has: a blank
    sheet keeps its own.
    """
    low, high = np.percentile(values, [LOW_PERCENTILE, HIGH_PERCENTILE], axis=0)
    spread = high - low
    missing = np.maximum(SMALLEST_RANGE - spread, 0.0)
    low = low - missing * low / (1.0 - np.minimum(spread, SMALLEST_RANGE))
    return (*low.tolist(), *(low + np.maximum(spread, SMALLEST_RANGE)).tolist())


METHODS = (
    TonalRange(
        MethodCard(
            id="tonal-range",
            title="Tonal range and cast of faded pictures",
            paper="after Gschwind and Frey, Journal of Imaging Science and Technology 1994",
            purpose="colour",
            licence="Apache-2.0",
            half_precision=False,
            opt_in=True,
        )
    ),
)
