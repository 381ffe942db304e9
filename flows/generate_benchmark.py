"""The flows of a benchmark: clean pictures to a degraded set, and methods on a suite or set to measured cells.

Both are resumable by content: a unit of work that was finished is found again by a hash of everything it depends on,
so a killed run goes on where it was, and adding one method computes that method's cells alone.
"""

from __future__ import annotations

import flows.prefect_settings  # noqa: F401 - it must come before prefect

# isort: split
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from flows.bounded import submit_bounded
from models.types import from_json, to_json
from storage.benchmark_cells import CellStore
from storage.benchmark_sets import BenchmarkSetError, write_manifest
from storage.locations import Location
from storage.outputs import check_destination
from tasks.benchmarking.cases import cases_of
from tasks.benchmarking.clean_pictures import SKIMAGE, list_clean
from tasks.benchmarking.detection import measure_detection
from tasks.benchmarking.generating import SetJob, SetOptions, SetPart, checked_options, make_part, set_jobs
from tasks.benchmarking.scoring import (
    ScoreJob,
    ScoreOptions,
    ScorePart,
    checked_methods,
    metric_models,
    metric_names,
    only_kept,
    score_jobs,
    score_part,
)
from tasks.progress import announce
from tasks.retrying import NETWORK_FAULTS

_RUNNER: Any = ThreadPoolTaskRunner(max_workers=16)
_RETRIED: dict[str, Any] = {"cache_policy": NO_CACHE, **NETWORK_FAULTS}
DETECTION = "scratch-detection"
Failures = tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedSet:
    """What became of a set: degraded pictures in it, how many were made now, and (picture, kind, text) of failures.

    megapixels_per_second: by recipe, of what was made now, one core, without reading and writing.
    """

    manifest_uri: str
    samples: int
    made: int
    megapixels_per_second: tuple[tuple[str, float], ...]
    failures: Failures


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredSuite:
    """What became of a measurement: cells in the table, how many were computed now, failures, and where it lies.

    unmeasured: (method, cells) of methods measured here before that have no such cells as they are now.
    """

    suite: str
    methods: tuple[str, ...]
    cases: int
    cells: int
    computed: int
    failures: Failures
    destination: str
    unmeasured: tuple[tuple[str, int], ...] = ()


@task(name="degrade", task_run_name="degrade {name}", **_RETRIED)
def degrade_pictures(*, name: str, job: dict[str, Any]) -> dict[str, Any]:
    """Make one unit of a degraded set; returns a `SetPart` as plain values."""
    part: SetPart = make_part(from_json(SetJob, job))
    announce("done", len(job["pictures"]), shard=name)
    return dict(to_json(part))


@task(name="score", task_run_name="score {name}", **_RETRIED)
def score_cases(*, name: str, job: dict[str, Any]) -> dict[str, Any]:
    """Measure one unit of cases; returns a `ScorePart` as plain values."""
    part: ScorePart = score_part(from_json(ScoreJob, job))
    announce("done", len(job["cases"]), shard=name)
    return dict(to_json(part))


@flow(name="generate-benchmark", task_runner=_RUNNER)
def generate_benchmark(
    source: str, destination: str, options: SetOptions, *, limit: int | None = None, workers: int = 2
) -> GeneratedSet:
    """Degrade every clean picture of `source` by every recipe and seed, and write the set with its manifest.

    source: folder, archive, URL or "skimage". Raises ValueError for the options, IngestError when there is nothing to
    degrade, OutputError when the set would meet the source.
    """
    options, root = checked_options(options), Location(destination)
    if source != SKIMAGE:
        check_destination(source, root)
    pictures = list_clean(source, limit=limit)
    announce("found", len(pictures) * len(options.recipes))
    jobs = set_jobs(pictures, options=options, destination=root.uri)

    def submit(job: SetJob) -> Any:
        return degrade_pictures.submit(name=f"{job.recipe} {job.number}", job=to_json(job))

    parts = [future.result() for _, future in submit_bounded(submit, jobs, limit=workers)]
    rows = [row for part in parts for row in part["rows"]]
    failures = tuple(sorted({tuple(failure) for part in parts for failure in part["failures"]}))
    if not rows:
        raise BenchmarkSetError(f"No picture of {source} could be degraded; the first: {failures[0][2]}")
    made = sum(len(part["rows"]) for part in parts if not part["kept"])
    return GeneratedSet(
        manifest_uri=write_manifest(root, rows),
        samples=len(rows),
        made=made,
        megapixels_per_second=_throughput(parts),
        failures=failures,
    )


