"""Policies behind one interface: what is expected decides, where it is sure; decisions keep their alternatives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.routing import POLICIES, gmac_per_megapixel
from models.estimation.estimate import UNKNOWN, estimate_with_evidence
from models.registry import get_method
from models.routing.gain_thresholds import GainThresholds
from models.routing.gains import WEIGHTS, inputs_size, load_gain_network, predict_gains, shipped_thresholds
from models.routing.policies import PREDICTED_GAIN, Fixed, PredictedGain, Rules, get_policy
from models.routing.rules import UPSCALERS, RoutingOptions, plan_for
from models.routing.treatments import TREATMENTS, gain_db, squared_error
from models.routing.trial_evidence import trial_window
from models.routing.trials import with_trials
from models.run import Runner, RunSettings
from models.types import DegradationEstimate, Gain, Plan, ScratchReport, from_json, to_json
from models.weights import WEIGHTS_FOLDER
from tests.models.test_routing import ESTIMATES, SCRATCHES, estimate, scratches, steps

THRESHOLDS = GainThresholds(doubts=(1.0,) * len(TREATMENTS), least_gain_db=0.1, review_db=1.0)
FAULTY = estimate(noise_sigma=(9.0, 0.1), jpeg_quality=(30.0, 0.1), blur_sigma_px=(1.5, 0.1))
GAINS = st.lists(
    st.builds(
        Gain,
        treatment=st.sampled_from(TREATMENTS),
        gain_db=st.floats(-12.0, 20.0),
        uncertainty_db=st.floats(0.0, 10.0),
    ),
    max_size=len(TREATMENTS),
    unique_by=lambda gain: gain.treatment,
)


def expected(**known: tuple[float, float]) -> tuple[Gain, ...]:
    """Gains by method id with dashes as underscores; every other treatment surely does harm."""
    named = {key.replace("_", "-"): value for key, value in known.items()}
    pairs = [(treatment, named.get(treatment[0], (-5.0, 0.5))) for treatment in TREATMENTS]
    return tuple(Gain(treatment=t, gain_db=gain, uncertainty_db=spread) for t, (gain, spread) in pairs)


def planned(gains: tuple[Gain, ...], options: RoutingOptions | None = None) -> Plan:
    policy = PredictedGain(thresholds=THRESHOLDS)
    return policy.plan(FAULTY, scratches(), options=options or RoutingOptions(), gains=gains)


def test_a_slight_blur_under_grain_may_be_the_pictures_own_softness() -> None:
    gains = expected(deblur=(3.0, 0.5), all_in_one=(2.6, 1.6))
    policy = PredictedGain(thresholds=THRESHOLDS)
    for noise, blur, treated in ((0.0, 0.95, True), (2.8, 0.95, False), (2.8, 1.4, True)):
        seen = estimate(noise_sigma=(noise, 0.7), blur_sigma_px=(blur, 0.4))
        plan = policy.plan(seen, scratches(), options=RoutingOptions(), gains=gains)
        assert bool(plan.steps) is treated


@given(estimate=ESTIMATES, report=SCRATCHES, gains=GAINS)
def test_every_estimate_has_one_plan_by_expected_gain(
    estimate: DegradationEstimate, report: ScratchReport, gains: list[Gain]
) -> None:
    policy, options = PredictedGain(thresholds=THRESHOLDS), RoutingOptions()
    plan = policy.plan(estimate, report, options=options, gains=gains)
    assert plan == policy.plan(estimate, report, options=options, gains=gains)
    assert plan.policy == PREDICTED_GAIN
    assert plan.reason.endswith(".")
    assert sorted(plan.alternatives, key=lambda gain: gain.treatment) == sorted(gains, key=lambda gain: gain.treatment)
    assert all(report.mask is not None or not get_method(step.method_id).card.needs_mask for step in plan.steps)
    assert from_json(Plan, to_json(plan)) == plan


def test_the_largest_sure_gain_is_taken() -> None:
    assert steps(planned(expected(denoise=(2.0, 0.3), deblock=(1.0, 0.1)))) == ["denoise"]
    assert steps(planned(expected(denoise=(2.0, 3.0), deblock=(1.0, 0.1)))) == ["deblock"]


def test_what_is_not_sure_is_left_and_a_large_chance_is_reviewed() -> None:
    little = planned(expected(deblur=(0.5, 0.6)))
    assert little.untouched
    assert not little.needs_review
    assert "deblur comes nearest, with +0.5 dB (± 0.6)" in little.reason
    large = planned(expected(deblur=(3.0, 4.0)))
    assert large.untouched
    assert large.needs_review
    assert "deblur may bring +3.0 dB" in large.reason


def test_a_fault_that_the_estimate_does_not_show_is_left_for_review() -> None:
    gains, options = expected(denoise=(6.0, 1.0), deblock=(0.9, 0.1)), RoutingOptions()
    plan = PredictedGain(thresholds=THRESHOLDS).plan(estimate(), scratches(), options=options, gains=gains)
    assert plan.untouched
    assert plan.needs_review
    assert "too little of its fault is seen" in plan.reason
    alone = PredictedGain(thresholds=THRESHOLDS, two_witnesses=False)
    assert steps(alone.plan(estimate(), scratches(), options=options, gains=gains)) == ["denoise"]


def test_the_next_best_whose_fault_is_seen_is_taken_instead() -> None:
    policy = PredictedGain(thresholds=THRESHOLDS)

    def plan(gains: tuple[Gain, ...], *, noise: float) -> list[str]:
        seen = estimate(noise_sigma=(noise, 0.9), jpeg_quality=(100.0, 0.9), blur_sigma_px=(0.0, 0.9))
        return steps(policy.plan(seen, scratches(), options=RoutingOptions(), gains=gains))

    compressed = expected(deblock=(2.0, 0.5), denoise=(1.5, 0.5), all_in_one=(1.0, 0.3))
    assert plan(compressed, noise=20.0) == ["denoise"]
    assert plan(expected(deblock=(2.0, 0.5), all_in_one=(1.0, 0.3)), noise=20.0) == ["all-in-one"]
    # Of a mixture a part must be seen, unless nothing is expected to bring more.
    assert plan(compressed, noise=0.0) == []
    assert plan(expected(deblock=(2.0, 0.5), all_in_one=(3.0, 0.3)), noise=0.0) == ["all-in-one"]


def test_what_a_trial_shows_need_not_be_estimated() -> None:
    (grain,) = (gain for gain in expected(degrain=(4.0, 2.0)) if gain.treatment == ("degrain",))

    def plan(gain: Gain) -> Plan:
        policy = PredictedGain(thresholds=THRESHOLDS)
        return policy.plan(estimate(), scratches(), options=RoutingOptions(), gains=(gain,))

    assert plan(grain).untouched
    assert steps(plan(replace(grain, shown=True))) == ["degrain"]
    assert "a trial took grain away" in plan(replace(grain, shown=True)).steps[0].reason
    assert plan(replace(grain, shown=True, gain_db=0.1)).untouched, "it must be expected to bring something, too"


def test_slight_compression_is_treated_where_the_gain_is_surer() -> None:
    policy = PredictedGain(thresholds=THRESHOLDS)

    def plan(gain: float, *, quality: float) -> list[str]:
        seen = estimate(jpeg_quality=(quality, 0.98))
        gains = expected(deblock=(gain, 0.5))
        return steps(policy.plan(seen, scratches(), options=RoutingOptions(), gains=gains))

    assert plan(0.8, quality=60.0) == ["deblock"]
    assert plan(0.8, quality=80.0) == []
    assert plan(1.0, quality=80.0) == ["deblock"]
    assert plan(1.0, quality=95.0) == []


def test_without_predictions_nothing_is_done() -> None:
    assert planned(()).untouched
    assert "Nothing is known" in planned(()).reason


def test_a_method_that_was_switched_off_is_passed_over() -> None:
    gains = expected(denoise=(2.0, 0.3), deblock=(1.0, 0.1))
    assert steps(planned(gains, RoutingOptions(strengths=(("denoise", 0.0),)))) == ["deblock"]
    half = planned(gains, RoutingOptions(strengths=(("denoise", 0.5),)))
    assert [step.strength for step in half.steps] == [0.5]


def test_within_a_budget_the_best_that_takes_no_more_is_chosen() -> None:
    gains = expected(all_in_one=(3.0, 0.3), denoise=(2.0, 0.3), deblock=(1.0, 0.1))
    assert steps(planned(gains)) == steps(planned(gains, RoutingOptions(budget_gmac=1000.0))) == ["all-in-one"]
    less = planned(gains, RoutingOptions(budget_gmac=150.0))
    assert steps(less) == ["denoise"]
    assert "all-in-one (+3.0 dB (± 0.3)) takes 209 GMAC per megapixel, more than the budget of 150" in less.reason
    # Eight views of it take eight times as much.
    assert steps(planned(gains, RoutingOptions(budget_gmac=1100.0, thorough=True))) == ["denoise+"]
    nothing = planned(gains, RoutingOptions(budget_gmac=100.0))
    assert nothing.untouched
    assert not nothing.needs_review
    assert "more than the budget of 100, and nothing within it is sure" in nothing.reason
    with pytest.raises(ValueError, match="budget: got 0, expected"):
        RoutingOptions(budget_gmac=0.0)


def test_within_a_budget_the_cheaper_of_equals_is_chosen() -> None:
    gains = expected(all_in_one=(2.03, 0.3), denoise=(2.0, 0.3))
    assert steps(planned(gains)) == ["all-in-one"]
    cheaper = planned(gains, RoutingOptions(budget_gmac=300.0))
    assert steps(cheaper) == ["denoise"]
    assert "takes 209 GMAC per megapixel, more for as much" in cheaper.reason
    apart = expected(all_in_one=(2.1, 0.3), denoise=(2.0, 0.3))
    assert steps(planned(apart, RoutingOptions(budget_gmac=300.0))) == ["all-in-one"]


@pytest.mark.parametrize("method", UPSCALERS)
def test_filling_and_enlarging_stay_with_the_rules(method: str) -> None:
    options = RoutingOptions(strengths=((method, 1.0),))
    policy = PredictedGain(thresholds=THRESHOLDS)
    plan = policy.plan(FAULTY, scratches(0.02), options=options, gains=expected(denoise=(2.0, 0.3)))
    assert steps(plan) == ["fill", "denoise", method]
    assert get_method(method).card.scale == UPSCALERS[method]


def test_rules_look_at_no_gain_but_record_them() -> None:
    noisy, gains = estimate(noise_sigma=(25.0, 0.9)), expected(deblock=(9.0, 0.1))
    plan = Rules().plan(noisy, scratches(), options=RoutingOptions(), gains=gains)
    assert steps(plan) == steps(plan_for(noisy, scratches())) == ["denoise"]
    assert plan.alternatives[0].treatment == ("deblock",)


def test_a_fixed_method_is_planned_for_every_picture() -> None:
    plan = get_policy("fixed:all-in-one").plan(estimate(), scratches(), options=RoutingOptions())
    assert (steps(plan), plan.policy) == (["all-in-one"], "fixed:all-in-one")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rule", "did you mean 'rules'"),
        ("fixed:fill", "got one for fill"),
        ("fixed:upscale-x2", "got one for upscale"),
        ("fixed:tonal-range", "got one for colour"),
    ],
)
def test_policies_that_do_not_exist_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_policy(name)
    assert get_policy("rules") == Rules()
    assert get_policy("fixed:denoise") == Fixed("denoise")


def test_gain_is_that_of_psnr_with_a_floor_of_one_level() -> None:
    assert gain_db(before=100.0, after=10.0) == pytest.approx(10 * np.log10(101 / 11))
    assert gain_db(before=0.0, after=0.0) == 0.0
    assert gain_db(before=0.0, after=4.0) < -6.9


def test_masked_pixels_do_not_count_as_error() -> None:
    first, second = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)
    second[0, 0] = 255
    mask = np.zeros((8, 8), bool)
    mask[0, 0] = True
    assert squared_error(first, second) > 0
    assert squared_error(first, second, mask=mask) == 0


def test_shipped_networks_are_small_sure_of_noise_and_leave_a_smooth_picture() -> None:
    assert (WEIGHTS_FOLDER / f"{WEIGHTS}.safetensors").stat().st_size <= 300_000
    assert load_gain_network().settings.inputs == inputs_size()
    assert shipped_thresholds().least_gain_db >= 0.1
    rng, runner = np.random.default_rng(0), Runner(RunSettings(device="cpu"))
    rows, columns = np.mgrid[0:192, 0:192]
    clean = np.stack([128 + 60 * np.sin(rows / 17 + k) * np.cos(columns / 23) for k in range(3)], axis=2)
    noisy = np.clip(np.rint(clean + rng.normal(0, 25, clean.shape)), 0, 255).astype(np.uint8)
    found = {}
    for name, image in (("noisy", noisy), ("clean", np.rint(clean).astype(np.uint8))):
        known, evidence = estimate_with_evidence(
            image, scratch_mask=None, scratch_coverage=UNKNOWN, jpeg_table_quality=None
        )
        (tried,) = with_trials([evidence], [trial_window(image)], [known], runner=runner)
        gains = predict_gains(tried)
        assert [gain.gain_db for gain in gains] == sorted((gain.gain_db for gain in gains), reverse=True)
        found[name] = get_policy(PREDICTED_GAIN).plan(known, scratches(), options=RoutingOptions(), gains=gains)
    assert steps(found["noisy"]) in (["denoise"], ["all-in-one"])
    assert found["clean"].untouched


def test_tiny_pictures_have_no_prediction() -> None:
    _, evidence = estimate_with_evidence(
        np.zeros((20, 20), np.uint8), scratch_mask=None, scratch_coverage=UNKNOWN, jpeg_table_quality=80.0
    )
    assert predict_gains(evidence) == ()


def test_the_benchmark_counts_what_a_plan_takes() -> None:
    assert gmac_per_megapixel(planned(())) == 0.0
    work = gmac_per_megapixel(planned(expected(denoise=(2.0, 0.3))))
    assert work == get_method("denoise").card.gmac_per_megapixel
    assert "agent" in POLICIES
