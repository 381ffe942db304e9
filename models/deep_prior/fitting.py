"""Fitting untrained networks to observations: one picture, or many of one size at once.

Ulyanov, Vedaldi and Lempitsky, "Deep Image Prior", CVPR 2018. A network never leaves training mode: the statistics of
its normalization are those of the one picture it sees.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from models.deep_prior.cuda_graph import replayed
from models.deep_prior.data_terms import DataTerm
from models.deep_prior.networks import quickened
from models.deep_prior.picture_fit import FitResult, FitTask, PictureFit, ProgressCallback
from models.deep_prior.settings import Preset
from models.deep_prior.stopping import StoppingRule
from models.device import large_blocks_kept


def fit(
    term: DataTerm,
    *,
    preset: Preset,
    seed: int,
    rule: StoppingRule | None = None,
    source: Tensor | None = None,
    start: Mapping[str, Tensor] | None = None,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """Fit the preset's network to an observation once and return the best picture, also when it was interrupted.

    See `FitTask` and `fit_together`.
    """
    task = FitTask(term=term, seed=seed, rule=rule, source=source, start=start, progress=progress)
    return fit_together([task], preset=preset)[0]


def fit_together(tasks: Sequence[FitTask], *, preset: Preset) -> list[FitResult]:
    """Fit a network of its own to each of several observations of one size; return their results in order.

    Each ends by itself, with the same picture as alone but for rounding. Together they fill a GPU that one small
    picture leaves idle; a CPU gains nothing. The same seeds, machine and thread count give the same results unless
    there is a budget in seconds. It runs in the autocast mode it is called in. An interrupt ends all, with what they
    have. Raises ValueError for pictures of several sizes or too small for the network.
    """
    _check(tasks, preset=preset)
    # A runner calls under inference mode, whose tensors no gradient passes.
    with torch.inference_mode(False), torch.enable_grad(), large_blocks_kept():
        alone = len(tasks) == 1
        # With channels last, vmap gives wrong gradients for 1 x 1 convolutions (torch 2.13), without a warning.
        layout = torch.channels_last if alone else torch.contiguous_format
        fits = [PictureFit(task, preset=preset, layout=layout) for task in tasks]
        for one in fits:
            quickened(one.network, quick=alone)  # what is quick alone has no form for many
        started = time.monotonic()
        with _no_cached_casts(fits[0].source), _forward(fits) as forward:
            try:
                while active := [one for one in fits if one.stopped_by is None]:
                    _iterate(active, forward=forward, started=started)
            except KeyboardInterrupt:
                if not all(one.losses for one in fits):
                    raise
        return [one.result() for one in fits]


def with_budget(preset: Preset, *, iterations: int | None = None, seconds: float | None = None) -> Preset:
    """Return the preset with a smaller budget; a number of iterations never grows."""
    settings = preset.fit
    if iterations is not None:
        settings = replace(settings, iterations=min(settings.iterations, max(1, iterations)))
    if seconds is not None:
        settings = replace(settings, seconds=seconds)
    return replace(preset, fit=settings)


def _check(tasks: Sequence[FitTask], *, preset: Preset) -> None:
    shapes = {task.term.shape for task in tasks}
    if len(shapes) != 1:
        raise ValueError(f"deep prior: got pictures of {sorted(shapes)}, expected one size; fit each size by itself")
    (_, height, width), smallest = shapes.pop(), preset.network.smallest_side
    if min(height, width) < smallest:
        raise ValueError(
            f"deep prior: got {height} x {width} px, expected at least {smallest} each way; "
            "pad the picture or take a network with fewer scales"
        )


# The outputs of the networks of several fits for their sources.
_Forward = Callable[[Sequence[PictureFit], Sequence[Tensor]], list[Tensor]]


@contextmanager
def _forward(fits: Sequence[PictureFit]) -> Iterator[_Forward]:
    """Yield how outputs are computed: of one network, which a GPU records and replays, or of several together."""
    if len(fits) > 1:
        yield _of_several
        return
    (only,) = fits
    with replayed(only.network, source=only.source) as run:
        yield lambda active, sources: [only.cropped(run(sources[0]))]


def _iterate(active: Sequence[PictureFit], *, forward: _Forward, started: float) -> None:
    sources = [one.next_source() for one in active]
    outputs = forward(active, sources)
    with torch.autocast(sources[0].device.type, enabled=False):
        losses = [one.losses_of(output) for one, output in zip(active, outputs, strict=True)]
        torch.stack([objective for _, objective in losses]).sum().backward()  # type: ignore[no-untyped-call]
    values = torch.stack([loss.detach() for loss, _ in losses]).tolist()
    seconds = time.monotonic() - started
    for one, output, value in zip(active, outputs, values, strict=True):
        one.settle(output.detach(), loss=value, seconds=seconds)


def _no_cached_casts(like: Tensor) -> torch.autocast:
    """Return the autocast mode that is on, without its cache, which would go on using the first iteration's weights."""
    kind = like.device.type
    enabled = torch.is_autocast_enabled(kind)
    return torch.autocast(kind, dtype=torch.get_autocast_dtype(kind), enabled=enabled, cache_enabled=False)


def _of_several(active: Sequence[PictureFit], sources: Sequence[Tensor]) -> list[Tensor]:
    if len(active) == 1:
        return [active[0].cropped(active[0].network(sources[0]))]
    first = active[0].network
    named = [dict(one.network.named_parameters()) for one in active]
    stacked = {name: torch.stack([parameters[name] for parameters in named]) for name in named[0]}
    together = vmap(lambda parameters, source: functional_call(first, parameters, (source,)))
    outputs: Tensor = together(stacked, torch.stack(list(sources)))
    return [one.cropped(output) for one, output in zip(active, outputs, strict=True)]
