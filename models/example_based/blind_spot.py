"""Internal learning that can fill: known pixels are hidden from the network and it must predict them.

The networks are Xinglu Wang's; hiding what is supervised is the blind spot of Krull et al., "Noise2Void", CVPR 2019,
and of Batson and Royer, "Noise2Self", ICML 2019. Pixels, not patches, are held out to decide when to stop. A network
that was trained on photographs may be given: that is his "online learning".
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from models.deep_prior.stopping import hold_out
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
from models.example_based.networks import SIZE_MULTIPLE, Hourglass, OnSmoothFill, build_network
from models.example_based.patches import Patches


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindSpotSettings:
    """Crops of `crop_px` (a multiple of 4), turned and mirrored, with `hidden_share` of their known pixels hidden.

    `smooth_start`: the network corrects a smooth fill instead of starting from nothing, which takes far fewer steps.
    hidden_share 0: nothing is hidden and all that is known supervised, as the author did. `trained`: every layer, or
    only the last three convolutions, from the last merge on. `keep`: the weights that were best on the held-out pixels,
    or those of the last step.
    """

    network: str = "deep_wide_denoise"
    steps: int = 3000
    batch: int = 16
    crop_px: int = 32
    learning_rate: float = 1e-3
    hidden_share: float = 0.2
    held_out_share: float = 0.05
    validate_every: int = 50
    patience: int = 20
    smooth_start: bool = True
    trained: Literal["all", "last"] = "all"
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        if self.crop_px < SIZE_MULTIPLE or self.crop_px % SIZE_MULTIPLE:
            raise ValueError(f"crop_px: got {self.crop_px}, expected a multiple of {SIZE_MULTIPLE}")
        if not 0.0 <= self.hidden_share < 1.0:
            raise ValueError(f"hidden_share: got {self.hidden_share}, expected a number from 0 to below 1")
        if self.steps < 0:
            raise ValueError(f"steps: got {self.steps}, expected 0 (the network as it is given) or more")


def fill_with_blind_spots(
    image: Tensor,
    missing: Tensor,
    *,
    settings: BlindSpotSettings,
    seed: int,
    budget: Budget | None = None,
    progress: ProgressCallback | None = None,
    network: nn.Module | None = None,
) -> LearningResult:
    """Fill `image` (1, C, H, W) where `missing` (1, 1 or C, H, W) is 1 by a network that learned to fill this picture.

    The weights that were best on the held-out pixels make the result, also after an interrupt; the held-out pixels are
    shown to them. The same seed and machine give the same result unless the budget is in seconds. network: learned
    beforehand, for C planes; a copy of it learns. None = one that knows nothing, as the settings say.
    """
    with torch.inference_mode(False), torch.enable_grad():
        image, missing = image.clone(), missing.clone()
        check_pair(image, missing)
        known = (1.0 - missing).expand_as(image)
        held = hold_out(missing, fraction=settings.held_out_share, seed=seed).expand_as(image)
        network = (
            copy.deepcopy(network) if network is not None else _untaught(settings, channels=image.shape[1], seed=seed)
        )
        choose_trained(network, settings.trained)
        learner = Learner(network, learning_rate=settings.learning_rate, device=image.device)
        training = _BlindSpots(image, shown=known - held, held_out=held, settings=settings, seed=seed)
        clock = Clock(budget or Budget(), steps=settings.steps, progress=progress)
        reason = training.learn(learner, clock=clock) if settings.steps > 0 else "steps"
        with torch.no_grad():
            result = _whole(training.best_of(learner), image, shown=known).clamp(0.0, 1.0)
        return LearningResult(
            image=torch.where(known > 0, image, result),
            network=learner.network,
            steps=clock.step,
            best_step=training.best_step if settings.keep == "best" else clock.step,
            stopped_by=reason,
            validation=tuple(clock.validation),
            seconds=clock.seconds,
        )


def _untaught(settings: BlindSpotSettings, *, channels: int, seed: int) -> nn.Module:
    network = build_network(settings.network, channels=channels, seed=seed)
    return OnSmoothFill(network) if settings.smooth_start else network


def choose_trained(network: nn.Module, trained: Literal["all", "last"]) -> None:
    """Let gradients reach every weight of an hourglass, or those after its last merge; ValueError for others."""
    hourglass = network.hourglass if isinstance(network, OnSmoothFill) else network
    for weight in network.parameters():
        weight.requires_grad_(trained == "all")
    if trained == "all":
        return
    if not isinstance(hourglass, Hourglass):
        raise ValueError(
            f"trained: got 'last' for a {type(hourglass).__name__}, expected an hourglass; train all of it"
        )
    for part in (hourglass.from_middle, hourglass.head):
        for weight in part.parameters():
            weight.requires_grad_(True)


def _whole(learner: Learner, image: Tensor, *, shown: Tensor) -> Tensor:
    """Apply the network to the whole picture; what is padded reads as missing."""
    height, width = image.shape[2:]
    planes = torch.cat([image * shown, shown], dim=1)
    padded = pad(planes, (0, -width % SIZE_MULTIPLE, 0, -height % SIZE_MULTIPLE))
    return learner.predict(padded)[:, :, :height, :width]


class _BlindSpots:
    """Draws crops, hides pixels in them, and watches the held-out ones."""

    def __init__(
        self, image: Tensor, *, shown: Tensor, held_out: Tensor, settings: BlindSpotSettings, seed: int
    ) -> None:
        self.image, self.shown, self.held_out, self.settings = image, shown, held_out, settings
        side = settings.crop_px
        below, right = max(0, side - image.shape[2]), max(0, side - image.shape[3])
        planes = pad(torch.cat([image * shown, shown], dim=1), (0, right, 0, below))
        self.crops = Patches(planes, side=side)
        self.generator = torch.Generator().manual_seed(seed)
        self.best_step = 0
        self._best: dict[str, Tensor] | None = None

    def learn(self, learner: Learner, *, clock: Clock) -> StopReason:
        """Take steps until the budget, the patience or the caller ends it; no step at all may turn out best."""
        stopping = EarlyStopping(self.settings.patience)
        self._validate(learner, clock=clock, stopping=stopping)
        try:
            while True:
                crops = self._draw()
                inputs, target, hidden = self._hide(crops)
                loss = learner.step(inputs, loss_of=partial(hidden_loss, values=target, hidden=hidden))
                stop = clock.tick(loss)
                impatient = False
                if stop is not None or clock.step % self.settings.validate_every == 0:
                    impatient = self._validate(learner, clock=clock, stopping=stopping)
                if stop is not None or impatient:
                    return stop or "patience"
        except KeyboardInterrupt:
            return "interrupt"

    def best_of(self, learner: Learner) -> Learner:
        """Give the learner the best weights back."""
        if self._best is not None and self.settings.keep == "best":
            learner.network.load_state_dict(self._best)
        return learner

    def _draw(self) -> Tensor:
        positions = torch.randint(len(self.crops), (self.settings.batch,), generator=self.generator)
        crops = self.crops.take(positions.to(self.image.device))
        turns, mirrored = torch.randint(4, (1,), generator=self.generator), torch.rand(1, generator=self.generator)
        crops = torch.rot90(crops, int(turns), dims=(2, 3))
        return crops.flip(3) if float(mirrored) < 0.5 else crops

    def _hide(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is seen (n, 2·C, h, w), the values (n, C, h, w), and 1 where one is known but not seen."""
        values, shown = crops.chunk(2, dim=1)
        # One draw for all planes of a pixel: otherwise a plane would be copied from the others.
        draw = torch.rand((len(crops), 1, *crops.shape[2:]), generator=self.generator).to(crops)
        seen = shown * (draw >= self.settings.hidden_share)
        supervised = shown - seen if self.settings.hidden_share > 0 else shown
        return torch.cat([values * seen, seen], dim=1), values, supervised

    def _validate(self, learner: Learner, *, clock: Clock, stopping: EarlyStopping) -> bool:
        with torch.no_grad():
            predicted = _whole(learner, self.image, shown=self.shown)
            loss = float(hidden_loss(predicted, self.image, hidden=self.held_out))
        clock.validation.append((clock.step, loss))
        best, stop = stopping.see(loss)
        if best:
            self._best, self.best_step = copy.deepcopy(learner.network.state_dict()), clock.step
        return stop


def hidden_loss(prediction: Tensor, values: Tensor, *, hidden: Tensor) -> Tensor:
    """Mean squared error over the values that `hidden` marks."""
    return ((prediction - values) * hidden).square().sum() / hidden.sum().clamp_min(1.0)
