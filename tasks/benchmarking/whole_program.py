"""Lacuna as one method of a benchmark: detect, estimate, plan, restore and check, knowing nothing but the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage.benchmark_pictures import as_floats
from tasks.acceptance import compare, refusal_of_step
from tasks.benchmarking.cases import Pixels
from tasks.device import detector

if TYPE_CHECKING:
    from models.run import Runner


def load_networks(chosen: Runner) -> None:
    """Load the networks that every picture passes, so that no picture is timed with them."""
    from models.estimation.learned import load_network

    detector(chosen.device)
    load_network()


def restore_routed(degraded: Pixels, *, chosen: Runner) -> Pixels:
    """Return what the program makes of a picture that comes as an 8-bit file; untouched = the very input.

    The steps, their order and the checks between them are those of the restoring flow, with its default options.
    """
    from models.registry import get_method
    from models.routing.assess import assess

    before = np.rint(np.clip(degraded, 0.0, 1.0) * 255).astype(np.uint8)
    found = assess(before, detector=detector(chosen.device), runner=chosen)
    mask, estimate = found.mask, found.estimate
    current: npt.NDArray[Any] = before
    for step in found.plan.steps:
        card = get_method(step.method_id).card
        masks = [mask] if card.needs_mask and mask is not None else None
        (after,) = chosen.apply(
            step.method_id, [current], masks=masks, estimates=[estimate], strengths=[step.strength], seed=0
        )
        change = compare(current, after, mask=mask)
        if refusal_of_step(change, method_id=step.method_id, plan=found.plan, estimate=estimate) is not None:
            break
        current = after
    return degraded if np.array_equal(current, before) else as_floats(current)
