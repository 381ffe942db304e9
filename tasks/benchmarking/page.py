"""The leaderboard as one HTML file: tables, plots as inline SVG, example crops; opens from a disk without a network."""

# ruff: noqa: E501 - the page's own lines
from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from models.benchmarking.baselines import BICUBIC, INPUT
from models.benchmarking.detection import DetectionRow
from tasks.benchmarking import detection
from tasks.benchmarking.plots import LABELS, WIDTH, gain_plots
from tasks.benchmarking.tables import Board, BoardRow
from tasks.benchmarking.texts import cells, columns, group_title, summary_table
from tasks.reporting.report import TEMPLATE_FOLDER

_STYLE = """
.board { overflow-x: auto; margin: 0.6rem 0 1.4rem; }
.board table { border-collapse: collapse; width: 100%; font-variant-numeric: lining-nums tabular-nums; }
.board th, .board td { padding: 0.3rem 0.42rem; font-size: 0.9rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
.board th:first-child, .board td:first-child, .board th:nth-child(2), .board td:nth-child(2) { text-align: left; }
.board td.remark { text-align: left; white-space: normal; min-width: 11rem; color: var(--soft); font-size: 0.87rem; }
.board tr.published td { color: var(--soft); font-style: italic; }
.board tr.router td { background: var(--mat); }
.examples { display: flex; flex-wrap: wrap; gap: 0.8rem; margin-bottom: 1.6rem; }
.examples figure { width: 192px; }
.examples img { width: 192px; height: 192px; image-rendering: pixelated; display: block; background: var(--mat); }
.examples figcaption { font-size: 0.82rem; color: var(--soft); }
.gains { max-width: 760px; margin: 0.4rem 0 1rem; }
.gains svg { width: 100%; height: auto; display: block; }
.gains circle { fill: var(--after); fill-opacity: 0.45; }
.gains .mean { stroke: var(--ink); stroke-width: 2; }
.gains .zero { stroke: var(--soft); stroke-dasharray: 2 3; }
.gains text { font: 12px var(--sans); fill: var(--ink); }
.source { color: var(--soft); font-size: 0.85rem; margin: 0.15rem 0; }
section.suite { margin-top: 2.6rem; }
h3 { font-family: var(--serif); font-weight: 500; font-size: 1.2rem; margin-top: 1.6rem; }
"""

