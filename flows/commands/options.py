"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines instead of tables.")]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="HH:MM", help="Begin nothing more after this time; run again to go on.")
]
