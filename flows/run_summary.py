"""What became of a run, in one frozen record: for the terminal, for machines, for Prefect's interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from tasks.jobs import ShardJob, ShardSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """Images by status, how long it took, and where everything lies.

    failures: (path, kind, text) of quarantined and failed images. broken_shards: (shard id, error) of shards that ended
    without rows, after every retry; their images count as failed, and running again takes them up.
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

    def markdown(self) -> str:
        """Return the summary as a Markdown table."""
        shown = [
            (field.name.replace("_", " "), getattr(self, field.name))
            for field in fields(self)
            if field.name not in ("failures", "broken_shards")
        ]
        lines = [f"| {name} | {f'{value:.2f}' if isinstance(value, float) else value} |" for name, value in shown]
        return "\n".join(["| | |", "|---|---|", *lines])


class BrokenShardsError(RuntimeError):
    """Some shards could not be brought to an end; `summary` says what became of the run all the same."""

    def __init__(self, summary: RunSummary) -> None:
        shards = ", ".join(f"{shard}: {error}" for shard, error in summary.broken_shards[:5])
        super().__init__(
            f"{len(summary.broken_shards)} shard(s) ended without rows ({shards}). What is done is kept: run again."
        )
        self.summary = summary


def summarize_run(
    job: ShardJob, done: Sequence[ShardSummary], *, broken: Sequence[tuple[ShardJob, str]], seconds: float
) -> RunSummary:
    """Add up the shards of a run; `job` is any of its jobs."""
    lost = sum(len(item.shard.members) for item, _ in broken)
    images = sum(item.images for item in done) + lost
    return RunSummary(
        run_id=job.run_id,
        collection=job.collection,
        source=job.source,
        destination=job.destination,
        images=images,
        restored=sum(item.restored for item in done),
        untouched=sum(item.untouched for item in done),
        review=sum(item.review for item in done),
        quarantined=sum(item.quarantined for item in done),
        failed=sum(item.failed for item in done) + lost,
        seconds=seconds,
        images_per_second=images / seconds if seconds > 0 else 0.0,
        device=job.identities.device,
        precision=job.identities.precision,
        catalogue_uri=job.catalogue_root.uri,
        failures=tuple(sorted(failure for item in done for failure in item.failures)),
        broken_shards=tuple((item.shard.shard_id, error) for item, error in broken),
    )
