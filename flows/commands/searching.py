"""`lacuna search`: try a grid of hyperparameters on a recipe and print the table, best first."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from flows import prefect_settings
from flows.commands.console import EXIT_OK, EXIT_SOME_FAILED, print_json
from flows.engine import start_engine

if TYPE_CHECKING:
    from models.training.log import Progress as LogLine


def run(
    recipe: str,
    *,
    tried: list[str],
    data: list[Path],
    out: Path,
    start_from: Path | None,
    steps: int | None,
    minutes: float | None,
    device: str | None,
    as_json: bool,
) -> int:
    """Search, print what came of it, and return the exit code: failed when a candidate could not be trained."""
    from models.training.recipes import get_recipe
    from models.training.search import candidates, parse_grid

    prefect_settings.quieten()
    grid = parse_grid(tried)
    count = len(candidates(get_recipe(recipe), grid))
    console = Console(stderr=True)
    start_engine()
    with nullcontext() if as_json else console.status("Starting…"):
        from flows.search import search
        from flows.train import listen

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn())
    bar = Progress(*columns, console=console, disable=as_json)
    task = bar.add_task(f"{count} candidates", total=None, state="")
    done = 0

    def hear(line: LogLine) -> None:
        nonlocal done
        state = f"candidate {done + 1}: {line.step}/{line.steps}, loss {line.loss:.4f}"
        bar.update(task, completed=done * line.steps + line.step, total=count * line.steps, state=state)
        done += line.step == line.steps

    stop = listen(hear)
    try:
        with bar:
            summary = search(
                recipe,
                grid,
                [str(folder) for folder in data],
                str(out),
                steps=steps,
                start_from=None if start_from is None else str(start_from),
                minutes=minutes,
                device=device,
            )
    finally:
        stop()
    if as_json:
        print_json(asdict(summary))
    else:
        table = Table("candidate", "validation PSNR dB", "loss", "steps", "seconds", title=f"{recipe}, best first")
        for row in summary.rows:
            psnr = row["error"] or ("-" if row["validation_psnr_db"] is None else f"{row['validation_psnr_db']:.2f}")
            loss, seconds = (row[name] for name in ("loss", "seconds"))
            table.add_row(
                row["candidate"],
                psnr,
                "-" if loss is None else f"{loss:.5f}",
                f"{row['steps']:,}",
                "-" if seconds is None else f"{seconds:,.0f}",
            )
        console.print(table)
        console.print(f"table: {summary.results}, curves: {summary.plot}")
        if summary.unfinished:
            console.print(f"{summary.unfinished} candidates are not done: the same command goes on with them")
    return EXIT_SOME_FAILED if any(row["error"] for row in summary.rows) else EXIT_OK
