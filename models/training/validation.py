"""A fixed, seeded validation set: held-back photographs, degraded once, on which a run's PSNR is followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from models.training.corruption import Corruption, Example
from models.training.photographs import PatchSettings, Photographs

# No training batch has this seed: their seeds are (recipe's seed, step).
VALIDATION_SEED = 20_000_003
CROP_PX = 256


def validation_examples(
    photographs: Photographs, corruption: Corruption, *, patches: PatchSettings, batches: int = 8
) -> tuple[Example, ...]:
    """Return seeded batches of degraded crops of 256 px: what holds on the training's patches may fail on pictures.

    Crops are at least twice the training's patches; where no photograph is so large, as large as the largest allows.
    """
    largest = max(min(picture.shape[:2]) for picture in photographs.pictures)
    larger = replace(patches, side=min(max(CROP_PX, 2 * patches.side), largest // 16 * 16), half_scale_share=0.0)
    examples = []
    for index in range(batches):
        rng = np.random.default_rng((VALIDATION_SEED, index))
        examples.append(corruption(photographs.patches(larger, rng=rng), rng))
    return tuple(examples)


def psnr_db(output: Tensor, example: Example) -> Tensor:
    """Return the PSNR in dB of each picture (B,) of the clipped `output`, over `example.weight` where there is one."""
    error = (output.clamp(0, 1) - example.target).square()
    weight = torch.ones_like(error) if example.weight is None else example.weight.expand_as(error)
    mean = (error * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp_min(1.0)
    return -10.0 * mean.clamp_min(1e-12).log10()


@torch.inference_mode()
def mean_psnr_db(network: nn.Module, examples: Sequence[Example], *, device: str, bf16: bool = True) -> float:
    """Return the mean PSNR in dB over every picture of `examples`; the network is left in training mode."""
    network.eval()
    values = []
    for example in examples:
        entry = example.network_input.to(device, memory_format=torch.channels_last)
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=bf16):
            output = network(entry)
        values.append(psnr_db(output.float().cpu(), example))
    network.train()
    return float(torch.cat(values).mean())