_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>Leaderboard · Lacuna</title>
<style>{{ style }}</style>
</head>
<body>
<header class="masthead"><p class="mark">Lacuna</p><h1>Leaderboard</h1>
<p class="lede">What was measured, what a choice per picture could be worth, and what others published, marked as such.</p>
</header>
<main>
<nav class="quiet">{% for suite in suites %}<a href="#{{ suite.board.suite }}">{{ suite.board.suite }}</a> · {% endfor %}{% if detectors %}<a href="#scratch-detection">scratch-detection</a> · {% endif %}<a href="#time">time</a></nav>
{% for suite in suites %}
<section class="suite" id="{{ suite.board.suite }}">
<h2>{{ suite.board.suite }}</h2>
<p class="quiet">{{ suite.board.title }}{% if suite.board.note %}. {{ suite.board.note }}{% endif %}</p>
{% if suite.summary %}
<p class="quiet">Mean PSNR in dB; the time is that of all groups together.</p>
<div class="board"><table>
<thead><tr>{% for name in suite.summary_head %}<th>{{ name }}</th>{% endfor %}<th>s/MP</th></tr></thead>
<tbody>
{% for row in suite.summary %}
<tr class="{{ row[1] }}">{% for cell in row %}<td>{{ cell }}</td>{% endfor %}<td>{% if row[1] == "measured" and row[0] in suite.seconds %}{{ '%.3g' % suite.seconds[row[0]] }}{% else %}–{% endif %}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% for group in suite.groups %}
<h3>{{ group.title }}</h3>
{% if group.protocol %}<p class="quiet">Protocol: {{ group.protocol }}.</p>{% endif %}
<div class="board"><table>
<thead><tr>{% for name in suite.columns %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for kind, row in group.rows %}
<tr class="{{ kind }}">{% for cell in row %}<td{% if suite.columns[loop.index0] == remark %} class="remark"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% for names, source in group.sources %}<p class="source">{{ names }}: {{ source }}.</p>
{% endfor %}
{% if group.plot %}
<figure class="gains"><figcaption class="quiet">Gain over the untouched input, dB; one dot per picture, a line at the mean</figcaption>
<svg viewBox="0 0 {{ plot_width }} {{ group.plot.height + 24 }}" role="img" aria-label="Gain in PSNR by method, {{ group.title }}">
<line class="zero" x1="{{ group.plot.zero_x }}" x2="{{ group.plot.zero_x }}" y1="0" y2="{{ group.plot.height }}"></line>
{% for strip in group.plot.strips %}
<g><title>{{ strip.label }}</title><text x="0" y="{{ strip.y + 4 }}">{{ strip.name }}</text>
{% for x in strip.dots %}<circle cx="{{ x }}" cy="{{ strip.y }}" r="3"></circle>{% endfor %}
<line class="mean" x1="{{ strip.mean_x }}" x2="{{ strip.mean_x }}" y1="{{ strip.y - 9 }}" y2="{{ strip.y + 9 }}"></line></g>
{% endfor %}
{% for x, text in group.plot.ticks %}<text x="{{ x }}" y="{{ group.plot.height + 18 }}" text-anchor="middle">{{ text }}</text>{% endfor %}
</svg></figure>
{% endif %}
{% if group.crops %}
<div class="examples">
{% for name, address in group.crops %}
<figure><img src="{{ address }}" alt="{{ name }}"><figcaption>{{ name }}</figcaption></figure>
{% endfor %}
</div>
{% endif %}
{% endfor %}
</section>
{% endfor %}
{% if detectors %}
<section class="suite" id="scratch-detection"><h2>scratch-detection</h2>
<p class="quiet">Seeded damage to be found on held-back photographs, and clean pictures on which every mark is a false one. Conspicuous: without damage that the texture under it camouflages.</p>
<div class="board"><table><thead><tr>{% for name in detection_head %}<th>{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for row in detectors %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div></section>
{% endif %}
<section id="time"><h2>Time</h2>
<p class="quiet">Seconds per megapixel of the result, one picture at a time. Unlike everything above, these never repeat exactly.</p>
<div class="board"><table><thead><tr><th>suite</th><th>method</th><th>n</th><th>s/MP</th><th>device</th></tr></thead><tbody>
{% for timing in timings %}
<tr><td>{{ timing.suite }}</td><td>{{ timing.method }}</td><td>{{ timing.n }}</td><td>{{ '%.3g' % timing.seconds_per_megapixel }}</td><td>{{ timing.device }}</td></tr>
{% endfor %}
</tbody></table></div></section>
</main>
<footer><p class="quiet">Worst 5 % is the mean of the worst twentieth of the pictures. Made worse: share of pictures below their untouched input. Regret: dB below the best method for each picture. PSNR of equal pictures counts as 100 dB.</p></footer>
</body>
</html>
"""

CropFinder = Callable[[str, str, str, str], bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _GroupView:
    title: str
    protocol: str
    rows: tuple[tuple[str, list[str]], ...]
    sources: tuple[tuple[str, str], ...]
    plot: object
    crops: tuple[tuple[str, str], ...]


def html(boards: Sequence[Board], *, crop: CropFinder, detectors: Sequence[DetectionRow] = ()) -> str:
    """Return the page. `crop` finds an example picture (PNG) by suite, dataset, level and method or "reference"."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style = (TEMPLATE_FOLDER / "report.css").read_text(encoding="utf-8") + _STYLE
    return environment.from_string(_TEMPLATE).render(
        style=Markup(style),
        suites=[_suite_view(board, crop=crop) for board in boards],
        detectors=[detection.cells(row) for row in detectors],
        detection_head=detection.HEAD,
        timings=[timing for board in boards for timing in board.timings],
        remark="source or remark",
        plot_width=LABELS + WIDTH + 20,
    )


def _suite_view(board: Board, *, crop: CropFinder) -> Mapping[str, object]:
    plots = {plot.title: plot for plot in gain_plots(board)}
    groups = []
    for dataset, level in board.groups:
        rows = [row for row in board.rows if (row.dataset, row.level) == (dataset, level)]
        title = group_title(dataset, level)
        measured = [row.method for row in rows if row.kind == "measured"]
        baselines = [name for name in (INPUT, BICUBIC) if name in measured]
        names = ["reference", *baselines, *(name for name in measured if name not in baselines)]
        found = [(name, crop(board.suite, dataset, level, name)) for name in names]
        groups.append(
            _GroupView(
                title=title,
                protocol=next((row.protocol for row in rows if row.protocol), ""),
                rows=tuple((row.kind, _without_source(row, board)) for row in rows),
                sources=_sources(rows),
                plot=plots.get(title),
                crops=tuple((name, _data_uri(data)) for name, data in found if data is not None),
            )
        )
    head, lines = summary_table(board)
    return {
        "board": board,
        "columns": columns([board]),
        "groups": groups,
        "summary_head": head,
        "summary": lines if len(board.groups) > 1 else [],
        "seconds": {timing.method: timing.seconds_per_megapixel for timing in board.timings},
    }


def _without_source(row: BoardRow, board: Board) -> list[str]:
    """A source is too long for a column of its own and stands below the table."""
    line = cells(row, [board])
    return ["" if row.kind == "published" and cell == row.note else cell for cell in line]


def _sources(rows: Sequence[BoardRow]) -> tuple[tuple[str, str], ...]:
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.kind == "published":
            found.setdefault(row.note, []).append(row.method)
    return tuple((", ".join(names), source) for source, names in found.items())


def _data_uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
