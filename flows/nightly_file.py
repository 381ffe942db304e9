"""The file of a nightly run: the archive's collections, each with its source, destination and settings, as TOML."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.deadline import parse_stop
from models.routing.rules import UPSCALERS
from storage.catalogue import partition_value
from storage.locations import Location
from tasks.jobs import RestoreOptions

_PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """One collection of a nightly run; source and destination are absolute."""

    name: str
    source: str
    destination: str
    options: RestoreOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class NightlyPlan:
    """The collections in the order of the file, and when to begin no further shard (HH:MM), if ever."""

    collections: tuple[Collection, ...]
    stop_at: str | None = None


def read_nightly_file(path: Path) -> NightlyPlan:
    """Return what the file asks for; relative places are relative to its folder.

    Raises FileNotFoundError, or ValueError that names the collection and the key that is wrong.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid TOML: {error}") from error
    _check_keys(document, known=("stop_at", "defaults", "collections"), where=str(path))
    stop_at = document.get("stop_at")
    if stop_at is not None:
        parse_stop(_text(stop_at, where=f"{path}: stop_at"))
    tables = document.get("collections")
    if not isinstance(tables, dict) or not tables:
        raise ValueError(f"{path} names no collection; expected a table such as [collections.glass-plates]")
    defaults = _options(_table(document.get("defaults", {}), where=f"{path}: [defaults]"), RestoreOptions(), str(path))
    collections = tuple(
        _collection(name, _table(given, where=f"{path}: [collections.{name}]"), defaults=defaults, file=path)
        for name, given in tables.items()
    )
    _check_destinations(collections, file=path)
    return NightlyPlan(collections=collections, stop_at=stop_at)


def choose_collections(plan: NightlyPlan, names: Sequence[str] | None) -> tuple[Collection, ...]:
    """Return the collections of these names in the order of the file, all for None; raises ValueError for others."""
    if names is None:
        return plan.collections
    known = [collection.name for collection in plan.collections]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
            raise ValueError(f"there is no collection {name!r}; {hint}")
    if not names:
        raise ValueError(f"no collection is chosen; expected some of {', '.join(known)}, or no choice at all")
    return tuple(collection for collection in plan.collections if collection.name in names)


def _collection(name: str, given: Mapping[str, Any], *, defaults: RestoreOptions, file: Path) -> Collection:
    where = f"{file}: [collections.{name}]"
    if partition_value(name) != name:
        raise ValueError(
            f"{where}: the name must be letters, digits, dot, dash or underscore; try {partition_value(name)}"
        )
    missing = [key for key in ("source", "destination") if key not in given]
    if missing:
        raise ValueError(
            f"{where} has no {' and no '.join(missing)}; every collection needs a source and a destination"
        )
    settings = {key: value for key, value in given.items() if key not in ("source", "destination")}
    options = _options(settings, defaults, where)
    if options.reference is not None:
        options = replace(options, reference=_place(options.reference, where=f"{where}: reference", file=file))
    if options.masks is not None:
        options = replace(options, masks=_place(options.masks, where=f"{where}: masks", file=file))
    return Collection(
        name=name,
        source=_place(given["source"], where=f"{where} source", file=file),
        destination=_place(given["destination"], where=f"{where} destination", file=file),
        options=replace(options, collection=name, incremental=True),
    )


def _options(given: Mapping[str, Any], base: RestoreOptions, where: str) -> RestoreOptions:
    _check_keys(given, known=tuple(_READERS), where=where)
    changes: dict[str, Any] = {}
    for key, value in given.items():
        option, read = _READERS[key]
        found = read(value, f"{where}: {key}")
        # What a collection says of one method leaves the defaults of the others.
        changes[option] = found if option != "strengths" else {**changes.get(option, dict(base.strengths)), **found}
    if "strengths" in changes:
        changes["strengths"] = tuple(sorted(changes["strengths"].items()))
    return replace(base, **changes)


def _check_destinations(collections: tuple[Collection, ...], *, file: Path) -> None:
    taken: dict[str, str] = {}
    for collection in collections:
        uri = Location(collection.destination).uri
        if uri in taken:
            raise ValueError(
                f"{file}: {taken[uri]} and {collection.name} have the same destination {collection.destination}, where "
                "files of one name would overwrite each other; give each its own"
            )
        taken[uri] = collection.name


def _check_keys(given: Mapping[str, Any], *, known: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
            raise ValueError(f"{where}: unknown key {key!r}; {hint}")


def _place(value: Any, *, where: str, file: Path) -> str:
    text = _text(value, where=where)
    return text if "://" in text else str(file.absolute().parent / Path(text).expanduser())


def _table(value: Any, *, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: got {value!r}, expected a table")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}: got {value!r}, expected a text in quotes")
    return value


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{where}: got {value!r}, expected true or false")
    return value


def _count(least: int, most: int) -> Callable[[Any, str], int]:
    def read(value: Any, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"{where}: got {value!r}, expected a whole number from {least} to {most}")
        return value

    return read


def _one_of(*values: Any) -> Callable[[Any, str], Any]:
    def read(value: Any, where: str) -> Any:
        if value not in values:
            raise ValueError(f"{where}: got {value!r}, expected one of {', '.join(map(str, values))}")
        return value

    return read


def _probability(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise ValueError(f"{where}: got {value!r}, expected a probability between 0 and 1, such as 0.5")
    return float(value)


def _above_zero(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ValueError(f"{where}: got {value!r}, expected a number above 0")
    return float(value)


def _strengths(value: Any, where: str) -> dict[str, float]:
    for method, strength in _table(value, where=where).items():
        if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 <= strength <= 1:
            raise ValueError(f"{where}: {method} is {strength!r}, expected a number from 0 to 1")
    return {method: float(strength) for method, strength in value.items()}


def _upscale(value: Any, where: str) -> dict[str, float]:
    # The others are switched off, since the defaults may have asked for one of them.
    times = _one_of(2, 4)(value, where)
    return {method: float(method == f"upscale-x{times}") for method in UPSCALERS}


# The keys are the long options of `lacuna restore`, with underscores: (option of the run, how its value is read).
_READERS: dict[str, tuple[str, Callable[[Any, str], Any]]] = {
    "fill": ("fill_method", _text),
    "strength": ("strengths", _strengths),
    "upscale": ("strengths", _upscale),
    "thorough": ("thorough", _flag),
    "budget": ("budget_gmac", _above_zero),
    "fit_iterations": ("fit_iterations", _count(1, 1_000_000)),
    "scratch_threshold": ("scratch_threshold", _probability),
    "correct_colour": ("allow_colour", _flag),
    "device": ("device", _text),
    "precision": ("precision", _one_of(*_PRECISIONS)),
    "reference": ("reference", _text),
    "masks": ("masks", _text),
    "policy": ("policy", _text),
    "seed": ("seed", _count(0, 2**31 - 1)),
    "shard_images": ("shard_images", _count(1, 100_000)),
    "workers": ("workers", _count(1, 64)),
    "report": ("write_report", _flag),
}
