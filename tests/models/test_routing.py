"""Plans are total and pure: any estimate gives a plan, with reasons, and the same one each time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.registry import get_method
from models.routing.rules import RoutingOptions, Thresholds, plan_for
from models.types import DegradationEstimate, Estimated, Plan, ScratchReport, from_json, to_json


def measured(largest: float) -> st.SearchStrategy[Estimated]:
    return st.builds(Estimated, value=st.one_of(st.none(), st.floats(0.0, largest)), confidence=st.floats(0.0, 1.0))


ESTIMATES = st.builds(
    DegradationEstimate,
    noise_sigma=measured(120.0),
    blur_sigma_px=measured(8.0),
    jpeg_quality=measured(100.0),
    effective_scale=measured(1.0),
    scratch_coverage=measured(1.0),
    fading=measured(1.0),
    colour_cast=measured(60.0),
)
SCRATCHES = st.builds(
    ScratchReport,
    coverage=st.floats(0.0, 1.0),
    components=st.integers(0, 500),
    confidence=st.floats(0.0, 1.0),
    threshold=st.just(0.5),
    mask=st.one_of(st.none(), st.just("mask.png")),
    mask_sha256=st.none(),
    detector=st.just("test"),
)
OPTIONS = st.builds(RoutingOptions, allow_colour=st.booleans())


def estimate(**known: tuple[float, float]) -> DegradationEstimate:
    clean = {
        "noise_sigma": (0.5, 0.9),
        "blur_sigma_px": (0.2, 0.9),
        "jpeg_quality": (100.0, 0.9),
        "effective_scale": (1.0, 0.9),
        "scratch_coverage": (0.0, 0.9),
        "fading": (0.0, 0.9),
        "colour_cast": (1.0, 0.9),
    }
    return DegradationEstimate(
        **{
            name: Estimated(value=value, confidence=confidence)
            for name, (value, confidence) in {**clean, **known}.items()
        }
    )


def scratches(coverage: float = 0.0, confidence: float = 0.8, places: int = 3) -> ScratchReport:
    return ScratchReport(
        coverage=coverage,
        components=places if coverage else 0,
        confidence=confidence,
        threshold=0.5,
        mask="mask.png" if coverage else None,
        mask_sha256=None,
        detector="test",
    )


def steps(plan: Plan) -> list[str]:
    return [step.method_id for step in plan.steps]


@given(estimate=ESTIMATES, report=SCRATCHES, options=OPTIONS)
def test_every_estimate_has_one_plan(estimate: DegradationEstimate, report: ScratchReport, options: object) -> None:
    assert isinstance(options, RoutingOptions)
    plan = plan_for(estimate, report, options=options)
    assert plan == plan_for(estimate, report, options=options)
    assert plan.reason.endswith(".")
    assert len(steps(plan)) == len(set(steps(plan)))
    for step in plan.steps:
        card = get_method(step.method_id).card
        assert step.reason
        assert 0.0 < step.strength <= 1.0
        assert options.allow_colour or not card.opt_in
        assert report.mask is not None or not card.needs_mask
    assert from_json(Plan, to_json(plan)) == plan


def test_a_clean_picture_is_left_untouched() -> None:
    plan = plan_for(estimate(), scratches())
    assert plan.untouched
    assert not plan.needs_review
    assert plan.reason == "No degradation found that is strong and certain enough to treat."


@pytest.mark.parametrize(
    ("finding", "coverage", "expected"),
    [
        ({"noise_sigma": (25.0, 0.9)}, 0.0, ["denoise"]),
        ({"jpeg_quality": (15.0, 0.9)}, 0.0, ["deblock"]),
        ({"blur_sigma_px": (1.6, 0.9)}, 0.0, ["deblur"]),
        ({}, 0.02, ["fill"]),
        ({"noise_sigma": (25.0, 0.9)}, 0.02, ["fill", "denoise"]),
        ({"noise_sigma": (25.0, 0.9), "blur_sigma_px": (1.6, 0.9)}, 0.0, ["all-in-one"]),
        ({"noise_sigma": (25.0, 0.2)}, 0.0, []),
    ],
)
def test_each_degradation_has_its_method(
    finding: dict[str, tuple[float, float]], coverage: float, expected: list[str]
) -> None:
    assert steps(plan_for(estimate(**finding), scratches(coverage))) == expected


def test_colour_is_changed_only_when_allowed() -> None:
    faded = estimate(fading=(0.5, 0.9), colour_cast=(15.0, 0.9))
    assert steps(plan_for(faded, scratches())) == []
    assert steps(plan_for(faded, scratches(), options=RoutingOptions(allow_colour=True))) == ["tonal-range"]


def test_a_strength_of_zero_switches_a_method_off() -> None:
    options = RoutingOptions(strengths=(("denoise", 0.0),))
    assert plan_for(estimate(noise_sigma=(25.0, 0.9)), scratches(), options=options).untouched


def test_damage_beyond_filling_is_marked_for_review() -> None:
    plan = plan_for(estimate(), scratches(0.6))
    assert plan.untouched
    assert plan.needs_review
    assert "60%" in plan.reason


def test_findings_that_the_user_vouches_for_are_filled_however_unsure() -> None:
    unsure = scratches(0.002, confidence=0.1, places=1)
    assert plan_for(estimate(), unsure).untouched
    trusted = plan_for(estimate(), unsure, options=RoutingOptions(trust_scratches=True))
    assert steps(trusted) == ["fill"]
    assert not trusted.needs_review
    much = plan_for(estimate(), scratches(0.08, confidence=0.1), options=RoutingOptions(trust_scratches=True))
    assert (steps(much), much.needs_review) == (["fill"], True)
    everything = plan_for(estimate(), scratches(0.5, confidence=0.1), options=RoutingOptions(trust_scratches=True))
    assert everything.untouched, "more than can be filled faithfully"


def test_a_lone_finding_is_left_for_review_unless_it_is_certain() -> None:
    lone = plan_for(estimate(), scratches(0.002, confidence=0.7, places=1))
    assert lone.untouched
    assert lone.needs_review
    assert steps(plan_for(estimate(), scratches(0.002, confidence=0.95, places=1))) == ["fill"]


def test_fading_with_a_cast_is_treated_sooner_than_without() -> None:
    options = RoutingOptions(allow_colour=True)
    without = estimate(fading=(0.3, 0.9))
    tinted = estimate(fading=(0.3, 0.9), colour_cast=(18.0, 0.6))
    assert plan_for(without, scratches(), options=options).untouched
    assert steps(plan_for(tinted, scratches(), options=options)) == ["tonal-range"]


def test_thresholds_can_be_moved() -> None:
    options = RoutingOptions(thresholds=Thresholds(noise_sigma=30.0))
    assert plan_for(estimate(noise_sigma=(25.0, 0.9)), scratches(), options=options).untouched


@pytest.mark.parametrize(
    "known",
    [
        {"jpeg_quality": (40.0, 0.98), "noise_sigma": (0.2, 0.3)},
        {"jpeg_quality": (40.0, 0.98), "noise_sigma": (2.0, 0.8)},
        {"jpeg_quality": (40.0, 0.98), "noise_sigma": (12.0, 0.9)},
        {"jpeg_quality": (93.0, 0.98), "noise_sigma": (14.0, 0.05)},
        {"jpeg_quality": (40.0, 0.98), "blur_sigma_px": (1.4, 0.45)},
        {"noise_sigma": (12.0, 0.9), "blur_sigma_px": (1.4, 0.3)},
    ],
)
def test_faults_that_came_together_are_treated_as_one(known: dict[str, tuple[float, float]]) -> None:
    assert steps(plan_for(estimate(**known), scratches())) == ["all-in-one"]
    off = RoutingOptions(strengths=(("all-in-one", 0.0),))
    assert "all-in-one" not in steps(plan_for(estimate(**known), scratches(), options=off))


@pytest.mark.parametrize(
    ("known", "method"),
    [
        ({"jpeg_quality": (40.0, 0.98)}, "deblock"),
        ({"jpeg_quality": (93.0, 0.98), "noise_sigma": (14.0, 0.8)}, "denoise"),
        ({"noise_sigma": (14.0, 0.8)}, "denoise"),
        ({"blur_sigma_px": (1.4, 0.8)}, "deblur"),
    ],
)
def test_a_fault_alone_goes_to_its_own_method(known: dict[str, tuple[float, float]], method: str) -> None:
    assert steps(plan_for(estimate(**known), scratches())) == [method]
