"""Routing as a family of policies behind one interface: estimate, scratches, options and gains to a plan.

    rules            a table of conditions on the estimate
    predicted-gain   the treatment that surely brings most, where its fault is seen
    soft             all treatments in shares that follow their expected gains, where one is sure to gain
    regional         the same in every region of a picture by itself: for damage that differs from place to place
    agent            RL-Restore's agent chooses up to three of its own tools, where predicted-gain would treat
    fixed:METHOD     the same method for every picture, to compare with

All of them fill, correct colour and enlarge by the same rules; they differ in what is done against noise, blur and
compression. An oracle, which knows the true gains, is `PredictedGain` given those (benchmarks alone can).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from models.routing.gain_thresholds import GainThresholds
from models.routing.rules import POLICY as RULES
from models.routing.rules import RoutingOptions, deviations_where_unseen, plan_around, plan_for, shows_faults_of
from models.routing.treatments import MIXTURE
from models.types import (
    DEFAULT_POLICY,
    MIXTURES,
    DegradationEstimate,
    Gain,
    Plan,
    ScratchReport,
    Step,
    Treatment,
    plain_id,
    thorough_id,
)

PREDICTED_GAIN = DEFAULT_POLICY
FIXED = "fixed:"
# Within a budget, of treatments that bring the same but for this, the one that takes least. Far below what expected
# gains are off by (0.7 dB on average on held-back crops).
AS_GOOD_DB = 0.05
# Also the ids of the methods that they plan.
SOFT, REGIONAL = MIXTURES
AGENT, AGENTS_METHOD = "agent", "rl-restore"


class Policy(Protocol):
    """Decides what is done to a picture; pure, so that a plan can be made again from what the catalogue holds."""

    @property
    def name(self) -> str:
        """What the plan and the catalogue call it."""
        ...

    def plan(
        self,
        estimate: DegradationEstimate,
        scratches: ScratchReport,
        *,
        options: RoutingOptions,
        gains: Sequence[Gain] = (),
    ) -> Plan:
        """Return the plan of one picture; `gains` is what was predicted of every treatment, () = nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """The conditions of `models.routing.rules`."""

    name: str = RULES

    def plan(
        self,
        estimate: DegradationEstimate,
        scratches: ScratchReport,
        *,
        options: RoutingOptions,
        gains: Sequence[Gain] = (),
    ) -> Plan:
        return plan_for(estimate, scratches, options=options, gains=gains)


@dataclass(frozen=True, slots=True)
class Fixed:
    """One method for every picture."""

    method_id: str

    @property
    def name(self) -> str:
        return FIXED + self.method_id

    def plan(
        self,
        estimate: DegradationEstimate,
        scratches: ScratchReport,
        *,
        options: RoutingOptions,
        gains: Sequence[Gain] = (),
    ) -> Plan:
        strength = options.strength(self.method_id)
        step = Step(method_id=self.method_id, strength=strength, reason=f"{self.method_id} was asked for every picture")
        return plan_around((step,), estimate, scratches, options=options, policy=self.name, gains=gains)


def _shipped_thresholds() -> GainThresholds:
    # They lie beside the weights; importing the flow must not load torch for them.
    from models.routing.gains import shipped_thresholds

    return shipped_thresholds()


