"""The `lacuna` command. Heavy imports wait until a command needs them, so that `--help` answers at once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.benchmark import benchmark_app
from flows.commands.console import absolute, friendly_errors, strengths
from flows.commands.dataset import dataset_app
from flows.commands.interrupting import ended_by_interrupt
from flows.commands.listening import listening_app
from flows.commands.options import (
    BudgetOption,
    ColourOption,
    DeviceOption,
    FillOption,
    FitIterationsOption,
    JsonOption,
    MasksOption,
    PolicyOption,
    Precision,
    PrecisionOption,
    ScratchThresholdOption,
    SeedOption,
    StrengthOption,
    ThoroughOption,
    UntilOption,
    UpscaleOption,
)
from flows.commands.upkeep import upkeep_app
from models.types import DEFAULT_POLICY

_EXIT_CODES = (
    "Exit codes: 0 = all fine (pictures left untouched or marked for review are fine); 1 = some images failed or were "
    "quarantined, the others are done; 2 = wrong usage, or nothing could be done; 3 = all fine, but the time was over: "
    "the next run goes on; 130 = stopped by Ctrl-C: the same command goes on."
)

app = typer.Typer(
    name="lacuna",
    help="Restores whole archives of damaged pictures and records every decision.\n\n" + _EXIT_CODES,
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(benchmark_app, name="benchmark")
app.add_typer(dataset_app)
app.add_typer(upkeep_app)
app.add_typer(listening_app)


class Runner(StrEnum):
    """What computes: threads of this process, or worker processes, here or on other machines."""

    threads = "threads"
    dask = "dask"


SourceArgument = Annotated[
    str, typer.Argument(metavar="SOURCE", help="Directory, .zip, .tar, .tar.gz, or a URL such as s3://bucket/prefix.")
]


@app.command(epilog=_EXIT_CODES)
def restore(
    source: SourceArgument,
    destination: Annotated[str, typer.Argument(metavar="DEST", help="Folder or URL for results, outside the source.")],
    policy: PolicyOption = DEFAULT_POLICY,
    fill: FillOption = "fill",
    scratch_threshold: ScratchThresholdOption = None,
    masks: MasksOption = None,
    strength: StrengthOption = None,
    upscale: UpscaleOption = None,
    correct_colour: ColourOption = False,
    thorough: ThoroughOption = False,
    budget: BudgetOption = None,
    fit_iterations: FitIterationsOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.auto,
    collection: Annotated[
        str | None, typer.Option(help="Name in the catalogue; the source's own if not given.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Folder of clean originals under the same names, to measure the gain against.")
    ] = None,
    shard_images: Annotated[int, typer.Option(min=1, help="About how many pictures are one unit of work.")] = 32,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Units of work in progress at once; with --runner dask, processes.")
    ] = 2,
    runner: Annotated[
        Runner, typer.Option("--runner", help="threads, or dask: several processes or machines, see docs/workers.md.")
    ] = Runner.threads,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="tcp://HOST:PORT", help="Dask scheduler; none = one started here."),
    ] = None,
    worker_threads: Annotated[
        int | None, typer.Option("--worker-threads", min=1, help="With --runner dask: threads of each process. [1]")
    ] = None,
    seed: SeedOption = 0,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Whether to write the HTML report.")] = True,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Only what is new or changed since the catalogue at DEST; see docs.")
    ] = False,
    until: UntilOption = None,
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the workflow engine's own messages.")] = False,
) -> None:
    """Restore every picture of SOURCE into DEST. Originals are only read; running it again continues it."""
    with ended_by_interrupt(), friendly_errors(verbose=verbose):
        from flows.commands import restoring
        from flows.dask_settings import dask_settings
        from tasks.jobs import RestoreOptions

        options = RestoreOptions(
            collection=collection,
            allow_colour=correct_colour,
            thorough=thorough,
            budget_gmac=budget,
            policy=policy,
            fill_method=fill,
            scratch_threshold=scratch_threshold,
            masks=None if masks is None else absolute(masks),
            strengths=strengths(strength, upscale=upscale),
            fit_iterations=fit_iterations,
            device=device,
            precision=precision.value,
            seed=seed,
            shard_images=shard_images,
            workers=workers,
            reference=None if reference is None else absolute(reference),
            write_report=report,
            incremental=incremental,
            stop_at=until,
        )
        dask = dask_settings(runner.value, address=address, workers=workers, threads=worker_threads)
        code = restoring.run(source, destination, options=options, dask=dask, as_json=as_json, verbose=verbose)
    raise typer.Exit(code)


@app.command(epilog=_EXIT_CODES)
def inspect(
    source: SourceArgument,
    policy: PolicyOption = DEFAULT_POLICY,
    fill: FillOption = "fill",
    scratch_threshold: ScratchThresholdOption = None,
    masks: MasksOption = None,
    strength: StrengthOption = None,
    upscale: UpscaleOption = None,
    correct_colour: ColourOption = False,
    thorough: ThoroughOption = False,
    budget: BudgetOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.auto,
    limit: Annotated[int | None, typer.Option(min=1, help="Look at the first so many files only.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate the damage of every picture and show what `restore` would do. Changes and writes nothing."""
    with friendly_errors():
        from flows.commands import inspecting
        from tasks.jobs import RestoreOptions

        options = RestoreOptions(
            allow_colour=correct_colour,
            thorough=thorough,
            budget_gmac=budget,
            policy=policy,
            fill_method=fill,
            scratch_threshold=scratch_threshold,
            masks=None if masks is None else absolute(masks),
            strengths=strengths(strength, upscale=upscale),
            device=device,
            precision=precision.value,
            write_report=False,
        )
        code = inspecting.run(source, options=options, limit=limit, as_json=as_json)
    raise typer.Exit(code)


