"""`python -m benchmarks.routing_cost [--data DIR] [--pictures N]`: what choosing costs beside restoring.

Pictures: the middle S x S px of the first N pictures of train/photos_1024 that are large enough, S = 512 and 1024, each
clean and damaged in three ways (seed = number of the picture). Of every one, in the same run and one after the other:
the search for scratches, the estimate, the trial of all treatments on a window of it, the prediction of their gains,
and then the steps that are planned. CPU seconds of this process, all its threads, so that what else the machine does
counts little; networks loaded and run once before. share: of what choosing takes in what restoring takes, over the
pictures that are treated; unsearched: without the search for scratches. of always: in what one all-in-one for every
picture takes, over all of them.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.degradations.recipes import get_recipe
from models.estimation.estimate import estimate_with_evidence
from models.routing.assess import report_in_memory
from models.routing.gains import predict_gains
from models.routing.policies import get_policy
from models.routing.rules import RoutingOptions
from models.routing.trial_evidence import trial_window
from models.routing.trials import with_trials
from models.run import Runner, RunSettings
from models.scratches.detector import detect, load_detector, mask_for_filling, shipped_settings
from models.training.photographs import IMAGE_SUFFIXES, read_rgb
from models.types import DEFAULT_POLICY, Estimated

Picture = npt.NDArray[np.uint8]
FOLDER, SIDES = Path("train", "photos_1024"), (512, 1024)
RECIPES = ("clean", "awgn/25", "jpeg/20", "rl-restore/moderate")
CHOOSING = ("scratches", "estimate", "trial", "gains")
RESTORING, ALWAYS = "restoring", "always"


@dataclass(slots=True)
class Clock:
    """CPU seconds of this process by stage, of one picture."""

    seconds: dict[str, float] = field(default_factory=dict)

    def time(self, stage: str, work: Callable[[], Any]) -> Any:
        """Return what `work` returns, and keep how long it took."""
        began = time.process_time()
        found = work()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.process_time() - began
        return found

    def choosing(self, *, searching: bool = True) -> float:
        """Return what all took that comes before the first step of a plan, or what of it is no search."""
        return sum(self.seconds[stage] for stage in CHOOSING[0 if searching else 1 :])


def pictures(data: Path, *, side: int, count: int) -> Iterator[Picture]:
    """Yield the middle `side` x `side` px of `count` pictures that are large enough, in the order of their names."""
    found = 0
    for path in sorted(path for path in data.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
        if found == count:
            return
        picture = read_rgb(path)
        top, left = ((length - side) // 2 for length in picture.shape[:2])
        if min(top, left) >= 0:
            found += 1
            yield np.ascontiguousarray(picture[top : top + side, left : left + side])
    if found < count:
        raise SystemExit(
            f"--data: {data} holds {found} pictures of {side} x {side} px or more, expected {count}; give fewer"
        )


def measured(image: Picture, *, detector: Any, runner: Runner) -> tuple[Clock, bool]:
    """Return what every stage of one picture took, and whether it was treated."""
    clock, settings = Clock(), shipped_settings()
    scratched = clock.time(
        "scratches", lambda: detect(image, network=detector, device=runner.device, settings=settings)
    )
    mask = mask_for_filling(scratched) if scratched.components else None
    scratches = report_in_memory(scratched, settings=settings)
    estimate, evidence = clock.time(
        "estimate",
        lambda: estimate_with_evidence(
            image,
            scratch_mask=mask,
            scratch_coverage=Estimated(value=scratched.coverage, confidence=scratched.confidence),
            jpeg_table_quality=None,
        ),
    )
    (tried,) = clock.time("trial", lambda: with_trials([evidence], [trial_window(image)], [estimate], runner=runner))
    gains = clock.time("gains", lambda: predict_gains(tried))
    plan = get_policy(DEFAULT_POLICY).plan(estimate, scratches, options=RoutingOptions(), gains=gains)
    current: npt.NDArray[Any] = image
    clock.seconds[RESTORING] = 0.0
    for step in plan.steps:
        apply = partial(runner.apply, step.method_id, [current], masks=[mask], estimates=[estimate])
        (current,) = clock.time(RESTORING, apply)
    clock.time(ALWAYS, lambda: runner.apply("all-in-one", [image]))
    return clock, not plan.untouched


def print_table(clocks: dict[tuple[int, str], list[tuple[Clock, bool]]]) -> None:
    """Print mean CPU seconds a picture by size and damage, and the shares."""
    stages = (*CHOOSING, RESTORING, ALWAYS)
    heads = "".join(f"{name:>11s}" for name in (*stages, "share", "unsearched", "of always"))
    print(f"{'px':>5s}  {'damage':20s}{'pictures':>9s}{'treated':>9s}{heads}")
    for side in SIDES:
        rows = {damage: found for (size, damage), found in clocks.items() if size == side}
        for damage, found in {**rows, "all": [one for row in rows.values() for one in row]}.items():
            means = "".join(f"{np.mean([clock.seconds[stage] for clock, _ in found]):11.3f}" for stage in stages)
            treated = [clock for clock, touched in found if touched]
            restoring = sum(clock.seconds[RESTORING] for clock in treated)
            shares = [
                f"{sum(clock.choosing(searching=search) for clock in treated) / restoring:.1%}" if treated else "-"
                for search in (True, False)
            ]
            always = sum(clock.choosing() for clock, _ in found) / sum(clock.seconds[ALWAYS] for clock, _ in found)
            counts = f"{len(found):9d}{len(treated):9d}"
            print(f"{side:5d}  {damage:20s}{counts}{means}{shares[0]:>11s}{shares[1]:>11s}{always:11.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing_cost", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LACUNA_DATA", "../shared/data")))
    parser.add_argument("--pictures", type=int, default=2)
    arguments = parser.parse_args()
    runner, detector = Runner(RunSettings(device="cpu")), load_detector()
    clocks: dict[tuple[int, str], list[tuple[Clock, bool]]] = {}
    for side in SIDES:
        for number, clean in enumerate(pictures(arguments.data / FOLDER, side=side, count=arguments.pictures)):
            for recipe in RECIPES:
                image = np.rint(get_recipe(recipe).apply(clean, seed=number).image * 255).astype(np.uint8)
                if not clocks:
                    measured(image[:256, :256].copy(), detector=detector, runner=runner)
                clocks.setdefault((side, recipe), []).append(measured(image, detector=detector, runner=runner))
    print_table(clocks)


if __name__ == "__main__":
    main()
