"""The HTML report: complete, self-contained, safe with hostile names, failures first, quick on large runs."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.reporting.charts import count_in_bins, make_chart, nice_edges
from tasks.reporting.previews import PreviewFolder, make_preview
from tasks.reporting.report import ReportSettings, render_report
from tasks.reporting.selection import choose_shown
from tasks.reporting.view import QUANTITIES, build_views, bytes_text, duration_text
from tests.tasks.test_report_previews import picture

HOSTILE = "<script>alert('x')</script>\"><img src=https://example.org/x onerror=alert(1)>{{ 7 * 7 }}.png"
LOADING = {"src", "href", "srcset", "data", "action", "poster", "background"}
VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Collects tags and attributes and checks that every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def articles(self) -> list[str]:
        return [attributes["id"] for tag, attributes in self.tags if tag == "article"]


def image_row(index: int, **columns: Any) -> dict[str, Any]:
    row = {
        "image_id": f"{index:064x}",
        "relative_path": f"album/picture_{index}.png",
        "collection": "album",
        "status": "restored",
        "width": 90,
        "height": 60,
        "noise_sigma": 20.0,
        "noise_sigma_confidence": 0.8,
        "plan_reason": f"Reason number {index}.",
    }
    return {**row, **columns}


def step_row(index: int, **columns: Any) -> dict[str, Any]:
    row = {
        "image_id": f"{index:064x}",
        "step_index": 0,
        "method_id": "denoise",
        "strength": 1.0,
        "reason": "Noise found.",
    }
    return {**row, "seconds": 0.5, "changed_fraction": 0.25, "accepted": True, "note": "", **columns}


def metric_rows(index: int, before: float, after: float, metric: str = "psnr_db") -> list[dict[str, Any]]:
    row = {"image_id": f"{index:064x}", "metric": metric, "higher_is_better": metric != "noise_sigma"}
    return [{**row, "stage": "before", "value": before}, {**row, "stage": "after", "value": after}]


def render(folder: Path, **arguments: Any) -> str:
    tables: dict[str, Any] = {"images": [], "steps": [], "metrics": [], "previews": folder / "previews", "summary": {}}
    path = render_report(**{**tables, **arguments}, destination=folder / "report.html")
    return path.read_text(encoding="utf-8")


def loaded_addresses(page: Page) -> list[str]:
    return [value for _, attributes in page.tags for name, value in attributes.items() if name in LOADING and value]


def test_page_is_self_contained_and_shows_every_picture(tmp_path: Path) -> None:
    previews = PreviewFolder(tmp_path / "previews")
    for index in range(3):
        mask = np.zeros((60, 90), np.uint8)
        mask[10:20] = 255
        previews.put(f"{index:064x}", make_preview(picture(index), picture(index + 9), mask=mask))
    html = render(tmp_path, images=[image_row(index) for index in range(3)], steps=[step_row(1)])
    page = Page(html)
    assert page.articles() == ["p1", "p2", "p3"]
    assert all(address.startswith(("data:", "#")) for address in loaded_addresses(page))
    assert "url(" not in html
    assert "@import" not in html
    assert "http://" not in html
    assert "https://" not in html
    assert sum(attributes.get("type") == "range" for _, attributes in page.tags) == 3
    assert sum(attributes.get("class") == "mask" for tag, attributes in page.tags if tag == "button") == 3
    assert all(f"Reason number {index}." in html for index in range(3))
    assert not (tmp_path / "report_files").exists()


def test_only_the_reports_own_script_may_run(tmp_path: Path) -> None:
    html = render(tmp_path, images=[image_row(1)])
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert len(scripts) == 1
    assert f"script-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html


@pytest.mark.parametrize(
    "column", ["relative_path", "collection", "status", "plan_reason", "error_text", "error_kind", "icc_name", "format"]
)
@pytest.mark.parametrize("status", ["failed", "restored", "review"])
def test_hostile_text_is_shown_as_text(tmp_path: Path, column: str, status: str) -> None:
    row = image_row(1, **{"status": status, "error_text": "broken", column: HOSTILE})
    html = render(tmp_path, images=[row], steps=[step_row(1, reason=HOSTILE, method_id=HOSTILE, note=HOSTILE)])
    page = Page(html)
    assert "<script>alert" not in html
    assert "<img src=https" not in html
    assert not any("onerror" in attributes for _, attributes in page.tags)
    if column in ("plan_reason", "icc_name", "error_text") and status != "failed":
        assert HOSTILE in "".join(page.text)  # shown whole, and not evaluated as a template


def test_hostile_summary_and_file_names_that_are_not_unicode(tmp_path: Path) -> None:
    html = render(
        tmp_path,
        images=[image_row(1, relative_path="a/\udcff\u202egnp.exe")],
        summary={"title": HOSTILE, HOSTILE: HOSTILE},
    )
    assert "<script>alert" not in html
    assert "\\udcff" in html


def test_failures_and_review_cases_come_first(tmp_path: Path) -> None:
    rows = [
        image_row(1),
        image_row(2, status="review"),
        image_row(3, status="quarantined", error_kind="truncated", error_text="It ends early."),
        {"relative_path": "album/lost.png", "status": "failed", "image_id": None, "error_text": None},
    ]
    html = render(tmp_path, images=rows)
    order = [html.index(f'id="{name}"') for name in ("p3", "p4", "p2", "figures", "p1")]
    assert order == sorted(order)
    assert "It ends early." in html
    assert "2 failures" not in html  # no count is invented
    assert (
        "1 restored, 1 set aside for a person to look at, 1 could not be read and was quarantined and 1 failed." in html
    )


def test_missing_optional_columns_and_nulls_are_not_measured(tmp_path: Path) -> None:
    rows = [{"relative_path": "bare.png"}, image_row(2, noise_sigma=None, width=None, seconds=float("nan"))]
    html = render(
        tmp_path, images=rows, steps=[{"image_id": f"{2:064x}"}], metrics=[{"image_id": f"{2:064x}", "value": None}]
    )
    assert "bare.png" in html
    assert "Noise σ</th>" not in html
    assert "nan" not in html.lower().replace("isnan", "")


def test_estimates_may_be_nested_records_or_json(tmp_path: Path) -> None:
    nested = {"noise_sigma": {"value": 31.42, "confidence": 0.5}}
    json_text = '{"noise_sigma": {"value": 27.18, "confidence": 0.25}}'
    plan = '{"reason": "Left alone.", "steps": []}'
    rows = [image_row(1, estimate=nested), image_row(2, estimate=json_text, plan=plan, plan_reason=None)]
    html = render(tmp_path, images=rows)
    assert "31.4 levels" in html
    assert "27.2 levels" in html
    assert 'aria-label="confidence 25 %"' in html
    assert "Left alone." in html


def test_histogram_counts_every_value_once() -> None:
    values = [-0.4, 0.0, 0.1, 0.1, 2.5, 7.99, 8.0]
    chart = make_chart("Gain", {"gain": values, "none": [], "odd": [float("nan")]}, unit="dB")
    assert chart is not None
    assert [series.name for series in chart.series] == ["gain"]
    assert sum(bar.count for bar in chart.series[0].bars) == len(values)
    assert chart.series[0].median == 0.1
    assert chart.zero_x is not None
    assert chart.ticks[0][1].startswith("−")
    assert make_chart("Nothing", {"gain": []}) is None


@pytest.mark.parametrize(("low", "high"), [(0, 0), (-3, 12), (0.001, 0.002), (5, 5), (1e6, 3e6), (-1e-9, 0)])
def test_edges_are_round_cover_the_range_and_stay_few(low: float, high: float) -> None:
    edges = nice_edges(low, high)
    assert edges[0] <= low + 1e-9
    assert edges[-1] >= high - 1e-9
    assert 2 <= len(edges) <= 22
    assert sum(count_in_bins([low, high], edges)) == 2


def test_gain_is_measured_never_guessed(tmp_path: Path) -> None:
    metrics = metric_rows(1, 20.0, 26.5) + metric_rows(2, 30.0, 29.5) + metric_rows(3, 25.0, 2.0, metric="noise_sigma")
    rows, steps = [image_row(index) for index in (1, 2, 3)], [step_row(index) for index in (1, 2, 3)]
    views = build_views(images=rows, steps=steps, metrics=metrics)
    assert [view.gain for view in views] == [6.5, -0.5, None]
    assert (views[2].noise_before, views[2].noise_after) == (25.0, 2.0)
    html = render(tmp_path, images=rows, steps=steps, metrics=metrics)
    assert "+3.00 dB" in html
    assert "worst −0.50" in html
    assert 'class="gain loss"' in html
    assert "<td>20 → 26.5</td>" in html


def test_shares_of_what_a_run_changed_are_written_as_percent(tmp_path: Path) -> None:
    changes = [
        {**metric_rows(1, 0.0, value, metric=name)[1], "stage": "change"}
        for name, value in (
            ("changed_fraction", 0.01597),
            ("detail_retention", 1.0),
            ("colour_shift_ciede2000", 0.2375),
        )
    ]
    html = render(tmp_path, images=[image_row(1)], steps=[step_row(1)], metrics=changes)
    for cells in ("Changed pixels</th><td>1.6 %", "of that before</th><td>100 %", "ΔE00</th><td>0.2375"):
        assert cells in html


def test_empty_run(tmp_path: Path) -> None:
    html = render(tmp_path)
    assert "No pictures were found." in html
    assert Page(html).articles() == []


def test_thousands_of_rows_render_in_seconds(tmp_path: Path) -> None:
    rows = [image_row(index, status="untouched" if index % 3 else "restored") for index in range(2000)]
    rows += [image_row(index, status="failed", error_kind="io", error_text="lost") for index in range(2000, 2500)]
    steps = [step_row(index, changed_fraction=index / 2000) for index in range(0, 2000, 3)]
    previews = PreviewFolder(tmp_path / "previews")
    previews.put(f"{1998:064x}", make_preview(picture(1), picture(2)))
    started = time.monotonic()
    html = render(tmp_path, images=rows, steps=steps)
    assert time.monotonic() - started < 10
    assert len(html) < 8_000_000
    page = Page(html)
    named = {attributes["id"] for tag, attributes in page.tags if tag in ("article", "tr", "li") and "id" in attributes}
    assert len(page.articles()) == 120
    assert len(named) == 2000 + 400
    assert "100 more failures are in the catalogue." in html
    assert "p1999" in page.articles()  # the largest change


def test_pictures_beyond_the_limit_lie_beside_the_report(tmp_path: Path) -> None:
    previews = PreviewFolder(tmp_path / "previews")
    for index in range(3):
        previews.put(f"{index:064x}", make_preview(picture(index), picture(index + 9)))
    stale = tmp_path / "report_files" / "000009-after.jpeg"
    stale.parent.mkdir()
    stale.write_bytes(b"old")
    html = render(tmp_path, images=[image_row(index) for index in range(3)], settings=ReportSettings(embedded_limit=1))
    beside = [address for address in loaded_addresses(Page(html)) if address.startswith("report_files/")]
    assert len(beside) == 8
    assert all((tmp_path / address).is_file() for address in beside)
    assert not stale.exists()


def test_selection_keeps_losses_and_is_the_same_every_time() -> None:
    rows = [image_row(index) for index in range(50)]
    steps = [step_row(index, changed_fraction=index / 50) for index in range(50)]
    views = build_views(images=rows, steps=steps, metrics=metric_rows(7, 30.0, 20.0))
    selection = choose_shown(views, limit=12)
    assert selection.shown[0].image_id == f"{7:064x}"
    assert len(selection.shown) == 12
    assert len(selection.listed) == 38
    assert {view.number for view in selection.shown}.isdisjoint(view.number for view in selection.listed)
    assert selection == choose_shown(views, limit=12)


def test_review_cases_beyond_the_limit_are_listed_not_dropped() -> None:
    views = build_views(images=[image_row(index, status="review") for index in range(40)], steps=[], metrics=[])
    selection = choose_shown(views, limit=10)
    assert (len(selection.review), len(selection.listed)) == (10, 30)


def test_duplicates_share_steps_and_previews(tmp_path: Path) -> None:
    rows = [image_row(1), image_row(1, relative_path="album/copy.png")]
    views = build_views(images=rows, steps=[step_row(1)], metrics=[])
    assert [len(view.steps) for view in views] == [1, 1]
    assert Page(render(tmp_path, images=rows)).articles() == ["p1", "p2"]


def test_twins_with_rows_of_their_own_do_not_double_them() -> None:
    rows = [image_row(1), image_row(1, relative_path="album/copy.png", duplicate_of="album/picture_1.png")]
    steps = [step_row(1, relative_path="album/picture_1.png"), step_row(1, relative_path="album/copy.png")]
    views = build_views(images=rows, steps=steps, metrics=[])
    assert [len(view.steps) for view in views] == [1, 1]
    assert "same file as album/picture_1.png" in views[1].facts


def test_a_plan_that_was_not_carried_out_is_shown_as_planned(tmp_path: Path) -> None:
    plan = '[{"method_id": "deblur", "strength": 0.5, "parameters": [], "reason": "blur of σ 1.2 px"}]'
    html = render(tmp_path, images=[image_row(1, status="review", plan_json=plan)])
    assert "Planned, not carried out." in html
    assert "Blur of σ 1.2 px." in html


def test_a_reason_is_not_read_twice(tmp_path: Path) -> None:
    row = image_row(1, plan_reason="Noise of σ 20 grey levels.")
    html = render(tmp_path, images=[row], steps=[step_row(1, reason="noise of σ 20 grey levels")])
    assert html.count("oise of σ 20 grey levels") == 1


def test_the_rows_tell_the_run_where_the_summary_does_not(tmp_path: Path) -> None:
    rows = [image_row(1, run_id="run-7", code_version="0.1.0", plan_policy="rules")]
    steps = [step_row(1, device="cuda:0", precision="bf16", weights_sha256="ab" * 32)]
    html = render(tmp_path, images=rows, steps=steps, summary={"code_version": "0.2.0"})
    shown = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", html))
    assert shown == {
        "Run": "run-7",
        "Code version": "0.2.0",
        "Device": "cuda:0",
        "Precision": "bf16",
        "Policy": "rules",
        "Weights of denoise": "ab" * 32,
    }


def test_catalogue_columns_are_the_ones_the_report_reads() -> None:
    schema = pytest.importorskip("storage.catalogue_schema")
    images, steps, metrics = (set(schema.TABLES[name].names) for name in ("images", "steps", "metrics"))
    estimated = {quantity[0] for quantity in QUANTITIES}
    assert estimated | {f"{name}_confidence" for name in estimated} <= images
    assert {"relative_path", "status", "plan_reason", "plan_json", "error_kind", "error_text", "seconds"} <= images
    assert {"step_index", "method_id", "strength", "reason", "changed_fraction", "accepted", "note"} <= steps
    assert {"stage", "metric", "value", "higher_is_better"} <= metrics


def test_numbers_are_written_as_people_write_them() -> None:
    assert (bytes_text(999), bytes_text(2_344), bytes_text(74_000_000)) == ("999 B", "2.3 kB", "74 MB")
    assert [duration_text(value) for value in (0.417, 61.3, 185, 7800)] == ["0.42 s", "61 s", "3 min 5 s", "2 h 10 min"]
