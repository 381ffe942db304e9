"""Histograms as plain geometry: counted in Python, drawn as inline SVG by the template."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, BASE = 320.0, 96.0  # of the bars, in SVG units; the template leaves room below for the ticks


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar in SVG units; `label` says in words what it counts."""

    x: float
    y: float
    width: float
    height: float
    count: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The bars of one set of values, e.g. before or after."""

    name: str
    bars: tuple[Bar, ...]
    count: int
    median: float
    median_text: str
    median_x: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A titled histogram of one or two series over the same bins. `ticks`: (x in SVG units, text)."""

    title: str
    note: str
    series: tuple[Series, ...]
    ticks: tuple[tuple[float, str], ...]
    zero_x: float | None


def nice_edges(low: float, high: float, *, bins: int = 18) -> tuple[float, ...]:
    """Return equally spaced round edges that cover [low, high] in at most about `bins` steps."""
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        raise ValueError(f"nice_edges: expected finite low <= high, got {low} and {high}")
    span = max(high - low, abs(high) * 1e-6, 1e-9)
    raw = span / bins
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = max(first + 1, math.ceil(high / step - 1e-9))
    return tuple(round(index * step, 12) for index in range(first, last + 1))


def count_in_bins(values: Sequence[float], edges: Sequence[float]) -> tuple[int, ...]:
    """Count `values` in [edge, next edge), the last bin closed; values outside are counted in the outermost bins."""
    counts = [0] * (len(edges) - 1)
    step = (edges[-1] - edges[0]) / len(counts)
    for value in values:
        index = math.floor((value - edges[0]) / step + 1e-9)
        counts[min(max(index, 0), len(counts) - 1)] += 1
    return tuple(counts)


def median(values: Sequence[float]) -> float:
    """Return the median of a non-empty sequence."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def make_chart(title: str, series: Mapping[str, Sequence[float]], *, unit: str = "", note: str = "") -> Chart | None:
    """Return the histogram of the named series over common bins, or None when there is nothing to count."""
    finite = {name: [value for value in values if math.isfinite(value)] for name, values in series.items()}
    finite = {name: values for name, values in finite.items() if values}
    if not finite:
        return None
    every = [value for values in finite.values() for value in values]
    edges = nice_edges(min(every), max(every))
    counts = {name: count_in_bins(values, edges) for name, values in finite.items()}
    highest = max(max(row) for row in counts.values())
    drawn = tuple(
        _draw_series(name, finite[name], counts[name], edges=edges, highest=highest, unit=unit) for name in finite
    )
    middle = edges[len(edges) // 2]
    ticks = tuple(
        (_position(edge, edges), _number(edge, unit)) for edge in dict.fromkeys((edges[0], middle, edges[-1]))
    )
    zero = _position(0.0, edges) if edges[0] < 0 < edges[-1] else None
    return Chart(title=title, note=note, series=drawn, ticks=ticks, zero_x=zero)


def _position(value: float, edges: Sequence[float]) -> float:
    return round((value - edges[0]) / (edges[-1] - edges[0]) * WIDTH, 2)


def _number(value: float, unit: str) -> str:
    if unit == "%":
        return f"{value * 100:.3g} %".replace("-", "−")
    text = f"{value:.3g}".replace("-", "−")
    return f"{text} {unit}".rstrip()


def _draw_series(
    name: str, values: Sequence[float], counts: Sequence[int], *, edges: Sequence[float], highest: int, unit: str
) -> Series:
    bars = []
    slot = WIDTH / len(counts)
    for index, count in enumerate(counts):
        if count == 0:
            continue
        height = max(1.5, count / highest * BASE)
        label = f"{name}: {count} picture{'s' if count != 1 else ''} from {_number(edges[index], unit)}"
        bars.append(
            Bar(
                x=round(index * slot + 0.75, 2),
                y=round(BASE - height, 2),
                width=round(max(slot - 1.5, 0.5), 2),
                height=round(height, 2),
                count=count,
                label=f"{label} to {_number(edges[index + 1], unit)}",
            )
        )
    middle = median(values)
    return Series(
        name=name,
        bars=tuple(bars),
        count=len(values),
        median=middle,
        median_text=_number(middle, unit),
        median_x=_position(middle, edges),
    )
