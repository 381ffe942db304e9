"""`lacuna restore`: run the flow with a progress bar, then say what became of the archive."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from flows import prefect_settings
from flows.commands.console import BEGUN, EXIT_NOTHING_DONE, EXIT_OK, EXIT_SOME_FAILED, EXIT_TIME_OVER, print_json
from flows.dask_settings import DaskSettings
from flows.engine import start_engine
from flows.home import lacuna_home
from flows.run_options import check_methods
from flows.run_summary import BrokenShardsError, RunSummary
from models.types import to_json
from storage.catalogue import query
from storage.errors import IngestError
from storage.locations import Location
from storage.outputs import check_destination, check_writable
from storage.patience import patience
from storage.room import check_room
from tasks.jobs import RestoreOptions
from tasks.progress import FitNews, listening

# How much of an image's work each stage is, roughly; the bar moves by it until the image's shard is done.
_SHARES = {"ingest": 0.05, "detect": 0.15, "estimate": 0.1, "restore": 0.6, "measure": 0.1}
_SHOWN_FAILURES = 10
_LONGEST_NAME = 30
# Who typed the command waits; a run that has begun is more patient.
_FIRST_LOOK_SECONDS = 12.0
# A picture this close to its reference is not damaged: it is the reference, saved once more.
_AS_GOOD_AS_CLEAN_DB = 40


def run(
    source: str, destination: str, *, options: RestoreOptions, dask: DaskSettings | None, as_json: bool, verbose: bool
) -> int:
    """Restore `source` into `destination`, print the outcome, and return the exit code."""
    if not verbose:
        # Every failure ends as a row and in the summary; the engine would print each with a traceback as well.
        prefect_settings.quieten()
    start_engine()
    _check_places(source, destination, untouched=options.incremental)
    console = Console(stderr=True)
    with nullcontext() if as_json else console.status("Starting…"):
        from flows.restore_archive import restore_archive

        check_methods(options)
    bar = ArchiveProgress(console, visible=not as_json)
    try:
        with bar, listening(bar.hear, fits=bar.hear_fit):
            summary = restore_archive(source, destination, options, dask)
    except BrokenShardsError as error:
        summary = error.summary
    came_through = summary.restored + summary.untouched + summary.review
    measured = options.reference is not None and came_through > 0 and not summary.store_gone
    gain = mean_gain(summary) if measured else None
    if as_json:
        psnr = None if gain is None else {"before": gain[0], "after": gain[1]}
        print_json({**to_json(summary), "mean_psnr_db": psnr, "first_image_seconds": bar.first_image_seconds})
    else:
        print_summary(summary, gain=gain, first_image_seconds=bar.first_image_seconds)
    return exit_code(summary)


def exit_code(summary: RunSummary) -> int:
    """Return 0 when every image came through, 1 when some did not, 2 when none did, 3 when the time was over before."""
    lost = summary.failed + summary.quarantined
    if lost == 0:
        return EXIT_TIME_OVER if summary.remaining or summary.unread else EXIT_OK
    return EXIT_SOME_FAILED if lost < summary.images + summary.unchanged else EXIT_NOTHING_DONE


def mean_gain(summary: RunSummary) -> tuple[float, float] | None:
    """Return the mean PSNR in dB of the damaged pictures against the reference, (before, after); None without any."""
    run_id, collection = (value.replace("'", "''") for value in (summary.run_id, summary.collection))
    rows = query(
        Location(summary.catalogue_uri),
        "SELECT avg(b.value) AS before, avg(a.value) AS after FROM metrics b JOIN metrics a "
        "USING (run_id, collection, relative_path, image_id, metric) "
        "WHERE metric = 'psnr_db' AND b.stage = 'before' AND a.stage = 'after' "
        f"AND b.value < {_AS_GOOD_AS_CLEAN_DB} AND run_id = '{run_id}' AND collection = '{collection}'",
    ).to_pylist()
    before, after = rows[0]["before"], rows[0]["after"]
    return None if before is None else (float(before), float(after))


class ArchiveProgress:
    """A progress bar over the files of an archive, fed by `tasks.progress`; hidden, it only counts.

    first_image_seconds: from the start of the command until the first picture was through; None = none was.
    """

    def __init__(self, console: Console, *, visible: bool) -> None:
        columns: tuple[str | ProgressColumn, ...] = (
            TextColumn("{task.description}", markup=False),  # it may have the name of a file
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} files"),
            _Rate(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, disable=not visible or not console.is_terminal)
        self._task = self._bar.add_task("Restoring", total=None, visible=False)
        self._done = 0.0
        self._partly: dict[str, float] = {}
        self.first_image_seconds: float | None = None

    def __enter__(self) -> ArchiveProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def hear(self, event: str, count: int, shard: str) -> None:
        """Take in one announcement of the stages."""
        if event == "found":
            self._bar.update(self._task, total=count, visible=True)
            self._bar.reset(self._task, total=count, visible=True)
            return
        if event in ("restore", "done") and self.first_image_seconds is None:
            self.first_image_seconds = round(time.monotonic() - BEGUN, 1)
        if event == "done":
            self._partly.pop(shard, None)
            self._done += count
        else:
            self._partly[shard] = self._partly.get(shard, 0.0) + _SHARES.get(event, 0.0) * count
        self._bar.update(self._task, completed=self._done + sum(self._partly.values()))

    def hear_fit(self, news: FitNews) -> None:
        """Say how far the fit of a picture is, which may take minutes in which no file is done."""
        number = f" {news.fit}:" if news.fit > 1 else ""
        said = f"Restoring: fit{number} {news.iteration}/{news.iterations} of {_shortened(news.what)}"
        self._bar.update(self._task, description="Restoring" if news.last else said)


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"…{name[-_LONGEST_NAME + 1 :]}"


class _Rate(ProgressColumn):
    """Files per second since the bar began to move."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.2g} images/s")


