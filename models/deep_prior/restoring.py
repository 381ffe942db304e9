"""Deep Image Prior as tasks: fill holes, denoise, enlarge; each stops without knowing the true picture.

Every task takes `start`, the state of a network to begin with in place of random weights: that of a fit of a picture
like this one. A preset of several runs gives the mean of as many fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from models.deep_prior.data_terms import KnownPixels, SmallPicture, WholePicture, keep_known
from models.deep_prior.fitting import fit_together
from models.deep_prior.picture_fit import FitResult, FitTask, ProgressCallback
from models.deep_prior.settings import Preset, StopSettings
from models.deep_prior.stopping import HeldOutPixels, MovingVariance, StoppingRule, WindowedVariance, hold_out

Start = Mapping[str, Tensor]
_HOLD_OUT_STREAM = 2_000_003
_RUN_STREAM = 4_000_037


def inpaint(
    image: Tensor,
    missing: Tensor,
    *,
    preset: Preset,
    seed: int,
    insert_known: bool = True,
    start: Start | None = None,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """Fill the missing pixels of `image` (1, C, H, W) where `missing` (1, 1 or C, H, W) is 1.

    With a preset that holds pixels out, these are known ones which only decide when to stop; each run holds out its
    own. `insert_known` False returns the network's picture everywhere, as published.
    """
    return inpaint_all(
        image, missing, preset=preset, seed=seed, insert_known=insert_known, start=start, progress=progress
    )[0]


def inpaint_all(
    images: Tensor,
    missing: Tensor,
    *,
    preset: Preset,
    seed: int,
    together: int = 1,
    insert_known: bool = True,
    start: Start | None = None,
    progress: ProgressCallback | None = None,
) -> list[FitResult]:
    """Fill (B, C, H, W) where `missing` (B, 1 or C, H, W) is 1, each picture by itself, `together` fits at once.

    Raises FitsInterruptedError, with the finished pictures, for an interrupt before all have begun.
    """
    if preset.stop is not None and preset.stop.rule != "held-out":
        raise ValueError(f"inpaint: got the rule {preset.stop.rule!r}, expected 'held-out' or none")

    def task(image: Tensor, lost: Tensor, seed: int) -> FitTask:
        rule, unseen = None, lost
        if preset.stop is not None:
            held = hold_out(lost, fraction=preset.stop.fraction, seed=seed + _HOLD_OUT_STREAM)
            rule = HeldOutPixels(image, held_out=held, patience=preset.stop.patience)
            unseen = lost + held
        return FitTask(term=KnownPixels(image, unseen), seed=seed, rule=rule, start=start, progress=progress)

    with torch.inference_mode(False):
        pairs = list(zip(torch.split(images.clone(), 1), torch.split(missing.clone(), 1), strict=True))
        tasks = [[task(*pair, found) for found in _seeds(preset, seed)] for pair in pairs]
        if not insert_known:
            return _fit_all(tasks, preset=preset, together=together)

        def with_known(result: FitResult, pair: tuple[Tensor, Tensor]) -> FitResult:
            return replace(result, image=keep_known(result.image, pair[0], missing=pair[1]))

        try:
            results = _fit_all(tasks, preset=preset, together=together)
        except FitsInterruptedError as early:
            kept = zip(early.finished, pairs, strict=True)
            raise FitsInterruptedError([found and with_known(found, pair) for found, pair in kept]) from None
        return [with_known(result, pair) for result, pair in zip(results, pairs, strict=True)]


def denoise(
    image: Tensor,
    *,
    preset: Preset,
    seed: int,
    source: Tensor | None = None,
    start: Start | None = None,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """Fit `image` (1, C, H, W) and stop before its noise is fitted: denoising, JPEG artefacts, flash/no-flash."""
    return denoise_all(image, preset=preset, seed=seed, source=source, start=start, progress=progress)[0]


def denoise_all(
    images: Tensor,
    *,
    preset: Preset,
    seed: int,
    together: int = 1,
    source: Tensor | None = None,
    start: Start | None = None,
    progress: ProgressCallback | None = None,
) -> list[FitResult]:
    """Denoise (B, C, H, W), each picture by itself, `together` fits at once.

    Raises FitsInterruptedError, with the finished pictures, for an interrupt before all have begun.
    """
    with torch.inference_mode(False):
        tasks = [
            [
                FitTask(
                    term=WholePicture(image),
                    seed=found,
                    rule=None if preset.stop is None else _variance(preset.stop),
                    source=source,
                    start=start,
                    progress=progress,
                )
                for found in _seeds(preset, seed)
            ]
            for image in torch.split(images.clone(), 1)
        ]
        return _fit_all(tasks, preset=preset, together=together)


def enlarge(
    image: Tensor,
    *,
    factor: int,
    preset: Preset,
    seed: int,
    start: Start | None = None,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """Return a picture `factor` times as large as `image` (1, C, h, w) that shrinks to it."""
    with torch.inference_mode(False):
        term = SmallPicture(image.clone(), factor)
        tasks = [FitTask(term=term, seed=found, start=start, progress=progress) for found in _seeds(preset, seed)]
        return _fit_all([tasks], preset=preset, together=1)[0]


class FitsInterruptedError(KeyboardInterrupt):
    """An interrupt before every picture had begun: `finished` has a result for each, None = it did not come to its end.

    It is a KeyboardInterrupt, so that it ends a run and is not taken for a failure of one picture.
    """

    def __init__(self, finished: Sequence[FitResult | None]) -> None:
        done = sum(result is not None for result in finished)
        super().__init__(f"interrupted with {done} of {len(finished)} pictures finished")
        self.finished = tuple(finished)


def _finished(results: Sequence[FitResult], *, preset: Preset) -> FitResult | None:
    """Return the mean of a picture's runs when all came to their end."""
    if len(results) < preset.runs or any(result.stopped_by == "interrupt" for result in results):
        return None
    return _mean_of_runs(results)


