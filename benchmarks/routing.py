"""`python -m benchmarks.routing [--data DIR] [--pictures N] [--plot FILE]`: what policies of routing miss.

Suites: the middle 256 x 256 px of N pictures of CBSD68 spread over the set (8 unless told), clean and damaged in 25
ways (seed = number of the picture), rounded to 8 bits, and RL-Restore's 12 pairs of 63 px. `varying`: with a strength
that varies over the picture; `one side`: a moderate mixture on the left half alone. Every policy sees the
estimate, made without a search for scratches and without JPEG tables; its plan is carried out and checked as `lacuna
restore` does. Gains: dB of PSNR (RGB, clipped, 8 bit), with errors raised by one grey level² so that a clean picture
has a finite one. regret: how much the best treatment of the picture would have brought beyond it; below zero where
mixing treatments beats each of them. harmed: worse than the input by more than 0.1 dB. touched: changed. one witness:
predicted-gain without asking whether the estimate shows the fault. budget 150: predicted-gain with that budget. GMAC:
giga multiply-accumulates per megapixel of the steps that are planned, from the methods' cards; of agent three of its
large tools, whichever it takes. What choosing itself costs is not in it: `python -m benchmarks.routing_cost`.
`--plot` draws expected against true gains, every treatment of every picture.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.rl_restore_pairs import official_pairs
from models.degradations import old_photo
from models.degradations.recipes import get_recipe
from models.degradations.rendering import from_batch, to_batch
from models.estimation.estimate import UNKNOWN, estimate_with_evidence
from models.registry import get_method
from models.routing.calibration import LARGEST_HARM_DB
from models.routing.gain_thresholds import GainThresholds
from models.routing.gains import predict_gains
from models.routing.policies import PredictedGain, get_policy
from models.routing.rules import RoutingOptions
from models.routing.treatments import TREATMENTS, gain_db, squared_error
from models.routing.trial_evidence import trial_window
from models.routing.trials import treated, with_trials
from models.run import Runner, RunSettings
from models.training.photographs import IMAGE_SUFFIXES, read_rgb
from models.types import DegradationEstimate, Gain, Plan, ScratchReport
from tasks.acceptance import compare, refusal_of_step

Picture = npt.NDArray[np.uint8]
SIDE = 256
SUITES: dict[str, tuple[str, ...]] = {
    "clean": ("clean",),
    "noise": ("awgn/5", "awgn/15", "awgn/25", "awgn/50", "film-grain/12"),
    "JPEG": ("jpeg/10", "jpeg/30", "jpeg/60", "jpeg-420/80", "jpeg-double/20"),
    "blur": ("blur/0.6", "blur/1.2", "blur/2"),
    "mild": ("rl-restore/mild",),
    "moderate": ("rl-restore/moderate",),
    "severe": ("rl-restore/severe",),
    "old photo": ("old photo", "old photo", "old photo"),
    "varying": (
        "varying:rl-restore/mild",
        "varying:rl-restore/moderate",
        "varying:rl-restore/severe",
        "varying:awgn/25",
        "varying:jpeg/20",
    ),
    "one side": ("one side",),
}
POLICIES = ("rules", "predicted-gain", "one witness", "budget 150", "soft", "regional", "agent", "fixed:all-in-one")
ORACLE = "oracle"
NOTHING = ScratchReport(
    coverage=0.0, components=0, confidence=1.0, threshold=0.5, mask=None, mask_sha256=None, detector="none"
)
_COLOURS = dict(
    zip(TREATMENTS, ((50, 102, 173), (212, 160, 23), (180, 83, 42), (46, 139, 87), (140, 70, 160)), strict=True)
)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One damaged picture and its reference, 8-bit RGB."""

    suite: str
    degraded: Picture
    reference: Picture


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What one picture's treatments truly bring (in the order of TREATMENTS), and what each policy's plan brought.

    gmac: giga multiply-accumulates per megapixel of each policy's plan.
    """

    suite: str
    true_gains: tuple[float, ...]
    expected: tuple[Gain, ...]
    brought: dict[str, float]
    touched: dict[str, bool]
    review: dict[str, bool]
    gmac: dict[str, float]


def levels(image: npt.NDArray[Any]) -> Picture:
    return np.asarray(np.rint(np.clip(image, 0, 1) * 255), np.uint8)


def aged(picture: Picture, *, seed: int) -> Picture:
    """Blur, noise, lost resolution and JPEG of an old photograph, without the colour shift that nothing here undoes."""
    rng = np.random.default_rng((20, seed))
    batch = to_batch(picture.astype(np.float32) / np.float32(255))
    for operator in old_photo.of_quality(rng):
        batch = operator.apply(batch).clamp(0, 1)
    return levels(from_batch(batch))


def damaged(clean: Picture, recipe: str, *, seed: int) -> Picture:
    """Return the picture damaged by a recipe, or in one of the two ways that only this benchmark knows."""
    if recipe == "old photo":
        return aged(clean, seed=seed)
    one_side = recipe == "one side"
    degraded = levels(get_recipe("rl-restore/moderate" if one_side else recipe).apply(clean, seed=seed).image)
    if one_side:
        degraded[:, clean.shape[1] // 2 :] = clean[:, clean.shape[1] // 2 :]
    return degraded


def cases(data: Path, *, pictures: int) -> Iterator[Case]:
    folder = data / "test" / "CBSD68"
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    for number, index in enumerate(np.linspace(0, len(paths) - 1, pictures).round().astype(int)):
        picture = read_rgb(paths[index])
        top, left = ((length - SIDE) // 2 for length in picture.shape[:2])
        clean = np.ascontiguousarray(picture[top : top + SIDE, left : left + SIDE])
        for suite, recipes in SUITES.items():
            for turn, recipe in enumerate(recipes):
                yield Case(suite, damaged(clean, recipe, seed=1000 * turn + number), clean)
    pairs = official_pairs(data)
    for degraded, reference in zip(pairs.degraded, pairs.references, strict=True):
        images = [levels(planes.permute(1, 2, 0).numpy()) for planes in (degraded, reference)]
        yield Case("official pairs", images[0], images[1])


def carried_out(
    plan: Plan, picture: Picture, *, runner: Runner, estimate: DegradationEstimate, known: dict[str, npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """Return the picture after its plan; `known` are results of single methods that were computed already."""
    current: npt.NDArray[Any] = picture
    for index, step in enumerate(plan.steps):
        if index == 0 and step.method_id in known:
            after = known[step.method_id]
        else:
            after = runner.apply(step.method_id, [current], estimates=[estimate])[0]
        change = compare(current, after)
        if refusal_of_step(change, method_id=step.method_id, plan=plan, estimate=estimate) is not None:
            break
        current = after
    return current


def gmac_per_megapixel(plan: Plan) -> float:
    """Return the giga multiply-accumulates per megapixel of a plan's steps; what is no network counts nothing."""
    return sum(get_method(step.method_id).card.gmac_per_megapixel or 0.0 for step in plan.steps)


