"""`lacuna methods`, `lacuna catalogue` and `lacuna sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from flows.commands.console import print_json

# Below so many columns, papers and licences would make a dozen lines of every method.
_WIDE = 140
_SUMMARY = (
    "SELECT run_id, collection, status, count(*) AS images, round(sum(seconds), 1) AS seconds FROM images "
    "GROUP BY ALL ORDER BY run_id, collection, status"
)


def show_methods(*, as_json: bool) -> None:
    """Print the cards of every registered method."""
    from dataclasses import asdict

    from models.registry import METHODS, unavailable

    cards = [{**asdict(method.card), "unavailable": unavailable(method)} for method in METHODS]
    if as_json:
        print_json(cards)
        return
    console = Console()
    wide = console.width >= _WIDE
    # A name is there to be typed: where a terminal is narrow it is folded, not cut.
    name = Column("method", overflow="fold", min_width=22)
    purposes, cost_of_it = Column("for", max_width=None if wide else 14), Column("GMAC/MP", min_width=7)
    table = Table(
        name, purposes, Column("title", overflow="fold"), cost_of_it, *(("source", "licence") if wide else ())
    )
    for card in cards:
        cost = card["gmac_per_megapixel"]
        purpose = card["purpose"] + (" (only if asked for)" if card["opt_in"] else "")
        origin = (card["paper"], card["licence"]) if wide else ()
        table.add_row(card["id"], purpose, card["title"], "–" if cost is None else f"{cost:.0f}", *origin)
    console.print(table)
    if not wide:
        print(f"Sources and licences: in a terminal of {_WIDE} columns, or with --json.")
    for card in cards:
        if card["unavailable"]:
            print(f"{card['id']} cannot be used yet: {card['unavailable']}")


def show_catalogue(destination: str, *, sql: str | None, csv: Path | None, as_json: bool) -> None:
    """Print or export the result of a query over a catalogue.

    Raises CatalogueError, and ValueError for both `csv` and `as_json`, and for columns that JSON cannot tell apart.
    """
    from storage.catalogue import export_csv, query
    from storage.locations import Location

    if csv is not None and as_json:
        raise ValueError("--csv and --json: got both, expected one: the result is either written or printed")
    given = Location(destination)
    root = given.join("catalogue") if given.join("catalogue").exists() else given
    if csv is not None:
        target = Location(str(csv))
        written = export_csv(root, target) if sql is None else export_csv(root, target, sql=sql)
        print(f"{written} rows written to {csv}")
        return
    result = query(root, sql or _SUMMARY)
    names = result.schema.names
    if as_json:
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"--json: two columns are called {name!r}; name them with AS, each its own")
        print_json(result.to_pylist())
        return
    table = Table(*map(escape, names))
    columns = [column.to_pylist() for column in result.columns]  # by place: two may have one name
    for row in zip(*columns, strict=True):
        table.add_row(*(Text("" if value is None else str(value)) for value in row))
    Console().print(table)


def build_sample(destination: Path, *, seed: int) -> None:
    """Build the sample archive and say where it is."""
    from flows.sample import build_sample_archive

    built: Any = build_sample_archive(destination, seed=seed)
    print(f"sample:    {built.originals}\nreference: {built.reference}")
