"""What a run has to do: everything its source holds, only what is new or changed, or only what failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from flows.bounded import submit_bounded
from models.types import from_json, to_json
from storage.archives import SourceMember
from storage.catalogue import ShardKey
from storage.outputs import check_writable
from storage.run_records import record_settings
from storage.shards import Shard, cut_runs
from tasks.increment import (
    Comparison,
    Increment,
    amend_rows,
    choose,
    compare_source,
    decide,
    retry_increment,
)
from tasks.jobs import ShardJob
from tasks.progress import announce
from tasks.survey import duplicates_of, fingerprint_shard, survey_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The jobs of a run, one per shard. increment: None for a run over everything."""

    jobs: tuple[ShardJob, ...]
    increment: Increment | None = None

    @property
    def nothing(self) -> bool:
        return self.increment is not None and self.increment.nothing


def plan_work(run: ShardJob) -> Work:
    """Return what is to be done; nothing is written. Raises IngestError when the source is missing or unusable."""
    options = run.options
    if options.incremental or options.retry is not None or options.only is not None:
        return _increment(run)
    found: Any = survey_source(source=run.source, options=to_json(options))
    shards = _hashed(run, [from_json(Shard, shard) for shard in found])
    return Work(jobs=_jobs(run, shards, duplicates_of(shards)))


def _increment(run: ShardJob) -> Work:
    found: Any = compare_source(run=to_json(run))
    members, compared = cast(tuple[list[SourceMember], Comparison], found)
    if run.options.retry is None and run.options.only is None:
        increment = decide(compared, _read(run, compared.to_hash), options=run.options)
    else:
        chosen = choose(members, compared.state, options=run.options)
        increment = retry_increment(chosen, compared.state, _read(run, chosen), options=run.options)
    announce("found", sum(len(shard.members) for shard in increment.shards))
    return Work(jobs=_jobs(run, increment.shards, increment.duplicates), increment=increment)


def begin_work(run: ShardJob, work: Work) -> None:
    """Record what was asked for, and amend the rows that need no computing: sources that went or came back.

    Raises OutputError or OSError when the destination cannot be written.
    """
    check_writable(run.destination)
    settings = {
        "source": run.source,
        "destination": run.destination,
        "options": to_json(replace(run.options, incremental=False, retry=None, only=None, stop_at=None)),
        "identities": {name: value for name, value in to_json(run.identities).items() if name != "code_version"},
    }
    record_settings(run.catalogue_root, collection=run.collection, run_id=run.run_id, settings=settings)
    if work.increment is None:
        return
    notes, stale = work.increment.notes, work.increment.stale
    _amend(run, {shard: (stale.get(shard, set()), notes.get(shard, {})) for shard in [*notes, *stale]})


def replace_rows(run: ShardJob, work: Work, *, job: ShardJob) -> None:
    """Take out the rows that those of a finished job replace."""
    if work.increment is None:
        return
    own = (run.run_id, run.collection, job.shard.shard_id)
    changes: dict[ShardKey, tuple[set[str], dict[str, Any]]] = {}
    for member in job.shard.members:
        shard = work.increment.replaced.get(member.relative_path)
        if shard is not None and shard != own:  # the commit of its own shard has replaced those itself
            changes.setdefault(shard, (set(), {}))[0].add(member.relative_path)
    _amend(run, changes)


def _amend(run: ShardJob, changes: dict[ShardKey, tuple[set[str], dict[str, Any]]]) -> None:
    def submit(item: tuple[ShardKey, tuple[set[str], dict[str, Any]]]) -> Any:
        shard, (drop, notes) = item
        return amend_rows.submit(catalogue=run.catalogue_root.uri, shard=list(shard), drop=sorted(drop), notes=notes)

    for _, future in submit_bounded(submit, changes.items(), limit=8):
        future.result()


def _read(run: ShardJob, members: Sequence[SourceMember]) -> dict[str, tuple[str | None, str | None]]:
    """Return (sha256, error kind) of every member by its path, reading each."""
    cut = cut_runs(members, target_bytes=run.options.shard_bytes, target_count=run.options.shard_images)
    return {
        member.relative_path: (sha256, kind)
        for shard in _hashed(run, cut)
        for member, sha256, kind in zip(shard.members, shard.member_sha256s, shard.member_errors, strict=True)
    }


def _hashed(run: ShardJob, shards: Sequence[Shard]) -> list[Shard]:
    options, hashed = run.options, {}
    limits = to_json(options.limits)

    def submit(shard: Shard) -> Any:
        return fingerprint_shard.submit(source=run.source, shard=to_json(shard), limits=limits)

    for shard, future in submit_bounded(submit, shards, limit=2 * options.workers):
        hashed[shard.shard_id] = from_json(Shard, future.result())
    return [hashed[shard.shard_id] for shard in shards]


def _jobs(
    run: ShardJob, shards: Sequence[Shard], duplicates: Iterable[tuple[tuple[str, str], ...]]
) -> tuple[ShardJob, ...]:
    pairs = zip(shards, duplicates, strict=True)
    return tuple(replace(run, shard=shard, duplicates=twins) for shard, twins in pairs)