def oracle(true_gains: Sequence[float]) -> tuple[PredictedGain, tuple[Gain, ...]]:
    """Return the policy that is told the truth, and the truth."""
    told = tuple(
        Gain(treatment=treatment, gain_db=gain, uncertainty_db=0.0)
        for treatment, gain in zip(TREATMENTS, true_gains, strict=True)
    )
    return PredictedGain(
        thresholds=GainThresholds(doubts=(0.0,) * len(TREATMENTS), least_gain_db=0.0),
        name=ORACLE,
        two_witnesses=False,
    ), told


def measured(case: Case, *, runner: Runner) -> Result:
    estimate, evidence = estimate_with_evidence(
        case.degraded, scratch_mask=None, scratch_coverage=UNKNOWN, jpeg_table_quality=None
    )
    (tried,) = with_trials([evidence], [trial_window(case.degraded)], [estimate], runner=runner)
    expected = predict_gains(tried)
    results = [column[0] for column in treated(runner, [case.degraded], [estimate])]
    before = squared_error(case.degraded, case.reference)
    gains = tuple(gain_db(before=before, after=squared_error(result, case.reference)) for result in results)
    known = {treatment[0]: result for treatment, result in zip(TREATMENTS, results, strict=True)}
    told_policy, told = oracle(gains)
    variants = {
        "one witness": PredictedGain(name="one witness", two_witnesses=False),
        "budget 150": PredictedGain(name="budget 150"),
    }
    policies = [(variants.get(name) or get_policy(name), expected) for name in POLICIES]
    policies.append((told_policy, told))
    brought, touched, review, gmac = {}, {}, {}, {}
    for policy, seen in policies:
        options = RoutingOptions(budget_gmac=150.0 if policy.name == "budget 150" else None)
        plan = policy.plan(estimate, NOTHING, options=options, gains=seen)
        if policy.name == ORACLE:
            brought[ORACLE] = max(0.0, *gains)
            touched[ORACLE] = not plan.untouched
        else:
            after = carried_out(plan, case.degraded, runner=runner, estimate=estimate, known=known)
            brought[policy.name] = gain_db(before=before, after=squared_error(after, case.reference))
            touched[policy.name] = not np.array_equal(after, case.degraded)
        review[policy.name] = plan.needs_review
        gmac[policy.name] = gmac_per_megapixel(plan)
    return Result(case.suite, gains, expected, brought, touched, review, gmac)


