"""Fifth stage: carry out the plans, keep what passes the checks, and write every file whole or not at all.

Files are taken in batches bounded by pixels; in a batch, all pictures that need a method next go through it together,
so that tiles of different pictures share the device. Files with a method that learns from each picture anew are taken
one by one, a few on a GPU, and noted when written: a kill costs the one in work, not hours of them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from prefect import task

from models.interruption import work_interrupted
from models.types import ImageRecord, OutputRecord, Status, from_json, to_json
from storage.errors import IngestError
from storage.locations import Location
from storage.outputs import copy_untouched, verify_output, write_mask, write_output
from tasks.boundary import attempt
from tasks.caching import StepKey
from tasks.detect import load_mask
from tasks.fits import are_fitted, files_together, finished, remember_finished
from tasks.jobs import Assessed, Detected, Failure, Ingested, Restored, Routed, ShardJob
from tasks.picture import Picture
from tasks.progress import announce
from tasks.retrying import NETWORK_FAULTS
from tasks.sources import shared_source
from tasks.steps import apply_plans
from tasks.together import each_together

BATCH_PIXELS = 16_000_000


def restore(
    job: ShardJob,
    ingested: Ingested,
    detected: Sequence[Detected],
    *,
    assessed: Sequence[Assessed],
    routed: Sequence[Routed],
) -> tuple[Restored, ...]:
    """Restore every image of the shard and write the files; aligned with its images.

    Raises KeyboardInterrupt after an interrupt; what is in work then is not written.
    """
    pictures = pictures_of(ingested, detected, assessed=assessed, routed=routed)
    files = [list(pages) for _, pages in groupby(pictures, key=lambda picture: picture.record.relative_path)]
    results: dict[int, Restored] = {}
    for pages in files:
        if are_fitted(pages) and (noted := finished(pages, job=job, intact=intact_outputs)) is not None:
            results.update((id(picture), outcome) for picture, outcome in zip(pages, noted, strict=True))
            announce("restore", 1, shard=job.shard.shard_id)
    left = [pages for pages in files if id(pages[0]) not in results]
    for batch in batches_of(left, fits_together=files_together(job.identities.device)):
        if work_interrupted():
            raise KeyboardInterrupt
        apply_plans([picture for pages in batch for picture in pages], job=job)
        # The pictures of a batch are in memory already; encoding them takes one core each.
        written = each_together(partial(_finish_file, job=job), batch, pixels=lambda _: 1)
        for pages, outcomes in zip(batch, written, strict=True):
            if are_fitted(pages):
                remember_finished(pages, outcomes, job=job)
            for picture, outcome in zip(pages, outcomes, strict=True):
                results[id(picture)] = outcome
                picture.pixels = None
            announce("restore", 1, shard=job.shard.shard_id)
    return tuple(results[id(picture)] for picture in pictures)


def pictures_of(
    ingested: Ingested, detected: Sequence[Detected], *, assessed: Sequence[Assessed], routed: Sequence[Routed]
) -> list[Picture]:
    """Return the images of a shard with what earlier stages found, in their order."""
    return [
        Picture(
            record=record,
            scratches=found.scratches,
            estimate=measured.estimate,
            plan=planned.plan,
            failure=planned.failure,
            seconds=found.seconds + measured.seconds,
        )
        for record, found, measured, planned in zip(ingested.images, detected, assessed, routed, strict=True)
    ]


def intact_outputs(restored: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every output of a result (plain JSON) still exists with the recorded sha256, and every mask exists."""
    outputs = [from_json(Restored, item).output for item in restored]
    written = {output.output_uri: output.output_sha256 for output in outputs if output.output_uri is not None}
    masks = [Location(output.mask_uri) for output in outputs if output.mask_uri is not None]
    return all(mask.exists() for mask in masks) and all(verify_output(uri, sha or "") for uri, sha in written.items())