def _seeds(preset: Preset, seed: int) -> list[int]:
    return [seed + index * _RUN_STREAM for index in range(preset.runs)]


def _fit_all(tasks: Sequence[Sequence[FitTask]], *, preset: Preset, together: int) -> list[FitResult]:
    """Carry out all runs of all pictures, `together` at once; return the mean of every picture's runs.

    A stop by the caller or an interrupt ends all that has not begun, if every picture has begun by then. An interrupt
    before that raises FitsInterruptedError, which has the pictures that were finished.
    """
    waiting = [(picture, task) for run in zip(*tasks, strict=True) for picture, task in enumerate(run)]
    found: list[list[FitResult]] = [[] for _ in tasks]
    while waiting:
        group, waiting = waiting[:together], waiting[together:]
        try:
            results = fit_together([task for _, task in group], preset=preset)
        except KeyboardInterrupt:  # in its first iteration, with no picture yet
            results, reasons = [], {"interrupt"}
        else:
            reasons = {result.stopped_by for result in results}
        for (picture, _), result in zip(group, results, strict=False):
            found[picture].append(result)
        if all(found) and reasons & {"caller", "interrupt"}:
            break
        if "interrupt" in reasons:
            raise FitsInterruptedError([_finished(results, preset=preset) for results in found])
    return [_mean_of_runs(results) for results in found]


def _mean_of_runs(results: Sequence[FitResult]) -> FitResult:
    """Return the mean picture of several runs, and the last one's account with the sums of all."""
    return replace(
        results[-1],
        image=torch.stack([result.image for result in results]).mean(0),
        iterations=sum(result.iterations for result in results),
        losses=tuple(loss for result in results for loss in result.losses),
        restored=sum(result.restored for result in results),
        seconds=sum(result.seconds for result in results),
    )


def _variance(stop: StopSettings) -> StoppingRule:
    if stop.rule == "variance":
        return WindowedVariance(window=stop.window, patience=stop.patience)
    if stop.rule == "moving-variance":
        return MovingVariance(rate=2 / (stop.window + 1), patience=stop.patience)
    raise ValueError(f"denoise: got the rule {stop.rule!r}, expected 'variance' or 'moving-variance'")
