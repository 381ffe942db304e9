"""Sixth stage: numbers about every image, measured on the file that was written, and small pictures for the report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from prefect import task

from models.types import ImageRecord, MetricRecord, from_json, to_json
from storage.locations import Location
from tasks.acceptance import compare
from tasks.boundary import attempt
from tasks.caching import StepKey
from tasks.detect import load_mask
from tasks.ingest import load_pixels
from tasks.jobs import Detected, Ingested, Measured, Restored, ShardJob
from tasks.progress import announce
from tasks.reference import find_reference, working_page
from tasks.reporting.previews import PreviewFolder, make_preview
from tasks.retrying import NETWORK_FAULTS
from tasks.together import each_together

Pixels = npt.NDArray[Any]

PSNR_CEILING_DB = 100.0
_STRIP_ROWS = 512
# A report shows a sample of the untouched pictures: of each shard, the first few get previews.
_UNTOUCHED_PREVIEWS = 8


def measure(
    job: ShardJob,
    ingested: Ingested,
    detected: Sequence[Detected],
    *,
    restored: Sequence[Restored],
) -> tuple[Measured, ...]:
    """Measure every image of the shard that was brought to an end; aligned with its images.

    What cannot be measured is left out: a picture that was written must not fail over a number about it.
    """
    chosen: list[tuple[int, ImageRecord, Detected, Restored]] = []
    previews_left = _UNTOUCHED_PREVIEWS
    for index, (record, found, done) in enumerate(zip(ingested.images, detected, restored, strict=True)):
        untouched = not any(step.accepted for step in done.steps)
        if done.output.output_uri is None or (untouched and previews_left == 0 and job.options.reference is None):
            continue
        previews_left -= untouched and previews_left > 0
        chosen.append((index, record, found, done))

    def work(item: tuple[int, ImageRecord, Detected, Restored]) -> Measured:
        _, record, found, done = item
        metrics, _ = attempt(partial(measure_image, record, found, done=done, job=job), stage="measure")
        announce("measure", 1, shard=job.shard.shard_id)
        return Measured(metrics=metrics or ())

    results = [Measured()] * len(ingested.images)
    measured = each_together(work, chosen, pixels=lambda item: item[1].width * item[1].height)
    for (index, *_), result in zip(chosen, measured, strict=True):
        results[index] = result
    return tuple(results)


def measure_image(record: ImageRecord, found: Detected, *, done: Restored, job: ShardJob) -> tuple[MetricRecord, ...]:
    """Return the metrics of one image and keep its preview."""
    before = load_pixels(record, job=job)
    after = before if not any(step.accepted for step in done.steps) else _written(record, done, job=job)
    filled = done.output.mask_uri is not None and found.scratches is not None
    mask = load_mask(record, found.scratches, job=job) if filled and found.scratches is not None else None
    if job.previews is not None:
        preview = make_preview(before, None if after is before else after, mask=mask)
        PreviewFolder(Path(job.previews)).put(record.image_id, preview)
    scale = after.shape[0] // before.shape[0]
    if scale > 1:
        # An enlarged picture is compared with its plain enlargement, and with a reference of that size.
        before, mask = _plainly_enlarged(before, scale=scale), None
    metrics = [] if after is before else list(_change_metrics(record, before, after, mask=mask))
    metrics += _reference_metrics(record, before, after, scale=scale, job=job)
    return tuple(metrics)


def _plainly_enlarged(pixels: Pixels, *, scale: int) -> Pixels:
    from models.plain_enlargement import plainly_enlarged

    return plainly_enlarged(pixels, scale=scale)


def psnr_db(restored: Pixels, reference: Pixels) -> float:
    """Return the PSNR in dB over all samples, each array divided by its type's maximum; at most 100.

    Reads rows in strips. Raises ValueError for different shapes.
    """
    if restored.shape != reference.shape:
        raise ValueError(f"PSNR: got shapes {restored.shape} and {reference.shape}, expected the same")
    squares = 0.0
    for top in range(0, restored.shape[0], _STRIP_ROWS):
        rows = slice(top, top + _STRIP_ROWS)
        first, second = (
            np.asarray(array[rows], np.float64) / np.iinfo(array.dtype).max for array in (restored, reference)
        )
        squares += float(np.square(first - second).sum())
    mean = squares / restored.size
    return PSNR_CEILING_DB if mean <= 10 ** (-PSNR_CEILING_DB / 10) else -10.0 * math.log10(mean)


def previews_kept(job: Mapping[str, Any]) -> bool:
    """Whether the previews a cached measurement made can still be there (the job as plain JSON)."""
    return job["previews"] is None or Path(job["previews"]).is_dir()


def _written(record: ImageRecord, done: Restored, *, job: ShardJob) -> Pixels:
    kept = None if done.output.output_sha256 is None else job.copies.file(done.output.output_sha256)
    file = Location(done.output.output_uri or "") if kept is None else kept
    page = working_page(file, page_index=record.page_index, limits=job.options.limits)
    if page is None:
        raise ValueError(f"{done.output.output_uri}: page {record.page_index} is missing from the written file")
    return page


def _change_metrics(
    record: ImageRecord, before: Pixels, after: Pixels, *, mask: npt.NDArray[np.bool_] | None
) -> Iterator[MetricRecord]:
    change = compare(before, after, mask=mask)
    yield _metric(record, "change", "changed_fraction", change.changed_fraction, better=False)
    yield _metric(record, "change", "colour_shift_ciede2000", change.colour_shift, better=False)
    if change.detail_retention is not None:
        yield _metric(record, "change", "detail_retention", change.detail_retention, better=True)


def _reference_metrics(
    record: ImageRecord, before: Pixels, after: Pixels, *, scale: int, job: ShardJob
) -> list[MetricRecord]:
    options = job.options
    clean = find_reference(
        record, uri=options.reference, sha256=job.reference_sha256, limits=options.limits, scale=scale
    )
    if clean is None:
        return []
    return [
        _metric(record, "before", "psnr_db", psnr_db(before, clean), better=True),
        _metric(record, "after", "psnr_db", psnr_db(after, clean), better=True),
    ]


def _metric(record: ImageRecord, stage: str, metric: str, value: float, *, better: bool) -> MetricRecord:
    return MetricRecord(image_id=record.image_id, stage=stage, metric=metric, value=value, higher_is_better=better)


@task(
    name="measure",
    cache_policy=StepKey(step="measure"),
    result_serializer="json",
    **NETWORK_FAULTS,
)
def measure_results(
    *,
    job: dict[str, Any],
    ingested: dict[str, Any],
    detected: list[dict[str, Any]],
    restored: list[dict[str, Any]],
) -> Any:
    """Task over `measure`; plain JSON in and out."""
    return to_json(
        measure(
            from_json(ShardJob, job),
            from_json(Ingested, ingested),
            [from_json(Detected, item) for item in detected],
            restored=[from_json(Restored, item) for item in restored],
        )
    )
