"""Fitting an untrained network to one observation, with a budget, progress, a way back and the best result kept.

Ulyanov, Vedaldi and Lempitsky, "Deep Image Prior", CVPR 2018. The network never leaves training mode: the statistics of
its normalization are those of the one picture it sees.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from models.deep_prior.data_terms import DataTerm
from models.deep_prior.settings import Preset
from models.deep_prior.sources import meshgrid_source, noise_source
from models.deep_prior.stopping import StoppingRule, Verdict

StopReason = Literal["iterations", "seconds", "rule", "caller", "interrupt", "diverged"]
# Streams of random numbers that must differ although they come from one seed.
_PERTURBATION_STREAM = 1_000_003


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

    Without a rule the best is the latest. `losses` holds one value per iteration, `restored` how often the parameters
    were brought back after a fall.
    """

    image: Tensor
    iterations: int
    best_iteration: int
    stopped_by: StopReason
    losses: tuple[float, ...]
    restored: int
    seconds: float


def fit(
    term: DataTerm,
    *,
    preset: Preset,
    seed: int,
    rule: StoppingRule | None = None,
    source: Tensor | None = None,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """Fit the preset's network to an observation and return the best picture, also when it was interrupted.

    `source` (1, c, H, W) replaces the preset's own (flash/no-flash). The same seed, machine and thread count give the
    same result unless there is a budget in seconds. It runs in the autocast mode it is called in. Raises ValueError for
    a picture too small for the network.
    """
    smallest = preset.network.smallest_side
    if min(term.shape[1:]) < smallest:
        raise ValueError(
            f"deep prior: got {term.shape[1]} x {term.shape[2]} px, expected at least {smallest} each way; "
            "pad the picture or take a network with fewer scales"
        )
    # A runner calls under inference mode, whose tensors no gradient passes.
    with torch.inference_mode(False), torch.enable_grad():
        run = _Fit(term, preset=preset, seed=seed, rule=rule, source=source)
        return run.run(progress)


def first_source(preset: Preset, *, height: int, width: int, seed: int) -> Tensor:
    """Return the source (1, c, height, width) that the preset asks for, on the CPU."""
    if preset.fit.source == "meshgrid":
        return meshgrid_source(height=height, width=width)
    return noise_source(preset.fit.source_channels, height=height, width=width, seed=seed)


def untrained(preset: Preset, *, in_channels: int, out_channels: int, seed: int) -> nn.Module:
    """Return the preset's network with weights that depend on the seed alone; the global random state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return preset.network.build(in_channels, out_channels)


@dataclass(slots=True)
class _WayBack:
    """A real copy of the parameters after the last good iteration."""

    limit_db: float
    psnr_db: float = -math.inf
    copies: list[Tensor] = field(default_factory=list)

    def fell(self, network: nn.Module, *, loss: float) -> bool:
        """Bring the parameters back when the PSNR fell by more than the limit; otherwise remember them."""
        psnr_db = -10.0 * math.log10(max(loss, 1e-12)) if math.isfinite(loss) else -math.inf
        with torch.no_grad():
            if self.copies and not psnr_db - self.psnr_db >= -self.limit_db:
                for parameter, copy in zip(network.parameters(), self.copies, strict=True):
                    parameter.copy_(copy)
                return True
            self.psnr_db = psnr_db
            # Not detach(): that would share memory with the live parameters.
            self.copies = [parameter.detach().clone() for parameter in network.parameters()]
        return False


class _Fit:
    def __init__(
        self, term: DataTerm, *, preset: Preset, seed: int, rule: StoppingRule | None, source: Tensor | None
    ) -> None:
        channels, height, width = term.shape
        device = term.device
        self.term, self.settings, self.rule = term, preset.fit, rule
        first = first_source(preset, height=height, width=width, seed=seed) if source is None else source.clone()
        self.source = first.to(device, memory_format=torch.channels_last)
        network = untrained(preset, in_channels=first.shape[1], out_channels=channels, seed=seed)
        self.network: nn.Module = network.train().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=preset.fit.learning_rate)
        self.noise = torch.Generator(device).manual_seed(seed + _PERTURBATION_STREAM)
        limit_db = preset.fit.backtrack_db
        self.way_back = None if limit_db is None else _WayBack(limit_db)
        self.restored = 0
        self.losses: list[float] = []
        self.mean: Tensor | None = None
        self.best: Tensor | None = None
        self.best_iteration = 0
        kind = device.type
        self.autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))

    def run(self, progress: ProgressCallback | None) -> FitResult:
        started = time.monotonic()
        reason: StopReason = "iterations"
        try:
            for iteration in range(1, self.settings.iterations + 1):
                verdict = self._iterate(iteration)
                passed = time.monotonic() - started
                stop = self._told(progress, verdict, iteration=iteration, seconds=passed)
                if stop is None and self.settings.seconds is not None and passed >= self.settings.seconds:
                    stop = "seconds"
                if stop is not None:
                    reason = stop
                    break
        except KeyboardInterrupt:
            reason = "interrupt"
            if not self.losses:
                raise
        return FitResult(
            image=self._best_so_far().clone(),
            iterations=len(self.losses),
            best_iteration=self.best_iteration,
            stopped_by=reason,
            losses=tuple(self.losses),
            restored=self.restored,
            seconds=time.monotonic() - started,
        )

    def _told(
        self, progress: ProgressCallback | None, verdict: Verdict, *, iteration: int, seconds: float
    ) -> StopReason | None:
        """Tell the caller about an iteration and return why to stop, None = go on."""
        told = Progress(
            iteration=iteration,
            iterations=self.settings.iterations,
            loss=self.losses[-1],
            score=verdict.score,
            best_iteration=self.best_iteration,
            seconds=seconds,
            best=self._best_so_far,
        )
        if progress is not None and progress(told) is False:
            return "caller"
        if not math.isfinite(self.losses[-1]) and self.way_back is None:
            return "diverged"
        return "rule" if verdict.stop else None

    def _iterate(self, iteration: int) -> Verdict:
        kind, dtype, enabled = self.autocast
        source = self.source
        if self.settings.perturbation > 0.0:
            noise = torch.randn(source.shape, generator=self.noise, device=source.device)
            source = source + self.settings.perturbation * noise
        self.optimizer.zero_grad(set_to_none=True)
        # The cache of autocast would go on using the weights of the first iteration.
        with torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False):
            output = self.network(source)
        with torch.autocast(kind, enabled=False):
            loss = self.term.loss(output)
            loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        self.losses.append(value)
        if self.way_back is not None and self.way_back.fell(self.network, loss=value):
            self.restored += 1
            return Verdict()
        verdict = self._keep(output.detach(), iteration=iteration)
        self.optimizer.step()
        return verdict

    def _keep(self, output: Tensor, *, iteration: int) -> Verdict:
        if not math.isfinite(self.losses[-1]):
            return Verdict()
        share = 1.0 - self.settings.smoothing
        self.mean = output if self.mean is None else torch.lerp(self.mean, output, share)
        if self.rule is None:
            self.best_iteration = iteration
            return Verdict()
        verdict = self.rule.judge(output, candidate=self.mean, iteration=iteration)
        if verdict.best:
            self.best, self.best_iteration = self.mean, iteration
        return verdict

    def _best_so_far(self) -> Tensor:
        found = self.best if self.best is not None else self.mean
        if found is None:
            raise FloatingPointError(
                "deep prior: the first output was not finite, expected values in [0, 1]; lower the learning rate"
            )
        return found


def with_budget(preset: Preset, *, iterations: int | None = None, seconds: float | None = None) -> Preset:
    """Return the preset with a smaller budget; a number of iterations never grows."""
    settings = preset.fit
    if iterations is not None:
        settings = replace(settings, iterations=min(settings.iterations, max(1, iterations)))
    if seconds is not None:
        settings = replace(settings, seconds=seconds)
    return replace(preset, fit=settings)
