"""After a shard is committed: its working copies have done their work, and a large archive must not fill the disk."""

from __future__ import annotations

from typing import Any

from models.types import from_json
from tasks.jobs import Detected, Ingested, ShardJob


def forget_working_copies(*, job: dict[str, Any], ingested: dict[str, Any], detected: list[dict[str, Any]]) -> None:
    """Delete the working copies, masks and kept sources of a finished shard; whoever still needs one makes it again."""
    copies = from_json(ShardJob, job).copies
    for record in from_json(Ingested, ingested).images:
        copies.delete(record.working_copy)
        copies.delete_source(record.source_sha256)
    for item in detected:
        found = from_json(Detected, item).scratches
        if found is not None and found.mask is not None:
            copies.delete(found.mask)
