"""Writes the HTML report of a run: one file that opens from a disk, without a network, years from now."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from storage.locations import Location
from tasks.reporting.charts import Chart, make_chart
from tasks.reporting.previews import Preview, PreviewFolder, PreviewProvider
from tasks.reporting.selection import Selection, choose_shown
from tasks.reporting.view import (
    STATUS_LABELS,
    STATUSES,
    PictureView,
    Row,
    build_views,
    duration_text,
)

TEMPLATE_FOLDER = Path(__file__).parent / "template"
GAIN_LABELS = {"psnr_db": ("PSNR gain", "dB"), "psnr_b_db": ("PSNR-B gain", "dB"), "ssim": ("SSIM gain", "")}
_MEDIA_TYPES = {"before": "jpeg", "after": "jpeg", "mask": "png", "crop_before": "jpeg", "crop_after": "jpeg"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """How much of a large run is shown.

    pictures_limit: images with pictures. embedded_limit: of these, how many inside the HTML file itself; the others lie
    in a folder beside it. table_limit, failures_limit: lines in the compact lists.
    """

    pictures_limit: int = 120
    embedded_limit: int = 40
    table_limit: int = 5000
    failures_limit: int = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One image with the addresses of its pictures: data URIs or paths relative to the report; None = no picture."""

    view: PictureView
    preview: Preview | None
    before: str | None
    after: str | None
    mask: str | None
    crop_before: str | None
    crop_after: str | None


DEFAULT_REPORT = ReportSettings()


