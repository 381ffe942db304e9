"""What the stages found of a sample, as its row, and the rows of a shard as counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.types import DegradationEstimate, ImageRecord, Plan, StepOutcome
from storage.dataset_encoding import FORMAT_EXTENSIONS
from storage.dataset_rows import ESTIMATES
from storage.dataset_samples import Sample
from storage.errors import UNAVAILABLE
from storage.locations import Location
from tasks.datasets.jobs import ShardOutcome
from tasks.jobs import Assessed, Failure, Restored, Routed

Row = dict[str, Any]
_KEPT_FAILURES = 5
# The worst page says what a file of several is.
_WORST_FIRST = ("failed", "review", "restored", "untouched")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """What became of one picture file: its result on this machine, or the failure. Of several pages, the first speaks
    for the estimate, the worst for the status."""

    sha256: str | None
    failure: Failure | None = None
    output: Path | None = None
    output_sha256: str | None = None
    status: str = "failed"
    record: ImageRecord | None = None
    estimate: DegradationEstimate | None = None
    plan: Plan | None = None
    steps: tuple[StepOutcome, ...] = ()

    @property
    def path(self) -> Path:
        """The result's file; raises ValueError for a picture that failed."""
        if self.output is None:
            raise ValueError("a failed picture has no result; look at its failure first")
        return self.output

    @property
    def extension(self) -> str:
        """The extension that the result's own format has."""
        suffix = self.path.suffix[1:]
        return suffix or (FORMAT_EXTENSIONS[self.record.format] if self.record is not None else "")

    @classmethod
    def of_pages(cls, pages: Sequence[tuple[ImageRecord, Assessed, Routed, Restored]]) -> ImageResult:
        """Return the result of one file from what the stages say of its pages."""
        record, assessed, routed, first = pages[0]
        statuses = [restored.output.status for _, _, _, restored in pages]
        bad = next((restored.output for _, _, _, restored in pages if restored.output.error_kind is not None), None)
        failure = None
        if bad is not None:
            failure = Failure(stage="restore", error_kind=bad.error_kind or "unknown", error_text=bad.error_text or "")
        uri = first.output.output_uri
        return cls(
            sha256=record.source_sha256,
            failure=failure,
            output=None if uri is None else Location(uri).local_path,
            output_sha256=first.output.output_sha256,
            status=next((status for status in _WORST_FIRST if status in statuses), "failed"),
            record=record,
            estimate=assessed.estimate,
            plan=routed.plan,
            steps=tuple(step for _, _, _, restored in pages for step in restored.steps),
        )


def sample_row(sample: Sample, result: ImageResult, *, key: str, output: str, shard: str) -> Row:
    """Return the row of a sample that came through."""
    row = _described(sample, result, shard=shard)
    row |= {"key": key, "output": output, "status": result.status, "output_sha256": result.output_sha256}
    return row


def failed_row(sample: Sample, failure: Failure, *, result: ImageResult | None, shard: str) -> Row:
    """Return the row of a sample without a result; nothing of it is in the shard."""
    row = _described(sample, result or ImageResult(sha256=None), shard=shard)
    return row | {"status": "failed", "error_kind": failure.error_kind, "error_text": failure.error_text}


def _described(sample: Sample, result: ImageResult, *, shard: str) -> Row:
    row: Row = {"index": sample.index, "key": sample.key, "source": sample.source, "shard": shard}
    row |= {"members": [], "methods": [], "source_sha256": result.sha256, "source_bytes": sample.size or None}
    if result.record is not None:
        scale = _enlarged(result.record.image_id, result.steps)
        row |= {"width": result.record.width * scale, "height": result.record.height * scale}
        row["source_bytes"] = result.record.source_bytes
    if result.output is not None and result.output.exists():
        row["output_bytes"] = result.output.stat().st_size
    if result.plan is not None:
        row["plan"] = result.plan.reason
    row["methods"] = list(dict.fromkeys(step.method_id for step in result.steps if step.accepted))
    for name in ESTIMATES if result.estimate is not None else ():
        measured = getattr(result.estimate, name)
        row |= {name: measured.value, f"{name}_confidence": measured.confidence}
    return row


def _enlarged(image_id: str, steps: Sequence[StepOutcome]) -> int:
    """Return how many times larger the steps that were kept have made an image."""
    from models.registry import get_method

    kept = [step.method_id for step in steps if step.accepted and step.image_id == image_id]
    return math.prod(get_method(method).card.scale for method in kept)


def outcome_of(rows: Sequence[Row], *, number: int, seconds: float) -> ShardOutcome:
    """Return the rows of a shard as counts and sums."""
    failed = [row for row in rows if row["status"] == "failed"]
    estimates = {}
    for name in ESTIMATES:
        values = [row[name] for row in rows if row.get(name) is not None]
        estimates[name] = (math.fsum(values), len(values))
    return ShardOutcome(
        number=number,
        samples=len(rows),
        statuses=_counted(row["status"] for row in rows),
        methods=_counted(method for row in rows for method in row["methods"]),
        errors=_counted(row["error_kind"] for row in failed),
        estimates=estimates,
        source_bytes=_total(rows, "source_bytes"),
        output_bytes=_total(rows, "output_bytes"),
        pixels=sum((row.get("width") or 0) * (row.get("height") or 0) for row in rows),
        unavailable=sum(row["error_kind"] == UNAVAILABLE for row in failed),
        seconds=seconds,
        failures=tuple((row["source"], row["error_kind"], row["error_text"]) for row in failed[:_KEPT_FAILURES]),
    )


def _counted(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _total(rows: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(row.get(name) or 0 for row in rows)
