"""From one picture in memory to its plan: detect, estimate and route, as the restoring flow does by stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from models.estimation.estimate import estimate_with_evidence
from models.routing.gains import predict_gains
from models.routing.policies import Policy, get_policy
from models.routing.rules import RoutingOptions
from models.routing.trial_evidence import trial_window
from models.routing.trials import with_trials
from models.run import Runner
from models.scratches.detector import DetectorSettings, ScratchDetection, detect, mask_for_filling, shipped_settings
from models.types import DEFAULT_POLICY, DegradationEstimate, Estimated, Plan, ScratchReport


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assessment:
    """What is wrong with a picture and what will be done: the mask to fill (H, W) bool or None, and the records."""

    mask: NDArray[np.bool_] | None
    scratches: ScratchReport
    estimate: DegradationEstimate
    plan: Plan


def assess(
    image: NDArray[Any],
    *,
    detector: nn.Module,
    runner: Runner,
    jpeg_table_quality: float | None = None,
    policy: Policy | None = None,
) -> Assessment:
    """Return the assessment of `image`, (H, W) or (H, W, 3) uint8 or uint16, with the default options of routing.

    detector: from `models.scratches.detector.load_detector`, on the runner's device. runner: what restores, too.
    jpeg_table_quality: None for what is no JPEG file. policy: None = the default one.
    """
    settings = shipped_settings()
    found = detect(image, network=detector, device=runner.device, settings=settings)
    mask = mask_for_filling(found) if found.components else None
    scratches = report_in_memory(found, settings=settings)
    estimate, evidence = estimate_with_evidence(
        image,
        scratch_mask=mask,
        scratch_coverage=Estimated(value=found.coverage, confidence=found.confidence),
        jpeg_table_quality=jpeg_table_quality,
    )
    (tried,) = with_trials([evidence], [trial_window(image)], [estimate], runner=runner)
    chosen = policy or get_policy(DEFAULT_POLICY)
    plan = chosen.plan(estimate, scratches, options=RoutingOptions(), gains=predict_gains(tried))
    return Assessment(mask=mask, scratches=scratches, estimate=estimate, plan=plan)


def report_in_memory(found: ScratchDetection, *, settings: DetectorSettings) -> ScratchReport:
    """Return the record of a search whose mask is written nowhere."""
    return ScratchReport(
        coverage=found.coverage,
        components=found.components,
        confidence=found.confidence,
        threshold=settings.thresholds.high,
        # Routing asks whether there is a mask, and never reads it.
        mask="in memory" if found.components else None,
        mask_sha256=None,
        detector="in memory",
    )
