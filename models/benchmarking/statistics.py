"""From cells to tables: summaries of a method, and what a router could gain by choosing the method per image.

Everything here is plain arithmetic on lists of numbers, one per case, in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# A difference below this is rounding, not harm.
_WORSE_BY_DB = 1e-3
WORST_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """n values of one metric: mean, median, mean of the worst 5 % (at least one), share of cases made worse.

    made_worse: share of cases in [0, 1] below the untouched input by more than 0.001; None without an input row.
    """

    n: int
    mean: float
    median: float
    worst_5_percent: float
    made_worse: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterPower:
    """What choosing among methods can be worth over the same cases, in the metric's unit.

    oracle: mean of each case's best method. best_single: the method best on average, and its mean. random: expected
    mean of a blind choice. regret: oracle minus mean, by method. chosen: how often the oracle takes each method.
    """

    oracle: Summary
    best_single_id: str
    best_single: Summary
    random: float
    regret: tuple[tuple[str, float], ...]
    chosen: tuple[tuple[str, int], ...]

    @property
    def random_regret(self) -> float:
        return self.oracle.mean - self.random


def mean_of(values: Sequence[float]) -> float:
    """Return the mean, exactly rounded so that it does not depend on the order; ValueError when there is none."""
    if not values:
        raise ValueError("mean: got no values, expected at least one; was nothing measured?")
    return math.fsum(values) / len(values)


def median_of(values: Sequence[float]) -> float:
    """Return the median of a non-empty sequence."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def worst_mean(values: Sequence[float], *, higher_is_better: bool = True) -> float:
    """Return the mean of the worst 5 % of the values, of one value at least."""
    ordered = sorted(values, reverse=not higher_is_better)
    return mean_of(ordered[: max(1, math.ceil(WORST_SHARE * len(ordered)))])


def summarize(
    values: Sequence[float], *, inputs: Sequence[float] | None = None, higher_is_better: bool = True
) -> Summary:
    """Summarize one method; `inputs` are the same cases left untouched, in the same order."""
    worse = None
    if inputs is not None:
        if len(inputs) != len(values):
            raise ValueError(f"summarize: got {len(values)} values and {len(inputs)} inputs, expected as many of each")
        sign = 1 if higher_is_better else -1
        made = sum(sign * (value - before) < -_WORSE_BY_DB for value, before in zip(values, inputs, strict=True))
        worse = made / len(values)
    return Summary(
        n=len(values),
        mean=mean_of(values),
        median=median_of(values),
        worst_5_percent=worst_mean(values, higher_is_better=higher_is_better),
        made_worse=worse,
    )


def router_power(scores: Mapping[str, Sequence[float]], *, inputs: Sequence[float] | None = None) -> RouterPower:
    """Return oracle, best single method and random choice over methods scored on the same cases (higher is better).

    Ties go to the method named first. Raises ValueError for unequal lengths or fewer than one method.
    """
    lengths = {len(values) for values in scores.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"router_power: got lists of lengths {sorted(lengths)}, expected one length above 0 for all")
    ids = list(scores)
    cases = list(zip(*scores.values(), strict=True))
    best = [max(case) for case in cases]
    chosen = dict.fromkeys(ids, 0)
    for case in cases:
        chosen[ids[case.index(max(case))]] += 1
    means = {name: mean_of(values) for name, values in scores.items()}
    single = max(ids, key=lambda name: means[name])
    oracle = summarize(best, inputs=inputs)
    return RouterPower(
        oracle=oracle,
        best_single_id=single,
        best_single=summarize(scores[single], inputs=inputs),
        random=mean_of(list(means.values())),
        regret=tuple((name, oracle.mean - means[name]) for name in ids),
        chosen=tuple(chosen.items()),
    )
