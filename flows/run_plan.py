"""The beginning and the end of a run: what is to be done, and what is left when every shard is through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from flows.bounded import submit_bounded
from flows.home import lacuna_home
from flows.run_identity import code_version, collection_name, run_identity
from flows.run_summary import RunSummary
from models.types import from_json, to_json
from storage.catalogue import retire_shards
from storage.locations import Location
from storage.outputs import check_destination
from storage.shards import Shard
from tasks.device import identify
from tasks.jobs import RestoreOptions, ShardJob
from tasks.reference import reference_fingerprint
from tasks.report import render_run
from tasks.sources import close_source
from tasks.survey import duplicates_of, fingerprint_shard, survey_source

_NO_SHARD = Shard(shard_id="none", members=())


def prepare_run(source: str, destination: str, *, options: RestoreOptions) -> ShardJob:
    """Return what all jobs of a run have in common, without a shard yet.

    Raises OutputError when results would meet the originals, ValueError for a device that is not there.
    """
    check_destination(source, Location(destination))
    source, target = Location(source).uri, Location(destination)
    identities = identify(options, code_version=code_version())
    run_id = run_identity(source, target.uri, options=options, identities=identities)
    previews = target.join("report", "previews").local_path if target.is_local else lacuna_home() / "previews" / run_id
    return ShardJob(
        run_id=run_id,
        collection=collection_name(source, options),
        source=source,
        destination=target.uri,
        working_root=str(lacuna_home() / "working"),
        previews=str(previews) if options.write_report else None,
        shard=_NO_SHARD,
        duplicates=(),
        options=options,
        identities=identities,
        reference_sha256=reference_fingerprint(options.reference),
    )


def hashed_jobs(run: ShardJob) -> list[ShardJob]:
    """Return one job per shard of the source, each with the sha256 of what it holds.

    Raises IngestError when the source is missing, empty or unusable.
    """
    options = run.options
    found: Any = survey_source(source=run.source, options=to_json(options))
    limits = to_json(options.limits)

    def submit(shard: Any) -> Any:
        return fingerprint_shard.submit(source=run.source, shard=shard, limits=limits)

    hashed = {
        shard["shard_id"]: from_json(Shard, future.result())
        for shard, future in submit_bounded(submit, found, limit=2 * options.workers)
    }
    shards = [hashed[shard["shard_id"]] for shard in found]
    return [
        replace(run, shard=shard, duplicates=twins) for shard, twins in zip(shards, duplicates_of(shards), strict=True)
    ]


def finish_run(run: ShardJob, jobs: Sequence[ShardJob], *, summary: RunSummary) -> str | None:
    """Retire the rows of shards that the source no longer has, write the report, and return its URI if there is one."""
    close_source(run.source, limits=run.options.limits)
    keep = {job.shard.shard_id for job in jobs}
    retire_shards(run.catalogue_root, run_id=run.run_id, collection=run.collection, keep=keep)
    if run.previews is None or summary.images == 0 or len(summary.broken_shards) == len(jobs):
        return None
    facts = {
        "run_id": run.run_id,
        "title": run.collection,
        "source": run.source,
        "destination": run.destination,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": summary.seconds,
        "code_version": run.identities.code_version,
        "device": run.identities.device,
        "precision": run.identities.precision,
        "weights": {name: sha256 for name, sha256 in run.identities.methods if sha256 is not None},
    }
    return render_run(destination=run.destination, run_id=run.run_id, previews=run.previews, summary=facts)
