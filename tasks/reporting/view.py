"""Catalogue rows turned into what the report shows. Optional columns may be missing or null: both mean not measured."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]

STATUSES = ("failed", "quarantined", "review", "restored", "untouched")
STATUS_LABELS = {
    "failed": "Failed",
    "quarantined": "Quarantined",
    "review": "Review",
    "restored": "Restored",
    "untouched": "Untouched",
}
# (column, label, unit, decimals, factor): how the estimated quantities are called and written.
QUANTITIES = (
    ("noise_sigma", "Noise σ", "levels", 1, 1.0),
    ("blur_sigma_px", "Blur σ", "px", 2, 1.0),
    ("jpeg_quality", "JPEG quality", "", 0, 1.0),
    ("effective_scale", "Effective resolution", "%", 0, 100.0),
    ("scratch_coverage", "Scratch coverage", "%", 2, 100.0),
    ("fading", "Fading", "%", 0, 100.0),
    ("colour_cast", "Colour cast", "ΔE", 1, 1.0),
)
METRIC_LABELS = {
    "psnr_db": "PSNR, dB",
    "psnr_b_db": "PSNR-B, dB",
    "ssim": "SSIM",
    "changed_fraction": "Changed pixels",
    "colour_shift_ciede2000": "Colour shift, ΔE00",
    "detail_retention": "Detail, of that before",
    "noise_sigma": "Noise σ, levels",
    "blur_sigma_px": "Blur σ, px",
    "jpeg_quality": "JPEG quality",
    "sharpness": "Sharpness",
}
# Metrics that are shares.
_SHARES = ("changed_fraction", "detail_retention")
GAIN_METRICS = ("psnr_db", "ssim", "psnr_b_db")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """One executed (or refused) step of a plan."""

    method_id: str
    strength: float | None
    reason: str
    seconds: float | None
    changed_fraction: float | None
    accepted: bool
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateView:
    """One estimated quantity in words; `confidence` in [0, 1] or None."""

    label: str
    text: str
    confidence: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricView:
    """One metric before and after; `gain` > 0 = better, None when it was measured only once."""

    name: str
    before: float | None
    after: float | None
    gain: float | None

    @property
    def label(self) -> str:
        return METRIC_LABELS.get(self.name, self.name.replace("_", " "))

    @property
    def text(self) -> str:
        """The value, or both with an arrow where it was measured before and after."""
        shown = [self.after] if self.before is None else [self.before, self.after]
        return " → ".join(self._text(value) for value in shown)

    def _text(self, value: float | None) -> str:
        if value is None:
            return "–"
        text = f"{value * 100:.3g} %" if self.name in _SHARES else f"{value:.4g}"
        return text.replace("-", "−")


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureView:
    """Everything the report says about one image."""

    number: int
    image_id: str
    path: str
    folder: str
    name: str
    collection: str
    status: str
    reason: str
    facts: tuple[str, ...]
    steps: tuple[StepView, ...]
    estimates: tuple[EstimateView, ...]
    metrics: tuple[MetricView, ...]
    error_kind: str
    error_text: str
    output_uri: str
    changed_fraction: float | None
    noise_before: float | None
    noise_after: float | None
    gain: float | None
    gain_metric: str
    seconds: float | None

    @property
    def label(self) -> str:
        return STATUS_LABELS.get(self.status, self.status.capitalize())

    @property
    def failed(self) -> bool:
        return self.status in ("failed", "quarantined")

    @property
    def methods(self) -> str:
        return " ".join(dict.fromkeys(step.method_id for step in self.steps))

    def says(self, sentence: str) -> bool:
        """Whether the plan's reason already holds this sentence, so that it need not be read twice."""
        return sentence.rstrip(".").casefold() in self.reason.casefold()

    @property
    def search_text(self) -> str:
        return " ".join((self.path, self.error_kind, self.error_text, self.methods, self.image_id[:16])).casefold()


def build_views(*, images: Iterable[Row], steps: Iterable[Row], metrics: Iterable[Row]) -> tuple[PictureView, ...]:
    """Join the three tables by image and path, and return one view per row of `images`, in their order.

    Files with equal bytes share an `image_id`; one that has no rows of its own shows those of its twin.
    """
    steps_of, metrics_of = _Joined(steps), _Joined(metrics)
    return tuple(
        _view(index, row, steps_of.rows(row), metrics_of.rows(row)) for index, row in enumerate(images, start=1)
    )


