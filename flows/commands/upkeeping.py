"""`lacuna nightly`, `status`, `verify` and `clean`: the work behind the arguments."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from flows import prefect_settings
from flows.commands.console import EXIT_NOTHING_DONE, EXIT_OK, EXIT_SOME_FAILED, EXIT_TIME_OVER, print_json
from flows.deadline import parse_stop
from flows.engine import start_engine
from flows.nightly_file import choose_collections, read_nightly_file
from models.types import to_json
from storage.catalogue_status import CollectionStatus, collection_statuses
from storage.fixity import check_outputs
from storage.leftovers import Leftover, find_leftovers, remove_leftover

if TYPE_CHECKING:
    from flows.nightly import CollectionOutcome

_SHOWN = 20


def nightly(
    file: Path, *, collections: list[str] | None = None, until: str | None, as_json: bool, verbose: bool
) -> int:
    """Run the night of `file` or of some of its collections, print what became of each, and return the exit code."""
    # What is wrong in it is said before anything is started.
    choose_collections(read_nightly_file(file), collections or None)
    if until is not None:
        parse_stop(until)
    if not verbose:
        prefect_settings.quieten()
    start_engine()
    with nullcontext() if as_json else Console(stderr=True).status("Restoring what is new…"):
        from flows.nightly import NightlyError
        from flows.nightly import nightly as night

        try:
            outcomes = night(str(file.absolute()), stop_at=until, collections=collections or None)
        except NightlyError as error:
            outcomes = error.outcomes
    if as_json:
        print_json(
            [
                {
                    "collection": item.collection,
                    "said": item.sentence,
                    "error": item.error,
                    "summary": to_json(item.summary),
                }
                for item in outcomes
            ]
        )
    else:
        for item in outcomes:
            mark = "FAILED " if item.error is not None else ""
            print(f"{item.collection}: {mark}{item.sentence}")
    return nightly_exit_code(outcomes)


def nightly_exit_code(outcomes: list[CollectionOutcome]) -> int:
    """Return 0, 1 when images or collections failed, 2 when every collection did, 3 when the time was over before."""
    from flows.commands.restoring import exit_code

    if all(item.error is not None and item.summary is None for item in outcomes):
        return EXIT_NOTHING_DONE
    codes = [EXIT_TIME_OVER if item.summary is None else exit_code(item.summary) for item in outcomes if not item.error]
    if any(item.error is not None for item in outcomes) or {EXIT_SOME_FAILED, EXIT_NOTHING_DONE} & set(codes):
        return EXIT_SOME_FAILED
    return max(codes, default=EXIT_OK)


def status(destination: str, *, as_json: bool) -> None:
    """Print what the catalogue says of every collection; raises CatalogueError when there is none."""
    found = collection_statuses(destination)
    if as_json:
        print_json([asdict(item) for item in found])
        return
    for item in found:
        _print_status(item)


def verify(destination: str, *, as_json: bool) -> int:
    """Check every output, print what is damaged, and return 0, or 1 when anything is."""
    with Progress(console=Console(stderr=True), disable=as_json, transient=True) as bar:
        task = bar.add_task("Reading outputs", total=None)
        report = check_outputs(destination, progress=lambda done, total: bar.update(task, completed=done, total=total))
    if as_json:
        print_json(asdict(report))
    else:
        for damage in report.damaged:
            print(f"{damage.path}: {damage.problem}: {damage.text}")
        print(f"{report.intact} of {report.checked} outputs and masks are as they were written")
        if report.damaged:
            print("`lacuna retry DEST --damaged` writes them again from the originals")
        if report.unrecorded:
            print(f"{report.unrecorded} files beside them are in no row of the catalogue; they were not looked at")
    return EXIT_SOME_FAILED if report.damaged else EXIT_OK


def clean(destination: str, *, delete: bool, older_than_hours: float, as_json: bool) -> None:
    """List what killed runs left, and remove it if so asked."""
    found = list(find_leftovers(destination, older_than_seconds=3600 * older_than_hours))
    for leftover in found if delete else ():
        remove_leftover(destination, leftover)
    if as_json:
        print_json({"destination": destination, "removed": delete, "leftovers": [asdict(item) for item in found]})
        return
    for leftover in found:
        print(_line(leftover))
    what = f"{len(found)} leftovers not changed for {older_than_hours:g} hours"
    if not found:
        print(f"nothing to clean: no {what.split(' ', 1)[1]}")
    else:
        print(f"{what} removed" if delete else f"{what}; add --delete to remove them")


def _line(leftover: Leftover) -> str:
    size = "unfinished upload" if leftover.bytes is None else f"{leftover.bytes:,} bytes"
    return f"{leftover.modified:%Y-%m-%d %H:%M} {leftover.path} ({size})"


def _print_status(found: CollectionStatus) -> None:
    table = Table(title=f"{found.collection}: {found.images} images", show_header=False, title_justify="left")
    for name, count in found.by_status.items():
        table.add_row(name, str(count))
    if found.source_missing:
        table.add_row("source missing", str(found.source_missing))
    for kind, count in list(found.failures_by_kind.items())[:_SHOWN]:
        table.add_row(f"  {kind}", str(count))
    for run in found.runs:
        finished = "" if run.finished_at is None else f", last at {run.finished_at:%Y-%m-%d %H:%M} UTC"
        table.add_row(f"run {run.run_id}", f"{run.images} images{finished}")
    table.add_row("last run", "left no record" if found.last_run is None else _last_run(found.last_run))
    Console().print(table)


def _last_run(said: Mapping[str, Any]) -> str:
    counts = ", ".join(
        f"{said[name]} {label}"
        for name, label in (
            ("restored", "restored"),
            ("untouched", "untouched"),
            ("review", "for review"),
            ("quarantined", "quarantined"),
            ("failed", "failed"),
            ("remaining", "remaining"),
        )
        if said.get(name)
    )
    return f"{said['kind']}, ended {said['finished_at']}: {counts or 'no image to restore'}"
