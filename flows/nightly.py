"""The flow of the archive's night: every collection of a file, one after the other, incrementally."""

from __future__ import annotations

import flows.prefect_settings  # noqa: F401 - it must come before prefect

# isort: split
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.deadline import parse_stop
from flows.nightly_file import Collection, choose_collections, read_nightly_file
from flows.restore_archive import restore_archive
from flows.run_summary import BrokenShardsError, RunSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionOutcome:
    """What became of one collection: a summary, or the error that ended it; neither when the time was over before."""

    collection: str
    summary: RunSummary | None = None
    error: str | None = None

    @property
    def sentence(self) -> str:
        """Say it in one line."""
        if self.error is not None:
            return self.error
        if self.summary is None:
            return "not begun: the time was over"
        found = self.summary
        if found.nothing_to_do:
            return found.nothing_to_do
        said = (
            f"{found.new} new, {found.changed} changed, {found.source_missing} newly missing: {found.restored} restored"
        )
        said += f", {found.untouched} untouched, {found.review} for review, {found.quarantined} quarantined"
        said += f", {found.failed} failed"
        if found.remaining or found.unread:
            said += f"; {found.remaining} remain to be restored, {found.unread} to be compared"
        return said


class NightlyError(RuntimeError):
    """Some collections could not be brought to an end; `outcomes` says what became of all."""

    def __init__(self, outcomes: list[CollectionOutcome]) -> None:
        bad = [f"{outcome.collection}: {outcome.error}" for outcome in outcomes if outcome.error is not None]
        super().__init__(f"{len(bad)} of {len(outcomes)} collections failed ({'; '.join(bad)}). The others are done.")
        self.outcomes = outcomes


@flow(name="nightly")
def nightly(file: str, stop_at: str | None = None, collections: list[str] | None = None) -> list[CollectionOutcome]:
    """Restore what is new in every collection of the TOML `file`; one that fails does not stop the others.

    stop_at: instead of the file's. collections: only those of these names. Raises NightlyError at the end when a
    collection failed, ValueError or FileNotFoundError for an unusable file or an unknown name.
    """
    plan = read_nightly_file(Path(file))
    chosen = choose_collections(plan, collections)
    text = stop_at or plan.stop_at
    until = None if text is None else parse_stop(text)
    outcomes = [restore_collection(collection, until=until) for collection in chosen]
    rows: list[dict[str, Any]] = [{"collection": item.collection, "outcome": item.sentence} for item in outcomes]
    create_table_artifact(table=rows, key="nightly")
    if any(outcome.error is not None for outcome in outcomes):
        raise NightlyError(outcomes)
    return outcomes


def restore_collection(collection: Collection, *, until: datetime | None) -> CollectionOutcome:
    """Bring one collection up to date, unless the time is over; its errors become an outcome."""
    if until is not None and datetime.now().astimezone() >= until:
        return CollectionOutcome(collection=collection.name)
    options = replace(collection.options, stop_at=None if until is None else until.isoformat())
    state: Any = restore_archive(collection.source, collection.destination, options, return_state=True)
    ended = state.result(raise_on_failure=False)
    if isinstance(ended, RunSummary):
        return CollectionOutcome(collection=collection.name, summary=ended)
    summary = ended.summary if isinstance(ended, BrokenShardsError) else None
    text = getattr(ended, "text", None) or str(ended) or type(ended).__name__
    return CollectionOutcome(collection=collection.name, summary=summary, error=str(text))
