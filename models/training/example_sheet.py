"""A sheet of examples beside a run's checkpoint: what the network was given, what it made of it, what was wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.training.corruption import Example

EXAMPLES = "examples.png"
_SHOWN = 4
# Of each batch; the twelve tools of RL-Restore take no fewer.
_GIVEN = 12
_GAP = 4


@torch.inference_mode()
def save_examples(network: nn.Module, examples: Sequence[Example], *, path: Path, device: str) -> None:
    """Write PNG rows of input, output and target, the first pictures of each batch; the network is left training."""
    network.eval()
    rows = []
    for example in (batch.first(_GIVEN) for batch in examples[:_SHOWN]):
        output = network(example.network_input.to(device)).float().cpu()
        given = functional.interpolate(example.network_input[:1, :3], size=example.target.shape[2:], mode="nearest")
        shown = [given[0], example.completed(output)[0], example.target[0]]
        rows.append(np.concatenate([_levels(planes) for planes in shown], axis=1))
    network.train()
    cv2.imwrite(str(path), np.concatenate(rows)[:, :, ::-1])


def _levels(planes: Tensor) -> npt.NDArray[np.uint8]:
    levels = planes.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    return np.pad(levels, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
