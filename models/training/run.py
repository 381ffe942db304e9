"""One run of one recipe, from folders of photographs to checkpoints: what the command line and the flow share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from models.training.adversarial import AdversarialSettings, train_adversarially
from models.training.checkpoints import CHECKPOINT, Origin, origin_of
from models.training.example_sheet import EXAMPLES, save_examples
from models.training.feature_losses import LayersOf
from models.training.first_weights import read_weights, start_from
from models.training.log import LOG, Progress, has_settled, read_log, validations
from models.training.loop import LoopSettings, Schedule, train
from models.training.photographs import Photographs, pictures_below
from models.training.recipes import Recipe, get_recipe
from models.training.validation import mean_psnr_db, named_sets, psnr_by_set, validation_examples
from models.weights import load_weights

HELD_BACK = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """data: folders of clean photographs. out: checkpoints and log, resumed from when present.

    start_from: checkpoint folder, or file of weights, that it begins with, None = from scratch (`first_weights` chooses
    shipped ones). steps: instead of the recipe's number. peak_lr: instead of the recipe's rate, above 0; lower where
    finished weights are gone on from.
    minutes: stop (checkpointed) after so many. device: "cpu", "cuda"; None = CUDA where there is one.
    patience: stop for good after so many validations without a better one; the best is what counts then.
    validate_on: folders of clean pictures whose PSNR is followed, too (`named_sets`); nothing is chosen by it.
    """

    data: Sequence[Path]
    out: Path
    start_from: Path | None = None
    steps: int | None = None
    peak_lr: float | None = None
    minutes: float | None = None
    device: str | None = None
    patience: int | None = None
    validate_on: Sequence[Path] = ()


def run_recipe(recipe: Recipe, settings: RunSettings, *, observe: Callable[[Progress], None] | None = None) -> int:
    """Train `recipe` until its steps are done or the time is up; return the steps done so far.

    Raises FileNotFoundError without photographs, or without the checkpoint that `start_from` names;
    ValueError for fewer than five photographs, for factors beside nothing, and when `out` holds a training of another
    recipe.
    """
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    origin = _origin(recipe, settings)
    schedule = _schedule(recipe, settings)
    torch.manual_seed(recipe.seed)
    network = recipe.network()
    begins = not (settings.out / CHECKPOINT).exists()
    if begins and settings.start_from is not None:
        start_from(network, read_weights(settings.start_from))
    elif begins and recipe.rank is not None:
        raise ValueError(
            f"start from: got nothing for {recipe.id!r}, expected weights of {recipe.start_from!r}, beside which it "
            "learns factors; give a file of these with --start-from"
        )
    photographs = Photographs.below(settings.data, hold_back=HELD_BACK)
    examples = validation_examples(photographs.only_held_back(), recipe.corruption, patches=recipe.patches)
    sets = named_sets(settings.validate_on, recipe.corruption)
    method: Callable[..., int] = partial(train, loss_kind=recipe.loss)
    if recipe.adversarial is not None:
        extractor = feature_extractor(recipe.adversarial, device=device) if recipe.adversarial.needs_features else None
        method = partial(train_adversarially, adversarial=recipe.adversarial, extractor=extractor)
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
        follow=(lambda trained: psnr_by_set(trained, sets, device=device)) if sets else None,
        observe=observe,
    )
    save_examples(network, examples, path=settings.out / EXAMPLES, device=device)
    return done


def feature_extractor(adversarial: AdversarialSettings, *, device: str) -> LayersOf:
    """Return what finds the features that perceptual and style losses compare: layers of a shipped network, frozen.

    Raises ValueError for a weight that is no recipe's, or of a network that takes more than pictures (B, 3, H, W), and
    for unknown layers; WeightsError where the weight is not shipped.
    """
    recipe = get_recipe(adversarial.feature_weight)
    if recipe.in_channels != 3 or recipe.rl_restore is not None or recipe.rank is not None:
        raise ValueError(
            f"adversarial.feature_weight: got {recipe.id!r}, whose network takes more than a picture, expected one of "
            "pictures alone, such as 'denoise'"
        )
    # Building it draws numbers, which must not change the generator's or the discriminator's.
    with torch.random.fork_rng(devices=[]):
        network = recipe.network()
    network.load_state_dict(load_weights(recipe.id))
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return LayersOf(network, *adversarial.feature_layers)


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
