"""The flow of the week: whether every output still holds the bytes that were written."""

from __future__ import annotations

import flows.prefect_settings  # noqa: F401 - it must come before prefect

# isort: split
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from storage.fixity import FixityReport, check_outputs
from tasks.retrying import NETWORK_FAULTS

_LONGEST_TABLE = 1000


class DamagedOutputsError(RuntimeError):
    """Some outputs are missing or changed; `report` says which."""

    def __init__(self, report: FixityReport) -> None:
        first = ", ".join(f"{damage.path}: {damage.problem}" for damage in report.damaged[:5])
        super().__init__(
            f"{len(report.damaged)} of {report.checked} outputs at {report.destination} are damaged ({first}). "
            "`lacuna retry DEST --damaged` writes them again from the originals."
        )
        self.report = report


@task(
    name="verify",
    cache_policy=NO_CACHE,
    persist_result=False,
    **NETWORK_FAULTS,
)
def verify_outputs(*, destination: str) -> Any:
    """Task over `check_outputs`."""
    return check_outputs(destination)


@flow(name="verify-archive")
def verify_archive(destination: str) -> FixityReport:
    """Read every output at `destination` and compare it with the catalogue; raises DamagedOutputsError."""
    found: Any = verify_outputs(destination=destination)
    report: FixityReport = found
    rows = [{"path": item.path, "problem": item.problem, "what": item.text} for item in report.damaged]
    if rows:
        create_table_artifact(table=rows[:_LONGEST_TABLE], key="damaged-outputs")
        raise DamagedOutputsError(report)
    return report
