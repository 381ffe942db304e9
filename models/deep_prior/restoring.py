"""Deep Image Prior as tasks: fill holes, denoise, enlarge; each stops without knowing the true picture."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from models.deep_prior.data_terms import KnownPixels, SmallPicture, WholePicture, keep_known
from models.deep_prior.fitting import FitResult, ProgressCallback, fit
from models.deep_prior.settings import Preset, StopSettings
from models.deep_prior.stopping import HeldOutPixels, MovingVariance, StoppingRule, WindowedVariance, hold_out

_HOLD_OUT_STREAM = 2_000_003


def inpaint(
    image: Tensor,
    missing: Tensor,
    *,
    preset: Preset,
    seed: int,
    insert_known: bool = True,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """Fill the missing pixels of `image` (1, C, H, W) where `missing` (1, 1 or C, H, W) is 1.

    With a preset that holds pixels out, these are known ones which only decide when to stop. `insert_known` False
    returns the network's picture everywhere, as published.
    """
    with torch.inference_mode(False):
        image, missing = image.clone(), missing.clone()
        rule: StoppingRule | None = None
        unseen = missing
        if preset.stop is not None:
            if preset.stop.rule != "held-out":
                raise ValueError(f"inpaint: got the rule {preset.stop.rule!r}, expected 'held-out' or none")
            held = hold_out(missing, fraction=preset.stop.fraction, seed=seed + _HOLD_OUT_STREAM)
            rule = HeldOutPixels(image, held_out=held, patience=preset.stop.patience)
            unseen = missing + held
        result = fit(KnownPixels(image, unseen), preset=preset, seed=seed, rule=rule, progress=progress)
        if not insert_known:
            return result
        return replace(result, image=keep_known(result.image, image, missing=missing))


def denoise(
    image: Tensor,
    *,
    preset: Preset,
    seed: int,
    source: Tensor | None = None,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """Fit `image` (1, C, H, W) and stop before its noise is fitted: denoising, JPEG artefacts, flash/no-flash."""
    with torch.inference_mode(False):
        rule = None if preset.stop is None else _variance(preset.stop)
        return fit(WholePicture(image.clone()), preset=preset, seed=seed, rule=rule, source=source, progress=progress)


def enlarge(
    image: Tensor, *, factor: int, preset: Preset, seed: int, progress: ProgressCallback | None = None
) -> FitResult:
    """Return a picture `factor` times as large as `image` (1, C, h, w) that shrinks to it."""
    with torch.inference_mode(False):
        return fit(SmallPicture(image.clone(), factor), preset=preset, seed=seed, progress=progress)


def _variance(stop: StopSettings) -> StoppingRule:
    if stop.rule == "variance":
        return WindowedVariance(window=stop.window, patience=stop.patience)
    if stop.rule == "moving-variance":
        return MovingVariance(rate=2 / (stop.window + 1), patience=stop.patience)
    raise ValueError(f"denoise: got the rule {stop.rule!r}, expected 'variance' or 'moving-variance'")
