"""Lacuna as one method of a benchmark: detect, estimate, plan, restore and check, knowing nothing but the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.types import Estimated, Plan, ScratchReport
from storage.benchmark_pictures import as_floats
from tasks.acceptance import compare, refusal
from tasks.benchmarking.cases import Mask, Pixels
from tasks.device import detector

if TYPE_CHECKING:
    from models.run import Runner
    from models.types import DegradationEstimate


def load_networks(chosen: Runner) -> None:
    """Load the networks that every picture passes, so that no picture is timed with them."""
    from models.estimation.learned import load_network

    detector(chosen.device)
    load_network(chosen.device)


def restore_routed(degraded: Pixels, *, chosen: Runner) -> Pixels:
    """Return what the program makes of a picture that comes as an 8-bit file; untouched = the very input.

    The steps, their order and the checks between them are those of the restoring flow, with its default options.
    """
    from models.registry import get_method

    before = np.rint(np.clip(degraded, 0.0, 1.0) * 255).astype(np.uint8)
    mask, estimate, plan = _plan(before, device=chosen.device)
    current: npt.NDArray[Any] = before
    for step in plan.steps:
        card = get_method(step.method_id).card
        masks = [mask] if card.needs_mask and mask is not None else None
        (after,) = chosen.apply(
            step.method_id, [current], masks=masks, estimates=[estimate], strengths=[step.strength], seed=0
        )
        if refusal(compare(current, after, mask=mask), purpose=card.purpose, estimate=estimate) is not None:
            break
        current = after
    return degraded if np.array_equal(current, before) else as_floats(current)


def _plan(picture: npt.NDArray[np.uint8], *, device: str) -> tuple[Mask | None, DegradationEstimate, Plan]:
    from models.estimation.estimate import estimate_degradation
    from models.routing.rules import plan_for
    from models.scratches.detector import detect, mask_for_filling, shipped_settings

    found = detect(picture, network=detector(device), device=device)
    mask = np.asarray(mask_for_filling(found), np.bool_) if found.components else None
    estimate = estimate_degradation(
        picture,
        scratch_mask=mask,
        scratch_coverage=Estimated(value=found.coverage, confidence=found.confidence),
        jpeg_table_quality=None,
        device=device,
    )
    report = ScratchReport(
        coverage=found.coverage,
        components=found.components,
        confidence=found.confidence,
        threshold=shipped_settings().thresholds.high,
        # Routing asks whether there is a mask, and never reads it.
        mask=None if mask is None else "in memory",
        mask_sha256=None,
        detector="",
    )
    return mask, estimate, plan_for(estimate, report)
