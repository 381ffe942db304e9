"""What runs at a destination have done, from the catalogue alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.catalogue import connect
from storage.catalogue_state import SOURCE_MISSING
from storage.locations import Location
from storage.run_records import recorded_runs

# Of several rows of one page, left by runs with other settings, the last one counts.
_CURRENT = """
CREATE TEMP TABLE current_images AS
SELECT run_id, collection, status, source_state, error_kind, finished_at FROM images
QUALIFY row_number() OVER (
    PARTITION BY collection, relative_path, page_index ORDER BY finished_at DESC NULLS LAST, run_id DESC
) = 1
"""
_STATUSES = "SELECT collection, status, count(*) AS images FROM current_images GROUP BY ALL ORDER BY ALL"
# Of what is gone from its source nothing can be tried again.
_FAILURES = (
    "SELECT collection, error_kind, count(*) AS images FROM current_images WHERE status IN ('failed', 'quarantined') "
    f"AND source_state IS DISTINCT FROM '{SOURCE_MISSING}' "
    "GROUP BY ALL ORDER BY images DESC, error_kind"
)
_MISSING = (
    f"SELECT collection, count(*) AS images FROM current_images WHERE source_state = '{SOURCE_MISSING}' GROUP BY ALL"
)
_RUNS = (
    "SELECT collection, run_id, count(*) AS images, max(finished_at) AS finished_at FROM current_images "
    "GROUP BY ALL ORDER BY finished_at"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """Images whose current row a run made. source: None when the run left no record of it."""

    run_id: str
    images: int
    finished_at: datetime | None
    source: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionStatus:
    """Current images of a collection by status, its failures by kind, its runs, the last one last.

    failures_by_kind: of images whose source file is there to be tried again. source_missing: images whose source file
    was gone at the last run that looked. last_run: what the last run recorded
    about itself; None when none came to its end.
    """

    collection: str
    images: int
    by_status: Mapping[str, int]
    failures_by_kind: Mapping[str, int]
    source_missing: int
    runs: tuple[RunStatus, ...]
    last_run: Mapping[str, Any] | None


def collection_statuses(destination: str) -> list[CollectionStatus]:
    """Return the status of every collection at `destination`, by name; raises CatalogueError without a catalogue."""
    root = Location(destination).join("catalogue")
    with connect(root, tables=("images",)) as connection:
        connection.execute(_CURRENT)
        statuses, failures, missing, runs = (
            connection.sql(sql).to_arrow_table().to_pylist() for sql in (_STATUSES, _FAILURES, _MISSING, _RUNS)
        )
    recorded = {(run.collection, run.run_id): run for run in recorded_runs(root)}
    found = []
    for name in sorted({row["collection"] for row in statuses}):
        by_status = {row["status"]: row["images"] for row in statuses if row["collection"] == name}
        outcomes = [outcome for key, run in recorded.items() if key[0] == name for outcome in run.outcomes]
        found.append(
            CollectionStatus(
                collection=name,
                images=sum(by_status.values()),
                by_status=by_status,
                failures_by_kind={
                    row["error_kind"] or "unknown": row["images"] for row in failures if row["collection"] == name
                },
                source_missing=sum(row["images"] for row in missing if row["collection"] == name),
                runs=tuple(_run(row, recorded.get((name, row["run_id"]))) for row in runs if row["collection"] == name),
                last_run=max(outcomes, key=lambda outcome: str(outcome["finished_at"]), default=None),
            )
        )
    return found


def _run(row: Mapping[str, Any], recorded: Any) -> RunStatus:
    settings = None if recorded is None else recorded.settings
    return RunStatus(
        run_id=row["run_id"],
        images=row["images"],
        finished_at=row["finished_at"],
        source=None if settings is None else str(settings["source"]),
    )
