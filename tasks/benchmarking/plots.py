"""Plots of a leaderboard as plain geometry for inline SVG: one dot per picture, its gain over the untouched input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.benchmarking.tables import Board
from tasks.reporting.charts import nice_edges

LABELS, WIDTH, ROW = 150.0, 520.0, 26.0
_SHOWN_DOTS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """One method's line: dots (x), its mean, both in SVG units; worse = how many dots lie left of zero."""

    name: str
    y: float
    dots: tuple[float, ...]
    mean_x: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GainPlot:
    """The strips of one group over a common axis. ticks: (x, text); zero_x: where nothing was gained."""

    title: str
    strips: tuple[Strip, ...]
    ticks: tuple[tuple[float, str], ...]
    zero_x: float
    height: float


def gain_plots(board: Board) -> list[GainPlot]:
    """Return one plot for each group in which a method other than the baseline was measured."""
    grouped: dict[tuple[str, str], dict[str, tuple[float, ...]]] = {}
    for (dataset, level, method), gains in board.gains:
        if gains:
            grouped.setdefault((dataset, level), {})[method] = gains
    return [_plot(f"{dataset}, {level}", methods) for (dataset, level), methods in grouped.items()]


def _plot(title: str, methods: Mapping[str, Sequence[float]]) -> GainPlot:
    every = [gain for gains in methods.values() for gain in gains]
    edges = nice_edges(min(0.0, *every), max(0.0, *every), bins=8)

    def position(value: float) -> float:
        return round(LABELS + (value - edges[0]) / (edges[-1] - edges[0]) * WIDTH, 1)

    strips = []
    for index, (name, gains) in enumerate(sorted(methods.items(), key=lambda item: -_mean(item[1]))):
        shown = sorted(gains)[:: max(1, math.ceil(len(gains) / _SHOWN_DOTS))]
        worse = sum(gain < 0 for gain in gains)
        strips.append(
            Strip(
                name=name,
                y=ROW * (index + 0.5),
                dots=tuple(position(gain) for gain in shown),
                mean_x=position(_mean(gains)),
                label=f"{name}: mean {_mean(gains):+.2f} dB over {len(gains)} pictures, {worse} of them worse",
            )
        )
    stride = max(1, math.ceil(len(edges) / 7))
    # Counted from zero, so that zero is always among the labels.
    nearest = min(range(len(edges)), key=lambda index: abs(edges[index]))
    every_other = edges[nearest % stride :: stride]
    ticks = tuple((position(edge), f"{edge:+.3g}".replace("-", "−") if edge else "0") for edge in every_other)
    return GainPlot(title=title, strips=tuple(strips), ticks=ticks, zero_x=position(0.0), height=ROW * len(strips))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
