"""`lacuna dataset`: run the flow with a counter, then say what became of the data set."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from flows import prefect_settings
from flows.commands.console import EXIT_NOTHING_DONE, EXIT_OK, EXIT_SOME_FAILED, EXIT_TIME_OVER, print_json
from flows.engine import start_engine
from models.types import to_json
from storage.dataset_listing import base_of
from storage.dataset_samples import kind_of
from storage.locations import Location
from storage.outputs import check_destination
from tasks.datasets.jobs import DatasetOptions, check_options
from tasks.progress import listening

if TYPE_CHECKING:
    from flows.dataset_work import DatasetSummary

_SHOWN_FAILURES = 10


def run(source: str, destination: str, *, options: DatasetOptions, as_json: bool, verbose: bool) -> int:
    """Restore a data set, print the outcome, and return the exit code."""
    check_options(options)
    check_destination(base_of(source), Location(destination))
    if options.input == "auto":  # a source that is not there needs no workflow engine to say so
        options = replace(options, input=kind_of(source))
    if not verbose:
        # Every failure ends as a row and in the summary; the engine would print each with a traceback as well.
        prefect_settings.quieten()
    start_engine()
    console = Console(stderr=True)
    with nullcontext() if as_json else console.status("Starting…"):
        from flows.restore_dataset import restore_dataset
    counter = SampleCounter(console, visible=not as_json)
    with counter, listening(counter.hear):
        summary = restore_dataset(source, destination, options)
    if as_json:
        print_json(to_json(summary))
    else:
        print_summary(summary)
    return exit_code(summary)


def exit_code(summary: DatasetSummary) -> int:
    """Return 0 when every sample came through, 1 when some did not, 2 when none did, 3 when the time was over."""
    samples = int(summary.statistics["samples"])
    came = sum(count for status, count in summary.statistics["statuses"].items() if status != "failed")
    if came == samples:
        return EXIT_OK if summary.complete else EXIT_TIME_OVER
    return EXIT_SOME_FAILED if came else EXIT_NOTHING_DONE


class SampleCounter:
    """How many samples are through, fed by `tasks.progress`; how many there will be nobody knows before the end."""

    def __init__(self, console: Console, *, visible: bool) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description} {task.completed:.0f} samples, {task.fields[done]} in finished shards"),
            TimeElapsedColumn(),
            console=console,
            disable=not visible or not console.is_terminal,
        )
        self._task = self._bar.add_task("Restoring", total=None, done=0)
        self._done = 0
        self._estimated: dict[str, int] = {}

    def __enter__(self) -> SampleCounter:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def hear(self, event: str, count: int, shard: str) -> None:
        """Take in one announcement of the stages."""
        if event == "done":
            self._estimated.pop(shard, None)
            self._done += count
        elif event == "restore":
            self._estimated[shard] = self._estimated.get(shard, 0) + count
        else:
            return
        self._bar.update(self._task, completed=self._done + sum(self._estimated.values()), done=self._done)


def print_summary(summary: DatasetSummary) -> None:
    """Print what became of a data set as a table, with its first failures and where everything lies."""
    console, found = Console(), summary.statistics
    table = Table(title=f"{found['samples']} samples in {found['shards']} shards", show_header=False)
    for name, value in _lines(summary):
        table.add_row(name, value)
    console.print(table)
    for source, kind, text in summary.failures[:_SHOWN_FAILURES]:
        console.print(f"  {source}: {kind}: {text}", markup=False, highlight=False)
    failed = found["statuses"].get("failed", 0)
    if failed > _SHOWN_FAILURES:
        console.print(f"  … {failed} in all: look for status = 'failed' in the Parquet rows")
    if found["unavailable"]:
        console.print(f"  {found['unavailable']} samples were unavailable; run again to try their shards again")
    for shard, error in summary.broken_shards:
        console.print(f"  shard {shard} was not made: {error}; run again", markup=False, highlight=False)
    if not summary.complete:
        why = "it ended early" if summary.broken_shards else "the time is over"
        console.print(f"  {why}; the next run goes on with the shards that are missing")
    places = {"tar": "shards/*.tar", "folder": "images"}
    for name, place in (("results", places[summary.layout]), ("rows", "samples/*.parquet")):
        print(f"{name + ':':<12}{f'{summary.destination}/{place}'.removeprefix('file://')}")
    print(f"{'statistics:':<12}{summary.statistics_uri.removeprefix('file://')}")


def _lines(summary: DatasetSummary) -> list[tuple[str, str]]:
    found = summary.statistics
    lines = [(status, str(count)) for status, count in found["statuses"].items()]
    lines += [(f"method {method}", str(count)) for method, count in found["methods"].items()]
    lines += [(f"error {kind}", str(count)) for kind, count in found["errors"].items()]
    lines += [(f"mean {name}", f"{value:.4g}") for name, value in found["mean_estimates"].items() if value is not None]
    lines.append(("read → written", f"{_bytes(found['source_bytes'])} → {_bytes(found['output_bytes'])}"))
    lines.append(("made now, kept", f"{found['made_shards']} shards, {found['kept_shards']} shards"))
    lines.append(("seconds", f"{found['seconds']:.1f}"))
    for name in ("images_per_second", "megapixels_per_second"):
        if found[name] is not None:
            lines.append((name.replace("_per_second", "/s"), f"{found[name]:.2f}"))
    return [*lines, ("device", f"{summary.device}, {summary.precision}")]


def _bytes(count: Any) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
