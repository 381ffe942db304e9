"""All overlapping patches of a picture without copying them, and the mean of overlapping results."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import fold


class Patches:
    """Every `side` x `side` window of planes (1, C, H, W), stride 1, row by row; raises ValueError below that size."""

    def __init__(self, planes: Tensor, *, side: int) -> None:
        self.height, self.width, self.side = planes.shape[2], planes.shape[3], side
        if min(self.height, self.width) < side:
            raise ValueError(f"patches: got {self.height} x {self.width} px, expected at least {side} each way")
        self._windows = planes[0].unfold(1, side, 1).unfold(2, side, 1)
        self.rows, self.columns = self.height - side + 1, self.width - side + 1

    def __len__(self) -> int:
        return self.rows * self.columns

    def take(self, positions: Tensor) -> Tensor:
        """Return the patches (n, C, side, side) at positions counted row by row."""
        rows, columns = positions // self.columns, positions % self.columns
        return self._windows[:, rows, columns].transpose(0, 1)

    def mean_of_overlaps(self, change: Callable[[Tensor], Tensor], *, batch: int) -> Tensor:
        """Return (1, c, H, W): each pixel the mean over `change`'s results for all patches that hold it."""
        total, count = None, torch.zeros(1, 1, self.height, self.width, device=self._windows.device)
        rows_at_once = max(1, batch // self.columns)
        for top in range(0, self.rows, rows_at_once):
            rows = min(rows_at_once, self.rows - top)
            first = top * self.columns
            positions = torch.arange(first, first + rows * self.columns, device=self._windows.device)
            changed = change(self.take(positions)).float()
            size = (rows + self.side - 1, self.width)
            columns = changed.flatten(1).T[None]
            band = fold(columns, output_size=size, kernel_size=self.side)
            ones = fold(torch.ones_like(columns[:, : self.side**2]), output_size=size, kernel_size=self.side)
            if total is None:
                total = torch.zeros(1, band.shape[1], self.height, self.width, device=band.device)
            total[:, :, top : top + size[0]] += band
            count[:, :, top : top + size[0]] += ones
        if total is None:
            raise ValueError("patches: got no patch, expected at least one")
        return total / count
