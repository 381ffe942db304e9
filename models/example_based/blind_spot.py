"""Internal learning that can fill: known pixels are hidden from the network and it must predict them.

The networks are Xinglu Wang's; hiding what is supervised is the blind spot of Krull et al., "Noise2Void", CVPR 2019,
and of Batson and Royer, "Noise2Self", ICML 2019. Pixels, not patches, are held out to decide when to stop.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
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
from models.example_based.networks import SIZE_MULTIPLE, OnSmoothFill, build_network
from models.example_based.patches import Patches


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindSpotSettings:
    """Crops of `crop_px` (a multiple of 4), turned and mirrored, with `hidden_share` of their known pixels hidden.

    `smooth_start`: the network corrects a smooth fill instead of starting from nothing, which takes far fewer steps.
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

    def __post_init__(self) -> None:
        if self.crop_px < SIZE_MULTIPLE or self.crop_px % SIZE_MULTIPLE:
            raise ValueError(f"crop_px: got {self.crop_px}, expected a multiple of {SIZE_MULTIPLE}")
        if not 0.0 < self.hidden_share < 1.0:
            raise ValueError(f"hidden_share: got {self.hidden_share}, expected a number between 0 and 1")


def fill_with_blind_spots(
    image: Tensor,
    missing: Tensor,
    *,
    settings: BlindSpotSettings,
    seed: int,
    budget: Budget | None = None,
    progress: ProgressCallback | None = None,
) -> LearningResult:
    """Fill `image` (1, C, H, W) where `missing` (1, 1 or C, H, W) is 1 by a network that learned to fill this picture.

    The weights that were best on the held-out pixels make the result, also after an interrupt; the held-out pixels are
    shown to them. The same seed and machine give the same result unless the budget is in seconds.
    """
    with torch.inference_mode(False), torch.enable_grad():
        image, missing = image.clone(), missing.clone()
        check_pair(image, missing)
        known = (1.0 - missing).expand_as(image)
        held = hold_out(missing, fraction=settings.held_out_share, seed=seed).expand_as(image)
        network = build_network(settings.network, channels=image.shape[1], seed=seed)
        network = OnSmoothFill(network) if settings.smooth_start else network
        learner = Learner(network, learning_rate=settings.learning_rate, device=image.device)
        training = _BlindSpots(image, shown=known - held, held_out=held, settings=settings, seed=seed)
        clock = Clock(budget or Budget(), steps=settings.steps, progress=progress)
        reason = training.learn(learner, clock=clock)
        with torch.no_grad():
            result = _whole(training.best_of(learner), image, shown=known).clamp(0.0, 1.0)
        return LearningResult(
            image=torch.where(known > 0, image, result),
            steps=clock.step,
            best_step=training.best_step,
            stopped_by=reason,
            validation=tuple(clock.validation),
            seconds=clock.seconds,
        )


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
        if self._best is not None:
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
        return torch.cat([values * seen, seen], dim=1), values, shown - seen

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
    """Mean squared error over the hidden values only."""
    return ((prediction - values) * hidden).square().sum() / hidden.sum().clamp_min(1.0)
