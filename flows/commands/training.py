"""`lacuna train`: train a weight with a progress bar, go on where it stopped, export it when it is done."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from flows import prefect_settings
from flows.commands.console import EXIT_OK, print_json
from flows.engine import start_engine

if TYPE_CHECKING:
    from models.training.log import Progress as LogLine


def choose_recipe(recipe: str | None) -> str:
    """Return the recipe asked for, or the first of the backlog that is below its target.

    Raises ValueError for an unknown recipe, and when none is asked for and all targets are met.
    """
    from models.training.backlog import next_need
    from models.training.recipes import get_recipe

    if recipe is not None:
        return get_recipe(recipe).id
    need = next_need()
    if need is None or need.recipe is None:
        raise ValueError("train: every weight of the backlog meets its targets; name a recipe to train it further")
    return need.recipe


def run(
    recipe: str | None,
    *,
    data: list[Path],
    out: Path,
    start_from: Path | None,
    steps: int | None,
    peak_lr: float | None,
    minutes: float | None,
    device: str | None,
    patience: int | None,
    weights_folder: Path | None,
    as_json: bool,
) -> int:
    """Train, print what came of it, and return the exit code."""
    prefect_settings.quieten()
    console = Console(stderr=True)
    recipe_id = choose_recipe(recipe)
    start_engine()
    with nullcontext() if as_json else console.status("Starting…"):
        from flows.train import listen, train

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn())
    bar = Progress(*columns, console=console, disable=as_json)
    task = bar.add_task(recipe_id, total=None, state="")

    def hear(line: LogLine) -> None:
        psnr = "" if line.validation_psnr_db is None else f", {line.validation_psnr_db:.2f} dB"
        bar.update(
            task, completed=line.step, total=line.steps, state=f"{line.step}/{line.steps}, loss {line.loss:.4f}{psnr}"
        )

    stop = listen(hear)
    try:
        with bar:
            summary = train(
                recipe_id,
                [str(folder) for folder in data],
                str(out),
                start_from=None if start_from is None else str(start_from),
                steps=steps,
                peak_lr=peak_lr,
                minutes=minutes,
                device=device,
                patience=patience,
                weights_folder=None if weights_folder is None else str(weights_folder),
            )
    finally:
        stop()
    if as_json:
        print_json(asdict(summary))
    else:
        console.print(f"{summary.recipe}: {summary.steps_done} of {summary.steps} steps; checkpoint in {summary.out}")
        if summary.validation_psnr_db is not None:
            console.print(f"validation PSNR {summary.validation_psnr_db:.2f} dB; curve: {summary.out}/curve.svg")
        if summary.exported is not None:
            console.print(f"weights written, sha256 {summary.exported[:16]}…; measure them with the benchmarks")
        if summary.settled:
            console.print("ended early: validation had stopped rising; the checkpoint is the best one")
        elif summary.steps_done < summary.steps:
            console.print("stopped for now: the same command goes on from here")
    return EXIT_OK
