"""The fit of one picture: its network, what it was told, its way back and the best result until now."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from models.deep_prior.budget import tell_of_fit
from models.deep_prior.data_terms import DataTerm
from models.deep_prior.networks import centre_crop
from models.deep_prior.settings import Preset
from models.deep_prior.sources import meshgrid_source, noise_source
from models.deep_prior.stopping import StoppingRule, Verdict
from models.interruption import work_interrupted

StopReason = Literal["iterations", "seconds", "rule", "caller", "interrupt", "diverged"]
# Streams of random numbers that must differ although they come from one seed.
_PERTURBATION_STREAM = 1_000_003
_SOURCE_STREAM = 3_000_017


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One iteration, as told to the caller. `score` is the stopping rule's, lower is better, None = not judged."""

    iteration: int
    iterations: int
    loss: float
    score: float | None
    best_iteration: int
    seconds: float
    best: Callable[[], Tensor]


ProgressCallback = Callable[[Progress], bool | None]
"""Called after each iteration; returning False stops the fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """The best picture (1, C, H, W) in [0, 1] and how it came about.

    Without a rule the best is the latest. `network` is always the latest: where a rule stopped the fit, it has gone on
    learning for the rule's patience beyond the best picture, noise included, and does not make that picture; a limit
    on iterations gives an earlier one. `losses` holds one value per iteration, `restored` how often the parameters
    were brought back after a fall.
    """

    image: Tensor
    network: nn.Module
    iterations: int
    best_iteration: int
    stopped_by: StopReason
    losses: tuple[float, ...]
    restored: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitTask:
    """One observation to be fitted.

    `source` (1, c, H, W) replaces the preset's own (flash/no-flash). `start`: the network's state to begin with, of a
    fit of a picture like this one (`FitResult.network`), in place of random weights.
    """

    term: DataTerm
    seed: int
    rule: StoppingRule | None = None
    source: Tensor | None = None
    start: Mapping[str, Tensor] | None = None
    progress: ProgressCallback | None = None


def first_source(preset: Preset, *, height: int, width: int, seed: int) -> Tensor:
    """Return the noise or grid that the preset asks for, for a picture of this size, on the CPU."""
    scale = preset.network.source_scale
    height, width = -(-height // scale), -(-width // scale)
    if preset.fit.source == "meshgrid":
        return meshgrid_source(height=height, width=width)
    return noise_source(preset.fit.source_channels, height=height, width=width, seed=seed + _SOURCE_STREAM)


def untrained(preset: Preset, *, in_channels: int, out_channels: int, seed: int) -> nn.Module:
    """Return the preset's network with weights that depend on the seed alone; the global random state is untouched.

    The factors of normalizations are drawn from 0 to 1, as PyTorch did until 1.1, with which the published figures were
    made: from ones, which it takes now, a fit needs a fifth more iterations and its best picture is up to a dB worse.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = preset.network.build(in_channels, out_channels)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight)
        return network


def _begin_with(network: nn.Module, start: Mapping[str, Tensor]) -> None:
    """Give the network a state to begin with; ValueError when it is that of a network of another form."""
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in start.items()}
    differing = sorted(name for name in shapes.keys() | given.keys() if shapes.get(name) != given.get(name))
    if differing:
        name = differing[-1]
        raise ValueError(
            f"deep prior: got a start with {given.get(name, 'nothing')} for {name!r}, expected "
            f"{shapes.get(name, 'nothing')} ({len(differing)} of {len(shapes)} entries differ); take the network of a "
            "fit with the same preset, of a picture with as many planes (grey has 1, colour 3)"
        )
    network.load_state_dict(start)


@dataclass(slots=True)
class _WayBack:
    """A real copy of the parameters after the last good iteration that was looked at: each `every`-th, and no number.

    After a fall the next is looked at, too: the published code does not count an iteration that fell.
    """

    limit_db: float
    every: int = 1
    seen: int = 0
    psnr_db: float = -math.inf
    copies: list[Tensor] = field(default_factory=list)

    def fell(self, network: nn.Module, *, loss: float) -> bool:
        """Bring the parameters back when the PSNR fell by more than the limit; otherwise remember them."""
        if self.seen % self.every and math.isfinite(loss):
            self.seen += 1
            return False
        psnr_db = -10.0 * math.log10(max(loss, 1e-12)) if math.isfinite(loss) else -math.inf
        with torch.no_grad():
            if self.copies and not psnr_db - self.psnr_db >= -self.limit_db:
                for parameter, copy in zip(network.parameters(), self.copies, strict=True):
                    parameter.copy_(copy)
                return True
            self.psnr_db, self.seen = psnr_db, self.seen + 1
            # Not detach(): that would share memory with the live parameters.
            self.copies = [parameter.detach().clone() for parameter in network.parameters()]
        return False


