"""The beginning and the end of a run: what is to be done, and what is left when every shard is through."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

from flows.home import lacuna_home
from flows.placement import placement
from flows.run_identity import collection_name, run_identity
from flows.run_options import check_methods
from flows.run_summary import RunSummary
from flows.run_work import Work, note_gone
from models.types import to_json
from storage.catalogue import committed_shards, retire_shards
from storage.locations import Location
from storage.outputs import check_destination
from storage.run_records import record_outcome
from storage.shards import Shard
from tasks.given_masks import check_masks
from tasks.jobs import RestoreOptions, ShardJob
from tasks.reference import reference_fingerprint
from tasks.report import render_run
from tasks.retrying import patiently

_NO_SHARD = Shard(shard_id="none", members=())
# The few things a flow asks of a store itself.
_committed = patiently(committed_shards, name="committed")
_retire = patiently(retire_shards, name="retire")
_record = patiently(record_outcome, name="record outcome")


def prepare_run(source: str, destination: str, *, options: RestoreOptions) -> ShardJob:
    """Return what all jobs of a run have in common, without a shard yet.

    Raises OutputError when results would meet the originals, ValueError for a device that is not there or a folder of
    masks that cannot be used.
    """
    check_destination(source, Location(destination))
    check_masks(options.masks, source=source, destination=destination)
    check_methods(options)
    source, target = Location(source).uri, Location(destination)
    identities = placement().identify(options)
    run_id = run_identity(source, target.uri, options=options, identities=identities)
    # Of all runs into one destination together: the report of an incremental run shows what earlier ones restored.
    elsewhere = lacuna_home() / "previews" / hashlib.sha256(target.uri.encode()).hexdigest()[:16]
    previews = target.join("report", "previews").local_path if target.is_local else elsewhere
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


def finish_run(run: ShardJob, work: Work, *, summary: RunSummary, started_at: datetime, done: int) -> str | None:
    """Retire or note the rows of what the source no longer has, write the report and record what became of the run.

    done: how many shards are through. Returns the report's URI if there is one.
    """
    whole = work.increment is None and not summary.remaining
    if whole:
        keep = {job.shard.shard_id for job in work.jobs}
        _retire(run.catalogue_root, run_id=run.run_id, collection=run.collection, keep=keep)
        note_gone(run, work)
    report = _report(run, work, summary=summary, done=done)
    outcome = {name: value for name, value in to_json(summary).items() if name not in ("failures", "broken_shards")}
    outcome |= {"started_at": _iso(started_at), "finished_at": _iso(datetime.now(UTC)), "report_uri": report}
    outcome |= {"code_version": run.identities.code_version, "broken_shards": len(summary.broken_shards)}
    outcome["kind"] = "whole" if work.increment is None else "incremental" if run.options.incremental else "retry"
    counts = [summary.restored, summary.untouched, summary.review, summary.quarantined, summary.failed]
    identity = json.dumps([[job.shard.content_sha256 for job in work.jobs], counts, summary.remaining, outcome["kind"]])
    _record(run.catalogue_root, collection=run.collection, run_id=run.run_id, outcome=outcome, identity=identity)
    return report


def _report(run: ShardJob, work: Work, *, summary: RunSummary, done: int) -> str | None:
    committed = done if work.increment is None else len(_committed(run.catalogue_root, collection=run.collection))
    if run.previews is None or not committed:
        return None
    facts = {
        "run_id": run.run_id,
        "title": run.collection,
        "source": run.source,
        "destination": run.destination,
        "finished_at": _iso(datetime.now(UTC)),
        "seconds": summary.seconds,
        "code_version": run.identities.code_version,
        "device": run.identities.device,
        "precision": run.identities.precision,
        "weights": {name: sha256 for name, sha256 in run.identities.methods if sha256 is not None},
    }
    if work.increment is not None:
        facts |= {name: getattr(summary, name) for name in ("new", "changed", "unchanged", "source_missing")}
    return render_run(
        destination=run.destination,
        collection=run.collection,
        run_id=run.run_id if work.increment is None else None,
        previews=run.previews,
        summary=facts,
    )


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
