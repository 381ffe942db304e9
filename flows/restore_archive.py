"""The flow for an archive: ingest, detect scratches, estimate, route, restore, measure, catalogue, report.

One flow run per archive, in it one task per shard, and in that one cached task per stage. Run it by the `lacuna`
command, or deploy it to a Prefect server: `restore_archive(source, destination, options)`.
"""

from __future__ import annotations

import flows.prefect_settings  # noqa: F401 - it must come before prefect

# isort: split
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from flows.bounded import submit_bounded
from flows.dask_settings import DaskSettings
from flows.deadline import Window, parse_stop
from flows.placement import placed_on, placement
from flows.run_artifacts import RunArtifacts
from flows.run_plan import finish_run, prepare_run
from flows.run_summary import BrokenShardsError, RunSummary, summarize_run
from flows.run_work import Work, begin_work, jobs_in_time, plan_work, replace_rows
from models.interruption import allow_work, interrupt_work
from models.types import to_json
from tasks.caching import run_stage
from tasks.catalogue import commit_rows
from tasks.cleaning import working_copies_of
from tasks.detect import detect_scratches
from tasks.estimate import estimate_degradations
from tasks.ingest import ingest_holds, ingest_shard
from tasks.jobs import RestoreOptions, ShardJob, ShardSummary
from tasks.measure import measure_results, previews_kept
from tasks.progress import announce
from tasks.restore import intact_outputs, restore_images
from tasks.retrying import ends_the_run
from tasks.route import route_shard
from tasks.sources import close_source

# An upper bound; how many shards are in progress is for the options to say.
_RUNNER: Any = ThreadPoolTaskRunner(max_workers=256)


@task(name="shard", task_run_name="shard {name}", cache_policy=NO_CACHE)
def process_shard(*, name: str, job: dict[str, Any]) -> ShardSummary:
    """Bring one shard through all stages; each is cached, so that an interrupted shard goes on where it was."""
    retried, place = job["options"]["retry"] is not None or job["options"]["only"] is not None, placement()
    ingested = run_stage(place.placed(ingest_shard), intact=partial(ingest_holds, retried=retried), job=job)
    detected = run_stage(place.placed(detect_scratches), job=job, ingested=ingested)
    assessed = run_stage(place.placed(estimate_degradations), job=job, ingested=ingested, detected=detected)
    routed = run_stage(route_shard, job=job, ingested=ingested, detected=detected, assessed=assessed)
    findings = {"ingested": ingested, "detected": detected}
    plans = {"assessed": assessed, "routed": routed}
    restored = run_stage(place.placed(restore_images), intact=intact_outputs, job=job, **findings, **plans)
    measuring, kept = place.placed(measure_results), lambda _: previews_kept(job)
    measured = run_stage(measuring, intact=kept, job=job, **findings, restored=restored)
    summary: ShardSummary = commit_rows(job=job, **findings, **plans, restored=restored, measured=measured)
    place.forget(job, keys=working_copies_of(job=job, **findings, restored=restored))
    announce("done", len(job["shard"]["members"]), shard=name)
    return summary


@flow(name="restore-archive", task_runner=_RUNNER)
def restore_archive(
    source: str, destination: str, options: RestoreOptions | None = None, dask: DaskSettings | None = None
) -> RunSummary:
    """Restore every picture of `source` into `destination` and say what was done; originals are only read.

    source: directory, .zip, .tar, .tar.gz or URL of one. Raises IngestError when there is nothing to restore,
    OutputError when results would meet the originals, BrokenShardsError when shards ended without rows; a store that
    is gone for longer than `storage.patience` allows ends the run so. With `incremental`, only what is new or changed
    is taken up; with `stop_at`, the rest is left for the next run. With `dask`, worker processes compute, here or on
    other machines; raises ValueError when there are none.
    """
    started, started_at = time.perf_counter(), datetime.now(UTC)
    options = options or RestoreOptions()
    window = Window(None if options.stop_at is None else parse_stop(options.stop_at))
    ended = _Ended()
    allow_work()
    with placed_on(dask, device=options.device) as place:
        run = prepare_run(source, destination, options=options)
        place.check_places([run.source, *(uri for uri in (options.reference, options.masks) if uri is not None)])
        try:
            work = plan_work(run, window)
            if not work.nothing:
                _carry_out(run, work, window=window, ended=ended)
        except BaseException as error:
            if not isinstance(error, Exception):  # a signal: shards in work are waited for, so they must end soon
                interrupt_work()
            raise
        finally:
            close_source(run.source, limits=options.limits)

    summary = summarize_run(run, work, ended.done, broken=ended.broken, seconds=time.perf_counter() - started)
    if work.nothing:
        return summary
    summary = replace(summary, store_gone=ended.store_gone)
    try:
        uri = finish_run(run, work, summary=summary, started_at=started_at, done=len(ended.done))
        summary = replace(summary, report_uri=uri)
    except Exception as error:
        if not (ended.store_gone and ends_the_run(error)):  # what ended the run has been said
            raise
    RunArtifacts(run.run_id).finish(summary)
    if ended.broken:
        raise BrokenShardsError(summary)
    return summary


@dataclass(slots=True)
class _Ended:
    """Shards that are through, and those that ended without rows, with the error.

    store_gone: what was said when the store was given up or a disk was full; no shard is begun after that.
    """

    done: list[ShardSummary] = field(default_factory=list)
    broken: list[tuple[ShardJob, str]] = field(default_factory=list)
    store_gone: str | None = None

    def by_the_store(self) -> bool:
        """Whether nothing more is to be begun."""
        return self.store_gone is not None


def _carry_out(run: ShardJob, work: Work, *, window: Window, ended: _Ended) -> None:
    """Bring all shards to an end that there is time for."""
    begin_work(run, work)
    place = placement()
    place.check_places([run.catalogue_root.join("runs", run.collection, run.run_id).uri])  # just written
    artifacts = RunArtifacts(run.run_id)
    jobs = jobs_in_time(run, work, window)
    at_once = partial(place.at_once, run.options.workers)
    for job, future in submit_bounded(_submit, jobs, limit=at_once, ended=ended.by_the_store):
        outcome = future.result(raise_on_failure=False)
        if isinstance(outcome, ShardSummary):
            ended.done.append(outcome)
            replace_rows(run, work, job=job)
        else:
            ended.broken.append((job, str(outcome)))
            if ends_the_run(outcome):
                ended.store_gone = ended.store_gone or str(outcome)
        artifacts.progress((len(ended.done) + len(ended.broken)) / len(work.jobs))


def _submit(job: ShardJob) -> Any:
    return process_shard.submit(name=job.shard.shard_id, job=to_json(job))