@dataclass(frozen=True, slots=True)
class PredictedGain:
    """The treatment with the highest sure gain, where that is worth anything; none = untouched.

    two_witnesses: only of treatments whose fault the estimate shows, or a trial. What is learned may be sure and wrong
    about a texture unlike all it has seen. The parts of a mixture hide each other: one of them must be seen only where
    another treatment surely brings more. Where none is seen, a gain must be worth more than so many deviations as
    `deviations_where_unseen` says, which for most treatments is without bound. With a budget, only of treatments that
    take no more, and of those that surely bring as much (but for AS_GOOD_DB) the one that takes least.
    """

    thresholds: GainThresholds = field(default_factory=_shipped_thresholds)
    name: str = PREDICTED_GAIN
    two_witnesses: bool = True

    def plan(
        self,
        estimate: DegradationEstimate,
        scratches: ScratchReport,
        *,
        options: RoutingOptions,
        gains: Sequence[Gain] = (),
    ) -> Plan:
        allowed = [gain for gain in gains if all(options.strength(method) > 0.0 for method in gain.treatment)]
        surely = self.thresholds.sure_gain_db
        sure = [gain for gain in allowed if surely(gain) > self.thresholds.least_gain_db]
        best = max(sure, key=surely, default=None)
        seen = [
            gain
            for gain in sure
            if not self.two_witnesses
            or (
                (gain is best or gain.treatment != MIXTURE)
                and gain.beyond(_enough(gain, estimate=estimate, options=options))
            )
            or gain.shown
            or shows_faults_of(estimate, treatment=gain.treatment, thresholds=options.thresholds)
        ]
        first = max(seen, key=surely, default=None)
        chosen = first if options.budget_gmac is None else self._within(seen, options=options)
        dearer = first if first is not chosen else None
        unseen = best if first is None else None
        likely = max(allowed, key=lambda gain: gain.gain_db, default=None)
        return plan_around(
            () if chosen is None else _steps(chosen, options=options, estimate=estimate, dearer=dearer),
            estimate,
            scratches,
            options=options,
            policy=self.name,
            gains=gains,
            untouched_reason=_reason_to_leave(unseen or likely, unseen=unseen is not None)
            if dearer is None
            else f"{_beyond(dearer, options=options)}, and nothing within it is sure to improve it",
            doubt=None if first is not None else self._doubt(likely),
        )

    def _within(self, seen: Sequence[Gain], *, options: RoutingOptions) -> Gain | None:
        """Return what is chosen within the budget, None = nothing."""
        surely, budget = self.thresholds.sure_gain_db, options.budget_gmac
        affordable = [gain for gain in seen if budget is None or _gmac(gain, options=options) <= budget]
        most = max((surely(gain) for gain in affordable), default=0.0)
        as_good = [gain for gain in affordable if surely(gain) >= most - AS_GOOD_DB]
        return min(as_good, key=lambda gain: (_gmac(gain, options=options), -surely(gain)), default=None)

    def _doubt(self, likely: Gain | None) -> str | None:
        if likely is None or likely.gain_db <= self.thresholds.review_db:
            return None
        return f"{_named(likely.treatment)} may bring {_text(likely)}, which is too unsure to be done unseen"


@dataclass(frozen=True, slots=True)
class WhereSure:
    """One method for the pictures that predicted gains would have treated; the others stay untouched.

    reason: what the method does, before the reason of the treatment that it stands for. For methods that treat whatever
    they are given: our agent of RL-Restore hardly ever stops by itself, and alters clean pictures.
    """

    name: str
    method_id: str
    reason: str
    chosen_by: PredictedGain = field(default_factory=PredictedGain)

    def plan(
        self,
        estimate: DegradationEstimate,
        scratches: ScratchReport,
        *,
        options: RoutingOptions,
        gains: Sequence[Gain] = (),
    ) -> Plan:
        found = self.chosen_by.plan(estimate, scratches, options=options, gains=gains)
        treating = {method for gain in gains for method in gain.treatment} | {options.deblur_method}
        steps = tuple(step for step in found.steps if plain_id(step.method_id) in treating)
        if not steps:
            return replace(found, policy=self.name)
        reason = f"{self.reason}{steps[0].reason}"
        instead = Step(method_id=self.method_id, strength=options.strength(self.method_id), reason=reason)
        return plan_around((instead,), estimate, scratches, options=options, policy=self.name, gains=gains)


@dataclass(frozen=True, slots=True)
class FindsOut:
    """One method for every picture that finds out by itself what each needs, and changes nothing that needs nothing."""

    name: str
    method_id: str
    reason: str

    def plan(
        self,
        estimate: DegradationEstimate,
        scratches: ScratchReport,
        *,
        options: RoutingOptions,
        gains: Sequence[Gain] = (),
    ) -> Plan:
        step = Step(method_id=self.method_id, strength=options.strength(self.method_id), reason=self.reason)
        return plan_around((step,), estimate, scratches, options=options, policy=self.name, gains=gains)


def _enough(gain: Gain, *, options: RoutingOptions, estimate: DegradationEstimate) -> float:
    return deviations_where_unseen(estimate, treatment=gain.treatment, thresholds=options.thresholds)


def _gmac(gain: Gain, *, options: RoutingOptions) -> float:
    """Return what a treatment takes as it would be carried out, in GMAC per megapixel."""
    # Importing the flow must not load torch for the cards.
    from models.registry import get_method

    ids = [options.deblur_method if method == "deblur" else method for method in gain.treatment]
    carried_out = [thorough_id(method) if options.thorough else method for method in ids]
    cards = [get_method(method).card for method in carried_out]
    # None is nothing for a filter, and without bound for what learns from each picture anew.
    return sum(math.inf if card.fits_each_picture else card.gmac_per_megapixel or 0.0 for card in cards)


