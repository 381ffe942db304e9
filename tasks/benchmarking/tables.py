"""From measured cells to the rows of a leaderboard: measured, router and published ones, in a fixed order.

Nothing here depends on how long anything took: the same cells give the same rows, whatever machine was busy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from models.benchmarking.baselines import ROUTED, baseline_for, method_title
from models.benchmarking.cost import Cost, cost_of
from models.benchmarking.published import published_for
from models.benchmarking.scoring import METRICS
from models.benchmarking.statistics import RouterPower, mean_of, router_power, summarize
from models.registry import UnknownMethodError

RANKED = "psnr_db"
ALL = "all"
Row = Mapping[str, Any]
CaseKey = tuple[str, str, str, int]


class Where(NamedTuple):
    """One group of a suite: one table."""

    suite: str
    dataset: str
    level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardRow:
    """One line of the leaderboard. kind: measured, router or published; None = not measured or not applicable.

    psnr figures in dB; made_worse in [0, 1]; regret: dB below the oracle of the same cases; note: source or remark.
    means: mean of every metric by id. missing: cases of the group without a result of this method.
    """

    suite: str
    dataset: str
    level: str
    kind: str
    method: str
    title: str
    n: int | None = None
    missing: int = 0
    mean: float | None = None
    median: float | None = None
    worst_5_percent: float | None = None
    made_worse: float | None = None
    regret: float | None = None
    means: tuple[tuple[str, float | None], ...] = ()
    gmac_per_megapixel: float | None = None
    parameters: int | None = None
    protocol: str = ""
    note: str = ""

    def metric(self, name: str) -> float | None:
        return dict(self.means).get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds per megapixel of the result, over all cases of a suite, on one device."""

    suite: str
    method: str
    n: int
    seconds_per_megapixel: float
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Everything about one suite or set. gains: PSNR minus that of the untouched input, by (dataset, level, method).

    models: by id of a metric, the model that measured it.
    """

    suite: str
    title: str
    note: str
    rows: tuple[BoardRow, ...]
    timings: tuple[Timing, ...]
    gains: tuple[tuple[tuple[str, str, str], tuple[float, ...]], ...]
    models: tuple[tuple[str, str], ...] = ()

    @property
    def groups(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys((row.dataset, row.level) for row in self.rows))

    def summary(self) -> list[tuple[str, str, list[float | None]]]:
        """Return (kind, method, mean by group in dB) as papers print it: measured, router, published."""
        found: dict[tuple[str, str], dict[tuple[str, str], float | None]] = {}
        for row in self.rows:
            found.setdefault((row.kind, row.method), {})[row.dataset, row.level] = row.mean
        kinds = ("measured", "router", "published")
        ordered = sorted(found, key=lambda name: kinds.index(name[0]))
        return [(kind, method, [found[kind, method].get(group) for group in self.groups]) for kind, method in ordered]


def build_board(description: Row, metrics: Sequence[Row], timings: Sequence[Row]) -> Board:
    """Return the leaderboard of one result from its tables."""
    suite = str(description["suite"])
    groups = list(dict.fromkeys((str(row["dataset"]), str(row["level"])) for row in metrics))
    rows: list[BoardRow] = []
    gains: list[tuple[tuple[str, str, str], tuple[float, ...]]] = []
    for dataset, level in groups:
        part = [row for row in metrics if (row["dataset"], row["level"]) == (dataset, level)]
        scored = _by_method(part)
        rows += _group_rows(suite, dataset, level, part, scored=scored)
        gains += [((dataset, level, name), values) for name, values in _gains(scored)]
    if len(groups) > 1:
        rows += _group_rows(suite, ALL, ALL, metrics, scored=_by_method(metrics))
    return Board(
        suite=suite,
        title=str(description.get("title") or suite),
        note=str(description.get("note") or ""),
        rows=tuple(rows),
        timings=_timings(suite, timings),
        gains=tuple(gains),
        models=tuple(sorted(description.get("models", {}).items())),
    )


def _by_method(rows: Sequence[Row]) -> dict[str, dict[CaseKey, float]]:
    found: dict[str, dict[CaseKey, float]] = {}
    for row in rows:
        value = row.get(RANKED)
        if value is not None:
            key = (str(row["dataset"]), str(row["level"]), str(row["image_id"]), int(row["seed"]))
            found.setdefault(str(row["method"]), {})[key] = float(value)
    return found


def _baseline(scored: Mapping[str, Mapping[CaseKey, float]]) -> dict[CaseKey, float]:
    """Return the score of every case left untouched (or plainly enlarged)."""
    untouched: dict[CaseKey, float] = {}
    for name in (baseline_for(2), baseline_for(1)):
        untouched.update(scored.get(name, {}))
    return untouched


def _gains(scored: Mapping[str, Mapping[CaseKey, float]]) -> list[tuple[str, tuple[float, ...]]]:
    untouched = _baseline(scored)
    return [
        (name, tuple(values[key] - untouched[key] for key in values if key in untouched))
        for name, values in scored.items()
        if name not in (baseline_for(1), baseline_for(2))
    ]


def _group_rows(
    suite: str, dataset: str, level: str, rows: Sequence[Row], *, scored: Mapping[str, Mapping[CaseKey, float]]
) -> list[BoardRow]:
    where, untouched = Where(suite, dataset, level), _baseline(scored)
    choices = {name: values for name, values in scored.items() if name != ROUTED}
    routers = {name: values for name, values in scored.items() if name == ROUTED}
    power = router_power(choices, inputs=untouched, routers=routers) if len(scored) > 1 and choices else None
    cases = len({key for values in scored.values() for key in values})
    board = [
        _measured(name, values, rows, where=where, cases=cases, untouched=untouched, power=power)
        for name, values in scored.items()
    ]
    board.sort(key=lambda row: -(row.mean or 0.0))
    board += _router_rows(power, where=where) if power is not None else []
    return [*board, *_published_rows(where)]


def _measured(
    name: str,
    values: Mapping[CaseKey, float],
    rows: Sequence[Row],
    *,
    where: Where,
    cases: int,
    untouched: Mapping[CaseKey, float],
    power: RouterPower | None,
) -> BoardRow:
    own = [row for row in rows if row["method"] == name]
    is_baseline = name in (baseline_for(1), baseline_for(2))
    known = not is_baseline and set(values) <= set(untouched)
    summary = summarize(list(values.values()), inputs=[untouched[key] for key in values] if known else None)
    means = []
    for metric in METRICS:
        numbers = [float(row[metric.id]) for row in own if row.get(metric.id) is not None]
        means.append((metric.id, mean_of(numbers) if numbers else None))
    try:
        title, cost, gone = method_title(name), cost_of(name), []
    except UnknownMethodError:  # its measurements stay true
        title, cost, gone = name, Cost(parameters=None, gmac_per_megapixel=None), ["not registered here"]
    protocols = sorted({str(row["protocol"]) for row in own})
    notes = [*gone, *([f"only {summary.n} of {cases} pictures"] if summary.n < cases else [])]
    notes += sorted({str(row["precision"]) for row in own if row.get("precision")})
    return BoardRow(
        suite=where.suite,
        dataset=where.dataset,
        level=where.level,
        kind="measured",
        method=name,
        title=title,
        n=summary.n,
        missing=cases - summary.n,
        mean=summary.mean,
        median=summary.median,
        worst_5_percent=summary.worst_5_percent,
        made_worse=summary.made_worse,
        regret=None if power is None else dict(power.regret).get(name),
        means=tuple(means),
        gmac_per_megapixel=cost.gmac_per_megapixel,
        parameters=cost.parameters,
        protocol="; ".join(protocols),
        note=", ".join(notes),
    )


def _router_rows(power: RouterPower, *, where: Where) -> list[BoardRow]:
    chosen = ", ".join(f"{name} {count}" for name, count in power.chosen if count)
    summaries = [("oracle", "Best method for each picture", power.oracle, f"takes {chosen}")]
    if power.best_single is not None:
        found = f"it is {power.best_single_id}"
        summaries.append(("best single", "Best method for all pictures", power.best_single, found))
    rows = [
        BoardRow(
            suite=where.suite,
            dataset=where.dataset,
            level=where.level,
            kind="router",
            method=name,
            title=title,
            n=summary.n,
            mean=summary.mean,
            median=summary.median,
            worst_5_percent=summary.worst_5_percent,
            made_worse=summary.made_worse,
            regret=power.oracle.mean - summary.mean,
            means=((RANKED, summary.mean),),
            note=note,
        )
        for name, title, summary, note in summaries
    ]
    random = BoardRow(
        suite=where.suite,
        dataset=where.dataset,
        level=where.level,
        kind="router",
        method="random",
        title="A method at random, expected value",
        n=power.oracle.n,
        mean=power.random,
        regret=power.random_regret,
        means=((RANKED, power.random),),
        note=f"of {len(power.chosen)} methods, leaving it untouched among them",
    )
    return [*rows, random]


def _published_rows(where: Where) -> list[BoardRow]:
    return [
        BoardRow(
            suite=where.suite,
            dataset=where.dataset,
            level=where.level,
            kind="published",
            method=row.method,
            title=row.method,
            mean=row.psnr_db,
            means=((RANKED, row.psnr_db), ("ssim", row.ssim)),
            note="; ".join(part for part in (row.source, row.note) if part),
        )
        for row in published_for(where.suite)
        if (row.dataset, row.level) == (where.dataset, where.level)
    ]


def _timings(suite: str, rows: Sequence[Row]) -> tuple[Timing, ...]:
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    found = []
    for method in methods:
        own = [row for row in rows if row["method"] == method and row.get("seconds") is not None]
        area = sum(float(row["megapixels"]) for row in own)
        if area > 0:
            seconds = sum(float(row["seconds"]) for row in own) / area
            devices = "; ".join(sorted({str(row["device"]) for row in own}))
            found.append(Timing(suite=suite, method=method, n=len(own), seconds_per_megapixel=seconds, device=devices))
    return tuple(found)
