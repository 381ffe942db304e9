"""The training loop: seeded batches, bf16, warm-up / stable / decay, exact resume; `train` is regression by it.

Batch k is a function of (seed, k) alone, so a run that was killed and resumed sees what an uninterrupted one sees.
The learning rate is constant until the decay starts; the checkpoint kept there (`stable.pt`) can be trained on with
more steps later, without paying for the warm-up or a wasted decay (Hu et al., "MiniCPM", 2024, section 4).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from models.device import quick_products
from models.training.ahead import BatchesAhead
from models.training.checkpoints import BEST_CHECKPOINT, CHECKPOINT, Origin, Part, resume, save
from models.training.corruption import Example
from models.training.log import LOG, Pending, Progress, has_settled, mend_log, read_log, require_finite, validations
from models.training.losses import PixelLoss, pixel_loss
from models.training.optimizer import ConvolutionMuon

STABLE_CHECKPOINT = "stable.pt"
_PENDING = "pending"
Shape = Literal["linear", "cosine", "step"]
Losses = dict[str, float]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Optimizer steps and learning rates: linear warm-up, constant, then decay to 1 % over `decay_share`.

    shape: of the decay, "linear", "cosine" (half a wave), or "step" (a tenth from its start, a hundredth from
    its half). Raises ValueError for another one.
    """

    steps: int
    peak_lr: float = 1e-3
    warmup_steps: int = 100
    decay_share: float = 0.3
    weight_decay: float = 1e-4
    # Of AdamW's share, about three times the usual norm: at 1.0, one odd batch threw a run back by thousands of steps.
    clip_norm: float = 0.2
    shape: Shape = "linear"

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise ValueError(f"Schedule: got shape {self.shape!r}, expected one of {', '.join(get_args(Shape))}")

    @property
    def decay_start(self) -> int:
        return int(self.steps * (1.0 - self.decay_share))

    def lr(self, step: int) -> float:
        """Learning rate of the given step (counted from 0)."""
        if step < self.warmup_steps:
            return self.peak_lr * (step + 1) / self.warmup_steps
        if step < self.decay_start:
            return self.peak_lr
        progress = (step - self.decay_start) / max(1, self.steps - self.decay_start)
        if self.shape == "step":
            return self.peak_lr * (0.1 if progress < 0.5 else 0.01)
        fallen = progress if self.shape == "linear" else 0.5 - 0.5 * math.cos(math.pi * progress)
        return self.peak_lr * (1.0 - 0.99 * fallen)


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """Where and how to run: device, bf16 where it is quicker, seconds between checkpoints, and when to stop for now.

    patience: stop for good, and go back to the best (`best.pt`), after so many validations that were not better.
    origin: what checkpoints say they were made of.
    """

    out: Path
    device: str = "cpu"
    bf16: bool = True
    checkpoint_seconds: float = 120.0
    log_every: int = 50
    validate_every: int = 1000
    stop_after_seconds: float | None = None
    patience: int | None = None
    origin: Origin | None = None


def train(
    network: nn.Module,
    *,
    batches: Callable[[np.random.Generator], Example],
    schedule: Schedule,
    settings: LoopSettings,
    seed: int,
    loss_kind: PixelLoss = "charbonnier",
    validate: Callable[[nn.Module], float] | None = None,
    follow: Callable[[nn.Module], Mapping[str, float]] | None = None,
    observe: Callable[[Progress], None] | None = None,
) -> int:
    """Train `network` in place up to `schedule.steps`, resuming from `settings.out`; return the steps done.

    Returns early, checkpointed, when `stop_after_seconds` have passed. `validate` returns a PSNR in dB,
    `follow` one of every named set, which decides nothing; `observe` is told every line of the log.
    """
    network.to(settings.device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = ConvolutionMuon(network, weight_decay=schedule.weight_decay)

    def one_step(step: int) -> Losses:
        example, _ = coming.take(step)
        with quick_products(settings.device, allowed=settings.bf16):
            output = network(example.network_input)
        loss = pixel_loss(loss_kind, output.float(), example.target, weight=example.weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(lr=schedule.lr(step), clip_norm=schedule.clip_norm)
        return {"loss": float(loss.detach())}

    with BatchesAhead(batches, seed=seed, device=settings.device) as coming:
        return carry_out(
            {"network": network, "optimizer": optimizer},
            one_step=one_step,
            schedule=schedule,
            settings=settings,
            validate=None if validate is None else lambda: validate(network),
            follow=None if follow is None else lambda: follow(network),
            observe=observe,
        )


def carry_out(
    parts: Mapping[str, Part],
    *,
    one_step: Callable[[int], Losses],
    schedule: Schedule,
    settings: LoopSettings,
    validate: Callable[[], float] | None = None,
    follow: Callable[[], Mapping[str, float]] | None = None,
    observe: Callable[[Progress], None] | None = None,
) -> int:
    """Do `one_step(step)` up to `schedule.steps`, going on from the checkpoint of `parts`; return the steps done.

    Ends before when the time is up, or, back at the best, when validations have settled (which the log says to a run
    that is resumed). What a step returns is averaged, by name, from one line of the log to the next. Raises
    DivergedError, with the last checkpoint left as it was, once a loss, a validation or a weight is not finite.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    pending = Pending()
    parts = {**parts, _PENDING: pending}
    step = resume(parts, path=settings.out / CHECKPOINT, optional=(_PENDING,))
    mend_log(settings.out / LOG)
    measured = validations(read_log(settings.out / LOG))
    best = settings.out / BEST_CHECKPOINT
    started = saved = time.monotonic()

    def keep(place: Path) -> None:
        # A gradient that is not finite shows in the loss one step later, when the checkpoint would be lost already.
        weights = parts["network"].state_dict().items()
        require_finite(
            {f"weight of {name}": float(value.sum()) for name, value in weights}, step=step, out=settings.out
        )
        save(parts, step=step, path=place, origin=settings.origin)

    with (settings.out / LOG).open("a") as log:
        while step < schedule.steps and not has_settled(measured, patience=settings.patience):
            losses = one_step(step)
            require_finite(losses, step=step + 1, out=settings.out)
            pending.losses.append(losses)
            step += 1
            now = time.monotonic()
            if step % settings.log_every == 0 or step == schedule.steps:
                due = step % settings.validate_every == 0 or step == schedule.steps
                line = Progress(
                    step=step,
                    steps=schedule.steps,
                    lr=schedule.lr(step - 1),
                    seconds=round(pending.seconds, 1),
                    validation_psnr_db=round(validate(), 3) if validate and due else None,
                    named_psnr_db=follow() if follow and due else None,
                    **{name: round(value, 6) for name, value in pending.means().items()},
                )
                pending.losses.clear()
                if line.validation_psnr_db is not None:
                    require_finite({"validation PSNR": line.validation_psnr_db}, step=step, out=settings.out)
                    if line.validation_psnr_db > max(measured.values(), default=-math.inf):
                        keep(best)
                    measured[step] = line.validation_psnr_db
                log.write(json.dumps(asdict(line)) + "\n")
                log.flush()
                if observe is not None:
                    observe(line)
            if step == schedule.decay_start:
                keep(settings.out / STABLE_CHECKPOINT)
            if now - saved > settings.checkpoint_seconds:
                keep(settings.out / CHECKPOINT)
                saved = now
            if settings.stop_after_seconds is not None and now - started > settings.stop_after_seconds:
                break
    if has_settled(measured, patience=settings.patience) and best.is_file():
        step = resume(parts, path=best, optional=(_PENDING,))
    keep(settings.out / CHECKPOINT)
    return step