def batches_of(files: Sequence[list[Picture]], *, fits_together: int = 1) -> Iterator[list[list[Picture]]]:
    """Yield files in groups of at most BATCH_PIXELS (a larger file alone), those with the same plan side by side.

    Files whose pictures are learned from come last, in groups of at most `fits_together`.
    """
    batch: list[list[Picture]] = []
    pixels = 0
    for pages in sorted(files, key=lambda pages: (are_fitted(pages), [picture.methods for picture in pages])):
        size = sum(picture.final_pixels for picture in pages)
        slow = are_fitted(pages)
        ends = slow and (not are_fitted(batch[-1]) or len(batch) >= fits_together) if batch else False
        if batch and (ends or pixels + size > BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append(pages)
        pixels += size
    if batch:
        yield batch


def _finish_file(pages: Sequence[Picture], *, job: ShardJob) -> list[Restored]:
    """Write one file if all its pages came through, and return the outcome of each page."""
    started = time.perf_counter()
    broken = next((picture.failure for picture in pages if picture.failure is not None), None)
    written: tuple[str, str, list[str | None]] | None = None
    if broken is None:
        written, broken = attempt(partial(_write_file, pages, job=job), stage="write")
    share = (time.perf_counter() - started) / len(pages)
    outcomes = []
    for index, picture in enumerate(pages):
        picture.seconds += share
        if written is not None:
            uri, sha256, masks = written
            output = _output(picture, status=status_of(picture), uri=uri, sha256=sha256, mask_uri=masks[index])
            outcomes.append(Restored(output=output, steps=tuple(picture.outcomes)))
        elif failure := picture.failure or broken:
            outcomes.append(_failed(picture, failure))
    return outcomes


def _write_file(pages: Sequence[Picture], *, job: ShardJob) -> tuple[str, str, list[str | None]]:
    """Write one file; return (uri, sha256, mask uri per page). Without any change it is copied byte for byte."""
    first = pages[0].record
    source = unchanged_source(first, job=job)
    if any(picture.changed for picture in pages):
        arrays = [(picture.record, picture.pixels if picture.changed else None) for picture in pages]
        place, limits = job.images_root, job.options.limits
        uri, sha256 = write_output(arrays, source=source, destination=place, limits=limits, keep=job.copies)
    else:
        uri, sha256 = copy_untouched(first, source=source, destination=job.images_root)
    return uri, sha256, [_write_mask(picture, job=job) for picture in pages]


def unchanged_source(record: ImageRecord, *, job: ShardJob) -> bytes | Path:
    """Return the source file or its bytes, as they were kept from the ingest or as they are.

    Raises IngestError when it is no longer what was ingested.
    """
    kept = job.copies.file(record.source_sha256)
    if kept is not None:
        return kept
    source = shared_source(job.source, limits=job.options.limits)
    member = source.member(record.relative_path)
    path = source.local_path(member)
    current: bytes | Path = source.read(member) if path is None else path
    found = hashlib.sha256(current).hexdigest() if isinstance(current, bytes) else source.sha256(member)
    if found != record.source_sha256:
        raise IngestError(
            "changed",
            f"{record.relative_path} has sha256 {found[:12]}…, expected {record.source_sha256[:12]}… as ingested; "
            "it changed while it was processed. Run again for the new version.",
        )
    return current


def _write_mask(picture: Picture, *, job: ShardJob) -> str | None:
    if picture.scratches is None or not picture.filled:
        return None
    mask = load_mask(picture.record, picture.scratches, job=job)
    if mask is None:
        return None
    return write_mask(mask, record=picture.record, destination=Location(job.destination))[0]


def status_of(picture: Picture) -> Status:
    """Return the status of a picture that came through."""
    if picture.refused or (picture.plan is not None and picture.plan.needs_review):
        return "review"
    return "restored" if picture.changed else "untouched"


def _failed(picture: Picture, failure: Failure) -> Restored:
    output = OutputRecord(
        image_id=picture.record.image_id,
        relative_path=picture.record.relative_path,
        status="failed",
        output_uri=None,
        output_sha256=None,
        mask_uri=None,
        error_kind=failure.error_kind,
        error_text=failure.error_text,
        seconds=picture.seconds,
    )
    return Restored(output=output, steps=tuple(picture.outcomes))


def _output(picture: Picture, *, status: Status, uri: str, sha256: str, mask_uri: str | None) -> OutputRecord:
    return OutputRecord(
        image_id=picture.record.image_id,
        relative_path=picture.record.relative_path,
        status=status,
        output_uri=uri,
        output_sha256=sha256,
        mask_uri=mask_uri,
        error_kind=None,
        error_text=None,
        seconds=picture.seconds,
        written_at=datetime.now(UTC).isoformat(),
    )


@task(
    name="restore",
    cache_policy=StepKey(step="restore"),
    result_serializer="json",
    **NETWORK_FAULTS,
)
def restore_images(
    *,
    job: dict[str, Any],
    ingested: dict[str, Any],
    detected: list[dict[str, Any]],
    assessed: list[dict[str, Any]],
    routed: list[dict[str, Any]],
) -> Any:
    """Task over `restore`; plain JSON in and out."""
    return to_json(
        restore(
            from_json(ShardJob, job),
            from_json(Ingested, ingested),
            [from_json(Detected, item) for item in detected],
            assessed=[from_json(Assessed, item) for item in assessed],
            routed=[from_json(Routed, item) for item in routed],
        )
    )
