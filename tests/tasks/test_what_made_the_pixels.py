"""The catalogue says what made a picture's pixels where the method's id alone does not: chains of tools, shares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import skimage.data

from models.estimation.estimate import UNKNOWN, estimate_with_evidence
from models.registry import get_method
from models.rl_restore.networks import STOP
from models.routing.treatments import TREATING_METHODS
from models.run import Runner
from models.types import OutputRecord, Plan, Step, StepOutcome
from models.weights import weights_sha256
from storage.catalogue_rows import Row, image_row, step_row
from tasks.device import identify
from tasks.jobs import RestoreOptions
from tasks.picture import Picture
from tasks.steps import apply_plans
from tests.flows.test_task_rules import JOB
from tests.storage.test_catalogue import RECORD

OPTIONS = RestoreOptions(device="cpu", precision="float32")


def carried_out(method_id: str, *, noise_sigma: float) -> tuple[Row, Row]:
    """Return the images row and the steps row of a noisy picture that one method was applied to."""
    clean = skimage.data.coffee()[100:228, 100:260]
    noise = np.random.default_rng(0).normal(0, noise_sigma, clean.shape)
    image = np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)
    estimate, _ = estimate_with_evidence(image, scratch_mask=None, scratch_coverage=UNKNOWN, jpeg_table_quality=None)
    record = replace(RECORD, height=image.shape[0], width=image.shape[1])
    plan = Plan(steps=(Step(method_id=method_id, strength=1.0, reason="noise"),), reason="Noise.", policy=method_id)
    picture = Picture(
        record=record, scratches=None, estimate=estimate, plan=plan, failure=None, seconds=0.0, pixels=image
    )
    apply_plans([picture], job=replace(JOB, identities=identify(OPTIONS, code_version="0")))
    assert picture.failure is None
    (outcome,) = picture.outcomes
    assert isinstance(outcome, StepOutcome)
    output = OutputRecord(
        image_id=record.image_id, relative_path=record.relative_path, status="restored", output_uri=None,
        output_sha256=None, mask_uri=None, error_kind=None, error_text=None, seconds=0.0,
    )  # fmt: skip
    return image_row(record, output=output, code_version="0", plan=plan, steps=[outcome]), step_row(outcome)


def test_the_chain_of_tools_and_their_values_are_recorded() -> None:
    images, steps = carried_out("rl-restore", noise_sigma=30.0)
    assert "passed the checks; chose tool " in steps["note"]
    assert " for noise of σ " in steps["note"]
    assert steps["note"].count("(Q ") in (1, 2, 3)
    assert images["weights_sha256s"] == [weights_sha256("rl-restore")]


@pytest.mark.parametrize("method_id", ["soft", "regional"])
def test_what_is_mixed_is_recorded_with_its_weights(method_id: str) -> None:
    images, steps = carried_out(method_id, noise_sigma=30.0)
    assert "; mean shares: denoise " in steps["note"]
    assert "parts_sha256s" not in steps
    used = [part for part in TREATING_METHODS if f"{part} " in steps["note"].partition("shares: ")[2]]
    assert "denoise" in used
    assert images["weights_sha256s"] == [*(weights_sha256(part) for part in used), weights_sha256("predicted-gain")]


def test_of_a_mixture_that_leaves_all_as_it_is_no_part_is_named() -> None:
    clean = np.ascontiguousarray(skimage.data.coffee()[100:228, 100:260])
    (found,) = Runner().apply_and_say("soft", [clean])
    assert (found.parts, found.decided) == ((), "mean shares: as it was 100%")


def test_a_chain_is_said_in_words() -> None:
    method = get_method("rl-restore")
    assert method.decided((2.0, 12.0, float(STOP), 1.5, 0.25, -0.125)) == (  # type: ignore[attr-defined]
        "chose tool 2 for blur of σ 1.25-2.5 px (Q +1.50), then tool 12 for JPEG quality 10-20 (Q +0.25), "
        "then to stop (Q -0.12)"
    )
