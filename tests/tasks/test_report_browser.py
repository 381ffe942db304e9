"""The report in a real browser: nothing fails, nothing is loaded from elsewhere, sliders and filters work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.reporting.previews import PreviewFolder, make_preview
from tasks.reporting.report import ReportSettings, render_report

sys.path.insert(0, str(Path(__file__).parent))
from chromium import Browser, find_chromium

EXECUTABLE = find_chromium()
pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium or Chrome on this machine")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    previews = PreviewFolder(folder / "previews")
    images: list[dict[str, Any]] = []
    for index in range(4):
        before = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
        mask = np.zeros((300, 400), np.uint8)
        mask[100:110] = 255
        previews.put(str(index), make_preview(before, 255 - before, mask=mask))
        images.append(
            {"image_id": str(index), "relative_path": f"a/{index}.png", "collection": "a", "status": "restored"}
        )
    for index in range(4, 9):
        images.append(
            {"image_id": str(index), "relative_path": f"b/{index}.png", "collection": "b", "status": "untouched"}
        )
    hostile = "<img src=x onerror=\"document.title='owned'\">.png"
    images.append({"image_id": None, "relative_path": hostile, "status": "failed", "error_text": hostile})
    return render_report(
        images=images,
        steps=[{"image_id": "1", "method_id": "denoise", "changed_fraction": 0.5}],
        metrics=[],
        previews=previews,
        summary={"title": "Browser test"},
        destination=folder / "report.html",
        settings=ReportSettings(pictures_limit=6, embedded_limit=2),
    )


@pytest.fixture(scope="module")
def browser(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert EXECUTABLE is not None
    with Browser(EXECUTABLE, tmp_path_factory.mktemp("profile")) as started:
        started.call("Emulation.setDeviceMetricsOverride", width=1400, height=1000, deviceScaleFactor=1, mobile=False)
        started.open(report)
        yield started


def visible_paths(browser: Browser) -> int:
    return int(browser.evaluate("document.querySelectorAll('[data-status]:not([hidden])').length"))


def set_filter(browser: Browser, name: str, value: str) -> None:
    form = "document.querySelector('form.filters')"
    browser.evaluate(f"{form}.reset()")
    browser.evaluate(f"{form}.elements.{name}.value = '{value}'")
    browser.evaluate(f"{form}.dispatchEvent(new Event('input'))")


def test_every_picture_loads_and_hostile_names_stay_text(browser: Browser) -> None:
    browser.evaluate("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
    browser.evaluate("Promise.all([...document.images].map((image) => image.decode()))")
    assert browser.evaluate("document.images.length") == 4 * 5
    assert browser.evaluate("document.title") == "Browser test · Lacuna"


def test_slider_follows_the_pointer_and_the_keyboard(browser: Browser) -> None:
    browser.evaluate("document.querySelector('.compare').scrollIntoView({block: 'center'})")
    box = browser.evaluate("document.querySelector('.compare').getBoundingClientRect().toJSON()")
    middle = box["y"] + box["height"] / 2
    for kind, share in (("mousePressed", 0.5), ("mouseMoved", 0.25), ("mouseReleased", 0.25)):
        position = {"x": box["x"] + box["width"] * share, "y": middle}
        browser.call("Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1, **position)
    assert browser.evaluate("document.querySelector('.compare input').value") == "25"
    assert browser.evaluate("document.querySelector('.compare').style.getPropertyValue('--split')") == "25%"
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
    assert browser.evaluate("document.querySelector('.compare').style.getPropertyValue('--split')") == "26%"
    clip = browser.evaluate("getComputedStyle(document.querySelector('.compare .before')).clipPath")
    assert "inset(0" in clip


def test_mask_button_shows_and_hides_the_damage(browser: Browser) -> None:
    shown = "getComputedStyle(document.querySelector('img.mask')).display !== 'none'"
    assert browser.evaluate(shown) is False
    browser.evaluate("document.querySelector('button.mask').click()")
    assert browser.evaluate(shown) is True
    browser.evaluate("document.querySelector('button.mask').click()")
    assert browser.evaluate(shown) is False


def test_filters_narrow_every_list(browser: Browser) -> None:
    assert visible_paths(browser) == 10
    for name, value, expected in (
        ("status", "untouched", 5),
        ("collection", "a", 4),
        ("method", "denoise", 1),
        ("search", "b/5", 1),
        ("search", "nowhere", 0),
    ):
        set_filter(browser, name, value)
        assert visible_paths(browser) == expected, (name, value)
    assert browser.evaluate("document.querySelector('form.filters output').textContent") == "0 of 10"
    set_filter(browser, "search", "")
    assert visible_paths(browser) == 10


def test_table_sorts(browser: Browser) -> None:
    first = "document.querySelector('.list tbody tr td').textContent"
    browser.evaluate("document.querySelector('th button').click()")
    last_name = browser.evaluate(first)
    browser.evaluate("document.querySelector('th button').click()")
    assert browser.evaluate(first) < last_name


@pytest.mark.parametrize("width", [360, 768, 1400])
def test_nothing_overflows_sideways(browser: Browser, width: int) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 800)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_no_console_errors_and_no_network(browser: Browser, report: Path) -> None:
    wrong = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled", "Network.loadingFailed")
    assert [event for event in browser.events if event.get("method") in wrong] == []
    requests = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert requests
    assert all(address.startswith(("data:", report.parent.as_uri())) for address in requests)