def _check_places(source: str, destination: str, *, untouched: bool) -> None:
    """Raise StorageError or OSError before anything is started when source or destination cannot be used.

    untouched: only try to write there once there is something to write, which the flow does.
    """
    check_room(lacuna_home())
    with patience().hurried(_FIRST_LOOK_SECONDS):
        if not Location(source).exists():
            raise IngestError(
                "missing", f"There is no {source}; expected a directory, .zip, .tar, .tar.gz or s3:// URL."
            )
        target = Location(destination)
        check_destination(source, target)
        if untouched:
            target.exists()
        else:
            check_writable(destination)


def _print_what_is_left(summary: RunSummary, console: Console) -> None:
    left = f"{summary.remaining} images remain to be restored and {summary.unread} to be compared"
    if summary.store_gone is not None:  # one sentence for all of them
        text = f"{summary.store_gone} {len(summary.broken_shards)} shards ended without rows; {left}: run again"
        console.print(f"  {text}", markup=False, highlight=False)
        return
    if summary.remaining or summary.unread:
        console.print(f"  the time is over: {left}; the next run goes on with them")
    for shard, error in summary.broken_shards:
        console.print(f"  shard {shard} ended without rows: {error}; run again", markup=False, highlight=False)


def print_summary(
    summary: RunSummary, *, gain: tuple[float, float] | None = None, first_image_seconds: float | None = None
) -> None:
    """Print what became of a run as a table, with its first failures and where everything lies."""
    console = Console()
    if summary.nothing_to_do:
        print(f"{summary.collection}: {summary.nothing_to_do}")
        return
    table = Table(title=f"{summary.collection}: {summary.images} images", show_header=False, title_justify="left")
    rows: list[tuple[str, Any]] = [
        ("restored", summary.restored),
        ("untouched", summary.untouched),
        ("for review", summary.review),
        ("quarantined", summary.quarantined),
        ("failed", summary.failed),
        ("seconds", f"{summary.seconds:.1f}"),
        ("images/s", f"{summary.images_per_second:.2f}"),
        ("device", f"{summary.device}, {summary.precision}"),
    ]
    if first_image_seconds is not None:
        rows.append(("first image after", f"{first_image_seconds:.1f} s"))
    if summary.incremental:
        rows[:0] = [("new", summary.new), ("changed", summary.changed), ("unchanged", summary.unchanged)]
        rows[3:3] = [("newly missing in the source", summary.source_missing)]
    if gain is not None:
        rows.append(("mean PSNR of damaged", f"{gain[0]:.2f} → {gain[1]:.2f} dB ({gain[1] - gain[0]:+.2f})"))
    for name, value in rows:
        table.add_row(name, str(value))
    console.print(table)
    for path, kind, text in summary.failures[:_SHOWN_FAILURES]:
        console.print(f"  {path}: {kind}: {text}", markup=False, highlight=False)
    if len(summary.failures) > _SHOWN_FAILURES:
        console.print(f"  … and {len(summary.failures) - _SHOWN_FAILURES} more, see the report")
    _print_what_is_left(summary, console)
    places = [("images", Location(summary.destination).join("images").uri), ("catalogue", summary.catalogue_uri)]
    places += [("report", summary.report_uri)] if summary.report_uri is not None else []
    for name, uri in places:
        # Not wrapped by rich, so that the path can be copied from a narrow terminal.
        print(f"{name + ':':<11}{uri.removeprefix('file://')}")
