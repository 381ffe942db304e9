"""`lacuna dataset`: arguments and help. Heavy imports wait until needed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from flows.commands.console import friendly_errors, strengths
from flows.commands.interrupting import ended_by_interrupt
from flows.commands.options import (
    BudgetOption,
    ColourOption,
    DeviceOption,
    FillOption,
    JsonOption,
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
from models.types import DEFAULT_POLICY

dataset_app = typer.Typer()

EXIT_CODES = (
    "Exit codes: 0 = all fine (samples left untouched or marked for review are fine); 1 = some samples failed, the "
    "others are done; 2 = wrong usage, or nothing could be done; 3 = all fine, but the time was over: the next run "
    "goes on; 130 = stopped by Ctrl-C."
)


class Layout(StrEnum):
    """How the results lie at DEST."""

    tar = "tar"
    folder = "folder"


class Input(StrEnum):
    """What SOURCE is; auto looks."""

    auto = "auto"
    images = "images"
    tar = "tar"
    parquet = "parquet"


class Format(StrEnum):
    """Format of the results; keep = that of every picture, with its metadata."""

    keep = "keep"
    png = "png"
    webp = "webp"
    jpeg = "jpeg"


@dataset_app.command(epilog=EXIT_CODES)
def dataset(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder or prefix of pictures or .tar shards, a pattern such as 's3://b/train-{000..099}.tar', or a "
            ".parquet list.",
        ),
    ],
    destination: Annotated[str, typer.Argument(metavar="DEST", help="Folder or URL for results, outside the source.")],
    layout: Annotated[Layout, typer.Option("--layout", help="tar: WebDataset shards; folder: files.")] = Layout.tar,
    shard_size: Annotated[int, typer.Option("--shard-size", min=1, help="Samples of one output shard.")] = 1000,
    output_format: Annotated[Format, typer.Option("--format", help="Format of the results.")] = Format.keep,
    quality: Annotated[
        int | None, typer.Option("--quality", min=1, max=100, help="Of --format jpeg or webp; 95 if not given.")
    ] = None,
    input_kind: Annotated[Input, typer.Option("--input", help="What SOURCE is, where looking is not enough.")] = (
        Input.auto
    ),
    column: Annotated[
        str | None, typer.Option("--column", metavar="NAME", help="Column of paths or URLs in a .parquet list.")
    ] = None,
    member: Annotated[
        str | None, typer.Option("--member", metavar="EXT", help="Which member of a tar sample is the picture.")
    ] = None,
    fill: FillOption = "fill",
    scratch_threshold: ScratchThresholdOption = None,
    strength: StrengthOption = None,
    upscale: UpscaleOption = None,
    correct_colour: ColourOption = False,
    thorough: ThoroughOption = False,
    budget: BudgetOption = None,
    policy: PolicyOption = DEFAULT_POLICY,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.auto,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Output shards in progress at once.")] = 2,
    seed: SeedOption = 0,
    until: UntilOption = None,
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the workflow engine's own messages.")] = False,
) -> None:
    """Restore a data set of any size into tar shards or files, with one Parquet row per sample; see docs/datasets.md.

    The same input gives the same bytes. Running it again makes only the shards that are missing or damaged.
    """
    with ended_by_interrupt(), friendly_errors(verbose=verbose):
        from flows.commands import dataset_running
        from tasks.datasets.jobs import DatasetOptions
        from tasks.jobs import RestoreOptions

        options = DatasetOptions(
            layout=layout.value,
            shard_size=shard_size,
            format=output_format.value,
            quality=quality,
            input=input_kind.value,
            column=column,
            member=member,
            restore=RestoreOptions(
                allow_colour=correct_colour,
                thorough=thorough,
                budget_gmac=budget,
                policy=policy,
                fill_method=fill,
                scratch_threshold=scratch_threshold,
                strengths=strengths(strength, upscale=upscale),
                device=device,
                precision=precision.value,
                seed=seed,
                workers=workers,
                write_report=False,
                stop_at=until,
            ),
        )
        code = dataset_running.run(source, destination, options=options, as_json=as_json, verbose=verbose)
    raise typer.Exit(code)
