"""What a run has to do: everything its source holds, only what is new or changed, or only what failed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, cast

from flows.bounded import submit_bounded
from flows.deadline import Window
from flows.placement import placement
from models.types import from_json, to_json
from storage.catalogue import ShardKey, committed_shards
from storage.catalogue_state import SOURCE_MISSING, load_state, output_of_another
from storage.errors import OutputError
from storage.locations import Location
from storage.outputs import check_writable, foreign_output
from storage.run_records import record_settings
from storage.shards import Shard, cut_runs
from storage.sources import SourceMember
from tasks.given_masks import MaskListing, list_masks, masks_of_shard
from tasks.increment import (
    Comparison,
    Increment,
    amend_rows,
    choose,
    compare_source,
    first_increment,
    retry_increment,
    second_increment,
    together,
)
from tasks.jobs import ShardJob
from tasks.progress import announce
from tasks.retrying import patiently
from tasks.survey import duplicates_of, fingerprint_shard, survey_source

# Of sources far away, from when they are hashed, before the first shard, until they are decoded.
_KEPT_BYTES = 1 << 30
_list_masks = patiently(list_masks, name="masks")
_check_writable = patiently(check_writable, name="try the destination")
_record_settings = patiently(record_settings, name="record settings")
_committed = patiently(committed_shards, name="committed")
_state = patiently(load_state, name="state")
_foreign_output = patiently(foreign_output, name="files of others")
_output_of_another = patiently(output_of_another, name="outputs of others")


@dataclass(slots=True, kw_only=True)
class Work:
    """The jobs of a run, one per shard. increment: None for a run over everything.

    masks: those that were given, as listed once for all jobs. compared: what the increment was made of, as long as
    pictures are left whose bytes must be compared.
    """

    jobs: list[ShardJob]
    masks: MaskListing
    increment: Increment | None = None
    compared: Comparison | None = None

    @property
    def nothing(self) -> bool:
        return self.increment is not None and self.increment.nothing


def plan_work(run: ShardJob, window: Window) -> Work:
    """Return what is to be done; nothing is written. Raises IngestError when the source is missing or unusable.

    Bytes are compared here only if the listing shows nothing to do; else `jobs_in_time` does it when that is done: new
    scans must not wait for the reading of all old ones.
    """
    options = run.options
    if not options.incremental and options.retry is None and options.only is None:
        found: Any = survey_source(source=run.source, options=to_json(options))
        shards = _hashed(run, [from_json(Shard, shard) for shard in found], keep=True)
        masks = _list_masks(options.masks)
        jobs = _jobs(run, shards, duplicates_of(shards), masks=masks)
        if run.options.masks is not None and not any(job.masks for job in jobs):
            raise ValueError(
                f"masks: none of the files in {run.options.masks} has the name of a picture of {run.source}; expected "
                "album/cat.jpg.png or album/cat.png for album/cat.jpg"
            )
        return Work(jobs=jobs, masks=masks)
    listed: Any = compare_source(run=to_json(run))
    members, compared, masks = cast(tuple[list[SourceMember], Comparison, MaskListing], listed)
    if options.incremental:
        increment = first_increment(compared, _read(run, compared.certain), options=options)
        jobs = _jobs(run, increment.shards, increment.duplicates, masks=masks)
        work = Work(jobs=jobs, masks=masks, increment=increment, compared=compared)
        if work.nothing:
            _compare_bytes(run, work, window)
    else:
        chosen = choose(members, compared.state, options=options)
        increment = retry_increment(chosen, compared.state, _read(run, chosen), options=options)
        jobs = _jobs(run, increment.shards, increment.duplicates, masks=masks)
        work = Work(jobs=jobs, masks=masks, increment=increment)
    announce("found", sum(len(job.shard.members) for job in work.jobs))
    return work


def jobs_in_time(run: ShardJob, work: Work, window: Window) -> Iterator[ShardJob]:
    """Yield the jobs of a run while there is time, those that only the bytes of known pictures show last.

    The largest come first: else one may be left for the end, and the other workers have nothing to do meanwhile.
    """
    yield from window.open(_largest_first(work.jobs))
    if work.compared is None or window.over:
        return
    known = len(work.jobs)
    found = _compare_bytes(run, work, window)
    _amend(run, {shard: (set(), notes) for shard, notes in found.notes.items()})
    announce("found", sum(len(job.shard.members) for job in work.jobs))
    yield from window.open(_largest_first(work.jobs[known:]))


def _compare_bytes(run: ShardJob, work: Work, window: Window) -> Increment:
    """Read what the listing could not tell about, add what has changed to the work, and return that alone."""
    if work.compared is None or work.increment is None:
        raise ValueError("compare bytes: expected the work of an incremental run that was not compared yet")
    hashed = _read(run, work.compared.unsure, window=window)
    found = second_increment(work.increment, work.compared, hashed, options=run.options)
    work.increment, work.compared = together(work.increment, found), None
    work.jobs += _jobs(run, found.shards, found.duplicates, masks=work.masks)
    return found


def begin_work(run: ShardJob, work: Work) -> None:
    """Record what was asked for, and amend the rows that need no computing: sources that went or came back.

    Raises OutputError or OSError when the destination cannot be written, or holds files of these names already.
    """
    _check_writable(run.destination)
    _check_names(run, work)
    _check_foreign(run, work)
    settings = {
        "source": run.source,
        "destination": run.destination,
        "options": to_json(replace(run.options, incremental=False, retry=None, only=None, stop_at=None)),
        "identities": {name: value for name, value in to_json(run.identities).items() if name != "code_version"},
    }
    _record_settings(run.catalogue_root, collection=run.collection, run_id=run.run_id, settings=settings)
    if work.increment is None:
        return
    notes, stale = work.increment.notes, work.increment.stale
    _amend(run, {shard: (stale.get(shard, set()), notes.get(shard, {})) for shard in [*notes, *stale]})


def _check_names(run: ShardJob, work: Work) -> None:
    """Raise OutputError where an output is of another source; a given name of the collection says that it has moved."""
    paths = _paths(work)
    moved = run.options.collection is not None
    found = _output_of_another(
        run.catalogue_root, collection=run.collection, source=run.source, paths=paths, moved=moved
    )
    if found is None:
        return
    path, collection, uri = found
    text = f"images/{path} in {run.destination} is the result of {uri}, collection {collection}"
    if path in paths:
        text += f"; that of {path} in {run.source}, collection {run.collection}, would replace it. Choose another "
        text += f"destination, or --collection {collection} if it is the same collection from another place."
    else:
        text += f", which is not the one in {run.source}. Choose another destination, or --collection {collection} if "
        text += "it is the same collection from another place, or --collection with a name of its own."
    raise OutputError(text)


def _check_foreign(run: ShardJob, work: Work) -> None:
    """Raise OutputError where the first run into a destination would replace a file that lay there before."""
    taken = _foreign_output(Location(run.destination), paths=_paths(work))
    if taken is not None:
        raise OutputError(
            f"{taken} in {run.destination} would be replaced, and there is no catalogue that says it is a result of "
            "Lacuna. Choose another destination, or move that file away."
        )


def _paths(work: Work) -> set[str]:
    return {member.relative_path for job in work.jobs for member in job.shard.members}


def note_gone(run: ShardJob, work: Work) -> None:
    """Note in the current rows of runs with other settings which files a run over everything no longer found.

    Rows of this run need none: the shards they are in are retired.
    """
    if all(run_id == run.run_id for run_id, _, _ in _committed(run.catalogue_root, collection=run.collection)):
        return
    state, listed = _state(run.catalogue_root, collection=run.collection), _paths(work)
    changes: dict[ShardKey, tuple[set[str], dict[str, Any]]] = {}
    for path, known in state.files.items():
        if path not in listed and not known.missing and known.shard[0] != run.run_id:
            changes.setdefault(known.shard, (set(), {}))[1][path] = {"source_state": SOURCE_MISSING}
    _amend(run, changes)


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


def _read(
    run: ShardJob, members: Sequence[SourceMember], *, window: Window | None = None
) -> dict[str, tuple[str | None, str | None]]:
    """Return (sha256, error kind) of every member by its path.

    With a window they are known pictures, mostly unchanged, and only those that there is time for are read.
    """
    cut = cut_runs(members, target_bytes=run.options.shard_bytes, target_count=run.options.shard_images)
    if window is not None and window.stop_at is not None:
        random.shuffle(cut)  # where one night is too short for all of them, the next begins elsewhere
    return {
        member.relative_path: (sha256, kind)
        for shard in _hashed(run, cut, window=window, keep=window is None)
        for member, sha256, kind in zip(shard.members, shard.member_sha256s, shard.member_errors, strict=True)
    }


def _hashed(run: ShardJob, shards: Sequence[Shard], *, window: Window | None = None, keep: bool) -> list[Shard]:
    """Return the shards with the sha256 of their members, in order; with a window, those there is time to read.

    keep: what comes over a network is about to be restored, so as much of it as may lie here is not fetched again.
    """
    options, hashed = run.options, {}
    totals = accumulate(shard.size for shard in shards)
    kept = {shard.shard_id for shard, total in zip(shards, totals, strict=True) if keep and total <= _KEPT_BYTES}
    limits, place = to_json(options.limits), placement()
    fingerprint = place.placed(fingerprint_shard)

    def submit(shard: Shard) -> Any:
        keep_in = run.working_root if shard.shard_id in kept else None
        return fingerprint.submit(source=run.source, shard=to_json(shard), limits=limits, keep_in=keep_in)

    wanted = shards if window is None else window.open(shards)
    for shard, future in submit_bounded(submit, wanted, limit=2 * place.at_once(options.workers)):
        hashed[shard.shard_id] = from_json(Shard, future.result())
    return [hashed[shard.shard_id] for shard in shards if shard.shard_id in hashed]


def _largest_first(jobs: Iterable[ShardJob]) -> list[ShardJob]:
    return sorted(jobs, key=lambda job: job.shard.size, reverse=True)


def _jobs(
    run: ShardJob,
    shards: Sequence[Shard],
    duplicates: Iterable[tuple[tuple[str, str], ...]],
    *,
    masks: MaskListing,
) -> list[ShardJob]:
    return [
        replace(run, shard=shard, duplicates=twins, masks=masks_of_shard(shard, masks))
        for shard, twins in zip(shards, duplicates, strict=True)
    ]
