"""After a shard is committed: its working copies have done their work, and a large archive must not fill the disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.types import from_json
from tasks.jobs import Detected, Ingested, Restored, ShardJob


def forget_working_copies(
    *,
    job: dict[str, Any],
    ingested: dict[str, Any],
    detected: list[dict[str, Any]],
    restored: Sequence[dict[str, Any]] = (),
) -> None:
    """Delete the working copies, masks and kept files of a finished shard; whoever still needs one makes it again."""
    work = from_json(ShardJob, job)
    copies, images = work.copies, from_json(Ingested, ingested).images
    for record in images:
        copies.delete(record.working_copy)
    outputs = (from_json(Restored, item).output.output_sha256 for item in restored)
    for sha256 in {*work.shard.member_sha256s, *(record.source_sha256 for record in images), *outputs} - {None}:
        copies.delete_file(str(sha256))
    for item in detected:
        found = from_json(Detected, item).scratches
        if found is not None and found.mask is not None:
            copies.delete(found.mask)
