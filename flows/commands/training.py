"""`lacuna train`: train a weight with a progress bar, go on where it stopped, export it when it is done."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from flows import prefect_settings
from flows.commands.console import EXIT_OK, print_json
from flows.engine import start_engine

if TYPE_CHECKING:
    from models.training.log import Progress as LogLine


@dataclass(frozen=True, slots=True)
class Choice:
    """A recipe, the folder of its run, and what it begins with: folder or file of weights, None = from scratch."""

    recipe: str
    out: Path
    start_from: Path | None


def choose(
    recipe: str | None, *, out: Path, start_from: Path | None, steps: int | None, patience: int | None
) -> Choice:
    """Return the training asked for; without a recipe, the first of the backlog below its target, in OUT/<recipe>.

    One whose run there is finished is passed over: what it reached is not known before it is measured. It goes on from
    its own shipped weights. Raises ValueError for an unknown recipe, and when none is asked for and none is left.
    """
    from models.training.backlog import needs_to_train
    from models.training.first_weights import first_weights
    from models.training.recipes import get_recipe
    from models.training.run import is_finished

    if recipe is not None:
        return Choice(recipe, out, first_weights(get_recipe(recipe), given=start_from, out=out))
    missed = needs_to_train()
    for need in missed:
        wanted = get_recipe(str(need.recipe))
        folder = out / wanted.id
        if not is_finished(wanted, folder, steps=steps, patience=patience):
            return Choice(wanted.id, folder, first_weights(wanted, given=start_from, out=folder, its_own=True))
    if not missed:
        raise ValueError("train: every weight of the backlog meets its targets; name a recipe to train it further")
    raise ValueError(
        f"train: got {out}, in which every recipe below its target has a finished run; export and measure them, give "
        "more --steps or another --out, or name a recipe"
    )


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
    validate_on: list[Path],
    weights_folder: Path | None,
    as_json: bool,
) -> int:
    """Train, print what came of it, and return the exit code."""
    from models.training.first_weights import SCRATCH, describe

    prefect_settings.quieten()
    console = Console(stderr=True)
    chosen = choose(recipe, out=out, start_from=start_from, steps=steps, patience=patience)
    # To the errors' stream: nobody should learn afterwards that a run began from nothing.
    console.print(f"{chosen.recipe}: {describe(chosen.start_from, out=chosen.out)}", soft_wrap=True)
    start_engine()
    with nullcontext() if as_json else console.status("Starting…"):
        from flows.train import listen, train

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn())
    bar = Progress(*columns, console=console, disable=as_json)
    task = bar.add_task(chosen.recipe, total=None, state="")

    def hear(line: LogLine) -> None:
        psnr = "" if line.validation_psnr_db is None else f", {line.validation_psnr_db:.2f} dB"
        bar.update(
            task, completed=line.step, total=line.steps, state=f"{line.step}/{line.steps}, loss {line.loss:.4f}{psnr}"
        )

    stop = listen(hear)
    try:
        with bar:
            summary = train(
                chosen.recipe,
                [str(folder) for folder in data],
                str(chosen.out),
                start_from=SCRATCH if chosen.start_from is None else str(chosen.start_from),
                steps=steps,
                peak_lr=peak_lr,
                minutes=minutes,
                device=device,
                patience=patience,
                validate_on=[str(folder) for folder in validate_on],
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
        for name, psnr in summary.named_psnr_db.items():
            console.print(f"{name}: {psnr:.2f} dB")
        if summary.exported is not None:
            console.print(f"weights written, sha256 {summary.exported[:16]}…; measure them with the benchmarks")
        if summary.settled:
            console.print("ended early: validation had stopped rising; the checkpoint is the best one")
        elif summary.steps_done < summary.steps:
            console.print("stopped for now: the same command goes on from here")
    return EXIT_OK
