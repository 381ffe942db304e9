"""The flow for an archive: ingest, detect scratches, estimate, route, restore, measure, catalogue, report.

One flow run per archive, in it one task per shard, and in that one cached task per stage. Run it by the `lacuna`
command, or deploy it to a Prefect server: `restore_archive(source, destination, options)`.
"""

from __future__ import annotations

import flows.prefect_settings  # noqa: F401 - it must come before prefect

# isort: split
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from flows.bounded import submit_bounded
from flows.deadline import Window, parse_stop
from flows.run_artifacts import RunArtifacts
from flows.run_plan import finish_run, prepare_run
from flows.run_summary import BrokenShardsError, RunSummary, summarize_run
from flows.run_work import begin_work, jobs_in_time, plan_work, replace_rows
from models.types import to_json
from tasks.caching import run_stage
from tasks.catalogue import commit_rows
from tasks.cleaning import forget_working_copies
from tasks.detect import detect_scratches
from tasks.estimate import estimate_degradations
from tasks.ingest import ingest_shard
from tasks.jobs import RestoreOptions, ShardJob, ShardSummary
from tasks.measure import measure_results, previews_kept
from tasks.progress import announce
from tasks.restore import intact_outputs, restore_images
from tasks.route import route_shard
from tasks.sources import close_source

# An upper bound; how many shards are in progress is for the options to say.
_RUNNER: Any = ThreadPoolTaskRunner(max_workers=64)


@task(name="shard", task_run_name="shard {name}", cache_policy=NO_CACHE)
def process_shard(*, name: str, job: dict[str, Any]) -> ShardSummary:
    """Bring one shard through all stages; each is cached, so that an interrupted shard goes on where it was."""
    retried = job["options"]["retry"] is not None or job["options"]["only"] is not None
    ingested = run_stage(ingest_shard, intact=lambda found: not (retried and found["quarantined"]), job=job)
    detected = run_stage(detect_scratches, job=job, ingested=ingested)
    assessed = run_stage(estimate_degradations, job=job, ingested=ingested, detected=detected)
    routed = run_stage(route_shard, job=job, detected=detected, assessed=assessed)
    findings = {"ingested": ingested, "detected": detected}
    plans = {"assessed": assessed, "routed": routed}
    restored = run_stage(restore_images, intact=intact_outputs, job=job, **findings, **plans)
    measured = run_stage(measure_results, intact=lambda _: previews_kept(job), job=job, **findings, restored=restored)
    summary: ShardSummary = commit_rows(job=job, **findings, **plans, restored=restored, measured=measured)
    forget_working_copies(job=job, ingested=ingested, detected=detected)
    announce("done", len(job["shard"]["members"]), shard=name)
    return summary


@flow(name="restore-archive", task_runner=_RUNNER)
def restore_archive(source: str, destination: str, options: RestoreOptions | None = None) -> RunSummary:
    """Restore every picture of `source` into `destination` and say what was done; originals are only read.

    source: directory, .zip, .tar, .tar.gz or URL of one. Raises IngestError when there is nothing to restore,
    OutputError when results would meet the originals, BrokenShardsError when shards ended without rows. With
    `incremental`, only what is new or changed is taken up; with `stop_at`, the rest is left for the next run.
    """
    started, started_at = time.perf_counter(), datetime.now(UTC)
    options = options or RestoreOptions()
    window = Window(None if options.stop_at is None else parse_stop(options.stop_at))
    run = prepare_run(source, destination, options=options)
    done: list[ShardSummary] = []
    broken: list[tuple[ShardJob, str]] = []
    try:
        work = plan_work(run, window)
        if work.nothing:
            return summarize_run(run, work, done, broken=broken, seconds=time.perf_counter() - started)
        begin_work(run, work)
        artifacts = RunArtifacts(run.run_id)
        for job, future in submit_bounded(_submit, jobs_in_time(run, work, window), limit=options.workers):
            outcome = future.result(raise_on_failure=False)
            if isinstance(outcome, ShardSummary):
                done.append(outcome)
                replace_rows(run, work, job=job)
            else:
                broken.append((job, str(outcome)))
            artifacts.progress((len(done) + len(broken)) / len(work.jobs))
    finally:
        close_source(run.source, limits=options.limits)

    summary = summarize_run(run, work, done, broken=broken, seconds=time.perf_counter() - started)
    summary = replace(summary, report_uri=finish_run(run, work, summary=summary, started_at=started_at))
    artifacts.finish(summary)
    if broken:
        raise BrokenShardsError(summary)
    return summary


def _submit(job: ShardJob) -> Any:
    return process_shard.submit(name=job.shard.shard_id, job=to_json(job))
