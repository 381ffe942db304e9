"""One run of one recipe, from folders of photographs to checkpoints: what the command line and the flow share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from models.training.adversarial import train_adversarially
from models.training.checkpoints import CHECKPOINT, Origin, origin_of
from models.training.example_sheet import EXAMPLES, save_examples
from models.training.first_weights import read_weights, start_from
from models.training.log import LOG, Progress, has_settled, read_log, validations
from models.training.loop import LoopSettings, Schedule, train
from models.training.photographs import Photographs, pictures_below
from models.training.recipes import Recipe
from models.training.validation import mean_psnr_db, validation_examples

HELD_BACK = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """data: folders of clean photographs. out: checkpoints and log, resumed from when present.

    start_from: checkpoint folder, or file of weights, that it begins with, None = from scratch (`first_weights` chooses
    shipped ones). steps: instead of the recipe's number. peak_lr: instead of the recipe's rate, above 0; lower where
    finished weights are gone on from.
    minutes: stop (checkpointed) after so many. device: "cpu", "cuda"; None = CUDA where there is one.
    patience: stop for good after so many validations without a better one; the best is what counts then.
    """

    data: Sequence[Path]
    out: Path
    start_from: Path | None = None
    steps: int | None = None
    peak_lr: float | None = None
    minutes: float | None = None
    device: str | None = None
    patience: int | None = None


def run_recipe(recipe: Recipe, settings: RunSettings, *, observe: Callable[[Progress], None] | None = None) -> int:
    """Train `recipe` until its steps are done or the time is up; return the steps done so far.

    Raises FileNotFoundError without photographs, or without the checkpoint that `start_from` names;
    ValueError for fewer than five photographs, and when `out` holds a training of another recipe.
    """
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    origin = _origin(recipe, settings)
    schedule = _schedule(recipe, settings)
    torch.manual_seed(recipe.seed)
    network = recipe.network()
    if settings.start_from and not (settings.out / CHECKPOINT).exists():
        start_from(network, read_weights(settings.start_from))
    photographs = Photographs.below(settings.data, hold_back=HELD_BACK)
    examples = validation_examples(photographs.only_held_back(), recipe.corruption, patches=recipe.patches)
    method = train if recipe.adversarial is None else partial(train_adversarially, adversarial=recipe.adversarial)
    done = method(
        network,
        batches=lambda rng: recipe.corruption(photographs.patches(recipe.patches, rng=rng), rng),
        schedule=schedule,
        settings=LoopSettings(
            out=settings.out,
            device=device,
            stop_after_seconds=None if settings.minutes is None else 60.0 * settings.minutes,
            patience=settings.patience,
            origin=origin,
        ),
        seed=recipe.seed,
        validate=lambda trained: mean_psnr_db(trained, examples, device=device),
        observe=observe,
    )
    save_examples(network, examples, path=settings.out / EXAMPLES, device=device)
    return done


def is_finished(recipe: Recipe, out: Path, *, steps: int | None = None, patience: int | None = None) -> bool:
    """Whether `out` has a training of `recipe` whose steps (`steps` instead of the recipe's) are done, or has settled.

    Raises ValueError when it has one of another recipe.
    """
    place = out / CHECKPOINT
    if not place.is_file():
        return False
    origin_of(place, recipe=recipe.id)
    done = int(torch.load(place, map_location="cpu", weights_only=True)["step"])
    settled = has_settled(validations(read_log(out / LOG)), patience=patience)
    return settled or done >= (steps or recipe.schedule.steps)


def _schedule(recipe: Recipe, settings: RunSettings) -> Schedule:
    schedule = replace(recipe.schedule, steps=settings.steps) if settings.steps else recipe.schedule
    return schedule if settings.peak_lr is None else replace(schedule, peak_lr=settings.peak_lr)


def _origin(recipe: Recipe, settings: RunSettings) -> Origin:
    """Return what the run's checkpoints are made of, with what went into the one it goes on from."""
    own = Origin(
        recipe=recipe.id,
        data=tuple((folder.resolve().name, len(pictures_below(folder))) for folder in settings.data),
        start_from=None if settings.start_from is None else settings.start_from.resolve().name,
        steps=settings.steps,
        peak_lr=settings.peak_lr,
    )
    place = settings.out / CHECKPOINT
    return own.after(origin_of(place, recipe=recipe.id)) if place.exists() else own
