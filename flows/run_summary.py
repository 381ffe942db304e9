"""What became of a run, in one frozen record: for the terminal, for machines, for Prefect's interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from tasks.jobs import ShardJob, ShardSummary

if TYPE_CHECKING:
    # They bring the workflow engine, which a command only needs once its arguments are known to be right.
    from flows.run_work import Work
    from tasks.increment import Increment


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """Images by status, how long it took, and where everything lies.

    failures: (path, kind, text) of quarantined and failed images. broken_shards: (shard id, error) of shards that ended
    without rows, after every retry; their images count as failed, and running again takes them up. Of an incremental
    run, images counts those it took up: new ones and changed ones; unchanged, source_missing: pictures it left as they
    are, and those of them it newly found gone from the source. remaining: images left when the time was over or the
    store was given up; unread: unchanged by name and size, but there was no time to compare their bytes. store_gone:
    why the store was given up, or which disk was full.
    nothing_to_do: says so where that is all there is to say.
    """

    run_id: str
    collection: str
    source: str
    destination: str
    images: int
    restored: int
    untouched: int
    review: int
    quarantined: int
    failed: int
    seconds: float
    images_per_second: float
    device: str
    precision: str
    catalogue_uri: str
    report_uri: str | None = None
    failures: tuple[tuple[str, str, str], ...] = ()
    broken_shards: tuple[tuple[str, str], ...] = ()
    incremental: bool = False
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    source_missing: int = 0
    remaining: int = 0
    unread: int = 0
    store_gone: str | None = None
    nothing_to_do: str | None = None

    def markdown(self) -> str:
        """Return the summary as a Markdown table."""
        shown = [
            (field.name.replace("_", " "), getattr(self, field.name))
            for field in fields(self)
            if field.name not in ("failures", "broken_shards", "store_gone", "nothing_to_do")
        ]
        lines = [f"| {name} | {f'{value:.2f}' if isinstance(value, float) else value} |" for name, value in shown]
        return "\n".join(["| | |", "|---|---|", *lines])


class BrokenShardsError(RuntimeError):
    """Some shards could not be brought to an end; `summary` says what became of the run all the same."""

    def __init__(self, summary: RunSummary) -> None:
        count = len(summary.broken_shards)
        if summary.store_gone is not None:
            text = f"{summary.store_gone} {count} shard(s) in work were left without rows, {summary.remaining} images"
            super().__init__(f"{text} were not begun. What is done is kept: run again.")
        else:
            shards = ", ".join(f"{shard}: {error}" for shard, error in summary.broken_shards[:5])
            super().__init__(f"{count} shard(s) ended without rows ({shards}). What is done is kept: run again.")
        self.summary = summary


def summarize_run(
    run: ShardJob,
    work: Work,
    done: Sequence[ShardSummary],
    *,
    broken: Sequence[tuple[ShardJob, str]],
    seconds: float,
) -> RunSummary:
    """Add up the shards of a run."""
    lost = sum(len(item.shard.members) for item, _ in broken)
    images = sum(item.images for item in done) + lost
    ended = {item.shard_id for item in done} | {item.shard.shard_id for item, _ in broken}
    found = work.increment
    return RunSummary(
        run_id=run.run_id,
        collection=run.collection,
        source=run.source,
        destination=run.destination,
        images=images,
        restored=sum(item.restored for item in done),
        untouched=sum(item.untouched for item in done),
        review=sum(item.review for item in done),
        quarantined=sum(item.quarantined for item in done),
        failed=sum(item.failed for item in done) + lost,
        seconds=seconds,
        images_per_second=images / seconds if seconds > 0 else 0.0,
        device=run.identities.device,
        precision=run.identities.precision,
        catalogue_uri=run.catalogue_root.uri,
        failures=tuple(sorted(failure for item in done for failure in item.failures)),
        broken_shards=tuple((item.shard.shard_id, error) for item, error in broken),
        incremental=found is not None,
        new=0 if found is None else found.new,
        changed=0 if found is None else found.changed,
        unchanged=0 if found is None else found.unchanged,
        source_missing=0 if found is None else found.missing,
        unread=0 if found is None else found.unread,
        remaining=sum(len(job.shard.members) for job in work.jobs if job.shard.shard_id not in ended),
        nothing_to_do=_nothing_to_do(run, found) if found is not None and found.nothing else None,
    )


def _nothing_to_do(run: ShardJob, found: Increment) -> str:
    if not run.options.incremental:
        return f"nothing to retry: {run.source} no longer holds any of them"
    failed = f"; {found.unsuccessful} failed or were quarantined earlier: `lacuna retry`" if found.unsuccessful else ""
    if found.unread:
        return f"nothing new so far, but the time was over: {found.unread} images remain to be compared{failed}"
    return f"nothing new: all {found.unchanged} images are as they were restored{failed}"