class _Joined:
    """Rows of a table found by the image they belong to."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._of: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            self._of[text(row, "image_id")][text(row, "relative_path")].append(row)

    def rows(self, image: Row) -> list[Row]:
        by_path = self._of.get(text(image, "image_id"), {})
        return by_path.get(text(image, "relative_path")) or next(iter(by_path.values()), [])


def text(row: Row, *columns: str) -> str:
    """Return the first of the columns that is neither missing nor null, as text; "" when none is."""
    return next((str(row[column]) for column in columns if row.get(column) is not None), "")


def number(row: Row, *columns: str) -> float | None:
    """Return the first of the columns that holds a finite number, or None."""
    for column in columns:
        value = row.get(column)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


def _view(index: int, row: Row, steps: list[Row], metrics: list[Row]) -> PictureView:
    path = text(row, "relative_path", "source_uri", "image_id") or f"picture {index}"
    folder, _, name = path.rpartition("/")
    measured = _metrics(metrics)
    by_name = {metric.name: metric for metric in measured}
    # A ground-truth metric is the better witness; without one no gain is claimed.
    best = next((by_name[key] for key in GAIN_METRICS if key in by_name and by_name[key].gain is not None), None)
    noise = by_name.get("noise_sigma")
    estimate_noise = _estimated(row, "noise_sigma")[0]
    executed = tuple(_step(step) for step in sorted(steps, key=lambda step: step.get("step_index") or 0))
    executed = executed or _planned(row)
    return PictureView(
        number=index,
        image_id=text(row, "image_id"),
        path=path,
        folder=folder,
        name=name + _page_suffix(row),
        collection=text(row, "collection") or folder or "(top level)",
        status=text(row, "status") or "untouched",
        reason=text(row, "plan_reason", "reason") or _plan_reason(row),
        facts=_facts(row),
        steps=executed,
        estimates=_estimates(row),
        metrics=measured,
        error_kind=text(row, "error_kind"),
        error_text=text(row, "error_text", "error"),
        output_uri=text(row, "output_uri"),
        changed_fraction=_changed_fraction(row, executed, by_name),
        noise_before=estimate_noise if noise is None or noise.before is None else noise.before,
        noise_after=None if noise is None else noise.after,
        gain=None if best is None else best.gain,
        gain_metric="" if best is None else best.name,
        seconds=number(row, "seconds", "seconds_total"),
    )


def _page_suffix(row: Row) -> str:
    pages, page = number(row, "page_count"), number(row, "page_index")
    return f" · page {int(page) + 1} of {int(pages)}" if pages and pages > 1 and page is not None else ""


def _changed_fraction(row: Row, steps: tuple[StepView, ...], metrics: Mapping[str, MetricView]) -> float | None:
    direct = number(row, "changed_fraction")
    if direct is not None:
        return direct
    if "changed_fraction" in metrics:
        return metrics["changed_fraction"].after
    return max((step.changed_fraction for step in steps if step.changed_fraction is not None), default=None)


def _step(row: Row) -> StepView:
    accepted = row.get("accepted")
    return StepView(
        method_id=text(row, "method_id") or "step",
        strength=number(row, "strength"),
        reason=_sentence(text(row, "reason")),
        seconds=number(row, "seconds"),
        changed_fraction=number(row, "changed_fraction"),
        accepted=True if accepted is None else bool(accepted),
        note=text(row, "note"),
    )


def _planned(row: Row) -> tuple[StepView, ...]:
    """Return the steps of the plan, for an image to which none was applied."""
    planned = _nested(row, "plan_json")
    steps = planned if isinstance(planned, list) else []
    return tuple(_step({**step, "note": "Planned, not carried out."}) for step in steps if isinstance(step, Mapping))


def _sentence(phrase: str) -> str:
    phrase = phrase.strip()
    return phrase[:1].upper() + phrase[1:] + ("" if phrase.endswith((".", "!", "?")) or not phrase else ".")


def _metrics(rows: list[Row]) -> tuple[MetricView, ...]:
    """Pair the stages of each metric; the stage "change" is shown as an after without a before."""
    values: dict[str, dict[str, float]] = defaultdict(dict)
    better: dict[str, bool] = {}
    for row in rows:
        value = number(row, "value")
        if value is not None:
            values[text(row, "metric")][text(row, "stage")] = value
            better[text(row, "metric")] = bool(row.get("higher_is_better", True))
    views = []
    for name, stages in values.items():
        before, after = stages.get("before"), stages.get("after", stages.get("change"))
        gain = None if before is None or after is None else (after - before) * (1 if better[name] else -1)
        views.append(MetricView(name=name, before=before, after=after, gain=gain))
    return tuple(views)


def _nested(row: Row, column: str) -> Any:
    value = row.get(column)
    if isinstance(value, str) and value[:1] in "{[":
        try:
            return json.loads(value)
        except ValueError:
            return None
    return value


def _estimated(row: Row, quantity: str) -> tuple[float | None, float | None]:
    nested = _nested(row, "estimate")
    if isinstance(nested, Mapping) and isinstance(nested.get(quantity), Mapping):
        return number(nested[quantity], "value"), number(nested[quantity], "confidence")
    direct = row.get(quantity)
    if isinstance(direct, Mapping):
        return number(direct, "value"), number(direct, "confidence")
    return number(row, quantity), number(row, f"{quantity}_confidence")


def _estimates(row: Row) -> tuple[EstimateView, ...]:
    views = []
    for column, label, unit, decimals, factor in QUANTITIES:
        value, confidence = _estimated(row, column)
        if value is not None:
            views.append(
                EstimateView(label=label, text=f"{value * factor:.{decimals}f} {unit}".rstrip(), confidence=confidence)
            )
    return tuple(views)


def _plan_reason(row: Row) -> str:
    plan = _nested(row, "plan")
    return text(plan, "reason") if isinstance(plan, Mapping) else ""


def _facts(row: Row) -> tuple[str, ...]:
    """Return the technical metadata a curator looks for, each as a few words."""
    width, height, channels = number(row, "width"), number(row, "height"), number(row, "channels")
    bits, dots, size = number(row, "bits_per_sample"), number(row, "dpi_x"), number(row, "source_bytes")
    facts = []
    if width and height:
        facts.append(f"{width:.0f} × {height:.0f}")
    if text(row, "format"):
        facts.append(text(row, "format").upper())
    if bits:
        facts.append(f"{bits:.0f}-bit" + (" grey" if channels == 1 else " colour" if channels else ""))
    if text(row, "icc_name"):
        facts.append(text(row, "icc_name"))
    if dots:
        facts.append(f"{dots:.0f} dpi")
    if size:
        facts.append(bytes_text(size))
    if text(row, "duplicate_of"):
        facts.append(f"same file as {text(row, 'duplicate_of')}")
    return tuple(facts)


def bytes_text(size: float) -> str:
    """Return a number of bytes in the unit a person would choose."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def duration_text(seconds: float) -> str:
    """Return a duration in words: 0.42 s, 12 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