def render_report(
    *,
    images: Iterable[Row],
    steps: Iterable[Row],
    metrics: Iterable[Row],
    previews: PreviewProvider | Path,
    summary: Mapping[str, Any],
    destination: Path,
    settings: ReportSettings = DEFAULT_REPORT,
) -> Path:
    """Write the report of a run to the HTML file `destination` and return its path.

    images, steps, metrics: rows of the catalogue's tables. previews: a provider, or the folder of a `PreviewFolder`.
    summary: run_id, title, source, destination, started_at, seconds, code_version, device, weights (name to sha256), …;
    any other entry is listed as it is. Nothing in it is trusted: names and texts are escaped.
    """
    provider = PreviewFolder(previews) if isinstance(previews, Path) else previews
    images, steps = list(images), list(steps)
    views = build_views(images=images, steps=steps, metrics=metrics)
    selection = choose_shown(views, limit=settings.pictures_limit)
    destination.parent.mkdir(parents=True, exist_ok=True)
    pictures = _PictureFiles(destination, embedded_limit=settings.embedded_limit)
    script = (TEMPLATE_FOLDER / "report.js").read_text(encoding="utf-8")
    template = _environment().get_template("report.html.j2")
    html = template.render(
        style=Markup((TEMPLATE_FOLDER / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        review=[pictures.card(view, provider) for view in selection.review],
        shown=[pictures.card(view, provider) for view in selection.shown],
        **_lists(selection, settings),
        **_overview(views, {**provenance(images, steps), **summary}),
    )
    # A file name need not be valid Unicode; the report must open all the same.
    Location(destination).write_bytes_atomic(html.encode("utf-8", errors="backslashreplace"))
    return destination


def _lists(selection: Selection, settings: ReportSettings) -> dict[str, Any]:
    """Return what the template needs for the images without pictures."""
    return {
        "failures": _group_failures(selection.failures[: settings.failures_limit]),
        "failures_left_out": max(0, len(selection.failures) - settings.failures_limit),
        "review_left_out": sum(view.status == "review" for view in selection.listed),
        "listed": selection.listed[: settings.table_limit],
        "listed_left_out": max(0, len(selection.listed) - settings.table_limit),
        "selection_note": _selection_note(selection),
    }


def _overview(views: Sequence[PictureView], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template says about the run as a whole."""
    return {
        "title": str(summary.get("title") or "Restoration report"),
        "lede": _lede(views),
        "total": len(views),
        "status_counts": _status_counts(views),
        "cards": _summary_cards(views, summary),
        "charts": _charts(views),
        "facets": _facets(views),
        "identity": _identity(summary),
    }


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration_text
    environment.filters["signed"] = lambda value, digits=2: f"{value:+.{digits}f}".replace("-", "−")
    environment.filters["percent"] = lambda value: f"{value * 100:.2g} %" if value < 0.995 else "100 %"
    environment.filters["plain"] = _plain_number
    environment.globals["labels"] = STATUS_LABELS
    return environment


def _plain_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}".replace("-", "−")


class _PictureFiles:
    """Turns previews into addresses: the first `embedded_limit` images as data URIs, the others as files beside."""

    def __init__(self, destination: Path, *, embedded_limit: int) -> None:
        self.folder = destination.parent / f"{destination.stem}_files"
        self.left = embedded_limit
        if self.folder.is_dir():  # pictures of an earlier report of the same name
            for path in self.folder.glob("[0-9]*-*.*"):
                path.unlink()

    def card(self, view: PictureView, provider: PreviewProvider) -> Card:
        preview = provider.get(view.image_id) if view.image_id else None
        if preview is None:
            return Card(view=view, preview=None, before=None, after=None, mask=None, crop_before=None, crop_after=None)
        embed = self.left > 0
        self.left -= 1
        addresses: dict[str, str | None] = {}
        for name, kind in _MEDIA_TYPES.items():
            data: bytes | None = getattr(preview, name)
            addresses[name] = (
                None if data is None else self._address(data, f"{view.number:06d}-{name}.{kind}", kind, embed)
            )
        return Card(view=view, preview=preview, **addresses)

    def _address(self, data: bytes, name: str, kind: str, embed: bool) -> str:
        if embed:
            return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(data)
        return f"{self.folder.name}/{name}"


def _status_counts(views: Sequence[PictureView]) -> list[tuple[str, str, int]]:
    """Return (status, label, count) of every status that occurs, the ones that need attention first."""
    counts = Counter(view.status for view in views)
    order = [*STATUSES, *sorted(set(counts) - set(STATUSES))]
    return [(status, STATUS_LABELS.get(status, status), counts[status]) for status in order if counts[status]]


def _lede(views: Sequence[PictureView]) -> str:
    if not views:
        return "No pictures were found."
    counts = Counter(view.status for view in views)
    phrases = {
        "restored": "restored",
        "untouched": "left exactly as they were",
        "review": "set aside for a person to look at",
        "quarantined": "could not be read and were quarantined",
        "failed": "failed",
    }
    if counts["untouched"] == 1:
        phrases["untouched"] = "left exactly as it was"
    if counts["quarantined"] == 1:
        phrases["quarantined"] = "could not be read and was quarantined"
    phrases.update({status: status for status in counts if status not in phrases})
    parts = [f"{counts[status]:,} {phrase}" for status, phrase in phrases.items() if counts[status]]
    said = parts[0] if len(parts) < 2 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{_counted(len(views), 'picture')}: {said}."


def _plural(number: int, noun: str) -> str:
    return noun if number == 1 else f"{noun}s"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {_plural(number, noun)}"


def _summary_cards(views: Sequence[PictureView], summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (figure, label, remark) of the summary tiles; what was not measured has no tile."""
    collections = {view.collection for view in views}
    cards = [(f"{len(views):,}", _plural(len(views), "picture"), _counted(len(collections), "collection"))]
    restored = [view for view in views if view.status == "restored"]
    steps = sum(len(view.steps) for view in restored)
    cards.append((f"{len(restored):,}", "restored", _counted(steps, "step")))
    gains = [view.gain for view in views if view.gain is not None and view.status in ("restored", "review")]
    if gains:
        label, unit = GAIN_LABELS[next(view.gain_metric for view in views if view.gain is not None)]
        mean = f"{sum(gains) / len(gains):+.2f}".replace("-", "−")
        cards.append((f"{mean} {unit}".rstrip(), f"mean {label}", f"worst {min(gains):+.2f}".replace("-", "−")))
    changes = [view.changed_fraction for view in restored if view.changed_fraction is not None]
    if changes:
        cards.append((f"{sum(changes) / len(changes) * 100:.3g} %", "of pixels changed", "mean of the restored"))
    attention = sum(view.failed or view.status == "review" for view in views)
    cards.append((f"{attention:,}", "need attention", "failed, quarantined or review"))
    seconds = summary.get("seconds")
    if isinstance(seconds, (int, float)) and seconds > 0:
        cards.append((duration_text(float(seconds)), "wall time", f"{len(views) / seconds:.3g} pictures per second"))
    return cards


def _charts(views: Sequence[PictureView]) -> list[Chart]:
    gains = [view.gain for view in views if view.gain is not None and view.steps]
    label, unit = next((GAIN_LABELS[view.gain_metric] for view in views if view.gain_metric), ("Gain", ""))
    changed = [view.changed_fraction for view in views if view.changed_fraction is not None and view.steps]
    noise = _noise_series(views)
    seconds = [view.seconds for view in views if view.seconds is not None and not view.failed]
    candidates = [
        make_chart(label, {"gain": gains}, unit=unit, note="against the ground truth; right of zero is better"),
        make_chart("Changed pixels", {"changed": changed}, unit="%", note="share per restored picture"),
        make_chart("Noise σ", noise, unit="", note="8-bit levels, estimated"),
        make_chart("Compute time", {"time": seconds}, unit="s", note="per picture"),
    ]
    return [chart for chart in candidates if chart is not None]


def _noise_series(views: Sequence[PictureView]) -> dict[str, list[float]]:
    """Return σ before and after of the pictures where both are known; of all before when no after is known."""
    pairs = [(view.noise_before, view.noise_after) for view in views if view.steps]
    both = [(before, after) for before, after in pairs if before is not None and after is not None]
    if both:
        return {"before": [before for before, _ in both], "after": [after for _, after in both]}
    return {"before": [view.noise_before for view in views if view.noise_before is not None]}


def _group_failures(failures: Sequence[PictureView]) -> list[tuple[str, list[PictureView]]]:
    groups: dict[str, list[PictureView]] = {}
    for view in failures:
        groups.setdefault(view.error_kind or "unknown error", []).append(view)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def _facets(views: Sequence[PictureView]) -> dict[str, list[str]]:
    return {
        "collections": sorted({view.collection for view in views}),
        "methods": sorted({step.method_id for view in views for step in view.steps}),
    }


def _selection_note(selection: Selection) -> str:
    if not selection.listed:
        return ""
    return (
        "Shown with pictures: losses first, then the largest changes, then a random sample. "
        f"The other {len(selection.listed):,} are listed below."
    )


def provenance(images: Iterable[Row], steps: Iterable[Row]) -> dict[str, Any]:
    """Return what the rows themselves say about the run: code version, policy, device and weights by method."""
    images, steps = list(images), list(steps)
    found: dict[str, Any] = {}
    sources = (
        ("run_id", "run_id", images),
        ("code_version", "code_version", images),
        ("policy", "plan_policy", images),
    )
    for key, column, rows in (*sources, ("device", "device", steps), ("precision", "precision", steps)):
        values = sorted({str(row[column]) for row in rows if row.get(column) is not None})
        if values:
            found[key] = ", ".join(values)
    pairs = ((row.get("method_id"), row.get("weights_sha256")) for row in steps)
    weights = {str(method): str(digest) for method, digest in pairs if digest is not None}
    return {**found, "weights": weights} if weights else found


def _identity(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the run's identity as (name, text), the familiar entries first, the weights one by one."""
    names = {
        "run_id": "Run",
        "source": "Source",
        "destination": "Destination",
        "started_at": "Started",
        "finished_at": "Finished",
        "seconds": "Wall time",
        "code_version": "Code version",
        "device": "Device",
        "precision": "Precision",
        "policy": "Policy",
    }
    entries = [
        (label, _identity_text(key, summary[key])) for key, label in names.items() if summary.get(key) is not None
    ]
    weights = summary.get("weights")
    if isinstance(weights, Mapping):
        entries += [(f"Weights of {name}", str(digest)) for name, digest in sorted(weights.items())]
    known = {*names, "weights", "title"}
    return entries + [
        (str(key), str(value)) for key, value in summary.items() if key not in known and value is not None
    ]


def _identity_text(key: str, value: Any) -> str:
    if key == "seconds" and isinstance(value, (int, float)):
        return duration_text(float(value))
    return value.isoformat(sep=" ", timespec="seconds") if isinstance(value, datetime) else str(value)
