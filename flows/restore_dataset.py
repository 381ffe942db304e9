"""The flow for a data set of any size: pictures, WebDataset shards or a Parquet list to shards or files, and Parquet.

The stages are those of `restore_archive`. The unit of work is an output shard, committed whole or not at all: a run
that was killed goes on with the shards that are not there. Samples are listed as they are needed, never all at once,
and the results of stages are not cached, so that neither memory nor disk grows with the data set.
"""

from __future__ import annotations

import flows.prefect_settings  # noqa: F401 - it must come before prefect

# isort: split
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, TypeVar, cast

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from flows.bounded import submit_bounded
from flows.dataset_work import DatasetSummary, finish_dataset, prepare_dataset, shards_of
from flows.deadline import Window, parse_stop
from tasks.datasets.fetching import fetch
from tasks.datasets.jobs import DatasetJob, DatasetOptions, ShardOutcome
from tasks.datasets.making import ShardMaker, commit_made, find_outcome, parts_of
from tasks.datasets.statistics import Totals
from tasks.progress import announce
from tasks.retrying import NETWORK_FAULTS, ends_the_run

_RUNNER: Any = ThreadPoolTaskRunner(max_workers=64)
_RETRIED: dict[str, Any] = {"cache_policy": NO_CACHE, **NETWORK_FAULTS}
ValueT = TypeVar("ValueT")
find_committed = task(name="find committed", **_RETRIED)(find_outcome)
fetch_samples = task(name="fetch", **_RETRIED)(fetch)
commit_samples = task(name="commit", **_RETRIED)(commit_made)


@task(name="samples", task_run_name="samples {name}", cache_policy=NO_CACHE)
def process_samples(*, name: str, job: DatasetJob, carried: bytes | None) -> ShardOutcome:
    """Make and commit one output shard, unless it is committed already and whole; `name` is shown."""
    found = find_committed(_unseen(job), carried=carried)
    if found is None:
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=job.working_root) as folder:
            maker = ShardMaker(job, Path(folder), carried=carried)
            for number, part in enumerate(parts_of(job.samples)):
                place = Path(folder) / f"part-{number}"
                fetched = fetch_samples(_unseen(part), place, limits=job.options.restore.limits)
                maker.add(part, fetched, place)
            outcome = maker.finish()
            found = commit_samples(_unseen(job), ready=str(maker.ready), outcome=outcome, carried=carried)
    announce("done", len(job.samples), shard=name)
    return found


@flow(name="restore-dataset", task_runner=_RUNNER)
def restore_dataset(source: str, destination: str, options: DatasetOptions | None = None) -> DatasetSummary:
    """Restore every sample of `source` into shards or files below `destination`, with one Parquet row each.

    source: folder, prefix or pattern of pictures or .tar shards, or a .parquet list. Raises ValueError for the options,
    IngestError when there is nothing to restore, OutputError when the destination holds something else.
    """
    started = time.perf_counter()
    options = options or DatasetOptions()
    stop_at = options.restore.stop_at
    window = Window(None if stop_at is None else parse_stop(stop_at))
    run = prepare_dataset(source, destination, options)
    totals, store_gone = Totals(), threading.Event()
    jobs, workers = window.open(shards_of(source, run)), options.restore.workers
    for (job, _), future in submit_bounded(_submit, jobs, limit=workers, ended=store_gone.is_set):
        outcome = future.result(raise_on_failure=False)
        if isinstance(outcome, ShardOutcome):
            totals.add(outcome)
        else:
            totals.lose(shard=f"{job.number:06d}", samples=len(job.samples), error=str(outcome))
            if ends_the_run(outcome):
                store_gone.set()
    complete = not (window.over or store_gone.is_set())
    return finish_dataset(source, run, totals, complete=complete, seconds=time.perf_counter() - started)


def _submit(work: tuple[DatasetJob, bytes | None]) -> Any:
    job, carried = work
    return process_samples.submit(name=f"{job.number:06d}", job=_unseen(job), carried=carried)


def _unseen(value: ValueT) -> ValueT:
    """Return the argument of a task as one that the engine passes on without looking at its thousands of values."""
    return cast(ValueT, quote(value))
