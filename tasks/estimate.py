"""Third stage: how noisy, blurred, compressed, faded every image is, and how far each number can be trusted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from prefect import task

from models.types import Estimated, ImageRecord, ScratchReport, from_json, to_json
from tasks.boundary import attempt, attempt_together
from tasks.caching import StepKey
from tasks.detect import load_mask
from tasks.device import DEVICE_LOCK, runner
from tasks.ingest import load_pixels
from tasks.jobs import Assessed, Detected, Ingested, ShardJob
from tasks.progress import announce
from tasks.retrying import NETWORK_FAULTS
from tasks.together import each_together

if TYPE_CHECKING:
    from models.estimation.patches import FloatArray


@dataclass(slots=True, kw_only=True, eq=False)
class _Seen:
    """One image after its estimate: what there is to say of it, and what its gains are predicted from."""

    assessed: Assessed
    evidence: FloatArray | None = None
    window: npt.NDArray[Any] | None = None


def estimate(job: ShardJob, ingested: Ingested, detected: Sequence[Detected]) -> tuple[Assessed, ...]:
    """Estimate every image's degradation and what treating it would bring; aligned with the shard's images."""
    pairs = list(zip(ingested.images, detected, strict=True))
    seen = each_together(lambda pair: _look(*pair, job=job), pairs, pixels=lambda pair: pair[0].width * pair[0].height)
    _expect(seen, job=job)
    return tuple(item.assessed for item in seen)


def _look(record: ImageRecord, found: Detected, *, job: ShardJob) -> _Seen:
    if found.scratches is None:
        return _Seen(assessed=Assessed(estimate=None, failure=found.failure))
    started = time.perf_counter()
    seen, failure = attempt(partial(_estimate_image, record, found.scratches, job=job), stage="estimate")
    announce("estimate", 1, shard=job.shard.shard_id)
    seen = seen or _Seen(assessed=Assessed(estimate=None, failure=failure))
    seen.assessed = replace(seen.assessed, seconds=time.perf_counter() - started)
    return seen


def _estimate_image(record: ImageRecord, scratches: ScratchReport, *, job: ShardJob) -> _Seen:
    """Estimate one image's degradation; what lies under scratches does not count."""
    from models.estimation.estimate import estimate_with_evidence
    from models.routing.trial_evidence import trial_window

    pixels = load_pixels(record, job=job)
    mask = load_mask(record, scratches, job=job)
    # Without the device's lock: filters on one core, and a small network that is never on the device.
    measured, evidence = estimate_with_evidence(
        pixels,
        scratch_mask=mask,
        scratch_coverage=Estimated(value=scratches.coverage, confidence=scratches.confidence),
        jpeg_table_quality=record.jpeg_table_quality,
    )
    return _Seen(assessed=Assessed(estimate=measured), evidence=evidence, window=trial_window(pixels))


def _expect(seen: Sequence[_Seen], *, job: ShardJob) -> None:
    """Fill in the gains, from trials of all images together; if one spoils that, of each alone."""
    ready = [item for item in seen if item.evidence is not None]
    if not ready:
        return
    for item, failure in attempt_together(partial(_try_together, job=job), ready, stage="estimate"):
        item.assessed = Assessed(estimate=None, failure=failure, seconds=item.assessed.seconds)


def _try_together(seen: Sequence[_Seen], *, job: ShardJob) -> None:
    from models.routing.gains import predict_gains
    from models.routing.trials import with_trials

    chosen = runner(job.identities.device, job.identities.precision, job.options.tile)
    windows = [item.window for item in seen if item.window is not None]
    started = time.perf_counter()
    with DEVICE_LOCK:
        estimates = [item.assessed.estimate for item in seen]
        tried = with_trials([item.evidence for item in seen], windows, estimates, runner=chosen)
    share = (time.perf_counter() - started) / len(seen)
    for item, evidence in zip(seen, tried, strict=True):
        seconds = item.assessed.seconds + share
        item.assessed = replace(item.assessed, gains=predict_gains(evidence), seconds=seconds)


@task(
    name="estimate degradation",
    cache_policy=StepKey(step="estimate"),
    result_serializer="json",
    **NETWORK_FAULTS,
)
def estimate_degradations(*, job: dict[str, Any], ingested: dict[str, Any], detected: list[dict[str, Any]]) -> Any:
    """Task over `estimate`; plain JSON in and out."""
    found = [from_json(Detected, item) for item in detected]
    return to_json(estimate(from_json(ShardJob, job), from_json(Ingested, ingested), found))
