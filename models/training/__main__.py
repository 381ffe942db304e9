"""`python -m models.training RECIPE --data DIR --out DIR`: train one weight; needs nothing but torch, numpy and cv2."""

from __future__ import annotations

import argparse
from pathlib import Path

from models.training.first_weights import SCRATCH, describe, first_weights
from models.training.recipes import get_recipe
from models.training.run import RunSettings, run_recipe


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.training", description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of clean photographs")
    parser.add_argument("--out", type=Path, required=True, help="checkpoints and log; resumed from when present")
    parser.add_argument(
        "--start-from",
        type=Path,
        help="checkpoint folder, or file of weights, that it begins with; the shipped weights that its recipe names if "
        f"not given, '{SCRATCH}' for none",
    )
    parser.add_argument("--steps", type=int, help="instead of the recipe's number of steps")
    parser.add_argument("--peak-lr", type=float, help="instead of the recipe's peak learning rate")
    parser.add_argument("--device", help="cpu or cuda; cuda where there is one")
    parser.add_argument("--minutes", type=float, help="stop (checkpointed) after so many minutes")
    parser.add_argument("--patience", type=int, help="stop for good after so many validations without a better one")
    parser.add_argument(
        "--validate-on", type=Path, nargs="+", default=[], help="folders of clean pictures whose PSNR is followed, too"
    )
    given = parser.parse_args()
    recipe = get_recipe(given.recipe)
    start = first_weights(recipe, given=given.start_from, out=given.out)
    print(f"{recipe.id}: {describe(start, out=given.out)}", flush=True)
    settings = RunSettings(
        data=given.data,
        out=given.out,
        start_from=start,
        steps=given.steps,
        peak_lr=given.peak_lr,
        minutes=given.minutes,
        device=given.device,
        patience=given.patience,
        validate_on=given.validate_on,
    )
    done = run_recipe(recipe, settings)
    print(f"{recipe.id}: {done} steps in {given.out}")


if __name__ == "__main__":
    main()
