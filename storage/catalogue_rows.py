"""Records to catalogue rows; every value not given stays null."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from models.types import (
    DegradationEstimate,
    ImageRecord,
    MetricRecord,
    OutputRecord,
    Plan,
    QuarantineRecord,
    ScratchReport,
    StepOutcome,
    to_json,
)

Row = dict[str, Any]
_ESTIMATES = (
    "scratch_coverage",
    "noise_sigma",
    "blur_sigma_px",
    "jpeg_quality",
    "effective_scale",
    "fading",
    "colour_cast",
)
_NOT_COLUMNS = {"working_copy", "parts_sha256s"}


def image_row(
    record: ImageRecord,
    *,
    output: OutputRecord,
    code_version: str,
    scratches: ScratchReport | None = None,
    estimate: DegradationEstimate | None = None,
    plan: Plan | None = None,
    steps: Sequence[StepOutcome] = (),
) -> Row:
    """Return the images row of an ingested page, whatever became of it."""
    row: Row = {name: value for name, value in to_json(record).items() if name not in _NOT_COLUMNS}
    if scratches is not None:
        row |= {"scratch_components": scratches.components, "scratch_threshold": scratches.threshold}
        row |= {"scratch_detector": scratches.detector, "mask_sha256": scratches.mask_sha256}
    for name in _ESTIMATES if estimate is not None else ():
        measured = getattr(estimate, name)
        row |= {name: measured.value, f"{name}_confidence": measured.confidence}
    if plan is not None:
        row |= {"plan_json": json.dumps(to_json(plan.steps), ensure_ascii=False), "plan_reason": plan.reason}
        if plan.alternatives:
            row["plan_alternatives_json"] = json.dumps(to_json(plan.alternatives))
        row |= {"plan_policy": plan.policy, "needs_review": plan.needs_review, "step_count": len(plan.steps)}
    # What mixes results looks at them with weights of its own, after its parts.
    used = [sha256 for step in steps for sha256 in (*step.parts_sha256s, step.weights_sha256) if sha256]
    row["weights_sha256s"] = list(dict.fromkeys(used))
    row["device"] = steps[0].device if steps else None
    row |= {"code_version": code_version, "finished_at": datetime.now(UTC)}
    for name in ("seconds", "output_uri", "output_sha256", "mask_uri", "status", "error_kind", "error_text"):
        row[name] = getattr(output, name)
    return row


def quarantine_row(record: QuarantineRecord, *, code_version: str) -> Row:
    """Return the images row of a member that could not be ingested."""
    row: Row = to_json(record)
    fallback = sha256(record.source_uri.encode("utf-8", "backslashreplace")).hexdigest()
    row |= {"image_id": record.source_sha256 or fallback, "status": "quarantined"}
    row |= {"code_version": code_version, "finished_at": datetime.now(UTC)}
    return row


def step_row(outcome: StepOutcome, *, relative_path: str | None = None) -> Row:
    """Return the steps row of one executed step."""
    row = {name: value for name, value in to_json(outcome).items() if name not in _NOT_COLUMNS}
    return {**row, "relative_path": relative_path}


def metric_row(record: MetricRecord, *, relative_path: str | None = None) -> Row:
    """Return the metrics row of one measured number."""
    return {**to_json(record), "relative_path": relative_path}
