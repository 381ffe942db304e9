"""From cells to tables: summaries of a method, and what a router could gain by choosing the method per image.

Everything here is plain arithmetic on lists of numbers, one per case, in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Case = TypeVar("Case")

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

    oracle: mean of each case's best method. best_single: the method best on average (None when none applies to every
    case). random: expected mean of a blind choice. regret: oracle minus mean on a method's own cases. chosen: how often
    the oracle takes each method.
    """

    oracle: Summary
    best_single_id: str | None
    best_single: Summary | None
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


def router_power(
    scores: Mapping[str, Mapping[Case, float]],
    *,
    inputs: Mapping[Case, float] | None = None,
    routers: Mapping[str, Mapping[Case, float]] | None = None,
) -> RouterPower:
    """Return oracle, best single method and random choice over scores by method and case (higher is better).

    Where a method does not apply to a case it is not to be chosen there; only a method that applies to all can be the
    best single one. Regret compares a method with the oracle on the method's own cases. `routers` choose by themselves:
    they have a regret, below 0 where several steps beat the best single method, but are no choice of the oracle. Ties
    go to the method named first. Raises ValueError when nothing was scored.
    """
    cases = list(dict.fromkeys(case for values in scores.values() for case in values))
    if not cases:
        raise ValueError("router_power: got no scores, expected at least one method on one case")
    offers = {case: {name: values[case] for name, values in scores.items() if case in values} for case in cases}
    best = {case: max(offer.values()) for case, offer in offers.items()}
    chosen = dict.fromkeys(scores, 0)
    for case, offer in offers.items():
        chosen[next(name for name, value in offer.items() if value == best[case])] += 1
    known = [inputs[case] for case in cases] if inputs is not None and all(case in inputs for case in cases) else None
    oracle = summarize([best[case] for case in cases], inputs=known)
    whole = {name: mean_of(list(values.values())) for name, values in scores.items() if len(values) == len(cases)}
    single = max(whole, key=lambda name: whole[name]) if whole else None
    return RouterPower(
        oracle=oracle,
        best_single_id=single,
        best_single=None if single is None else summarize([scores[single][case] for case in cases], inputs=known),
        random=mean_of([mean_of(list(offer.values())) for offer in offers.values()]),
        regret=tuple(
            (name, mean_of([best[case] - value for case, value in values.items()]))
            for name, values in {**scores, **(routers or {})}.items()
            if values and set(values) <= set(best)
        ),
        chosen=tuple(chosen.items()),
    )
