"""Fixed, seeded validation: held-back photographs and named sets, degraded once, on which a run's PSNR is followed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.device import quick_products
from models.training.corruption import Corruption, Example
from models.training.losses import mean_squared_errors
from models.training.photographs import PatchSettings, Photographs, pictures_below, read_rgb

# No training batch has this seed: their seeds are (recipe's seed, step).
VALIDATION_SEED = 20_000_003
CROP_PX = 256
# Of a picture of a named set no more than its middle is measured, and sides that every network takes.
_NAMED_SIDE_PX, _SIDE_MULTIPLE = 512, 16


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


def named_sets(folders: Sequence[Path], corruption: Corruption) -> dict[str, tuple[Example, ...]]:
    """Return the pictures of every folder by its name, degraded as in training, seeded by their own names.

    Whole pictures, each of them by itself, but at most the middle 512 px of a side. These are no benchmarks, whose
    degradations have one strength each: `lacuna benchmark run` is. Raises FileNotFoundError for a folder without
    pictures, ValueError for two of one name.
    """
    sets: dict[str, tuple[Example, ...]] = {}
    for folder in folders:
        name, paths = folder.resolve().name, sorted(pictures_below(folder))
        if not paths:
            raise FileNotFoundError(f"validation: found no pictures below {folder}; give a folder of clean pictures")
        if name in sets:
            raise ValueError(f"validation: got two sets called {name!r}, expected one of each name; rename a folder")
        sets[name] = tuple(_degraded(path, corruption) for path in paths)
    return sets


def _degraded(path: Path, corruption: Corruption) -> Example:
    picture = read_rgb(path)
    sides = [min(side, _NAMED_SIDE_PX) // _SIDE_MULTIPLE * _SIDE_MULTIPLE for side in picture.shape[:2]]
    if not all(sides):
        small = f"{picture.shape[1]} x {picture.shape[0]} px"
        raise ValueError(f"validation: got {path} of {small}, expected {_SIDE_MULTIPLE} px a side; remove it")
    height, width = sides
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    middle = torch.from_numpy(picture[top : top + height, left : left + width].copy()).permute(2, 0, 1)[None]
    rng = np.random.default_rng((VALIDATION_SEED, zlib.crc32(path.name.encode())))
    return corruption(middle.float().div_(255.0).contiguous(), rng)


def psnr_by_set(
    network: nn.Module, sets: Mapping[str, Sequence[Example]], *, device: str, bf16: bool = True
) -> dict[str, float]:
    """Return the mean PSNR in dB on every named set."""
    return {name: round(mean_psnr_db(network, set_, device=device, bf16=bf16), 3) for name, set_ in sets.items()}


def psnr_db(output: Tensor, example: Example) -> Tensor:
    """Return the PSNR in dB of each picture (B,) of the clipped `output`, over `example.weight` where there is one."""
    mean = mean_squared_errors(output.clamp(0, 1), example.target, weight=example.weight)
    return -10.0 * mean.clamp_min(1e-12).log10()


@torch.inference_mode()
def mean_psnr_db(network: nn.Module, examples: Sequence[Example], *, device: str, bf16: bool = True) -> float:
    """Return the mean PSNR in dB over every picture of `examples`; the network is left in training mode."""
    network.eval()
    values = []
    for example in examples:
        entry = example.network_input.to(device, memory_format=torch.channels_last)
        with quick_products(device, allowed=bf16):
            output = network(entry)
        values.append(psnr_db(output.float().cpu(), example))
    network.train()
    return float(torch.cat(values).mean())
