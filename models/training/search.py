"""A grid of values to try for a recipe: which candidates there are, and what each one's recipe is."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from models.training.recipes import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One point of the grid: values by name, as they were written, and the recipe they make."""

    values: Mapping[str, str]
    recipe: Recipe

    @property
    def label(self) -> str:
        """A name that is also one of a folder."""
        return " ".join(f"{name}={value}" for name, value in self.values.items()) or "as it is"


def parse_grid(given: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of each name from texts like "schedule.peak_lr=0.001,0.0005".

    Raises ValueError for another form, and for a name given twice.
    """
    grid: dict[str, list[str]] = {}
    for text in given:
        name, sign, values = text.partition("=")
        found = [value.strip() for value in values.split(",") if value.strip()]
        if not sign or not found or not name.strip():
            raise ValueError(f"grid: got {text!r}, expected NAME=VALUE,VALUE,… such as schedule.peak_lr=0.001,0.0005")
        if name.strip() in grid:
            raise ValueError(f"grid: got {name.strip()!r} twice, expected once with all its values")
        grid[name.strip()] = list(dict.fromkeys(found))
    return grid


def candidates(recipe: Recipe, grid: Mapping[str, Sequence[str]]) -> list[Candidate]:
    """Return every combination of the grid's values, the last name's varying fastest.

    Names are fields of the recipe, or of its parts: `schedule.peak_lr`, `patches.batch`, `corruption.…`. A row of
    numbers is written 32x64x96. Raises ValueError for an unknown name, or a value that is not of the field's kind.
    """
    found = []
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        changed = recipe
        for name, value in chosen.items():
            changed = _changed(changed, name.split("."), value, name=name)
        found.append(Candidate(values=chosen, recipe=changed))
    return found


def _changed(part: Any, path: Sequence[str], value: str, *, name: str) -> Any:
    names = [field.name for field in fields(part)]
    if path[0] not in names:
        near = difflib.get_close_matches(path[0], names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"grid: got {name!r}, expected a field of {type(part).__name__}: {', '.join(names)}{hint}")
    now = getattr(part, path[0])
    if len(path) > 1:
        if not is_dataclass(now):
            raise ValueError(f"grid: got {name!r}, but {path[0]!r} has no fields of its own")
        return replace(part, **{path[0]: _changed(now, path[1:], value, name=name)})
    return replace(part, **{path[0]: _parsed(value, like=now, name=name)})


def _parsed(value: str, *, like: Any, name: str) -> Any:
    try:
        if isinstance(like, bool):
            return {"true": True, "false": False}[value.lower()]
        if isinstance(like, int):
            return int(value)
        if isinstance(like, float):
            return float(value)
        if isinstance(like, tuple) and like:
            return tuple(type(like[0])(one) for one in value.split("x"))
    except (KeyError, ValueError) as error:
        kind = "row of numbers such as 32x64x96" if isinstance(like, tuple) else type(like).__name__
        raise ValueError(f"grid: got {value!r} for {name!r}, expected a {kind} (now {like})") from error
    if like is None or isinstance(like, str):
        return value
    raise ValueError(f"grid: {name!r} is a {type(like).__name__} and cannot be tried; name one of its fields")
