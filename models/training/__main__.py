"""`python -m models.training RECIPE --data DIR --out DIR`: train one weight; needs nothing but torch, numpy and cv2."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from models.training.loop import CHECKPOINT, LoopSettings, train
from models.training.photographs import Photographs
from models.training.recipes import get_recipe


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.training", description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of clean photographs")
    parser.add_argument("--out", type=Path, required=True, help="checkpoints and log; resumed from when present")
    parser.add_argument("--start-from", type=Path, help="checkpoint folder of the recipe this one starts from")
    parser.add_argument("--steps", type=int, help="instead of the recipe's number of steps")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, help="stop (checkpointed) after so many minutes")
    arguments = parser.parse_args()
    recipe = get_recipe(arguments.recipe)
    schedule = replace(recipe.schedule, steps=arguments.steps) if arguments.steps else recipe.schedule
    torch.manual_seed(recipe.seed)
    network = recipe.network()
    if arguments.start_from and not (arguments.out / CHECKPOINT).exists():
        state = torch.load(arguments.start_from / CHECKPOINT, map_location="cpu", weights_only=True)
        start_from(network, state["network"])
    photographs = Photographs(arguments.data, hold_back=20)
    settings = LoopSettings(
        out=arguments.out,
        device=arguments.device,
        stop_after_seconds=None if arguments.minutes is None else 60.0 * arguments.minutes,
    )
    steps = train(
        network,
        batches=lambda rng: recipe.corruption(photographs.patches(recipe.patches, rng=rng), rng),
        schedule=schedule,
        settings=settings,
        seed=recipe.seed,
    )
    print(f"{recipe.id}: {steps} of {schedule.steps} steps in {arguments.out}")


def start_from(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Load `weights` where the shapes agree; a wider first layer keeps its new input channels at zero."""
    own = network.state_dict()
    for name, value in weights.items():
        if own[name].shape == value.shape:
            own[name] = value
        else:
            own[name] = torch.zeros_like(own[name])
            own[name][:, : value.shape[1]] = value
    network.load_state_dict(own)


if __name__ == "__main__":
    main()
