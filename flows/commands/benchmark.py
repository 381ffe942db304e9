"""`lacuna benchmark …`: arguments and help. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.console import absolute, friendly_errors
from flows.commands.interrupting import ended_by_interrupt
from flows.commands.options import JsonOption

benchmark_app = typer.Typer(
    help="Make seeded degraded sets, measure methods on them or on standard suites, and print a fair table.",
    no_args_is_help=True,
)

DestinationOption = Annotated[
    str, typer.Option("--destination", metavar="DIR|s3://", help="Folder or URL for what is made.")
]
DataOption = Annotated[
    str | None, typer.Option("--data", metavar="DIR|s3://", help="Folder of the standard sets; else LACUNA_DATA.")
]
SeedsOption = Annotated[str, typer.Option("--seeds", metavar="0,1,…", help="Seeds of the degradations.")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many pictures of each set.")]


@benchmark_app.command()
def suites(as_json: JsonOption = False) -> None:
    """List the suites: what each measures, on which pictures, by which protocol."""
    with friendly_errors():
        from flows.commands import benchmarking

        benchmarking.show_suites(as_json=as_json)


@benchmark_app.command()
def recipes(as_json: JsonOption = False) -> None:
    """List the degradation recipes that `generate` takes."""
    with friendly_errors():
        from flows.commands import benchmarking

        benchmarking.show_recipes(as_json=as_json)


@benchmark_app.command()
def generate(
    source: Annotated[
        str, typer.Option("--source", metavar="DIR|s3://|skimage", help="Clean pictures; skimage = scikit-image's own.")
    ],
    recipe: Annotated[
        str, typer.Option("--recipes", metavar="a,b,…", help="Recipes, such as awgn/25,jpeg/10,old-photo/mixed.")
    ],
    destination: DestinationOption,
    seeds: SeedsOption = "0",
    layout: Annotated[str, typer.Option("--format", help="png: a folder of files; webdataset: tar shards.")] = "png",
    limit: LimitOption = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=16, help="Units of work at once.")] = 2,
    as_json: JsonOption = False,
) -> None:
    """Degrade clean pictures by recipes and seeds, with a Parquet manifest. Running it again changes nothing."""
    with friendly_errors():
        from flows.commands import benchmarking
        from tasks.benchmarking.generating import SetOptions

        options = SetOptions(recipes=_names(recipe), seeds=_numbers(seeds), format=layout)
        place = source if source == "skimage" else absolute(source)
        code = benchmarking.generate(
            place, absolute(destination), options=options, limit=limit, workers=workers, as_json=as_json
        )
    raise typer.Exit(code)


@benchmark_app.command()
def run(
    target: Annotated[str, typer.Argument(metavar="SUITE|SET", help="A suite's id, or the folder of a degraded set.")],
    destination: DestinationOption,
    methods: Annotated[
        str, typer.Option("--methods", metavar="a,b,…", help="Methods to measure; the suite's own if not given.")
    ] = "",
    data: DataOption = None,
    seeds: SeedsOption = "0",
    limit: LimitOption = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option("--precision", help="auto, float32, bfloat16 or float16.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure methods on a suite or set. What was measured before is kept: adding a method computes it alone."""
    with ended_by_interrupt(), friendly_errors():
        from flows.commands import benchmarking
        from models.benchmarking.suites import suite_ids
        from tasks.benchmarking.scoring import ScoreOptions

        options = ScoreOptions(methods=_names(methods), device=device, precision=precision)
        folder = data or os.environ.get("LACUNA_DATA") or ""
        code = benchmarking.run(
            # A suite's results lie in a folder of its name, so that one in the working directory must not hide it.
            absolute(target) if target not in suite_ids() and Path(target).is_dir() else target,
            absolute(destination),
            options=options,
            data=absolute(folder) if folder else "",
            seeds=_numbers(seeds),
            limit=limit,
            as_json=as_json,
        )
    raise typer.Exit(code)


@benchmark_app.command()
def leaderboard(
    destination: Annotated[str, typer.Argument(metavar="DIR", help="The --destination of `lacuna benchmark run`.")],
    as_json: JsonOption = False,
) -> None:
    """Write the leaderboard of all that was measured in DIR: HTML, Markdown, CSV and LaTeX."""
    with friendly_errors():
        from flows.commands import benchmarking

        benchmarking.leaderboard(absolute(destination), as_json=as_json)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _names(text))
    except ValueError:
        raise ValueError(f"--seeds: got {text!r}, expected whole numbers separated by commas, such as 0,1,2") from None