def print_table(results: Sequence[Result]) -> None:
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[result.suite].append(result)
    names = (*POLICIES, ORACLE)
    groups["all of CBSD68"] = [result for result in results if result.suite != "official pairs"]
    groups["everything"] = list(results)
    cells: dict[str, Callable[[list[Result], str], str]] = {
        "mean gain, dB": lambda rows, name: f"{np.mean([row.brought[name] for row in rows]):+.3f}",
        "mean regret, dB": lambda rows, name: (
            f"{np.mean([row.brought[ORACLE] - row.brought[name] for row in rows]):.3f}"
        ),
        "harmed": lambda rows, name: f"{np.mean([row.brought[name] < -LARGEST_HARM_DB for row in rows]):.1%}",
        "touched": lambda rows, name: f"{np.mean([row.touched[name] for row in rows]):.0%}",
        "GMAC per megapixel": lambda rows, name: f"{np.mean([row.gmac[name] for row in rows]):.1f}",
        "for review": lambda rows, name: f"{np.mean([row.review[name] for row in rows]):.0%}",
    }
    for title, cell in cells.items():
        print(f"\n{title:20s}{'pictures':>9s}" + "".join(f"{name:>18s}" for name in names))
        for suite, rows in groups.items():
            print(f"{suite:20s}{len(rows):9d}" + "".join(f"{cell(rows, name):>18s}" for name in names))


def draw_plot(results: Sequence[Result], path: Path) -> None:
    """Draw expected gains (across) against true ones (up), one colour a treatment, with the lines of perfection."""
    side, margin, low, high = 900, 70, -12.0, 18.0
    page = np.full((side, side, 3), 255, np.uint8)

    def place(gain: float) -> int:
        return round(margin + (side - 2 * margin) * (min(max(gain, low), high) - low) / (high - low))

    for value in range(int(low), int(high) + 1, 3):
        at, black = place(value), (120, 120, 120) if value else (0, 0, 0)
        cv2.line(page, (at, margin), (at, side - margin), black if value == 0 else (225, 225, 225), 1)
        cv2.line(page, (margin, side - at), (side - margin, side - at), black if value == 0 else (225, 225, 225), 1)
        cv2.putText(page, str(value), (at - 10, side - margin + 22), 0, 0.45, black, 1, cv2.LINE_AA)
        cv2.putText(page, str(value), (margin - 34, side - at + 5), 0, 0.45, black, 1, cv2.LINE_AA)
    cv2.line(page, (place(low), side - place(low)), (place(high), side - place(high)), (0, 0, 0), 1, cv2.LINE_AA)
    for result in results:
        for gain in result.expected:
            centre = (place(gain.gain_db), side - place(result.true_gains[TREATMENTS.index(gain.treatment)]))
            cv2.circle(page, centre, 3, _COLOURS[gain.treatment][::-1], -1, cv2.LINE_AA)
    for index, (treatment, colour) in enumerate(_COLOURS.items()):
        text = (margin + 10, margin + 22 + 22 * index)
        cv2.putText(page, ", ".join(treatment), text, 0, 0.55, colour[::-1], 1, cv2.LINE_AA)
    cv2.putText(page, "expected gain, dB of PSNR", (side // 2 - 110, side - 18), 0, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.putText(page, "true gain, dB of PSNR (up)", (margin, margin - 20), 0, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(page[:, :, ::-1]).quantize(16, dither=Image.Dither.NONE).save(path, lossless=True, method=6)


def print_calibration(results: Sequence[Result]) -> None:
    """Print how often the truth lies within the stated deviations, and how far off expectations are."""
    errors, deviations = [], []
    for result in results:
        for gain in result.expected:
            errors.append(gain.gain_db - result.true_gains[TREATMENTS.index(gain.treatment)])
            deviations.append(gain.uncertainty_db)
    off, stated = np.abs(errors), np.array(deviations)
    if len(off):
        print(
            f"\nexpected against true gains: mean error {off.mean():.2f} dB, mean deviation stated {stated.mean():.2f} "
            f"dB, within one {np.mean(off < stated):.0%}, within two {np.mean(off < 2 * stated):.0%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LACUNA_DATA", "../shared/data")))
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--plot", type=Path, help="picture of expected against true gains")
    arguments = parser.parse_args()
    began = time.perf_counter()
    runner = Runner(RunSettings(device="cpu"))
    results = [measured(case, runner=runner) for case in cases(arguments.data, pictures=arguments.pictures)]
    print_table(results)
    print_calibration(results)
    print(f"{len(results)} pictures in {time.perf_counter() - began:.0f} s")
    if arguments.plot is not None:
        draw_plot(results, arguments.plot)
        print(f"plot: {arguments.plot}")


if __name__ == "__main__":
    main()
