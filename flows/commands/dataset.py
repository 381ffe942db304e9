"""`lacuna dataset`: arguments and help. Heavy imports wait until needed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from flows.commands.options import JsonOption, UntilOption

dataset_app = typer.Typer()

EXIT_CODES = (
    "Exit codes: 0 = all fine (samples left untouched or marked for review are fine); 1 = some samples failed, the "
    "others are done; 2 = wrong usage, or nothing could be done; 3 = all fine, but the time was over: the next run "
    "goes on."
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
    fill: Annotated[str, typer.Option("--fill", metavar="METHOD", help="How scratches and holes are filled.")] = "fill",
    strength: Annotated[
        list[str] | None,
        typer.Option("--strength", metavar="METHOD=0..1", help="Strength of a method, 0 = never; may be repeated."),
    ] = None,
    upscale: Annotated[
        int | None, typer.Option("--upscale", metavar="2|4", help="Also enlarge every picture so many times.")
    ] = None,
    correct_colour: Annotated[
        bool, typer.Option("--correct-colour", help="Also correct fading and colour casts.")
    ] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str, typer.Option("--precision", help="Inside the networks: auto, float32, bfloat16 or float16.")
    ] = "auto",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Output shards in progress at once.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of methods that draw random numbers.")] = 0,
    until: UntilOption = None,
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the workflow engine's own messages.")] = False,
) -> None:
    """Restore a data set of any size into tar shards or files, with one Parquet row per sample; see docs/datasets.md.

    The same input gives the same bytes. Running it again makes only the shards that are missing or damaged.
    """
    from flows.cli import _friendly_errors, _strengths
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
            fill_method=fill,
            strengths=_strengths(strength, upscale=upscale),
            device=device,
            precision=precision,
            seed=seed,
            workers=workers,
            write_report=False,
            stop_at=until,
        ),
    )
    with _friendly_errors(verbose=verbose):
        code = dataset_running.run(source, destination, options=options, as_json=as_json, verbose=verbose)
    raise typer.Exit(code)
