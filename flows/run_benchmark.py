"""The flow of a benchmark by schedule: one suite measured anew where something changed, and its leaderboard written."""

from __future__ import annotations

import flows.prefect_settings  # noqa: F401 - it must come before prefect

# isort: split
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.generate_benchmark import MeasuredSuite, run_benchmark, run_detection
from models.benchmarking.suites import get_suite
from storage.locations import Location
from tasks.benchmarking.cases import is_place
from tasks.benchmarking.leaderboard import write_leaderboard
from tasks.benchmarking.scoring import ScoreOptions

_LONGEST_TABLE = 1000


class UnmeasuredCasesError(RuntimeError):
    """Some cases of a suite could not be measured; `measured` says which, the others are in the tables."""

    def __init__(self, measured: MeasuredSuite) -> None:
        first = "; ".join(f"{path}: {text}" for path, _, text in measured.failures[:5])
        super().__init__(
            f"{len(measured.failures)} cases of {measured.suite} could not be measured ({first}). The others are in "
            f"the tables at {measured.destination}; a further run measures only what is missing."
        )
        self.measured = measured


@flow(name="benchmark")
def benchmark(
    suite: str,
    destination: str,
    data: str = "",
    methods: list[str] | None = None,
    device: str = "auto",
    limit: int | None = None,
) -> MeasuredSuite:
    """Measure methods, the suite's own for None, on a suite or degraded set, and write the leaderboard.

    suite: its id, or the folder or URL of a set. data: folder or URL of the standard sets, which suites need. What was
    measured at the destination before is found, not computed. Raises UnmeasuredCasesError at the end when some cases
    failed, and what `run_benchmark` and `run_detection` do.
    """
    chosen = tuple(methods or ())
    if not is_place(suite) and get_suite(suite).detection:
        measured = run_detection(destination, chosen, data=data, device=device, limit=limit)
    else:
        options = ScoreOptions(methods=chosen, device=device)
        measured = run_benchmark(suite, destination, options, data=data, limit=limit)
    write_leaderboard(Location(destination))
    rows: list[dict[str, Any]] = [
        {"picture": path, "kind": kind, "what": text} for path, kind, text in measured.failures
    ]
    rows.insert(0, {"suite": measured.suite, "cells": measured.cells, "computed now": measured.computed})
    create_table_artifact(table=rows[:_LONGEST_TABLE], key="benchmark")
    if measured.failures:
        raise UnmeasuredCasesError(measured)
    return measured
