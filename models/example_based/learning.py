"""What both ways of learning from one picture share: settings, budget, progress, result, one optimizer step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from models.deep_prior.budget import tell_of_fit
from models.interruption import work_interrupted

StopReason = Literal["steps", "seconds", "patience", "caller", "interrupt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningProgress:
    """One step, as told to the caller. `validation` is the latest loss on what was held out, None = none yet."""

    step: int
    steps: int
    loss: float
    validation: float | None
    seconds: float


ProgressCallback = Callable[[LearningProgress], bool | None]
"""Called after each step; returning False stops the learning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits beside those of the settings; a limit in seconds makes results depend on the machine."""

    steps: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningResult:
    """The filled picture (1, C, H, W) in [0, 1], known pixels as they were, and how it came about.

    `network` made the picture; a further learning, of this picture or of one like it, may begin with it.

    `validation` holds (step, loss on what was held out) pairs; `best_step` is the step whose weights made the picture.
    """

    image: Tensor
    network: nn.Module
    steps: int
    best_step: int
    stopped_by: StopReason
    validation: tuple[tuple[int, float], ...]
    seconds: float


@dataclass(slots=True)
class EarlyStopping:
    """Stops when the loss has not fallen by more than `smallest_gain` for `patience` validations."""

    patience: int
    smallest_gain: float = 0.0
    best: float = math.inf
    waited: int = 0

    def see(self, loss: float) -> tuple[bool, bool]:
        """Return whether this is the best until now and whether to stop."""
        if loss < self.best - self.smallest_gain:
            self.best, self.waited = loss, 0
            return True, False
        self.waited += 1
        return False, self.waited >= self.patience


class Learner:
    """A network being trained step by step in the autocast mode it was made in."""

    def __init__(self, network: nn.Module, *, learning_rate: float, device: torch.device) -> None:
        self.network: nn.Module = network.train().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        trained = [weight for weight in self.network.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=learning_rate)
        kind = device.type
        self._autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))

    def predict(self, inputs: Tensor) -> Tensor:
        """Return the network's float32 result."""
        kind, dtype, enabled = self._autocast
        # The cache of autocast would go on using the weights of the first step.
        with torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False):
            result: Tensor = self.network(inputs.contiguous(memory_format=torch.channels_last))
        return result.float()

    def step(self, inputs: Tensor, *, loss_of: Callable[[Tensor], Tensor]) -> float:
        """Take one optimizer step and return the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._autocast[0], enabled=False):
            loss = loss_of(self.predict(inputs))
            loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())


@dataclass(slots=True)
class Clock:
    """Counts steps, tells the caller and says when the budget is used up."""

    budget: Budget
    steps: int
    progress: ProgressCallback | None
    step: int = 0
    validation: list[tuple[int, float]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.budget.steps is not None:
            self.steps = min(self.steps, max(1, self.budget.steps))

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return time.monotonic() - self.started

    def tick(self, loss: float) -> StopReason | None:
        """Count one step of that loss; return why to stop, None = go on."""
        self.step += 1
        told = LearningProgress(
            step=self.step,
            steps=self.steps,
            loss=loss,
            validation=self.validation[-1][1] if self.validation else None,
            seconds=self.seconds,
        )
        unwanted = self.progress is not None and self.progress(told) is False
        reason: StopReason | None = "caller" if unwanted else self._why_to_stop()
        tell_of_fit(self.step, self.steps, last=reason is not None)
        return reason

    def _why_to_stop(self) -> StopReason | None:
        if self.budget.seconds is not None and self.seconds >= self.budget.seconds:
            return "seconds"
        if self.step >= self.steps:
            return "steps"
        return "interrupt" if work_interrupted() else None


def check_pair(image: Tensor, missing: Tensor) -> None:
    """Raise ValueError unless `image` is (1, C, H, W) and `missing` (1, 1 or C, H, W) fits it with a known pixel."""
    fits = image.ndim == 4 and image.shape[0] == 1 and missing.ndim == 4
    if not fits or missing.shape[1] not in (1, image.shape[1]) or missing.shape[2:] != image.shape[2:]:
        raise ValueError(
            f"example-based: got image {tuple(image.shape)} and mask {tuple(missing.shape)}, expected (1, C, H, W) and "
            "(1, 1 or C, H, W)"
        )
    if not bool((missing == 0).any()):
        raise ValueError("example-based: got no known pixel, expected some to learn from; check the mask")
