"""`lacuna nightly`, `status`, `verify`, `retry` and `clean`: arguments and help. Heavy imports wait until needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.console import friendly_errors
from flows.commands.interrupting import ended_by_interrupt
from flows.commands.options import JsonOption, UntilOption

upkeep_app = typer.Typer()

EXIT_CODES = (
    "Exit codes: 0 = all fine; 1 = some images or collections failed, or outputs are damaged; 2 = wrong usage, or "
    "nothing could be done; 3 = all fine, but the time was over: the next run goes on; 130 = stopped by Ctrl-C."
)
DestinationArgument = Annotated[
    str, typer.Argument(metavar="DEST", help="Folder or URL that `lacuna restore` wrote to.")
]


@upkeep_app.command(epilog=EXIT_CODES)
def nightly(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="TOML file with the collections; see docs/operations.md.")
    ],
    collection: Annotated[
        list[str] | None,
        typer.Option("--collection", metavar="NAME", help="Only this one; may be repeated. All if not given."),
    ] = None,
    until: UntilOption = None,
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the workflow engine's own messages.")] = False,
) -> None:
    """Restore what is new in every collection of FILE. One that fails does not stop the others."""
    with ended_by_interrupt(), friendly_errors(verbose=verbose):
        from flows.commands import upkeeping

        code = upkeeping.nightly(file, collections=collection, until=until, as_json=as_json, verbose=verbose)
    raise typer.Exit(code)


@upkeep_app.command()
def status(destination: DestinationArgument, as_json: JsonOption = False) -> None:
    """Say what runs at DEST have done: images by status, failures by kind, the last run."""
    with friendly_errors():
        from flows.commands import upkeeping

        upkeeping.status(destination, as_json=as_json)


@upkeep_app.command(epilog=EXIT_CODES)
def verify(destination: DestinationArgument, as_json: JsonOption = False) -> None:
    """Read every output at DEST and compare it with the sha256 in the catalogue. Writes nothing."""
    with friendly_errors():
        from flows.commands import upkeeping

        code = upkeeping.verify(destination, as_json=as_json)
    raise typer.Exit(code)


@upkeep_app.command(epilog=EXIT_CODES)
def retry(
    destination: DestinationArgument,
    error_kind: Annotated[
        list[str] | None,
        typer.Option("--error-kind", metavar="KIND", help="Only failures of this kind; may be repeated."),
    ] = None,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Instead, what `lacuna verify` finds missing or changed.")
    ] = False,
    collection: Annotated[str | None, typer.Option(help="Only this collection; all of them if not given.")] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="PLACE", help="Where the source is now, if it has moved since the last run."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="Instead of that of the last run.")] = None,
    until: UntilOption = None,
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the workflow engine's own messages.")] = False,
) -> None:
    """Restore again what failed or was quarantined at DEST, with the settings of the last run. Nothing else is read."""
    with ended_by_interrupt(), friendly_errors(verbose=verbose):
        from flows.commands import retrying

        code = retrying.run(
            destination,
            kinds=tuple(error_kind or ()),
            damaged=damaged,
            collection=collection,
            source=source,
            device=device,
            until=until,
            as_json=as_json,
            verbose=verbose,
        )
    raise typer.Exit(code)


@upkeep_app.command()
def clean(
    destination: DestinationArgument,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them; without it they are only listed.")] = False,
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="HOURS", min=0.0, help="Only what has not changed for so long.")
    ] = 24.0,
    as_json: JsonOption = False,
) -> None:
    """List what killed runs left at DEST (temporary files, unfinished uploads), or remove it. Never an output."""
    with friendly_errors():
        from flows.commands import upkeeping

        upkeeping.clean(destination, delete=delete, older_than_hours=older_than, as_json=as_json)
