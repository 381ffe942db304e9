"""The flow that searches a grid of hyperparameters: every candidate is a short training of its own, one by one.

Each has its folder, is gone on with where it was, and is not trained again once it is done.
"""

from __future__ import annotations

import flows.prefect_settings  # noqa: F401 - it must come before prefect

# isort: split
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.line_chart import lines_svg
from flows.train import tell
from models.training.log import LOG, read_log, validations

_NOTE = "candidate.json"
RESULTS_SCHEMA = pa.schema(
    [
        ("candidate", pa.string()),
        ("values", pa.string()),
        ("steps", pa.int64()),
        ("validation_psnr_db", pa.float64()),
        ("loss", pa.float64()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSummary:
    """What a search found. `rows`: one per candidate, best first. `unfinished`: stopped by the budget of minutes."""

    recipe: str
    steps: int
    results: str
    plot: str
    rows: tuple[dict[str, Any], ...]
    unfinished: int


@task(name="try", cache_policy=NO_CACHE)
def try_candidate(*, recipe_id: str, values: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Train one candidate, or go on with it, and return its row of the results."""
    from models.training.recipes import get_recipe
    from models.training.run import RunSettings, run_recipe
    from models.training.search import candidates

    (candidate,) = candidates(get_recipe(recipe_id), {name: [value] for name, value in values.items()})
    out, steps = Path(settings["out"]), int(settings["steps"])
    row = {"candidate": candidate.label, "values": json.dumps(dict(values)), "steps": 0, "error": None}
    log = read_log(out / LOG)
    if not log or log[-1]["step"] < steps:
        run = RunSettings(
            data=[Path(folder) for folder in settings["data"]],
            out=out,
            start_from=Path(settings["start_from"]) if settings["start_from"] else None,
            steps=steps,
            minutes=settings["minutes"],
            device=settings["device"],
        )
        try:
            run_recipe(candidate.recipe, run, observe=tell)
        except (RuntimeError, ValueError) as error:  # such a network cannot be built, or does not fit the memory
            row["error"] = str(error).splitlines()[0]
        log = read_log(out / LOG)
    measured = list(validations(log).values())
    last = log[-1] if log else {}
    return {
        **row,
        "steps": last.get("step", 0),
        "validation_psnr_db": measured[-1] if measured and math.isfinite(measured[-1]) else None,
        "loss": last.get("loss"),
        "seconds": last.get("seconds"),
    }


@task(name="results", cache_policy=NO_CACHE)
def write_results(*, rows: Sequence[Mapping[str, Any]], folders: Mapping[str, str], out: str, title: str) -> str:
    """Write the table as Parquet and the candidates' losses over their steps as a picture; return the table's path."""
    folder = Path(out)
    pq.write_table(pa.Table.from_pylist(list(rows), RESULTS_SCHEMA), folder / "results.parquet")
    logs = {row["candidate"]: read_log(Path(folders[row["candidate"]]) / LOG) for row in rows}
    lines = {
        f"{name}{_said(row)}": [(line["step"], line["loss"]) for line in log if math.isfinite(line["loss"])]
        for (name, log), row in zip(logs.items(), rows, strict=True)
    }
    picture = lines_svg(lines, title=title, across="steps", up="loss", marks=False)
    (folder / "results.svg").write_text(picture, encoding="utf-8")
    return str(folder / "results.parquet")


@flow(name="search")
def search(
    recipe_id: str,
    grid: dict[str, list[str]],
    data: list[str],
    out: str,
    steps: int | None = None,
    start_from: str | None = None,
    minutes: float | None = None,
    device: str | None = None,
) -> SearchSummary:
    """Train every candidate of `grid` for `steps` steps (the recipe's own number if None) and rank them.

    They are ranked by PSNR on the recipe's validation set. `minutes`: of each candidate in this call; the next call
    goes on. Raises ValueError for an unknown recipe or field, and where `out` holds a candidate that was trained on
    other photographs, from other weights or by another version of its recipe.
    """
    from models.training.recipes import get_recipe
    from models.training.search import candidates

    recipe = get_recipe(recipe_id)
    wanted = steps or recipe.schedule.steps
    common = {"data": data, "steps": wanted, "start_from": start_from, "minutes": minutes, "device": device}
    found = candidates(recipe, grid)
    # Another number of steps is another schedule, so another run.
    folders = {one.label: str(Path(out) / recipe_id / f"{wanted} steps" / one.label) for one in found}
    for one in found:
        _claim(Path(folders[one.label]), recipe=repr(one.recipe), data=data, start_from=start_from)
    rows = [
        try_candidate(recipe_id=recipe_id, values=dict(one.values), settings={**common, "out": folders[one.label]})
        for one in found
    ]
    rows.sort(key=lambda row: -math.inf if row["validation_psnr_db"] is None else row["validation_psnr_db"])
    rows.reverse()
    title = f"{recipe_id}: {len(rows)} candidates, {wanted:,} steps each"
    results = write_results(rows=rows, folders=folders, out=out, title=title)
    lines = "\n".join(f"| {row['candidate']} | {_number(row['validation_psnr_db'])} | {row['steps']} |" for row in rows)
    create_markdown_artifact(
        markdown=f"| candidate | validation PSNR dB | steps |\n|---|---|---|\n{lines}",
        key=f"search-{recipe_id.replace('_', '-')}",
    )
    return SearchSummary(
        recipe=recipe_id,
        steps=wanted,
        results=results,
        plot=str(Path(out) / "results.svg"),
        rows=tuple(rows),
        unfinished=sum(row["steps"] < wanted and row["error"] is None for row in rows),
    )


def _claim(folder: Path, *, recipe: str, data: Sequence[str], start_from: str | None) -> None:
    """Note in a candidate's folder what is trained there; ValueError when it holds what was trained of anything else.

    What is there counts as this candidate's without being trained again, so it must be this candidate's.
    """
    wanted = {
        "recipe": recipe,
        "--data": sorted(os.path.abspath(place) for place in data),
        "--start-from": None if start_from is None else os.path.abspath(start_from),
    }
    note = folder / _NOTE
    if note.exists():
        known = json.loads(note.read_text(encoding="utf-8"))
        changed = [name for name, value in wanted.items() if known.get(name) != value]
        if changed:
            raise ValueError(
                f"--out: {folder} was trained with another {' and '.join(changed)}: got {wanted[changed[0]]}, expected "
                f"{known.get(changed[0])}; search in another --out, or remove that folder"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    temporary = note.with_suffix(".tmp")
    temporary.write_text(json.dumps(wanted, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(note)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _said(row: Mapping[str, Any]) -> str:
    psnr = row["validation_psnr_db"]
    return "" if psnr is None else f": {psnr:.2f} dB"
