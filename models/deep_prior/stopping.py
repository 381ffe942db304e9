"""When to stop a fit without knowing the true picture: pixels held out, or the variance of the latest outputs.

Wang et al., "Early Stopping for Deep Image Prior", TMLR 2023: the outputs' variance over a window falls to a minimum
near the best picture and rises when noise is being fitted. Once the noise is fitted, the outputs stand still and it
falls again, at last below that minimum: on 64 px a thousand iterations after it, on 256 px and more long after every
patience. So the variance rules wait no longer than it took to come to the minimum, nor than their patience.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether this picture is the best until now, whether to stop, and the score (lower is better; None = not yet).

    of_output: it is the raw output that was judged; a running mean of outputs looks back, and gets there later.
    """

    best: bool = False
    of_output: bool = False
    stop: bool = False
    score: float | None = None


class StoppingRule(Protocol):
    """Looks at the outputs of a fit, one by one."""

    def judge(self, output: Tensor, *, candidate: Tensor, iteration: int) -> Verdict:
        """Judge the raw `output` of an iteration and the `candidate` result (which may be a running mean)."""
        ...


@dataclass(slots=True)
class _Lowest:
    """The lowest score until now; says stop when none lower has come for `patience` iterations.

    at_least: of a score that falls again at last, it waits as many iterations as the lowest took to come, if that is
    less than the patience, but so many; None = the whole patience.
    """

    patience: int
    at_least: int | None = None
    score: float = float("inf")
    iteration: int = 0

    def see(self, score: float, *, iteration: int) -> Verdict:
        if score < self.score:
            self.score, self.iteration = score, iteration
            return Verdict(best=True, score=score)
        waits = self.patience if self.at_least is None else min(self.patience, max(self.at_least, self.iteration))
        return Verdict(stop=iteration - self.iteration >= waits, score=score)


class HeldOutPixels:
    """For inpainting: the error on known pixels that the fit never saw."""

    def __init__(self, observed: Tensor, *, held_out: Tensor, patience: int, every: int = 5) -> None:
        """`held_out` (1, 1 or C, H, W) is 1 where `observed` is known and kept from the fit."""
        self._observed, self._held_out, self._every = observed, held_out, every
        self._count = float(held_out.expand_as(observed).sum())
        if self._count == 0.0:
            raise ValueError("HeldOutPixels: got no held-out pixel, expected some; raise the fraction held out")
        self._lowest = _Lowest(patience)

    def judge(self, output: Tensor, *, candidate: Tensor, iteration: int) -> Verdict:
        """Judge every few iterations by the mean squared error of the candidate on the held-out pixels."""
        if iteration % self._every:
            return Verdict()
        error = ((candidate - self._observed) * self._held_out).square().sum() / self._count
        return self._lowest.see(float(error), iteration=iteration)


class WindowedVariance:
    """For denoising: the variance of the last `window` outputs, published with a window of 100 and a patience of 1000.

    Outputs are kept in half precision: 2 bytes x window x values of the picture (157 MB for 100 of 512 x 512 RGB).
    """

    def __init__(self, *, window: int = 100, patience: int = 1000) -> None:
        if window < 2:
            raise ValueError(f"WindowedVariance: got a window of {window}, expected at least 2")
        self._window, self._lowest = window, _Lowest(patience, at_least=2 * window)
        self._outputs: deque[Tensor] = deque()
        self._sum: Tensor | None = None
        self._squares: deque[float] = deque()

    def judge(self, output: Tensor, *, candidate: Tensor, iteration: int) -> Verdict:
        """Judge by the mean over the window of the mean squared distance to the window's mean."""
        kept = output.half()
        # In double precision the running sums stay exact to far below the variance of a few 1e-5.
        values = kept.double()
        self._outputs.append(kept)
        self._squares.append(float(values.square().mean()))
        self._sum = values if self._sum is None else self._sum + values
        if len(self._outputs) > self._window:
            self._sum = self._sum - self._outputs.popleft().double()
            self._squares.popleft()
        if len(self._outputs) < self._window:
            return Verdict()
        mean_square = sum(self._squares) / self._window
        variance = mean_square - float((self._sum / self._window).square().mean())
        return replace(self._lowest.see(max(variance, 0.0), iteration=iteration), of_output=True)


@dataclass(slots=True)
class MovingVariance:
    """For denoising without a window's memory: exponential moving mean and variance of the outputs.

    The same paper's ES-EMV; a rate of 2 / (window + 1) looks back as far as a window.
    """

    rate: float = 2 / 101
    patience: int = 1000
    _mean: Tensor | None = None
    _variance: float = 0.0
    _seen: int = 0
    _lowest: _Lowest = field(init=False)

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f"MovingVariance: got a rate of {self.rate}, expected a number between 0 and 1")
        self._lowest = _Lowest(self.patience, at_least=round(4.0 / self.rate))  # two windows, as of the other rule

    def judge(self, output: Tensor, *, candidate: Tensor, iteration: int) -> Verdict:
        """Judge from the first 2 / rate outputs on, when the first output has been forgotten."""
        self._seen += 1
        if self._mean is None:
            self._mean = output.clone()
            return Verdict()
        distance = float((output - self._mean).square().mean())
        self._mean = self._mean + self.rate * (output - self._mean)
        self._variance = (1.0 - self.rate) * (self._variance + self.rate * distance)
        if self._seen < 2.0 / self.rate:
            return Verdict()
        return replace(self._lowest.see(self._variance, iteration=iteration), of_output=True)


def hold_out(missing: Tensor, *, fraction: float, seed: int) -> Tensor:
    """Return 1 where a known pixel is to be held out: a random `fraction` of the known ones, at least one of them.

    `missing` (1, 1 or C, H, W) in {0, 1}; the result has its shape and is 0 wherever a pixel is missing. Raises
    ValueError when fewer than two pixels are known or the fraction is not between 0 and 1.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"hold_out: got a fraction of {fraction}, expected a number between 0 and 1")
    known = torch.nonzero(missing.flatten().cpu() == 0)[:, 0]
    if len(known) < 2:
        raise ValueError(
            f"hold_out: got {len(known)} known pixels, expected at least 2; there is nothing to learn from"
        )
    count = min(max(1, round(fraction * len(known))), len(known) - 1)
    chosen = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))[:count]]
    held = torch.zeros(missing.numel(), dtype=missing.dtype)
    held[chosen] = 1.0
    return held.view(missing.shape).to(missing.device)
