"""Before the first stage: what the source holds, cut into shards whose contents are known by their sha256."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from models.types import from_json, to_json
from storage.limits import IngestLimits
from storage.shards import Shard, cut_shards, find_duplicates, hash_members
from storage.working_copies import WorkingCopies
from tasks.jobs import RestoreOptions
from tasks.progress import announce
from tasks.retrying import NETWORK_FAULTS
from tasks.sources import listed_members, shared_source


def survey(source: str, options: RestoreOptions) -> list[Shard]:
    """Return the shards of the source, not hashed yet.

    Raises IngestError (missing, empty, corrupt_archive, …) when there is nothing to be done.
    """
    members = listed_members(source, limits=options.limits)
    announce("found", len(members))
    return cut_shards(members, target_bytes=options.shard_bytes, target_count=options.shard_images)


def fingerprint(source: str, shard: Shard, *, limits: IngestLimits, keep_in: str | None = None) -> Shard:
    """Return `shard` with the sha256 of its members and of the whole: what its cache keys are made of.

    keep_in: working root where bytes that came over a network stay for the ingest; None = nowhere.
    """
    keep = None if keep_in is None else WorkingCopies(keep_in)
    return hash_members(shared_source(source, limits=limits), shard, keep=keep)


def duplicates_of(shards: Sequence[Shard]) -> list[tuple[tuple[str, str], ...]]:
    """Return per shard its members with the same bytes as an earlier one, as (path, path of the first)."""
    firsts = find_duplicates(shards)
    return [
        tuple(
            (member.relative_path, firsts[member.relative_path])
            for member in shard.members
            if member.relative_path in firsts
        )
        for shard in shards
    ]


@task(name="survey", cache_policy=NO_CACHE, **NETWORK_FAULTS)
def survey_source(*, source: str, options: dict[str, Any]) -> Any:
    """Task over `survey`; plain JSON in and out."""
    return to_json(survey(source, from_json(RestoreOptions, options)))


@task(name="fingerprint", cache_policy=NO_CACHE, **NETWORK_FAULTS)
def fingerprint_shard(*, source: str, shard: dict[str, Any], limits: dict[str, Any], keep_in: str | None = None) -> Any:
    """Task over `fingerprint`; plain JSON in and out."""
    found = fingerprint(source, from_json(Shard, shard), limits=from_json(IngestLimits, limits), keep_in=keep_in)
    return to_json(found)
