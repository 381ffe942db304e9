"""Third stage: how noisy, blurred, compressed, faded every image is, and how far each number can be trusted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from prefect import task

from models.types import DegradationEstimate, Estimated, Gain, ImageRecord, ScratchReport, from_json, to_json
from tasks.boundary import attempt
from tasks.caching import StepKey
from tasks.detect import load_mask
from tasks.ingest import load_pixels
from tasks.jobs import Assessed, Detected, Ingested, ShardJob
from tasks.progress import announce
from tasks.retrying import NETWORK_FAULTS
from tasks.together import each_together


def estimate(job: ShardJob, ingested: Ingested, detected: Sequence[Detected]) -> tuple[Assessed, ...]:
    """Estimate the degradation of every image of the shard; aligned with its images."""
    pairs = list(zip(ingested.images, detected, strict=True))
    return tuple(
        each_together(lambda pair: _assess(*pair, job=job), pairs, pixels=lambda pair: pair[0].width * pair[0].height)
    )


def _assess(record: ImageRecord, found: Detected, *, job: ShardJob) -> Assessed:
    if found.scratches is None:
        return Assessed(estimate=None, failure=found.failure)
    started = time.perf_counter()
    value, failure = attempt(partial(estimate_image, record, found.scratches, job=job), stage="estimate")
    announce("estimate", 1, shard=job.shard.shard_id)
    measured, gains = value or (None, ())
    return Assessed(estimate=measured, gains=gains, failure=failure, seconds=time.perf_counter() - started)


def estimate_image(
    record: ImageRecord, scratches: ScratchReport, *, job: ShardJob
) -> tuple[DegradationEstimate, tuple[Gain, ...]]:
    """Estimate one image's degradation and what treating it would bring; what lies under scratches does not count."""
    from models.estimation.estimate import estimate_with_evidence
    from models.routing.gains import predict_gains

    pixels = load_pixels(record, job=job)
    mask = load_mask(record, scratches, job=job)
    # Without the device's lock: nearly all of it is filters on one core, and the network sees a few patches.
    measured, evidence = estimate_with_evidence(
        pixels,
        scratch_mask=mask,
        scratch_coverage=Estimated(value=scratches.coverage, confidence=scratches.confidence),
        jpeg_table_quality=record.jpeg_table_quality,
        device=job.identities.device,
    )
    return measured, predict_gains(evidence)


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
