"""The operation-wise attention network (Suganuma, Liu, Okatani, "Attention-based Adaptive Selection of Operations for
Image Restoration in the Presence of Unknown Combined Distortions", CVPR 2019), laid out as its released weights.

Ten groups of four layers; in each layer eight operations run side by side and are weighted by attention that comes
from the averages of the whole picture. 391,456 parameters. As in `models.published.converters`, kernels are turned so
that pictures stay upright.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 16
GROUPS = 10
LAYERS = 4
# Kernel and dilation of the operations; a dilated one convolves once, another twice. The eighth is average pooling.
OPERATIONS = ((1, 1), (3, 1), (5, 1), (7, 1), (3, 2), (5, 2), (7, 2))


class _PlaneBlock(nn.Module):
    """Two 3x3 convolutions of each channel on its own, with a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH, bias=False)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv2(torch.relu(self.conv1(x))))


def _separable(kernel: int, dilation: int) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    each = nn.Conv2d(WIDTH, WIDTH, kernel, padding=padding, dilation=dilation, groups=WIDTH, bias=False)
    return [each, nn.Conv2d(WIDTH, WIDTH, 1, bias=False)]


class _Named(nn.Module):
    """A sequence under the name `op`, where the released file keeps it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.op = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.op(x)
        return result


class _Layer(nn.Module):
    """Eight operations side by side, weighted, joined by a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        operations: list[nn.Module] = []
        for kernel, dilation in OPERATIONS:
            layers = _separable(kernel, dilation)
            if dilation == 1:
                layers = [*layers, nn.ReLU(), *_separable(kernel, dilation)]
            operations.append(_Named(*layers))
        operations.append(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False))
        self._ops = nn.ModuleList(operations)
        self._out = nn.Sequential(nn.Conv2d(WIDTH * len(operations), WIDTH, 1, bias=False), nn.ReLU())

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        parts = [operation(x) * weights[:, index, None, None, None] for index, operation in enumerate(self._ops)]
        joined: Tensor = self._out(torch.cat(parts, dim=1))
        return joined


class _Group(nn.Module):
    """Four layers, each with a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.preprocess = _Named(nn.Conv2d(WIDTH, WIDTH, 1, bias=False), nn.ReLU())
        self._ops = nn.ModuleList(_Layer() for _ in range(LAYERS))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        x = self.preprocess(x)
        for index, layer in enumerate(self._ops):
            x = torch.relu(layer(x, weights[:, index]) + x)
        return x


class _Attention(nn.Module):
    """Weights (B, 4, 8) of a group's operations, from the channels' averages."""

    def __init__(self) -> None:
        super().__init__()
        count = LAYERS * (len(OPERATIONS) + 1)
        self.ca_fc = nn.Sequential(nn.Linear(WIDTH, 2 * count), nn.ReLU(), nn.Linear(2 * count, count))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.ca_fc(x.mean((2, 3)))
        return scores.view(len(x), LAYERS, -1).softmax(-1)


class OperationAttentionNetwork(nn.Module):
    """Restored pictures (B, 3, H, W), not clipped, of pictures (B, 3, H, W) in [0, 1].

    Its attention averages over the whole picture: tiles do not give the same result.
    """

    def __init__(self) -> None:
        super().__init__()
        blocks = [_PlaneBlock() for _ in range(4)]
        self.FEB = nn.Sequential(nn.Conv2d(3, WIDTH, 3, padding=1, bias=False), *blocks)
        self.layers = nn.ModuleList(part for _ in range(GROUPS) for part in (_Attention(), _Group()))
        self.conv2 = nn.Conv2d(WIDTH, 3, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        x = self.FEB(image)
        for attention, group in zip(self.layers[::2], self.layers[1::2], strict=True):
            x = group(x, attention(x))
        restored: Tensor = self.conv2(x)
        return restored
