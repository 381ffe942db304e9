"""Which clean pictures would be touched, and why: none should be.

    python -m benchmarks.do_no_harm [--data DIR | --folders CLEAN …] [--policy NAME]

Runs detection, estimation and routing on CBSD68, Set5 and Set14 (87 pictures) or on every picture of the given
folders, exactly as `lacuna restore` does for files without JPEG tables, and prints each whose plan is not empty.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from models.routing.assess import assess
from models.routing.policies import REGIONAL, get_policy
from models.run import Runner, RunSettings
from models.scratches.detector import load_detector
from models.training.photographs import IMAGE_SUFFIXES, read_rgb
from models.types import DEFAULT_POLICY

SETS = ("CBSD68", "Set5", "Set14")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LACUNA_DATA", "../shared/data")))
    parser.add_argument("--folders", type=Path, nargs="+", help="clean pictures of yours, instead of the three sets")
    parser.add_argument(
        "--policy", default=DEFAULT_POLICY, help="rules, predicted-gain, soft, regional or fixed:METHOD"
    )
    arguments = parser.parse_args()
    policy = get_policy(arguments.policy)
    network, runner, touched, review, count = load_detector(), Runner(RunSettings(device="cpu")), 0, 0, 0
    for folder in arguments.folders or [arguments.data / "test" / name for name in SETS]:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            picture = read_rgb(path)
            found = assess(picture, detector=network, runner=runner, policy=policy)
            plan, report = found.plan, found.scratches
            changes = not plan.untouched
            if [step.method_id for step in plan.steps] == [REGIONAL]:  # it is always planned, and finds out by itself
                changes = not np.array_equal(runner.apply(REGIONAL, [picture])[0], picture)
            count += 1
            touched += changes
            review += plan.needs_review
            if changes or report.mask is not None:
                verb = "touched" if changes else "untouched"
                marks = f"scratches {report.coverage:.3%} in {report.components} places"
                seen = f"{marks}, confidence {report.confidence:.2f}; {plan.reason}"
                print(f"{verb}: {folder.name}/{path.name}: {seen}")
    print(f"{policy.name}: {count - touched} of {count} clean pictures would be left untouched, {review} for review")


if __name__ == "__main__":
    main()