def _beyond(dearer: Gain, *, options: RoutingOptions) -> str:
    """Say what a treatment would have brought, and why it was not chosen for what it takes."""
    takes, budget = _gmac(dearer, options=options), options.budget_gmac or 0.0
    why = f"more than the budget of {budget:g}" if takes > budget else "more for as much"
    return f"{_named(dearer.treatment)} ({_text(dearer)}) takes {takes:.0f} GMAC per megapixel, {why}"


def _steps(
    gain: Gain, *, options: RoutingOptions, estimate: DegradationEstimate, dearer: Gain | None
) -> tuple[Step, ...]:
    first = f"{_named(gain.treatment)} is expected to bring {_text(gain)}; the picture shows {_seen(estimate)}"
    first += ", and a trial took grain away" if gain.shown else ""
    first += "" if dearer is None else f"; {_beyond(dearer, options=options)}"
    reasons = [first, *(f"second step of it, after {method}" for method in gain.treatment[:-1])]
    ids = [options.deblur_method if method == "deblur" else method for method in gain.treatment]
    return tuple(
        Step(method_id=method, strength=options.strength(method), reason=reason)
        for method, reason in zip(ids, reasons, strict=True)
    )


def _named(treatment: Treatment) -> str:
    return ", then ".join(treatment)


def _text(gain: Gain) -> str:
    return f"{gain.gain_db:+.1f} dB (± {gain.uncertainty_db:.1f})"


def _reason_to_leave(likely: Gain | None, *, unseen: bool) -> str:
    if likely is None:
        return "nothing is known of what a treatment would bring, so none is applied"
    if unseen:
        return f"{_named(likely.treatment)} is expected to bring {_text(likely)}, but too little of its fault is seen"
    return f"no treatment is sure to improve it: {_named(likely.treatment)} comes nearest, with {_text(likely)}"


def _seen(estimate: DegradationEstimate) -> str:
    """Say what was estimated, however surely: the gain was not predicted from these numbers alone."""
    parts = []
    if (noise := estimate.noise_sigma).value is not None:
        parts.append(f"noise of about σ {noise.value:.0f}")
    if (blur := estimate.blur_sigma_px).value is not None:
        parts.append(f"blur of about σ {blur.value:.1f} px")
    if (quality := estimate.jpeg_quality).value is not None and quality.value < 96:
        parts.append(f"JPEG quality {quality.value:.0f}")
    return ", ".join(parts) or "nothing that could be measured"


def get_policy(name: str) -> Policy:
    """Return the policy called `name`; ValueError names the nearest one for another name or an unfit method."""
    if name == RULES:
        return Rules()
    if name == PREDICTED_GAIN:
        return PredictedGain()
    if name == SOFT:
        return WhereSure(name, method_id=SOFT, reason="all treatments in shares of their expected gains, of which ")
    if name == REGIONAL:
        reason = "every region gets all treatments in shares of what they are expected to bring there"
        return FindsOut(name=name, method_id=REGIONAL, reason=reason)
    if name == AGENT:
        reason = "the agent of RL-Restore chooses up to three tools, since "
        return WhereSure(name, method_id=_treating_method(AGENTS_METHOD), reason=reason)
    if name.startswith(FIXED):
        return Fixed(_treating_method(name.removeprefix(FIXED)))
    known = [RULES, PREDICTED_GAIN, SOFT, REGIONAL, AGENT, FIXED + "METHOD"]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"policy: got {name!r}, expected one of {', '.join(known)}{hint}")


def without_views(name: str) -> str | None:
    """Return the only treating method of policy `name` where that has no mean over flips and turns, else None."""
    method = AGENTS_METHOD if name == AGENT else name.removeprefix(FIXED) if name.startswith(FIXED) else None
    return method if method is not None and thorough_id(plain_id(method)) == method == plain_id(method) else None


def _treating_method(method_id: str) -> str:
    from models.registry import get_method, unavailable

    method = get_method(method_id)
    card = method.card
    if card.needs_mask or card.scale > 1 or card.purpose == "colour":
        raise ValueError(
            f"policy {FIXED}{method_id}: expected a method against noise, blur or compression, got one for "
            f"{card.purpose}; `lacuna methods` lists them"
        )
    if (missing := unavailable(method)) is not None:
        raise ValueError(f"policy {FIXED}{method_id}: {missing}")
    return method_id
