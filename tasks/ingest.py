"""First stage: members of a shard to image records and working copies, and to quarantine records."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy.typing as npt
from prefect import task

from models.types import ImageRecord, QuarantineRecord, from_json, to_json
from storage.errors import UNAVAILABLE, IngestError
from storage.ingest import ingest_member, quarantine
from storage.sources import Source, SourceMember
from tasks.boundary import attempt
from tasks.caching import StepKey
from tasks.jobs import Ingested, ShardJob
from tasks.progress import announce
from tasks.retrying import NETWORK_FAULTS
from tasks.sources import shared_source


def ingest(job: ShardJob) -> Ingested:
    """Decode every member of the shard into working copies; a bad member becomes a quarantine record."""
    duplicates = dict(job.duplicates)
    images: list[ImageRecord] = []
    quarantined: list[QuarantineRecord] = []
    source = shared_source(job.source, limits=job.options.limits)
    for member, known in zip_longest(job.shard.members, job.shard.member_sha256s):
        twin = duplicates.get(member.relative_path)
        records, refused = _ingest_one(job, source, member, duplicate_of=twin, known_sha256=known)
        images += records
        quarantined += refused
        announce("ingest", 1, shard=job.shard.shard_id)
    return Ingested(images=tuple(images), quarantined=tuple(quarantined))


def _ingest_one(
    job: ShardJob, source: Source, member: SourceMember, *, duplicate_of: str | None, known_sha256: str | None
) -> tuple[list[ImageRecord], list[QuarantineRecord]]:
    if member.error_kind is not None:
        return [], [quarantine(member, IngestError(member.error_kind, member.error_text or member.error_kind))]
    result, failure = attempt(
        lambda: ingest_member(
            source,
            member,
            copies=job.copies,
            limits=job.options.limits,
            duplicate_of=duplicate_of,
            known_sha256=known_sha256,
        ),
        stage="ingest",
    )
    if failure is not None:
        return [], [quarantine(member, IngestError(failure.error_kind, failure.error_text))]
    return result or ([], [])


def ingest_holds(ingested: dict[str, Any], *, retried: bool) -> bool:
    """Whether a result (plain JSON) is still true; retried: of a run that is to try again what was quarantined."""
    return not any(retried or refused["error_kind"] == UNAVAILABLE for refused in ingested["quarantined"])


def load_pixels(record: ImageRecord, *, job: ShardJob) -> npt.NDArray[Any]:
    """Return the read-only working copy of an image, made again from the source when it is gone."""
    source = shared_source(job.source, limits=job.options.limits)
    return job.copies.ensure(record, source, limits=job.options.limits)


@task(
    name="ingest",
    cache_policy=StepKey(step="ingest"),
    result_serializer="json",
    **NETWORK_FAULTS,
)
def ingest_shard(*, job: dict[str, Any]) -> Any:
    """Task over `ingest`; plain JSON in and out."""
    return to_json(ingest(from_json(ShardJob, job)))
