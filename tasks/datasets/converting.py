"""The restoring stage of a data set whose format changes: pixels go into the new format once, never by way of the old.

The steps of the plans, their order and the checks between them are those of `tasks.restore`.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from models.types import ImageRecord, OutputRecord
from storage.dataset_encoding import EXTENSIONS, alpha_of, encode
from storage.errors import IngestError
from storage.locations import Location
from tasks.boundary import attempt
from tasks.datasets.jobs import DatasetOptions
from tasks.fits import files_together
from tasks.ingest import load_pixels
from tasks.jobs import Assessed, Detected, Failure, Ingested, Restored, Routed, ShardJob
from tasks.picture import Picture
from tasks.progress import announce
from tasks.restore import batches_of, pictures_of, status_of
from tasks.steps import apply_plans
from tasks.together import each_together


def convert(
    job: ShardJob,
    ingested: Ingested,
    detected: Sequence[Detected],
    *,
    assessed: Sequence[Assessed],
    routed: Sequence[Routed],
    options: DatasetOptions,
) -> tuple[Restored, ...]:
    """Restore every image and write it in the format of `options`; aligned with the images.

    A picture that is left untouched, has that format already and is read alike by every loader is copied byte for byte.
    """
    pictures = pictures_of(ingested, detected, assessed=assessed, routed=routed)
    results: dict[int, Restored] = {}
    together = files_together(job.identities.device)
    for files in batches_of([[picture] for picture in pictures], fits_together=together):
        batch = [picture for pages in files for picture in pages]
        apply_plans(batch, job=job)
        written = each_together(partial(_finish, job=job, options=options), batch, pixels=lambda _: 1)
        for picture, outcome in zip(batch, written, strict=True):
            results[id(picture)] = outcome
            picture.pixels = None
            announce("restore", 1, shard=job.shard.shard_id)
    return tuple(results[id(picture)] for picture in pictures)


def _finish(picture: Picture, *, job: ShardJob, options: DatasetOptions) -> Restored:
    started = time.perf_counter()
    failure, written = picture.failure, None
    if failure is None:
        written, failure = attempt(partial(_write, picture, job=job, options=options), stage="write")
    picture.seconds += time.perf_counter() - started
    return Restored(output=_output(picture, written, failure), steps=tuple(picture.outcomes))


def _write(picture: Picture, *, job: ShardJob, options: DatasetOptions) -> Path:
    record = picture.record
    if record.page_count > 1:
        raise IngestError(
            "too_many_pages",
            f"The file has {record.page_count} pages, {options.format} holds one; use --format keep, or split it.",
        )
    source = Location(job.source).local_path / record.relative_path
    target = job.images_root.local_path / f"{Path(record.relative_path).stem}.{EXTENSIONS[options.format]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    if record.format == options.format and not picture.changed and _reads_alike(record):
        shutil.copyfile(source, target)
        return target
    pixels = picture.pixels if picture.changed and picture.pixels is not None else load_pixels(record, job=job)
    alpha = alpha_of(source, like=pixels, limits=job.options.limits) if record.has_alpha else None
    target.write_bytes(encode(pixels, format_name=options.format, quality=options.quality, alpha=alpha))
    return target


def _reads_alike(record: ImageRecord) -> bool:
    """Whether the file's pixels are upright sRGB as they are stored: loaders of training sets look at nothing else."""
    return record.icc_sha256 is None and record.orientation == 1


def _output(picture: Picture, written: Path | None, failure: Failure | None) -> OutputRecord:
    sha256 = None if written is None else hashlib.sha256(written.read_bytes()).hexdigest()
    return OutputRecord(
        image_id=picture.record.image_id,
        relative_path=picture.record.relative_path,
        status=status_of(picture) if failure is None else "failed",
        output_uri=None if written is None else Location(written).uri,
        output_sha256=sha256,
        mask_uri=None,
        error_kind=None if failure is None else failure.error_kind,
        error_text=None if failure is None else failure.error_text,
        seconds=picture.seconds,
    )
