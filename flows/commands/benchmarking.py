"""What the `lacuna benchmark` commands do: run a flow with a progress bar, and print what came of it."""

from __future__ import annotations

import flows.prefect_settings  # noqa: F401 - it must come before prefect

# isort: split
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from flows.commands.console import EXIT_OK, EXIT_SOME_FAILED, print_json
from flows.engine import start_engine
from models.types import to_json
from tasks.benchmarking.generating import SetOptions
from tasks.benchmarking.scoring import ScoreOptions
from tasks.progress import listening

_SHOWN_FAILURES = 10


def show_suites(*, as_json: bool) -> None:
    """Print the table of suites."""
    from models.benchmarking.published import published_for
    from models.benchmarking.suites import SUITES

    if as_json:
        print_json([{**to_json(suite), "published": to_json(published_for(suite.id))} for suite in SUITES])
        return
    table = Table("suite", "what", "columns", "protocol", "methods", "published")
    for suite in SUITES:
        groups = (
            ", ".join(f"{group.dataset} {group.level}" for group in suite.groups) or "held-back damage, clean pictures"
        )
        protocols = "; ".join(dict.fromkeys(group.protocol.text for group in suite.groups))
        published = ", ".join(dict.fromkeys(row.method for row in published_for(suite.id)))
        table.add_row(suite.id, suite.title, groups, protocols, ", ".join(suite.methods), published)
    Console().print(table)


def show_recipes(*, as_json: bool) -> None:
    """Print the table of recipes."""
    from models.degradations.recipes import get_recipe, recipe_ids

    found = [get_recipe(recipe_id) for recipe_id in recipe_ids()]
    rows = [
        {"id": item.id, "task": item.task, "min_side": item.min_side, "description": item.description} for item in found
    ]
    if as_json:
        print_json(rows)
        return
    table = Table("recipe", "task", "smallest side, px", "what")
    for row in rows:
        table.add_row(str(row["id"]), str(row["task"]), str(row["min_side"]), str(row["description"]))
    Console().print(table)


def generate(
    source: str, destination: str, *, options: SetOptions, limit: int | None, workers: int, as_json: bool
) -> int:
    """Make a degraded set, print what came of it, and return the exit code."""
    from tasks.benchmarking.generating import checked_options

    checked_options(options)
    start_engine()
    from flows.generate_benchmark import generate_benchmark

    with _Bar("Degrading", visible=not as_json) as bar, listening(bar.hear):
        made = generate_benchmark(source, destination, options, limit=limit, workers=workers)
    if as_json:
        print_json(to_json(made))
    else:
        for recipe, speed in made.megapixels_per_second:
            print(f"  {recipe:<28} {speed:8.2f} megapixels a second")
        print(f"samples:   {made.samples}, of which {made.made} made now")
        _print_failures(made.failures)
        print(f"manifest:  {made.manifest_uri.removeprefix('file://')}")
    return EXIT_SOME_FAILED if made.failures else EXIT_OK


def run(
    target: str,
    destination: str,
    *,
    options: ScoreOptions,
    data: str,
    seeds: Sequence[int],
    limit: int | None,
    as_json: bool,
) -> int:
    """Measure a suite or set, print its table, and return the exit code; usage errors are raised before any work."""
    from models.benchmarking.baselines import check_method
    from models.benchmarking.detection import check_detector
    from models.benchmarking.suites import get_suite
    from tasks.benchmarking.cases import is_place

    suite = None if is_place(target) else get_suite(target)
    for name in options.methods:
        (check_detector if suite and suite.detection else check_method)(name)
    if suite and not data:
        raise FileNotFoundError(
            "no data folder: pass --data DIR or set LACUNA_DATA to the folder that holds test/Set5 and the others"
        )
    start_engine()
    if suite and suite.detection:
        return _run_detection(destination, options=options, data=data, limit=limit, as_json=as_json)
    from flows.generate_benchmark import run_benchmark

    with _Bar("Measuring", visible=not as_json) as bar, listening(bar.hear):
        measured = run_benchmark(target, destination, options, data=data, seeds=tuple(seeds), limit=limit)
    if as_json:
        print_json(to_json(measured))
    else:
        _print_board(measured.destination)
        print(f"cells:     {measured.cells}, of which {measured.computed} computed now")
        for name, count in measured.unmeasured:
            print(
                f"  {name}: {count} pictures were not measured as it is now; name it in --methods to have them measured"
            )
        _print_failures(measured.failures)
        print(f"results:   {measured.destination.removeprefix('file://')}")
    return EXIT_SOME_FAILED if measured.failures else EXIT_OK


