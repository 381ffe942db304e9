"""A leaderboard as Markdown, CSV and LaTeX; timings, which never repeat, are texts of their own."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from models.benchmarking.scoring import METRICS, Metric
from tasks.benchmarking.tables import Board, BoardRow

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX.update({character: f"\\{character}" for character in "&%$#_{}"})
_COLUMNS: tuple[tuple[str, Callable[[BoardRow], str]], ...] = (
    ("method", lambda row: row.method),
    ("kind", lambda row: row.kind),
    ("n", lambda row: number(row.n, 0)),
    ("mean PSNR, dB", lambda row: number(row.mean, 2)),
    ("median", lambda row: number(row.median, 2)),
    ("worst 5 %", lambda row: number(row.worst_5_percent, 2)),
    ("made worse", lambda row: percent(row.made_worse)),
    ("regret", lambda row: number(row.regret, 2)),
    ("SSIM", lambda row: number(row.metric("ssim"), 4)),
    ("GMAC/MP", lambda row: number(row.gmac_per_megapixel, 1)),
    ("parameters", lambda row: number(row.parameters, 0)),
    ("source or remark", lambda row: row.note),
)
_PLAIN = ("suite", "dataset", "level", "kind", "method", "title", "n", "mean", "median", "worst_5_percent")
_PLAIN_END = ("made_worse", "regret", "gmac_per_megapixel", "parameters", "protocol", "note")


def number(value: float | None, decimals: int) -> str:
    """Return a number as tables show it, an en dash for None."""
    return "–" if value is None else f"{value:,.{decimals}f}".replace(",", "\u202f")


def percent(value: float | None) -> str:
    """Return a share as per cent, an en dash for None."""
    return "–" if value is None else f"{value * 100:.0f} %"


def columns(boards: Sequence[Board]) -> list[str]:
    """Return the headings of the full table; extra metrics that were measured get a column each."""
    models = {name: model for board in boards for name, model in board.models}
    extra = [f"{one.title} ({models[one.id]})" if one.id in models else one.title for one in _extra(boards)]
    return [*(name for name, _ in _COLUMNS), *extra]


def cells(row: BoardRow, boards: Sequence[Board]) -> list[str]:
    """Return one line of the full table, in the order of `columns`."""
    extra = [number(row.metric(metric.id), metric.decimals) for metric in _extra(boards)]
    return [*(show(row) for _, show in _COLUMNS), *extra]


def _extra(boards: Sequence[Board]) -> list[Metric]:
    rows = [row for board in boards for row in board.rows]
    shown = ("psnr_db", "ssim", "psnr_unclipped_db")
    return [
        metric
        for metric in METRICS
        if metric.id not in shown and any(row.metric(metric.id) is not None for row in rows)
    ]


def markdown(boards: Sequence[Board]) -> str:
    """Return the leaderboard as Markdown: for each suite one table per group."""
    lines = ["# Leaderboard", ""]
    for board in boards:
        lines += [f"## {board.suite}: {board.title}", ""]
        lines += [board.note, ""] if board.note else []
        if len(board.groups) > 1:
            lines += ["Mean PSNR in dB.", "", *markdown_table(*summary_table(board))]
        for dataset, level in board.groups:
            rows = [row for row in board.rows if (row.dataset, row.level) == (dataset, level)]
            protocol = next((row.protocol for row in rows if row.protocol), "")
            lines += [f"### {group_title(dataset, level)}", "", f"Protocol: {protocol}.", ""]
            lines += markdown_table(columns([board]), [cells(row, [board]) for row in rows])
    return "\n".join(lines).rstrip() + "\n"


def summary_table(board: Board) -> tuple[list[str], list[list[str]]]:
    """Return heading and lines of the table of means, methods down and groups across."""
    lines = [[method, kind, *(number(mean, 2) for mean in means)] for kind, method, means in board.summary()]
    return ["method", "kind", *(group_title(*group) for group in board.groups)], lines


def group_title(dataset: str, level: str) -> str:
    """Return a group as a heading."""
    return "All groups together" if dataset == level == "all" else f"{dataset}, {level}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return [*lines, ""]


def csv_text(boards: Sequence[Board]) -> str:
    """Return every row of every suite in full precision; an empty field was not measured."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    metrics = [metric.id for metric in METRICS]
    writer.writerow([*_PLAIN, *(f"mean_{name}" for name in metrics), *_PLAIN_END, "models"])
    for board in boards:
        models = "; ".join(f"{name}: {model}" for name, model in board.models)
        for row in board.rows:
            values = [getattr(row, name) for name in _PLAIN]
            values += [row.metric(name) for name in metrics]
            values += [getattr(row, name) for name in _PLAIN_END]
            writer.writerow(["" if value is None else value for value in (*values, models)])
    return sink.getvalue()


