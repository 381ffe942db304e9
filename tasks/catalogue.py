"""Seventh stage: one row per image, step and metric, committed for the whole shard at once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from models.types import QuarantineRecord, from_json
from storage.catalogue import commit_shard
from storage.catalogue_rows import image_row, metric_row, quarantine_row, step_row
from storage.catalogue_state import PRESENT
from storage.shards import Shard
from tasks.jobs import Assessed, Detected, Ingested, Measured, Restored, Routed, ShardJob, ShardSummary
from tasks.retrying import NETWORK_FAULTS


def commit(
    job: ShardJob,
    ingested: Ingested,
    *,
    detected: Sequence[Detected],
    assessed: Sequence[Assessed],
    routed: Sequence[Routed],
    restored: Sequence[Restored],
    measured: Sequence[Measured],
) -> ShardSummary:
    """Commit the rows of the shard, unless this very outcome is committed already, and return what became of it."""
    version = job.identities.code_version
    known = known_of_members(job.shard)
    images = [
        quarantine_row(_with_sha256(record, known[record.relative_path]["source_sha256"]), code_version=version)
        for record in ingested.quarantined
    ]
    steps, metrics = [], []
    columns = zip(ingested.images, detected, assessed, routed, restored, measured, strict=True)
    for record, found, seen, planned, done, numbers in columns:
        row = image_row(
            record,
            output=done.output,
            code_version=version,
            scratches=found.scratches,
            estimate=seen.estimate,
            plan=planned.plan,
            steps=done.steps,
        )
        images.append(row)
        steps += [step_row(step, relative_path=record.relative_path) for step in done.steps]
        metrics += [metric_row(number, relative_path=record.relative_path) for number in numbers.metrics]
    for row in images:
        member = known[row["relative_path"]]
        same = row.get("source_sha256") == member["source_sha256"]
        row |= {"source_state": PRESENT, "source_etag": member["source_etag"] if same else None}
        row |= {"shard_content_sha256": job.shard.content_sha256}
    commit_shard(
        job.catalogue_root,
        run_id=job.run_id,
        collection=job.collection,
        shard_id=job.shard.shard_id,
        content_sha256=outcome_sha256(job, ingested, restored),
        images=images,
        steps=steps,
        metrics=metrics,
    )
    return summarize(job, ingested, restored)


def known_of_members(shard: Shard) -> dict[str, dict[str, str | None]]:
    """Return what listing and hashing said of every member, by its path."""
    hashes = shard.member_sha256s or (None,) * len(shard.members)
    return {
        member.relative_path: {"source_sha256": sha256, "source_etag": member.etag}
        for member, sha256 in zip(shard.members, hashes, strict=True)
    }


def _with_sha256(record: QuarantineRecord, sha256: str | None) -> QuarantineRecord:
    """Return the record with the hash of its file, by which a later run knows whether it has been mended."""
    return record if record.source_sha256 is not None else replace(record, source_sha256=sha256)


def outcome_sha256(job: ShardJob, ingested: Ingested, restored: Sequence[Restored]) -> str:
    """Return what the shard's rows are filed under: a sha256 of its content and of all else that makes other rows.

    What failed or was refused may succeed in a later run, twins elsewhere and references come and go, and outputs that
    are written again belong to this run again, whatever lay there meanwhile.
    """
    refused = sorted((record.relative_path, record.error_kind) for record in ingested.quarantined)
    failed = [index for index, item in enumerate(restored) if item.output.status == "failed"]
    written = [item.output.written_at for item in restored]
    made_of: list[Any] = [job.shard.content_sha256, refused, failed, written, sorted(job.duplicates)]
    made_of += [job.reference_sha256, *([job.masks] if job.masks else [])]
    return hashlib.sha256(json.dumps(made_of).encode("utf-8", "surrogateescape")).hexdigest()


def summarize(job: ShardJob, ingested: Ingested, restored: Sequence[Restored]) -> ShardSummary:
    """Count the images of a shard by status and list what failed as (path, kind, text)."""
    counts = Counter(item.output.status for item in restored)
    failures = [(record.relative_path, record.error_kind, record.error_text) for record in ingested.quarantined]
    failures += [
        (item.output.relative_path, item.output.error_kind or "unknown", item.output.error_text or "")
        for item in restored
        if item.output.status == "failed"
    ]
    return ShardSummary(
        shard_id=job.shard.shard_id,
        restored=counts["restored"],
        untouched=counts["untouched"],
        review=counts["review"],
        quarantined=len(ingested.quarantined),
        failed=counts["failed"],
        failures=tuple(failures),
    )


@task(
    name="catalogue",
    cache_policy=NO_CACHE,
    **NETWORK_FAULTS,
)
def commit_rows(
    *,
    job: dict[str, Any],
    ingested: dict[str, Any],
    detected: list[dict[str, Any]],
    assessed: list[dict[str, Any]],
    routed: list[dict[str, Any]],
    restored: list[dict[str, Any]],
    measured: list[dict[str, Any]],
) -> ShardSummary:
    """Task over `commit`: it is our own exclusive create that says done, so nothing of it is cached."""
    return commit(
        from_json(ShardJob, job),
        from_json(Ingested, ingested),
        detected=[from_json(Detected, item) for item in detected],
        assessed=[from_json(Assessed, item) for item in assessed],
        routed=[from_json(Routed, item) for item in routed],
        restored=[from_json(Restored, item) for item in restored],
        measured=[from_json(Measured, item) for item in measured],
    )