def _run_detection(destination: str, *, options: ScoreOptions, data: str, limit: int | None, as_json: bool) -> int:
    from flows.generate_benchmark import run_detection
    from storage.locations import Location
    from tasks.benchmarking.detection import HEAD, cells, read_detection

    measured = run_detection(destination, options.methods, data=data, device=options.device, limit=limit)
    if as_json:
        print_json(to_json(measured))
        return EXIT_OK
    for detector, rows in groupby(read_detection(Location(destination)), key=lambda row: row.detector):
        # One table each, names folded: they are to be read whole on a narrow terminal too.
        table = Table(*HEAD[1:], title=f"{measured.suite}: {detector}", title_justify="left")
        table.columns[0].overflow = "fold"
        for row in rows:
            table.add_row(*cells(row)[1:])
        Console().print(table)
    print(f"detectors: {len(measured.methods)}, of which {measured.computed} measured now")
    print(f"results:   {measured.destination.removeprefix('file://')}")
    return EXIT_OK


def leaderboard(destination: str, *, as_json: bool) -> None:
    """Write the leaderboard files and say where they are."""
    from storage.locations import Location
    from tasks.benchmarking.leaderboard import write_leaderboard

    written = write_leaderboard(Location(destination))
    if as_json:
        print_json(
            {"files": list(written.files), "rows": [to_json(row) for board in written.boards for row in board.rows]}
        )
        return
    for uri in written.files:
        print(uri.removeprefix("file://"))


def _print_board(destination: str) -> None:
    from storage.benchmark_cells import CellStore
    from storage.locations import Location
    from tasks.benchmarking.tables import build_board
    from tasks.benchmarking.texts import group_title, number, percent

    board = build_board(*CellStore(Location(destination)).read_tables())
    seconds = {timing.method: timing.seconds_per_megapixel for timing in board.timings}
    console = Console()
    for dataset, level in board.groups:
        table = Table(title=f"{board.suite}: {group_title(dataset, level)}", title_justify="left")
        for head in ("method", "n", "mean PSNR, dB", "worst 5 %", "made worse", "regret", "SSIM", "s/MP"):
            table.add_column(head, justify="left" if head == "method" else "right")
        for row in (row for row in board.rows if (row.dataset, row.level) == (dataset, level)):
            measured = row.kind == "measured"
            table.add_row(
                row.method if measured else f"{row.method} ({row.kind})",
                f"{row.n} of {(row.n or 0) + row.missing}" if row.missing else number(row.n, 0),
                number(row.mean, 2),
                number(row.worst_5_percent, 2),
                percent(row.made_worse),
                number(row.regret, 2),
                number(row.metric("ssim"), 4),
                f"{seconds[row.method]:.3g}" if measured and row.method in seconds else "–",
            )
        console.print(table)


def _print_failures(failures: Sequence[tuple[str, str, str]]) -> None:
    for path, kind, text in failures[:_SHOWN_FAILURES]:
        print(f"  failed:  {path}: {kind}: {text}")
    if len(failures) > _SHOWN_FAILURES:
        print(f"  … and {len(failures) - _SHOWN_FAILURES} more")


class _Bar:
    """A progress bar over pictures or cases, fed by `tasks.progress`."""

    def __init__(self, what: str, *, visible: bool) -> None:
        console = Console(stderr=True)
        columns: tuple[Any, ...] = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, disable=not visible or not console.is_terminal)
        self._task = self._bar.add_task(what, total=1)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def hear(self, event: str, count: int, shard: str) -> None:
        """Take in one announcement of the tasks."""
        if event == "found":
            self._bar.reset(self._task, total=count)
        elif event == "done":
            self._bar.advance(self._task, count)
