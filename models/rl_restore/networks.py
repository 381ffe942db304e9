"""The twelve tools and the agent of RL-Restore (Yu et al., CVPR 2018), as the authors released them.

The released networks saw pictures with height and width swapped. Here kernels are turned instead
(`models.published.converters`), so everything works on upright pictures (B, 3, H, W) in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad

TOOL_COUNT = 12
STOP = 13
AGENT_SIDE = 63
LARGEST_STEPS = 3
# Three tools, each of which looks 8 px far.
CONTEXT_PX = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """What tool `number` (1-12) was trained for: strengths of `fault` from `low` to `high`, and whether it is large."""

    number: int
    fault: str
    low: float
    high: float
    large: bool


TOOLS = (
    ToolSpec(number=1, fault="blur_sigma_px", low=0.0, high=1.25, large=False),
    ToolSpec(number=2, fault="blur_sigma_px", low=1.25, high=2.5, large=False),
    ToolSpec(number=3, fault="blur_sigma_px", low=2.5, high=3.75, large=True),
    ToolSpec(number=4, fault="blur_sigma_px", low=3.75, high=5.0, large=True),
    ToolSpec(number=5, fault="noise_sigma", low=0.0, high=12.5, large=False),
    ToolSpec(number=6, fault="noise_sigma", low=12.5, high=25.0, large=False),
    ToolSpec(number=7, fault="noise_sigma", low=25.0, high=37.5, large=True),
    ToolSpec(number=8, fault="noise_sigma", low=37.5, high=50.0, large=True),
    ToolSpec(number=9, fault="jpeg_quality", low=60.0, high=100.0, large=False),
    ToolSpec(number=10, fault="jpeg_quality", low=35.0, high=60.0, large=False),
    ToolSpec(number=11, fault="jpeg_quality", low=20.0, high=35.0, large=True),
    ToolSpec(number=12, fault="jpeg_quality", low=10.0, high=20.0, large=True),
)


class SmallTool(nn.Module):
    """Three convolutions 9, 5, 5 that predict what to add to the picture; 21,827 parameters. Not clipped."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 9, padding=4)
        self.conv2 = nn.Conv2d(32, 16, 5, padding=2)
        self.conv3 = nn.Conv2d(16, 3, 5, padding=2)

    def forward(self, image: Tensor) -> Tensor:
        change: Tensor = self.conv3(torch.relu(self.conv2(torch.relu(self.conv1(image)))))
        return image + change


class LargeTool(nn.Module):
    """Eight convolutions with two residual blocks that predict what to add; 50,851 parameters. Not clipped."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 5, padding=2)
        self.conv1_2 = nn.Conv2d(64, 32, 1)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.conv2a = nn.Conv2d(32, 32, 3, padding=1)
        self.conv2c = nn.Conv2d(32, 32, 3, padding=1)
        self.conv2d = nn.Conv2d(32, 32, 3, padding=1)
        self.conv2_2 = nn.Conv2d(32, 64, 1)
        self.conv3 = nn.Conv2d(64, 3, 5, padding=2)

    def forward(self, image: Tensor) -> Tensor:
        features = self.conv1_2(torch.relu(self.conv1(image)))
        features = features + self.conv2a(torch.relu(self.conv2(torch.relu(features))))
        features = features + self.conv2d(torch.relu(self.conv2c(torch.relu(features))))
        # No activation before this convolution, as in the released graph.
        change: Tensor = self.conv3(torch.relu(self.conv2_2(features)))
        return image + change


def told_of(actions: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Return what the agent is told of its last actions (B,) from 1 to 13: (B, 12), one-hot, zeros for `stop`."""
    return one_hot(actions - 1, TOOL_COUNT + 1)[:, :TOOL_COUNT].to(dtype)


@dataclass(frozen=True, slots=True)
class Memory:
    """The LSTM's hidden and cell state, each (B, 50)."""

    hidden: Tensor
    cell: Tensor


class Agent(nn.Module):
    """Values of the 12 tools and of stopping, from a 63 x 63 picture, the last action and a memory; 87,863 parameters.

    The gates lie in the order i, f, g, o; the forget gate's bias of 1 that TensorFlow adds is part of `gates.bias`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.l1 = nn.Conv2d(3, 32, 9, stride=2)
        self.l2 = nn.Conv2d(32, 24, 5, stride=2)
        self.l3 = nn.Conv2d(24, 24, 5, stride=2)
        self.l4 = nn.Conv2d(24, 24, 5, stride=2)
        self.l7 = nn.Linear(24 * 4 * 4, 32)
        self.gates = nn.Linear(32 + TOOL_COUNT + 50, 4 * 50)
        self.q = nn.Linear(50, TOOL_COUNT + 1)

    def start(self, count: int) -> Memory:
        """Return the empty memory of `count` episodes."""
        zeros = self.q.weight.new_zeros(count, 50)
        return Memory(zeros, zeros)

    def features(self, picture: Tensor) -> Tensor:
        """Return (B, 32) of pictures (B, 3, 63, 63)."""
        # TensorFlow's SAME with stride 2: 4 and 4 here, but 1 before and 2 behind on the even sizes that follow.
        features = torch.relu(self.l1(pad(picture, (4, 4, 4, 4))))
        for layer in (self.l2, self.l3, self.l4):
            features = torch.relu(layer(pad(features, (1, 2, 1, 2))))
        return torch.relu(self.l7(features.flatten(1)))

    def forward(self, picture: Tensor, last: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Return the values (B, 13) and the new memory; `last` (B, 12) is one-hot, or zeros at the first step."""
        entry = torch.cat([self.features(picture), last, memory.hidden], dim=1)
        write, forget, new, out = self.gates(entry).chunk(4, dim=1)
        cell = torch.sigmoid(forget) * memory.cell + torch.sigmoid(write) * torch.tanh(new)
        hidden = torch.sigmoid(out) * torch.tanh(cell)
        return self.q(hidden), Memory(hidden, cell)


class ToolchainNetwork(nn.Module):
    """The whole system, 523,931 parameters: `tools` 1-12 (at index 0-11) and the `agent`."""

    def __init__(self) -> None:
        super().__init__()
        self.tools = nn.ModuleList(LargeTool() if spec.large else SmallTool() for spec in TOOLS)
        self.agent = Agent()

    def forward(self, image: Tensor) -> Tensor:
        """Apply the costliest chain, three large tools: an upper bound of the cost, not a restoration."""
        for _ in range(LARGEST_STEPS):
            image = self.tools[TOOL_COUNT - 1](image)
        return image
