"""Training of the twelve tools of RL-Restore, all at once: every patch of a batch has the fault of one tool.

Sections 3.1 and 4.1 of the paper: each tool learns one band of one fault, with a little noise and compression on top so
that it bears what other tools leave behind. How little was not published; the values here are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.degradations.blur import WindowedGaussianBlur
from models.degradations.jpeg import JpegCompression, JpegPass
from models.degradations.noise import GaussianNoise
from models.degradations.operator import Degradation, draw_seed
from models.rl_restore.networks import TOOL_COUNT, TOOLS, LargeTool, SmallTool, ToolSpec
from models.training.corruption import Example

_WINDOW_PX = 21


class Toolbox(nn.Module):
    """The twelve tools side by side: patch n of a batch (B, 3, H, W) is for tool n mod 12. Not clipped."""

    def __init__(self) -> None:
        super().__init__()
        self.tools = nn.ModuleList(LargeTool() if spec.large else SmallTool() for spec in TOOLS)

    def forward(self, images: Tensor) -> Tensor:
        """Return every image after its tool; ValueError for a batch that is not a multiple of twelve."""
        if len(images) % TOOL_COUNT:
            raise ValueError(f"images: got {len(images)}, expected a multiple of {TOOL_COUNT}")
        results = [tool(images[index::TOOL_COUNT]) for index, tool in enumerate(self.tools)]
        return torch.stack(results, dim=1).flatten(0, 1)


@dataclass(frozen=True, slots=True)
class ToolFaults:
    """Patch n gets the fault of tool n mod 12, and `slight_share` of all slight noise and good JPEG besides.

    Blur is cut to 21 x 21 with repeated borders, JPEG is 4:2:0, everything is clipped and rounded to 8 bits, as in the
    mixtures (`models.degradations.mixtures`).
    """

    slight_share: float = 0.75
    slight_sigma: float = 10.0
    slight_quality: tuple[int, int] = (40, 100)

    def __call__(self, clean: Tensor, rng: np.random.Generator) -> Example:
        faulty = [self.of_tool(patch[None], index % TOOL_COUNT, rng) for index, patch in enumerate(clean)]
        return Example(torch.cat(faulty), clean)

    def of_tool(self, patch: Tensor, index: int, rng: np.random.Generator) -> Tensor:
        """Return one patch (1, 3, H, W) with a fault of the tool at `index` (0-11)."""
        for operator in self._operators(TOOLS[index], rng):
            patch = operator.apply(patch).clamp(0, 1)
        return patch.mul(255).round().div(255)

    def _operators(self, tool: ToolSpec, rng: np.random.Generator) -> list[Degradation]:
        strength = float(rng.uniform(tool.low, tool.high))
        slight = rng.random() < self.slight_share
        sigma = float(rng.uniform(0.0, self.slight_sigma)) if slight else 0.0
        quality = int(rng.integers(self.slight_quality[0], self.slight_quality[1] + 1)) if slight else None
        found: list[Degradation] = []
        if tool.fault == "blur_sigma_px":
            found.append(WindowedGaussianBlur(sigma_px=(strength,), window_px=(_WINDOW_PX,), border="replicate"))
        elif tool.fault == "noise_sigma":
            sigma = strength
        else:
            quality = round(strength)
        if sigma > 0.0:
            found.append(GaussianNoise(sigma=(sigma,), achromatic=(False,), clip=True, seed=draw_seed(rng)))
        if quality is not None:
            found.append(JpegCompression(passes=((JpegPass(quality=quality, subsampling="420"),),)))
        return found
