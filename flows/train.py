"""The flow that makes a weight: train a recipe, keep its curve as Parquet and picture, export, say what came of it.

The training itself is `models.training`, which runs without the workflow engine on any machine with torch.
"""

from __future__ import annotations

import flows.prefect_settings  # noqa: F401 - it must come before prefect

# isort: split
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.training_plot import curve_svg
from models.training.log import LOG, Progress, has_settled, read_log, validations

Observer = Callable[[Progress], None]
_LISTENERS: list[Observer] = []
CURVE_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("loss", pa.float64()),
        ("lr", pa.float64()),
        ("seconds", pa.float64()),
        ("validation_psnr_db", pa.float64()),
        ("adversarial_loss", pa.float64()),
        ("discriminator_loss", pa.float64()),
        ("named_psnr_db", pa.map_(pa.string(), pa.float64())),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSummary:
    """What a training run left behind. `exported`: sha256 of the weights written, None when the run is not finished.

    start_from: name of the file or folder of weights that it began with, None = from scratch.
    named_psnr_db: of the named sets that were followed, on the last validation.
    settled: it ended before its steps were done, since validations had stopped rising; the best one counts.
    """

    recipe: str
    steps_done: int
    steps: int
    out: str
    start_from: str | None
    curve: str
    validation_psnr_db: float | None
    named_psnr_db: dict[str, float]
    settled: bool
    exported: str | None


@task(name="train", cache_policy=NO_CACHE)
def train_recipe(*, recipe_id: str, settings: dict[str, Any]) -> int:
    """Task over `models.training.run.run_recipe`; resumes from the checkpoint in `out`."""
    from models.training.recipes import get_recipe
    from models.training.run import RunSettings, run_recipe

    paths = {
        "data": [Path(folder) for folder in settings["data"]],
        "out": Path(settings["out"]),
        "start_from": Path(settings["start_from"]) if settings["start_from"] else None,
        "validate_on": [Path(folder) for folder in settings["validate_on"]],
    }
    return run_recipe(get_recipe(recipe_id), RunSettings(**{**settings, **paths}), observe=tell)


@task(name="export", cache_policy=NO_CACHE)
def export_weights(*, recipe_id: str, out: str, folder: str) -> str:
    """Write the checkpoint as fp16 safetensors with its card; return the sha256."""
    from models.training.export import export

    return export(recipe_id, checkpoint=Path(out), folder=Path(folder)).sha256


@task(name="curve", cache_policy=NO_CACHE)
def write_curve(*, recipe_id: str, out: str) -> str:
    """Write the log of a run as Parquet and as a picture beside it; return the path of the Parquet file."""
    rows = read_log(Path(out) / LOG)
    lines = [{**row, "named_psnr_db": list((row.get("named_psnr_db") or {}).items()) or None} for row in rows]
    table = pa.Table.from_pylist([{name: row.get(name) for name in CURVE_SCHEMA.names} for row in lines], CURVE_SCHEMA)
    target = Path(out) / "curve.parquet"
    pq.write_table(table, target)
    (Path(out) / "curve.svg").write_text(curve_svg(rows, title=recipe_id), encoding="utf-8")
    return str(target)


@flow(name="train")
def train(
    recipe_id: str,
    data: list[str],
    out: str,
    start_from: str | None = None,
    steps: int | None = None,
    peak_lr: float | None = None,
    minutes: float | None = None,
    device: str | None = None,
    patience: int | None = None,
    validate_on: Sequence[str] = (),
    weights_folder: str | None = None,
) -> TrainingSummary:
    """Train `recipe_id` on the photographs below `data`, going on from the checkpoint in `out` where there is one.

    start_from: folder or file of weights to begin with, "none" = from scratch, None = the shipped weights of the recipe
    that it names, if any. validate_on: folders of clean pictures whose PSNR is followed, too. With `weights_folder`, a
    finished run is exported there. Raises ValueError for an unknown recipe, and where the weights it names are not
    shipped; FileNotFoundError without photographs.
    """
    from models.training.checkpoints import CHECKPOINT, origin_of
    from models.training.first_weights import first_weights
    from models.training.recipes import get_recipe

    recipe = get_recipe(recipe_id)
    wanted = steps or recipe.schedule.steps
    start = first_weights(recipe, given=None if start_from is None else Path(start_from), out=Path(out))
    settings = {
        "data": data,
        "out": out,
        "start_from": None if start is None else str(start),
        "steps": steps,
        "peak_lr": peak_lr,
        "minutes": minutes,
        "device": device,
        "patience": patience,
        "validate_on": list(validate_on),
    }
    done = train_recipe(recipe_id=recipe_id, settings=settings)
    curve = write_curve(recipe_id=recipe_id, out=out)
    origin = origin_of(Path(out) / CHECKPOINT, recipe=recipe_id)
    sha256 = None
    log = read_log(Path(out) / LOG)
    measured = validations(log)
    settled = has_settled(measured, patience=patience)
    if weights_folder is not None and (done >= wanted or settled):
        sha256 = export_weights(recipe_id=recipe_id, out=out, folder=weights_folder)
    summary = TrainingSummary(
        recipe=recipe_id,
        steps_done=done,
        steps=wanted,
        out=out,
        start_from=None if origin is None else origin.start_from,
        curve=curve,
        validation_psnr_db=max(measured.values()) if settled else next(reversed(measured.values()), None),
        named_psnr_db=next((row["named_psnr_db"] for row in reversed(log) if row.get("named_psnr_db")), {}),
        settled=settled,
        exported=sha256,
    )
    lines = "\n".join(f"| {key} | {value} |" for key, value in asdict(summary).items())
    create_markdown_artifact(markdown=f"| training | |\n|---|---|\n{lines}", key=f"train-{recipe_id.replace('_', '-')}")
    return summary


def listen(observer: Observer) -> Callable[[], None]:
    """Have `observer` told every line of the log in this process; call what is returned to stop."""
    _LISTENERS.append(observer)
    return lambda: _LISTENERS.remove(observer)


def tell(progress: Progress) -> None:
    """Tell everyone who listens in this process about a line of a log."""
    for observer in list(_LISTENERS):
        observer(progress)
