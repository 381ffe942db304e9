"""Internal learning as its author ran it: a network learns the patches of the damaged picture and is applied to them.

Xinglu Wang, "Image restoration" (course project, 2017). Values and targets agree on every known pixel and nothing else
is supervised, so that the identity has no loss: only the bottleneck and early stopping fill holes, and holding patches
out cannot tell, since they share their pixels with the others. See `blind_spot` for the remedy. Not reproduced: the
cast to 8 bits before clipping, which wraps around, and the mask "value = 0".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from models.example_based.learning import (
    Budget,
    Clock,
    EarlyStopping,
    Learner,
    LearningResult,
    ProgressCallback,
    StopReason,
    check_pair,
)
from models.example_based.networks import build_network, recipe_of
from models.example_based.patches import Patches


@dataclass(frozen=True, slots=True, kw_only=True)
class FaithfulSettings:
    """The author's: all 8 x 8 patches, batches of 2048, the last tenth of a permutation held out."""

    network: str = "deep_denoise"
    epochs: int = 100
    batch: int = 2048
    patch_px: int = 8
    held_out_share: float = 0.1
    patience: int = 20
    smallest_gain: float = 0.001


def fill_faithfully(
    image: Tensor,
    missing: Tensor,
    *,
    settings: FaithfulSettings,
    seed: int,
    budget: Budget | None = None,
    progress: ProgressCallback | None = None,
) -> LearningResult:
    """Fill `image` (1, C, H, W) where `missing` (1, 1 or C, H, W) is 1, from its own patches.

    The weights of the last step make the result, as in the author's code, also after an interrupt. The same seed and
    machine give the same result unless the budget is in seconds. Raises ValueError for a picture smaller than a patch.
    """
    with torch.inference_mode(False), torch.enable_grad():
        image, missing = image.clone(), missing.clone()
        check_pair(image, missing)
        known = (1.0 - missing).expand_as(image)
        patches = Patches(torch.cat([image * known, known], dim=1), side=settings.patch_px)
        network = build_network(settings.network, channels=image.shape[1], seed=seed)
        learner = Learner(network, learning_rate=recipe_of(settings.network).learning_rate, device=image.device)
        held_out = round(settings.held_out_share * len(patches))
        batches = -(-(len(patches) - held_out) // settings.batch)
        clock = Clock(budget or Budget(), steps=settings.epochs * batches, progress=progress)
        reason = _learn(learner, patches, settings=settings, seed=seed, clock=clock, held_out=held_out)
        with torch.no_grad():
            result = patches.mean_of_overlaps(learner.predict, batch=settings.batch).clamp(0.0, 1.0)
        return LearningResult(
            image=torch.where(known > 0, image, result),
            network=learner.network,
            steps=clock.step,
            best_step=clock.step,
            stopped_by=reason,
            validation=tuple(clock.validation),
            seconds=clock.seconds,
        )


def masked_loss(prediction: Tensor, patches: Tensor) -> Tensor:
    """Mean squared error where known; missing values add nothing but count in the mean.

    `patches` (n, 2·C, h, w): values, then mask. `prediction` (n, C, h, w).
    """
    values, known = patches.chunk(2, dim=1)
    return (prediction * known - values).square().mean()


def _learn(
    learner: Learner, patches: Patches, *, settings: FaithfulSettings, seed: int, clock: Clock, held_out: int
) -> StopReason:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(patches), generator=generator)
    training, validation = order[: len(patches) - held_out], order[len(patches) - held_out :]
    stopping = EarlyStopping(settings.patience, smallest_gain=settings.smallest_gain)
    try:
        while True:
            shuffled = training[torch.randperm(len(training), generator=generator)]
            for positions in torch.split(shuffled, settings.batch):
                batch = patches.take(positions)
                loss = learner.step(batch, loss_of=partial(masked_loss, patches=batch))
                stop = clock.tick(loss)
                if stop is not None:
                    return stop
            if held_out and _out_of_patience(learner, patches, validation, settings=settings, clock=clock, by=stopping):
                return "patience"
    except KeyboardInterrupt:
        return "interrupt"


def _out_of_patience(
    learner: Learner,
    patches: Patches,
    positions: Tensor,
    *,
    settings: FaithfulSettings,
    clock: Clock,
    by: EarlyStopping,
) -> bool:
    total = 0.0
    with torch.no_grad():
        for chosen in torch.split(positions, settings.batch):
            batch = patches.take(chosen)
            total += float(masked_loss(learner.predict(batch), batch)) * len(chosen)
    loss = total / len(positions)
    clock.validation.append((clock.step, loss))
    return by.see(loss)[1]
