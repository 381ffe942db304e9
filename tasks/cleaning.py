"""After a shard is committed: its working copies have done their work, and a large archive must not fill the disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.types import from_json
from storage.working_copies import WorkingCopies, file_key
from tasks.fits import finished_key
from tasks.jobs import Detected, Ingested, Restored, ShardJob


def working_copies_of(
    *,
    job: dict[str, Any],
    ingested: dict[str, Any],
    detected: list[dict[str, Any]],
    restored: Sequence[dict[str, Any]] = (),
) -> list[str]:
    """Return the keys of a finished shard's working copies: pages, masks, notes, kept bytes of sources and outputs."""
    images = from_json(Ingested, ingested).images
    outputs = [from_json(Restored, item).output for item in restored]
    found = [from_json(Detected, item).scratches for item in detected]
    files = {
        *from_json(ShardJob, job).shard.member_sha256s,
        *(record.source_sha256 for record in images),
        *(output.output_sha256 for output in outputs),
    }
    return [
        *(record.working_copy for record in images),
        *{finished_key(record) for record in images},
        *(report.mask for report in found if report is not None and report.mask is not None),
        *(file_key(sha256) for sha256 in files if sha256 is not None),
    ]


def forget_working_copies(root: str, keys: Sequence[str]) -> None:
    """Delete these working copies below the folder `root`; whoever still needs one makes it again."""
    copies = WorkingCopies(root)
    for key in keys:
        copies.delete(key)