def latex(boards: Sequence[Board]) -> str:
    """Return for each suite a booktabs table as papers print it: methods down, groups across, mean PSNR in dB."""
    return "\n\n".join(_latex_table(board) for board in boards) + "\n"


def _latex_table(board: Board) -> str:
    protocols = list(dict.fromkeys(row.protocol for row in board.rows if row.protocol))
    head = " & ".join(["", *(escape_latex(group_title(*group)) for group in board.groups)])
    columns = f"l{'r' * len(board.groups)}"
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head + r" \\"]
    last = None
    for kind, method, means in board.summary():
        lines += [r"\midrule"] if kind != last else []
        last = kind
        name = escape_latex(method) + (r"$^\dagger$" if kind == "published" else "")
        lines.append(" & ".join([name, *(number(mean, 2).replace("–", "--") for mean in means)]) + r" \\")
    sources = sorted({row.note for row in board.rows if row.kind == "published"})
    caption = f"{board.title}. Mean PSNR in dB. Protocol: {' / '.join(protocols)}."
    partial = [
        f"{row.method} {row.n} of {(row.n or 0) + row.missing} ({group_title(row.dataset, row.level)})"
        for row in board.rows
        if row.missing
    ]
    caption += f" Over a part of the pictures only: {'; '.join(partial)}." if partial else ""
    published = rf" $^\dagger$ published: {escape_latex('; '.join(sources))}." if sources else ""
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{escape_latex(caption)}{published}}}", r"\end{table}"]
    return "\n".join(lines)


def escape_latex(text: str) -> str:
    """Return text as LaTeX prints it."""
    plain = "".join(_LATEX.get(character, character) for character in text)
    return plain.replace("σ", r"$\sigma$").replace("–", "--")


def timings_csv(boards: Sequence[Board]) -> str:
    """Return seconds per megapixel by suite and method."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(["suite", "method", "n", "seconds_per_megapixel", "device"])
    for board in boards:
        for timing in board.timings:
            writer.writerow([timing.suite, timing.method, timing.n, timing.seconds_per_megapixel, timing.device])
    return sink.getvalue()


def timings_markdown(boards: Sequence[Board]) -> str:
    """Return seconds per megapixel as Markdown."""
    rows = [
        [timing.suite, timing.method, str(timing.n), f"{timing.seconds_per_megapixel:.3g}", timing.device]
        for board in boards
        for timing in board.timings
    ]
    head = ["suite", "method", "n", "seconds per megapixel", "device"]
    return "\n".join(["# Timings", "", *markdown_table(head, rows)])


def timings_latex(boards: Sequence[Board]) -> str:
    """Return seconds per megapixel as a booktabs table."""
    lines = [r"\begin{tabular}{llrrl}", r"\toprule", r"suite & method & n & s/MP & device \\", r"\midrule"]
    for board in boards:
        for timing in board.timings:
            names = [escape_latex(timing.suite), escape_latex(timing.method), str(timing.n)]
            lines.append(
                " & ".join([*names, f"{timing.seconds_per_megapixel:.3g}", escape_latex(timing.device)]) + r" \\"
            )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