@app.command()
def methods(as_json: JsonOption = False) -> None:
    """List the restoration methods: what they are for, where they come from, what they cost."""
    with friendly_errors():
        from flows.commands import listing

        listing.show_methods(as_json=as_json)


@app.command(epilog=_EXIT_CODES)
def catalogue(
    destination: Annotated[str, typer.Argument(metavar="DEST", help="Where `restore` wrote to, or its catalogue.")],
    sql: Annotated[
        str | None, typer.Argument(metavar="SQL", help="Query over images, steps and metrics; a summary if not given.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the result (or all images) to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the catalogue in SQL, or export it as CSV."""
    with friendly_errors():
        from flows.commands import listing

        listing.show_catalogue(destination, sql=sql, csv=csv, as_json=as_json)


@app.command()
def sample(
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="Folder to build it in.")] = Path("sample"),
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other damage.")] = 0,
) -> None:
    """Build the sample archive: damaged pictures of every kind, with their ground truth."""
    with friendly_errors():
        from flows.commands import listing

        listing.build_sample(destination, seed=seed)


@app.command(epilog=_EXIT_CODES)
def train(
    data: Annotated[list[Path], typer.Option("--data", help="Folder of clean photographs; may be repeated.")],
    out: Annotated[Path, typer.Option("--out", help="Checkpoints, log and curve; without RECIPE in OUT/<recipe>.")],
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE", help="Which weight; the first below its target, not done in OUT, if not given."
        ),
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--start-from",
            help="Run or file of weights that it begins with; shipped ones if not given, 'none' for none.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's number of steps.")] = None,
    peak_lr: Annotated[
        float | None, typer.Option("--peak-lr", min=1e-7, help="Instead of the recipe's peak learning rate.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Stop, checkpointed, after so many minutes.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda; cuda where there is one.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop for good after so many validations without a better one.")
    ] = None,
    validate_on: Annotated[
        list[Path] | None,
        typer.Option(
            "--validate-on",
            metavar="DIR",
            help="Follow the PSNR on this folder of clean pictures, degraded as in training, too; repeat for more.",
        ),
    ] = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write the finished weights and their card into this folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a weight on photographs. Stopped or killed at any moment, the same command goes on where it was."""
    with friendly_errors():
        from flows.commands import training

        code = training.run(
            recipe,
            data=data,
            out=out,
            start_from=start_from,
            steps=steps,
            peak_lr=peak_lr,
            minutes=minutes,
            device=device,
            patience=patience,
            validate_on=validate_on or [],
            weights_folder=export,
            as_json=as_json,
        )
    raise typer.Exit(code)


@app.command(epilog=_EXIT_CODES)
def search(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Whose hyperparameters to search.")],
    tried: Annotated[
        list[str],
        typer.Option("--try", metavar="NAME=VALUE,…", help="Values of a field to try; all combinations if repeated."),
    ],
    data: Annotated[list[Path], typer.Option("--data", help="Folder of clean photographs; may be repeated.")],
    out: Annotated[Path, typer.Option("--out", help="Runs, table and curves; gone on from when present.")],
    start_from: Annotated[
        Path | None,
        typer.Option("--start-from", help="Checkpoint folder, or file of weights, that every candidate starts from."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of each, instead of the recipe's number.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Of each in this call; the next goes on.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda; cuda where there is one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Try every combination of hyperparameters on a recipe, each in a short training, and rank them."""
    with friendly_errors():
        from flows.commands import searching

        code = searching.run(
            recipe,
            tried=tried,
            data=data,
            out=out,
            start_from=start_from,
            steps=steps,
            minutes=minutes,
            device=device,
            as_json=as_json,
        )
    raise typer.Exit(code)


def main() -> None:
    """Entry point of the `lacuna` command."""
    app()


if __name__ == "__main__":
    main()
