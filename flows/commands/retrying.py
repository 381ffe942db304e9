"""`lacuna retry`: once more what failed or was quarantined, with the settings of the last run, from its source."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from rich.console import Console

from flows import prefect_settings
from flows.commands.console import EXIT_NOTHING_DONE, EXIT_OK, EXIT_SOME_FAILED, EXIT_TIME_OVER, print_json
from flows.engine import start_engine
from flows.run_summary import BrokenShardsError, RunSummary
from models.types import from_json, to_json
from storage.catalogue_status import CollectionStatus, collection_statuses
from storage.errors import CatalogueError, IngestError
from storage.fixity import check_outputs
from storage.locations import Location
from storage.run_records import recorded_runs
from tasks.jobs import RestoreOptions


def run(
    destination: str,
    *,
    kinds: tuple[str, ...],
    damaged: bool,
    collection: str | None,
    source: str | None,
    device: str | None,
    until: str | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """Retry every collection (or one), print what became of it, and return the exit code.

    damaged: what the check of fixity finds, instead of what failed. source: where the one collection is now, if not
    where its last run found it. Raises CatalogueError without a catalogue or the settings of a run, ValueError for an
    unknown collection or kind, or a source of several collections, IngestError for a source that is not there.
    """
    from flows.commands.restoring import print_summary
    from flows.deadline import parse_stop

    if until is not None:  # once: a time of day means tomorrow's for the collection after the one that it stopped
        until = parse_stop(until).isoformat()
    found = collection_statuses(destination)
    asked = _asked(found, collection=collection)
    if source is not None and len(asked) > 1:
        names = ", ".join(item.collection for item in asked)
        raise ValueError(f"--source: got {source} for {len(asked)} collections; choose one of {names} by --collection")
    wanted = _damaged(destination, asked) if damaged else _failed(asked, kinds=kinds)
    settings = {item.collection: _settings(destination, item) for item in asked if item.collection in wanted}
    if not verbose:
        prefect_settings.quieten()
    if settings:
        start_engine()
    summaries: list[RunSummary] = []
    for name, given in settings.items():
        options = from_json(RestoreOptions, given["options"])
        options = replace(options, collection=name, stop_at=until, device=device or options.device)
        options = replace(options, only=wanted[name]) if damaged else replace(options, retry=wanted[name])
        with nullcontext() if as_json else Console(stderr=True).status(f"Retrying {name}…"):
            summaries.append(_retried(source or str(given["source"]), destination, options))
    if as_json:
        print_json([to_json(summary) for summary in summaries])
    elif not summaries:
        what = "every output is as it was written" if damaged else "no image failed or was quarantined"
        print(f"nothing to retry: {what}")
    else:
        for summary in summaries:
            print_summary(summary)
    return _exit_code(summaries)


def _retried(source: str, destination: str, options: RestoreOptions) -> RunSummary:
    from flows.restore_archive import restore_archive

    try:
        return restore_archive(source, destination, options)
    except BrokenShardsError as error:
        return error.summary
    except IngestError as error:
        if error.kind != "missing":
            raise
        text = f"{error.text} If {options.collection} has moved, say where it is now: --source PLACE."
        raise IngestError(error.kind, text) from error


def _exit_code(summaries: list[RunSummary]) -> int:
    lost = sum(summary.failed + summary.quarantined for summary in summaries)
    if lost:
        return EXIT_SOME_FAILED if lost < sum(summary.images for summary in summaries) else EXIT_NOTHING_DONE
    return EXIT_TIME_OVER if any(summary.remaining or summary.unread for summary in summaries) else EXIT_OK


def _asked(found: list[CollectionStatus], *, collection: str | None) -> list[CollectionStatus]:
    names = [item.collection for item in found]
    if collection is not None and collection not in names:
        raise ValueError(f"--collection: got {collection!r}, expected one of {', '.join(names)}")
    return [item for item in found if collection in (None, item.collection)]


def _failed(asked: list[CollectionStatus], *, kinds: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the kinds of error to retry by collection, () = any; collections without such a failure are left out."""
    there = sorted({kind for item in asked for kind in item.failures_by_kind})
    if unknown := [kind for kind in kinds if kind not in there]:
        raise ValueError(f"--error-kind: got {', '.join(unknown)}, but there is {', '.join(there) or 'no failure'}")
    here = {item.collection: tuple(kind for kind in kinds if kind in item.failures_by_kind) for item in asked}
    return {
        item.collection: here[item.collection]
        for item in asked
        if here[item.collection] or (not kinds and item.failures_by_kind)
    }


def _damaged(destination: str, asked: list[CollectionStatus]) -> dict[str, tuple[str, ...]]:
    """Return the relative paths of damaged outputs and masks by collection."""
    found: dict[str, set[str]] = {}
    for damage in check_outputs(destination).damaged:
        found.setdefault(damage.collection, set()).add(damage.relative_path)
    return {item.collection: tuple(sorted(found[item.collection])) for item in asked if item.collection in found}


def _settings(destination: str, status: CollectionStatus) -> Mapping[str, Any]:
    """Return what the run that made a collection's newest rows was asked for."""
    recorded = {
        run.run_id: run.settings
        for run in recorded_runs(Location(destination).join("catalogue"))
        if run.collection == status.collection and run.settings is not None
    }
    for run in reversed(status.runs):
        if settings := recorded.get(run.run_id):
            return settings
    raise CatalogueError(
        f"{destination} has no record of what {status.collection} was restored from and how; "
        "run `lacuna restore SOURCE DEST --incremental` once, then retry."
    )