def _throughput(parts: Sequence[dict[str, Any]]) -> tuple[tuple[str, float], ...]:
    seconds: dict[str, float] = {}
    area: dict[str, float] = {}
    for part in (part for part in parts if part["seconds"] > 0):
        seconds[part["recipe"]] = seconds.get(part["recipe"], 0.0) + part["seconds"]
        made = sum(row["width"] * row["height"] for row in part["rows"]) / 1e6
        area[part["recipe"]] = area.get(part["recipe"], 0.0) + made
    return tuple((recipe, area[recipe] / seconds[recipe]) for recipe in seconds)


@flow(name="measure-detection")
def run_detection(
    destination: str, detectors: Sequence[str] = (), *, data: str = "", device: str = "auto", limit: int | None = None
) -> MeasuredSuite:
    """Measure scratch detectors on held-back damage and clean pictures; detection.json keeps what was measured.

    Raises what `measure_detection` does.
    """
    from models.benchmarking.suites import get_suite
    from models.device import resolve_device

    suite, root = get_suite(DETECTION), Location(destination)
    rows, measured = measure_detection(
        detectors or suite.methods, root=root, data=Location(data), device=resolve_device(device), limit=limit
    )
    return MeasuredSuite(
        suite=suite.id,
        methods=tuple(dict.fromkeys(row.detector for row in rows)),
        cases=max(row.n for row in rows),
        cells=len(rows),
        computed=measured,
        failures=(),
        destination=root.uri,
    )


@flow(name="run-benchmark")
def run_benchmark(
    target: str,
    destination: str,
    options: ScoreOptions,
    *,
    data: str = "",
    seeds: Sequence[int] = (0,),
    limit: int | None = None,
) -> MeasuredSuite:
    """Measure methods on a suite or degraded set, one picture at a time so that timings are honest; write the tables.

    Methods measured at this destination before stay in the tables: their cells are found, not computed. Raises what
    `cases_of` does, UnknownMethodError or ValueError for methods that cannot be run, and BenchmarkSetError where the
    destination has the results of another set of the same name.
    """
    cases, description = cases_of(target, data=data, seeds=seeds, limit=limit)
    store = CellStore(Location(destination).join(description["suite"]))
    store.check_is_of(description["set"])
    asked = options.methods or description["methods"]
    methods = checked_methods(asked, cases, kept=store.methods())
    announce("found", len(cases))
    chosen = replace(options, methods=methods, kept=only_kept(methods, asked=asked))
    jobs = score_jobs(cases, options=chosen, destination=store.root.uri)
    parts = [score_cases(name=str(index), job=to_json(job)) for index, job in enumerate(jobs)]
    rows = [row for part in parts for row in part["rows"]]
    failures = tuple(sorted(tuple(failure) for part in parts for failure in part["failures"]))
    if not rows:
        raise BenchmarkSetError(f"Nothing of {target} could be measured; the first: {failures[0][2]}")
    described = {**description, "methods": list(methods), "models": metric_models()}
    store.write_tables(description=described, metrics=rows, names=metric_names())
    return MeasuredSuite(
        suite=description["suite"],
        methods=methods,
        cases=len(cases),
        cells=len(rows),
        computed=sum(part["computed"] for part in parts),
        failures=failures,
        destination=store.root.uri,
        unmeasured=tuple(sorted(Counter(name for part in parts for name in part["absent"]).items())),
    )