class PictureFit:
    """What changes while one picture is fitted; `stopped_by` is None as long as it goes on."""

    def __init__(self, task: FitTask, *, preset: Preset, layout: torch.memory_format) -> None:
        self.task, self.settings, self._layout = task, preset.fit, layout
        channels, height, width = task.term.shape
        device = task.term.device
        if task.source is not None:
            first = task.source.clone()
        elif preset.fit.source == "picture":
            first = task.term.first_guess().clone()
        else:
            first = first_source(preset, height=height, width=width, seed=task.seed)
        self.source = first.to(device, memory_format=layout)
        network = untrained(preset, in_channels=first.shape[1], out_channels=channels, seed=task.seed)
        if task.start is not None:
            _begin_with(network, task.start)
        self.network: nn.Module = network.train().to(device).to(memory_format=layout)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=preset.fit.learning_rate)
        self.stopped_by: StopReason | None = None
        self.losses: list[float] = []
        self._noise = torch.Generator(device).manual_seed(task.seed + _PERTURBATION_STREAM)
        limit_db = preset.fit.backtrack_db
        self._way_back = None if limit_db is None else _WayBack(limit_db, every=preset.fit.backtrack_every)
        self._restored = 0
        self._mean: Tensor | None = None
        self._best: Tensor | None = None
        self._best_iteration = 0
        self._best_due: int | None = None
        self._seconds = 0.0

    def next_source(self) -> Tensor:
        """Return what goes into the network now, and forget the gradients of the last iteration."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.settings.perturbation <= 0.0:
            return self.source
        noise = torch.randn(self.source.shape, generator=self._noise, device=self.source.device)
        return self.source + self.settings.perturbation * noise

    def cropped(self, output: Tensor) -> Tensor:
        """Return the middle of what came out, of the picture's size."""
        return centre_crop(output, height=self.task.term.shape[1], width=self.task.term.shape[2])

    def losses_of(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return the error against the observation, and what is to be minimized."""
        loss = self.task.term.loss(output)
        if not self.settings.autoencode_every:
            return loss, loss
        return loss, loss + self.settings.autoencode_weight * mse_loss(output, self.source)

    def settle(self, output: Tensor, *, loss: float, seconds: float) -> None:
        """Take the step that the gradients say, or go back, keep what is best, tell, and decide whether to stop."""
        self._seconds = seconds
        self.losses.append(loss)
        iteration = len(self.losses)
        if self.settings.autoencode_every and iteration % self.settings.autoencode_every == 0:
            self.source = output.contiguous(memory_format=self._layout)
        verdict = Verdict()
        if self._way_back is not None and self._way_back.fell(self.network, loss=loss):
            self._restored += 1
            for group in self.optimizer.param_groups:
                group["lr"] *= self.settings.backtrack_rate
        else:
            verdict = self._keep(output, iteration=iteration)
            self.optimizer.step()
        self.stopped_by = self._told(verdict, iteration=iteration)

    def result(self) -> FitResult:
        """Return the best picture until now. Raises FloatingPointError when no output was finite."""
        return FitResult(
            image=self._best_so_far().clone(),
            network=self.network,
            iterations=len(self.losses),
            best_iteration=self._best_iteration,
            stopped_by=self.stopped_by or "interrupt",
            losses=tuple(self.losses),
            restored=self._restored,
            seconds=self._seconds,
        )

    def _told(self, verdict: Verdict, *, iteration: int) -> StopReason | None:
        """Tell the caller about an iteration and return why to stop, None = go on."""
        told = Progress(
            iteration=iteration,
            iterations=self.settings.iterations,
            loss=self.losses[-1],
            score=verdict.score,
            best_iteration=self._best_iteration,
            seconds=self._seconds,
            best=self._best_so_far,
        )
        unwanted = self.task.progress is not None and self.task.progress(told) is False
        reason: StopReason | None = "caller" if unwanted else self._why_to_stop(verdict, iteration=iteration)
        tell_of_fit(iteration, self.settings.iterations, last=reason is not None)
        return reason

    def _why_to_stop(self, verdict: Verdict, *, iteration: int) -> StopReason | None:
        if not math.isfinite(self.losses[-1]) and self._way_back is None:
            return "diverged"
        if verdict.stop:
            return "rule"
        if self.settings.seconds is not None and self._seconds >= self.settings.seconds:
            return "seconds"
        if iteration >= self.settings.iterations:
            return "iterations"
        # Last: a fit that has come to its end in this moment is a finished one.
        return "interrupt" if work_interrupted() else None

    def _keep(self, output: Tensor, *, iteration: int) -> Verdict:
        if not math.isfinite(self.losses[-1]):
            return Verdict()
        share = 1.0 - self.settings.smoothing
        self._mean = output if self._mean is None else torch.lerp(self._mean, output, share)
        if self.task.rule is None:
            self._best_iteration = iteration
            return Verdict()
        verdict = self.task.rule.judge(output, candidate=self._mean, iteration=iteration)
        if verdict.best:
            self._best_iteration = iteration
            self._best_due = iteration + (self._look_back if verdict.of_output else 0)
        if self._best_due is not None and iteration <= self._best_due:  # until it is due, the latest is nearest
            self._best = self._mean
        return verdict

    @property
    def _look_back(self) -> int:
        """How many iterations the running mean lies behind the output, on average."""
        share = self.settings.smoothing
        return round(share / (1.0 - share))

    def _best_so_far(self) -> Tensor:
        found = self._best if self._best is not None else self._mean
        if found is None:
            raise FloatingPointError(
                "deep prior: the first output was not finite, expected values in [0, 1]; lower the learning rate"
            )
        return found
