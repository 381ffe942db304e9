"""Every weight Lacuna needs: what it reached, what it must reach, and the command that trains it further.

``python -m models.training.backlog [--write]`` prints the table, or rewrites models/weights/BACKLOG.md. The figures
reached are read from the cards, so the table cannot say what was not measured.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from models.training.recipes import RECIPES
from models.weights import WEIGHTS_FOLDER, load_card, weight_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Figures of one suite that a weight is held to; `levels` as on the card.

    errors: they are errors, of which smaller ones are better.
    """

    metric: str
    levels: tuple[tuple[str, float], ...]
    source: str
    errors: bool = False

    def reached(self, metrics: dict[str, Any]) -> dict[str, float | None]:
        """Return what a card's metrics say for each level; None where it was not measured."""
        found = metrics
        for part in self.metric.split("/"):
            found = found.get(part) or {}
        return {level: found.get(level) for level, _ in self.levels}

    def missed(self, metrics: dict[str, Any]) -> bool:
        """Whether some level is unknown or worse than its target."""
        reached, sign = self.reached(metrics), -1 if self.errors else 1
        return any((value := reached[level]) is None or sign * value < sign * wanted for level, wanted in self.levels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One weight: why users want it, what it is held to, how it is trained further, and what is known about that.

    budget: how long on one CPU core what trainings there were; the table adds the steps of the weight's recipe.
    """

    weight: str
    value: str
    targets: tuple[Target, ...]
    command: str
    budget: str = "time not measured"
    notes: str = ""
    recipe: str | None = None


def _at(prefix: str, figures: dict[str, float]) -> tuple[tuple[str, float], ...]:
    """Return the figures by "set recipe/level", as `benchmarks.cards` writes them."""
    return tuple((prefix + level, value) for level, value in figures.items())


# As the training of routing calls them on its card.
_CROPS = "2020 damaged crops of held-back training photographs"


def _further(recipe: str) -> str:
    """Return the command that goes on from a recipe's shipped weights."""
    return f"lacuna train {recipe} --data DATA --out RUN --steps N --start-from models/weights/{recipe}.safetensors"


# Sorted by value to users.
NEEDS: tuple[Need, ...] = (
    Need(
        weight="scratch_detector",
        value="what is not found is not restored; what is found wrongly is a harm",
        targets=tuple(
            Target(metric=f"scratch-detection/{group}", levels=(("roc_auc", 0.98),), source="aim of the design")
            for group in ("marks", "damaged", "prints")
        ),
        command="python -m models.scratches.training --data DATA --out RUN --steps N --seed S --learning-rate 2.5e-4 "
        "--start-from models/weights/scratch_detector.safetensors",
        notes="from scratch, 6,000 steps of Muon reach 0.963 on the calibration set (what was shipped then: 0.972); at "
        "1e-3, 9,500 steps from shipped weights lose more than they gain, and 9,000 at 3.5e-4 with `--hard-places` "
        "precision (docs/decisions/0031); try those without prints, lattices, spokes, "
        "spray, foliage as negatives, real scratches, larger patches",
    ),
    Need(
        weight="denoise",
        value="the most frequent fault of scans",
        targets=(
            Target(
                metric="denoise-color (PSNR dB)",
                levels=_at("CBSD68 awgn/", {"15": 33.89, "25": 31.23, "50": 27.92}),
                source="CDnCNN-B",
            ),
            Target(
                metric="denoise-gray (PSNR dB)",
                levels=_at("BSD68 awgn/", {"15": 31.61, "25": 29.16, "50": 26.23}),
                source="DnCNN-B",
            ),
        ),
        command=_further("denoise"),
        budget="20,000 steps: an hour of a busy core",
        notes="learned to clean inside clean margins, too, which cost 0.01 to 0.04 dB (docs/decisions/0035). 20,000"
        " steps before that (Muon, 5e-4, leaky ReLUs) brought 0.02 to 0.06 dB: it is near what its 132 GMAC a"
        " megapixel can. At full resolution (209 GMAC), 15,500 steps from all-in-one end within 0.07 dB of it"
        " (docs/decisions/0024), still rising; not shipped",
        recipe="denoise",
    ),
    Need(
        weight="degrain",
        value="the noise of most scans of films and prints, which `denoise` leaves as it is",
        targets=(
            Target(
                metric="grain (PSNR dB)",
                levels=_at("CBSD68 film-grain/", {"6": 35.27, "12": 31.48, "20": 28.53}),
                source="all of `denoise` trained on grain, docs/decisions/0037",
            ),
        ),
        command="lacuna train degrain --data DATA --out RUN --steps N",
        budget="5,000 steps: 21 minutes of two busy hyperthreads",
        notes="factors of rank 4 beside `denoise`, which is to be trained first; still rising after 5,000 steps. "
        "Next: grain of 1.2 to 3 px, as coarse prints have it",
        recipe="degrain",
    ),
    Need(
        weight="deblock",
        value="most of what comes from the web",
        targets=(
            Target(
                metric="deblock (PSNR dB)",
                levels=_at("classic5 jpeg/", {"10": 29.6, "20": 31.8}),
                source="the aim; DnCNN-3 + 0.2",
            ),
        ),
        command=_further("deblock"),
        notes="what is shipped has ReLUs without a slope, from which the recipe begins far off: 2,000 steps end 0.1 dB"
        " below. At full resolution, 10,000 steps from all-in-one end within 0.05 dB of it "
        "(docs/decisions/0024); not shipped",
        recipe="deblock",
    ),
    Need(
        weight="deblur",
        value="soft scans and prints",
        targets=(
            Target(
                metric="deblur (PSNR dB)",
                levels=_at("CBSD68 blur/", {"0.8": 32.62, "1.2": 28.57, "1.6": 26.71, "2": 25.59}),
                source="unsharp masking told σ",
            ),
        ),
        command=_further("deblur"),
        budget="5,000 steps: 30 minutes of a busy core (docs/decisions/0024); 4,000 beside other work: 38 (0029)",
        recipe="deblur",
    ),
    Need(
        weight="fill",
        value="scratches, cracks and holes",
        targets=(
            Target(
                metric="inpaint-50 (PSNR dB)",
                levels=(("11 pictures 50 % missing", 34.6),),
                source="Deep Image Prior 33.48",
            ),
        ),
        command=_further("fill"),
        budget="10,900 steps: two hours of a busy core",
        notes="more steps; larger patches for wide holes, where the network before "
        "was 0.1-0.2 dB better (old-photo/structured 29.61, /mixed 22.91)",
        recipe="fill",
    ),
    Need(
        weight="estimator",
        value="routing follows it",
        targets=(
            Target(
                metric="estimation, Noise, green channel (mean absolute error)",
                levels=_at(
                    "noise_sigma ", {"5 clipped": 1.34, "15 clipped": 0.76, "25 clipped": 0.85, "50 clipped": 4.02}
                ),
                source="the best of wavelet, Immerkaer and smallest eigenvalue",
                errors=True,
            ),
        ),
        command="python -m models.estimation.training --data DATA --out OUT",
        notes="measured by `python -m benchmarks.estimation --card`; 12,500 steps of Muon tell clean pictures and blur "
        "better and slight noise less surely, and route no better (docs/decisions/0025): give it the classical "
        "eigenvalue, and kinds of noise as classes",
    ),
    Need(
        weight="predicted-gain",
        value="it chooses the treatment of every picture",
        targets=(
            Target(metric=_CROPS, levels=(("gain_db", 1.6315),), source="gain in dB of the rules"),
            Target(metric=_CROPS, levels=(("harmed", 0.0317),), source="share the rules harm", errors=True),
            Target(
                metric="338 whole clean held-back photographs",
                levels=(("touched", 0.0),),
                source="none is to be touched",
                errors=True,
            ),
        ),
        command="python -m models.routing.training --data PARENT --out NEW --count 10000 --ship",
        budget="10,000 examples: an hour of two busy hyperthreads (docs/decisions/0038)",
        notes="the best choice would gain 2.38 dB on these crops; to be learned anew after new weights of denoise, "
        "degrain, deblock, deblur or all-in-one",
    ),
    Need(
        weight="upscale-x4",
        value="small scans and prints",
        targets=(
            Target(metric="sr (PSNR dB)", levels=(("Set5 bicubic/x4", 31.6),), source="VDSR 31.35, SRResNet 32.10"),
        ),
        command=_further("upscale-x4"),
        notes="at its end: 6,000 steps more gave 31.55 and the same validation (32.24 dB), the mean of the weights of "
        "three runs no more; a wider or deeper network is next. Draws lines into the texture of printed paper: a share "
        "of slightly noisy and compressed small pictures",
        recipe="upscale-x4",
    ),
    Need(
        weight="upscale-x2",
        value="the same, where the print is not so small",
        targets=(Target(metric="sr (PSNR dB)", levels=(("Set5 bicubic/x2", 37.56),), source="VDSR"),),
        command=_further("upscale-x2"),
        budget="9,000 steps: 27 minutes of a busy core",
        notes="at its end: 9,000 steps more, from 4e-4 on, gave 37.41 (Set14 32.99 for 32.97); a wider network is next",
        recipe="upscale-x2",
    ),
    Need(
        weight="all-in-one",
        value="mixed damage in one step",
        targets=(
            Target(
                metric="rl-restore (PSNR dB)",
                levels=_at("RL-Restore samples official ", {"mild": 25.71, "moderate": 25.78, "severe": 24.43}),
                source="the released agent + 1 dB",
            ),
        ),
        command=_further("all-in-one"),
        notes="12,500 steps at full resolution, photographs shrunk to a third too: 25.66 dB on the recipe's "
        "validation crops (the network before, behind a pixel-unshuffle: 25.35) and still rising. From shipped "
        "weights, 1,000 steps at 5e-4 with partly spared patches and log-error lose 0.25 dB: at 1.5e-4 or below",
        recipe="all-in-one",
    ),
    Need(
        weight="rl-restore",
        value="the paper's system with weights of our own, and the tools that its agent chains",
        targets=(
            Target(
                metric="rl-restore (PSNR dB)",
                levels=_at("RL-Restore samples official ", {"mild": 24.71, "moderate": 24.78, "severe": 23.43}),
                source="the released weights",
            ),
        ),
        command="lacuna train rl-restore-tools --data DATA --out TOOLS; "
        "python -m models.rl_restore.training agent --data DATA --start-from TOOLS --out AGENT; "
        "python -m models.rl_restore.training joint --data DATA --start-from AGENT --out RUN",
        budget="all three stages: four hours of a busy core",
        notes="authors: 2,000,000 actions, 200,000 batches. Joint training goes on gaining: 3.42 to 3.83 dB on its "
        "own validation in 11,900 steps, most with 15 in 100 patches of single faults instead of half, and as"
        " the rate decays, and to 3.99 in 1,900 that lower the logarithm of the error. An agent trained again"
        " in between, at 4e-4, paid once; from the shipped weights it fell to 3.73. The greedy oracle is 0.2 "
        "to 0.4 dB above the agent, and the authors' above ours: better tools first",
    ),
    Need(
        weight="example-external",
        value="the example-based work, to be compared with and to go on learning from a picture",
        targets=(
            Target(
                metric="example-based (PSNR dB)",
                levels=(("colour 40 %", 36.3), ("colour 60 %", 27.9), ("grey 80 %", 20.7)),
                source="one picture of the author each",
            ),
        ),
        command=_further("example-external"),
        budget="2,300 steps of four patches: about half an hour of a busy core (docs/decisions/0017)",
        recipe="example-external",
    ),
    Need(
        weight="example-external-narrow",
        value="the same, narrow: whether a network that knows less learns more from a picture",
        targets=(),
        command=_further("example-external-narrow"),
    ),
    Need(
        weight="fill-texture",
        value="texture in holes that regression fills smoothly",
        targets=(),
        command="lacuna train fill-texture --data DATA --out RUN",
        budget="150 steps: 3 minutes of a busy core",
        notes="nothing shipped yet; after 150 steps the discriminator has hardly begun",
    ),
)


def needs_to_train(needs: tuple[Need, ...] | None = None) -> list[Need]:
    """Return the weights with a recipe that are below a target, those of most value first; None = of NEEDS."""
    return [need for need in (NEEDS if needs is None else needs) if need.recipe is not None and is_missed(need)]


def is_missed(need: Need) -> bool:
    """Whether a weight is absent or misses one of its targets."""
    if need.weight not in weight_names():
        return True
    metrics = load_card(need.weight).metrics
    return any(target.missed(metrics) for target in need.targets)


def as_markdown(needs: tuple[Need, ...] = NEEDS) -> str:
    """Return the backlog as a Markdown document."""
    lines = [
        "# Weights: what each reached, what it should reach, what to train next",
        "",
        "Written by `python -m models.training.backlog --write` from the cards and the table in that module, sorted by",
        "value to users. `make train-next DATA=… RUN=…` takes the first recipe below its target that is not done in",
        "RUN, goes on from its shipped weights in RUN/<recipe>, and can be stopped and continued at any time. A GPU",
        "takes `lacuna train`, `lacuna search`, `python -m models.training` and `python -m models.scratches.training`",
        "further: `--device cuda`, the checkpoint folder as `--out`, a larger `--steps`. The trainings of the",
        "estimator, of routing, and of RL-Restore's agent with its tools (`agent`, `joint`), run on the CPU: they have",
        "no `--device`. Budget: how many steps the recipe makes, and what was timed on one core of a CPU.",
        "",
        "| weight | why | suite | reached (steps) | target | budget | next |",
        "|---|---|---|---|---|---|---|",
    ]
    for need in needs:
        card = load_card(need.weight) if need.weight in weight_names() else None
        if not need.targets:
            lines.append(
                f"| `{need.weight}` | {need.value} | no figure set yet | ({card.steps if card else 0}) | | "
                f"{_budget(need)} | `{need.command}`{f'; {need.notes}' if need.notes else ''} |"
            )
        for target in need.targets:
            reached = target.reached(card.metrics if card else {})
            shown = " / ".join("not measured" if value is None else f"{value:.4g}" for value in reached.values())
            wanted = " / ".join(f"{value:.4g}" for _, value in target.levels)
            mark = "missed" if target.missed(card.metrics if card else {}) else "met"
            notes = f"; {need.notes}" if need.notes else ""
            lines.append(
                f"| `{need.weight}` | {need.value} | {target.metric} | {shown} ({card.steps if card else 0}) | "
                f"{wanted} ({target.source}): {mark} | {_budget(need)} | `{need.command}`{notes} |"
            )
    return "\n".join(lines) + "\n"


def _budget(need: Need) -> str:
    """Return the steps of the weight's recipe, where it has one, and how long training took."""
    steps = {recipe.id: f"{recipe.schedule.steps:,} steps in the recipe; " for recipe in RECIPES}
    return steps.get(need.weight, "") + need.budget


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.training.backlog", description=__doc__)
    parser.add_argument("--write", action="store_true", help="rewrite models/weights/BACKLOG.md")
    given = parser.parse_args()
    if given.write:
        (WEIGHTS_FOLDER / "BACKLOG.md").write_text(as_markdown())
    else:
        print(as_markdown(), end="")


if __name__ == "__main__":
    main()
