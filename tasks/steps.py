"""Applies the steps of plans to pictures in memory, many pictures at a time, with a check after every step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.types import StepOutcome
from tasks.acceptance import compare, refusal_of_step
from tasks.boundary import attempt_together
from tasks.detect import load_mask
from tasks.device import DEVICE_LOCK, runner
from tasks.fits import fits_of
from tasks.ingest import load_pixels
from tasks.jobs import ShardJob
from tasks.picture import Picture
from tasks.together import each_together

if TYPE_CHECKING:
    from models.method import MethodCard
    from models.run import Applied

Mask = npt.NDArray[np.bool_]


def apply_plans(pictures: Sequence[Picture], *, job: ShardJob) -> None:
    """Carry out every plan, filling in `pixels`, `outcomes` and `failure` of each picture."""
    while waiting := [picture for picture in pictures if picture.pending]:
        method = _next_method(waiting)
        group = [picture for picture in waiting if _is_next(method, picture)]
        failed = attempt_together(
            partial(_apply_step, method=method, job=job),
            group,
            stage=method,
            still=partial(_is_next, method),
        )
        for picture, failure in failed:
            picture.failure = failure


def _is_next(method: str, picture: Picture) -> bool:
    return bool(picture.pending) and picture.pending[0].method_id == method


def _next_method(waiting: Sequence[Picture]) -> str:
    """Return a method that is next for some picture and, if there is one, comes later for none: larger batches."""
    following = [picture.pending[0].method_id for picture in waiting]
    later = {step.method_id for picture in waiting for step in picture.pending[1:]}
    return next((method for method in following if method not in later), following[0])


def _apply_step(group: Sequence[Picture], *, method: str, job: ShardJob) -> None:
    """Run one method over the pictures of a group and keep each result that passes the checks."""
    from models.plain_enlargement import plainly_enlarged
    from models.registry import get_method

    card = get_method(method).card
    for picture in group:
        _check_size(picture, limit=job.options.limits.max_pixels)
    before = [load_pixels(picture.record, job=job) if picture.pixels is None else picture.pixels for picture in group]
    masks = [None if card.scale > 1 else _mask(picture, job=job) for picture in group]
    chosen = runner(job.identities.device, job.identities.precision, job.options.tile)
    started = time.perf_counter()
    with DEVICE_LOCK, fits_of(group, job=job):
        applied = chosen.apply_and_say(
            method,
            before,
            masks=masks if card.needs_mask else None,
            estimates=[picture.estimate for picture in group],
            strengths=[picture.pending[0].strength for picture in group],
            seed=job.options.seed,
        )
    seconds = time.perf_counter() - started
    # What enlarges is judged against the plain enlargement.
    before = before if card.scale == 1 else [plainly_enlarged(array, scale=card.scale) for array in before]
    pixels = sum(array.size for array in before)

    def judge(item: tuple[Picture, npt.NDArray[Any], Applied, Mask | None]) -> None:
        picture, first, second, mask = item
        _judge(picture, first, second, mask=mask, seconds=seconds * first.size / pixels, job=job)

    each_together(
        judge,
        list(zip(group, before, applied, masks, strict=True)),
        pixels=lambda item: item[1].shape[0] * item[1].shape[1],
    )


def _check_size(picture: Picture, *, limit: int) -> None:
    """Raise ValueError for a picture that would end larger than this program reads."""
    if picture.final_pixels > limit:
        raise ValueError(
            f"{picture.record.relative_path}: enlarged it would have {picture.final_pixels:,} pixels, more than the "
            f"{limit:,} of max_pixels; enlarge it less, or leave it out"
        )


def _mask(picture: Picture, *, job: ShardJob) -> Mask | None:
    return None if picture.scratches is None else load_mask(picture.record, picture.scratches, job=job)


def _judge(
    picture: Picture,
    before: npt.NDArray[Any],
    applied: Applied,
    *,
    mask: Mask | None,
    seconds: float,
    job: ShardJob,
) -> None:
    """Keep the result of a step, or refuse it and end the plan."""
    from models.registry import get_method

    step, after = picture.pending[0], applied.image
    card = get_method(step.method_id).card
    change = compare(before, after, mask=mask)
    reason = None
    if picture.estimate is not None and picture.plan is not None:
        reason = refusal_of_step(change, method_id=step.method_id, plan=picture.plan, estimate=picture.estimate)
    weights, said = dict(job.identities.methods), f"; {applied.decided}" if applied.decided else ""
    checked = "passed the checks" if reason is None else f"not kept: {reason}"
    picture.seconds += seconds
    picture.outcomes.append(
        StepOutcome(
            image_id=picture.record.image_id,
            step_index=len(picture.outcomes),
            method_id=step.method_id,
            strength=step.strength,
            reason=step.reason,
            weights_sha256=weights.get(step.method_id),
            device=job.identities.device,
            precision=job.identities.precision if card.half_precision and card.weights else "float32",
            seconds=seconds,
            changed_fraction=change.changed_fraction,
            accepted=reason is None,
            note=checked + _size_note(after, card.scale) + said + _limit_note(card, job.options.fit_iterations),
            parts_sha256s=tuple(sha256 for part in applied.parts if (sha256 := weights.get(part)) is not None),
        )
    )
    if reason is None:
        picture.pixels = after
        picture.changed = picture.changed or change.changed_fraction > 0 or card.scale > 1
        picture.filled = picture.filled or card.needs_mask
    else:
        picture.refused = True


def _limit_note(card: MethodCard, iterations: int | None) -> str:
    """Return that the user has limited a fit, whose result is another for it."""
    return f"; at most {iterations} iterations, as asked" if iterations and card.fits_each_picture else ""


def _size_note(after: npt.NDArray[Any], scale: int) -> str:
    """Return what a curator must know of a step that changes the size."""
    height, width = after.shape[:2]
    if scale == 1:
        return ""
    return f"; {width // scale} x {height // scale} px became {width} x {height} px, compared with plain enlargement"
