"""What a run shows in Prefect's interface: progress, a summary, a table of failures, and the way to the report."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

if TYPE_CHECKING:
    from flows.run_summary import RunSummary

_LONGEST_TABLE = 1000


class RunArtifacts:
    """The artifacts of one run; their keys carry its id, so that runs of one archive follow each other."""

    def __init__(self, run_id: str) -> None:
        self.key = re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")
        self._progress: UUID | None = None

    def progress(self, share: float) -> None:
        """Show that `share` of the shards, in [0, 1], is done."""
        percent = round(100 * share, 1)
        if self._progress is None:
            created = create_progress_artifact(progress=percent, key=f"progress-{self.key}")
            self._progress = created if isinstance(created, UUID) else None
        else:
            update_progress_artifact(artifact_id=self._progress, progress=percent)

    def finish(self, summary: RunSummary) -> None:
        """Show what became of the run."""
        create_markdown_artifact(markdown=summary.markdown(), key=f"summary-{self.key}")
        rows = [
            {"path": path, "kind": kind, "what happened": text}
            for path, kind, text in summary.failures[:_LONGEST_TABLE]
        ]
        if rows:
            create_table_artifact(table=rows, key=f"failures-{self.key}")
        if summary.report_uri is not None:
            create_link_artifact(link=summary.report_uri, link_text="Report", key=f"report-{self.key}")
