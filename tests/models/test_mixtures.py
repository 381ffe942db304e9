"""Treatments in shares: what shares are between their nodes, seams, doing nothing, and damage on one side only."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import torch

from models.degradations.recipes import get_recipe
from models.methods.mixtures import METHODS, MOST_REGIONS, REGION_PX, _starts, shares_of
from models.registry import get_method
from models.routing.assess import assess
from models.routing.gain_thresholds import GainThresholds
from models.routing.policies import get_policy
from models.routing.rules import RoutingOptions
from models.routing.treatments import TREATMENTS
from models.run import Runner
from models.scratches.detector import load_detector
from models.shares import Shares, mixed
from models.types import Gain
from tests.models.test_routing import estimate, scratches

Picture = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner()


@pytest.fixture(scope="module")
def clean() -> Picture:
    return np.ascontiguousarray(skimage.data.coffee()[100:292, 100:420])


@pytest.fixture(scope="module")
def half_damaged(clean: Picture) -> Picture:
    damaged = get_recipe("rl-restore/moderate").apply(clean, seed=5).image
    left = np.rint(damaged * 255).astype(np.uint8)
    return np.concatenate([left[:, :160], clean[:, 160:]], axis=1)


def psnr_db(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2)))


def test_shares_go_over_linearly_and_stay_beyond_the_nodes() -> None:
    values = np.zeros((2, 2, 2), np.float32)
    values[:, 1, 0] = 1.0
    values[..., 1] = 1.0 - values[..., 0]
    shares = Shares(rows=np.array([10.0, 20.0], np.float32), columns=np.array([8.0, 24.0], np.float32), values=values)
    found = shares.of_rows(0, 30, width=32)
    assert found.shape == (30, 32, 2)
    assert np.allclose(found.sum(axis=2), 1.0)
    assert np.allclose(found[:, :9, 0], 0.0)
    assert np.allclose(found[:, 24:, 0], 1.0)
    assert np.allclose(found[:, 16, 0], 0.5)
    # No seam: from pixel to pixel no share changes by more than a step of the slope.
    assert np.abs(np.diff(found[..., 0], axis=1)).max() == pytest.approx(1 / 16, abs=1e-6)


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_mixture_is_the_weighted_mean_and_exact_where_nothing_is_mixed(
    shape: tuple[int, ...], dtype: type[np.unsignedinteger[npt.NBitBase]]
) -> None:
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max
    image, first, second = (rng.integers(0, top + 1, shape).astype(dtype) for _ in range(3))
    node = np.array([0.0], np.float32)

    def whole(*values: float) -> Shares:
        return Shares(rows=node, columns=node, values=np.array(values, np.float32).reshape(1, 1, 3))

    assert np.array_equal(mixed(image, [first, second], shares=whole(0, 0, 1)), image)
    assert np.array_equal(mixed(image, [first, second], shares=whole(0, 1, 0), strength=0.0), image)
    assert np.array_equal(mixed(image, [first, second], shares=whole(1, 0, 0)), first)
    wanted = 0.5 * first + 0.3 * second + 0.2 * image
    found = mixed(image, [first, second], shares=whole(0.5, 0.3, 0.2)).astype(float)
    assert np.abs(found - wanted).max() <= 0.5 + 1e-3 * top / 255


def test_shares_follow_the_gains_that_are_sure() -> None:
    def gains(*values: float) -> tuple[Gain, ...]:
        return tuple(
            Gain(treatment=treatment, gain_db=value, uncertainty_db=0.1)
            for treatment, value in zip(TREATMENTS, values, strict=True)
        )

    noisy = estimate(noise_sigma=(20.0, 0.9))
    thresholds = GainThresholds(doubts=(0.0,) * len(TREATMENTS), least_gain_db=0.2)
    found = shares_of(gains(3.0, -1.0, -1.0, -1.0, 2.9), thresholds=thresholds, estimate=noisy)
    assert found.sum() == pytest.approx(1.0)
    assert found[0] > found[4] > 0.3
    assert found[1] == found[2] == found[3] == 0.0
    assert found[5] < 1e-4
    quiet = estimate(noise_sigma=(1.0, 0.9))
    # Nothing is sure, or the estimate does not show it: nothing is done.
    assert shares_of(gains(0.2, 0.1, 0.0, 0.0, 0.0), thresholds=thresholds, estimate=noisy)[5] == 1.0
    assert shares_of(gains(3.0, -1, -1, -1, -1), thresholds=thresholds, estimate=quiet)[5] == 1.0
    # Grain is read as little noise: where it is not seen, it must be surer still.
    grain = gains(-1, 1.0, -1, -1, -1)
    assert shares_of(grain, thresholds=thresholds, estimate=quiet)[1] > 0.9
    unsure = (grain[0], replace(grain[1], uncertainty_db=0.4), *grain[2:])
    assert shares_of(unsure, thresholds=thresholds, estimate=quiet)[1] == 0.0
    # A mixture hides its parts: where none is seen, it must be sure.
    mixture = gains(-1, -1, -1, -1, 0.5)
    unsure = (*mixture[:4], replace(mixture[4], uncertainty_db=0.6))
    assert shares_of(unsure, thresholds=thresholds, estimate=noisy)[4] > 0.8
    assert shares_of(unsure, thresholds=thresholds, estimate=quiet)[4] == 0.0
    assert shares_of(mixture, thresholds=thresholds, estimate=quiet)[4] > 0.8
    assert shares_of((), thresholds=thresholds, estimate=noisy)[5] == 1.0


@pytest.mark.parametrize("length", [20, 128, 129, 500, 9000])
def test_regions_cover_every_side_and_stay_few(length: int) -> None:
    starts = _starts(length, length * length)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - REGION_PX)
    assert all(one < other for one, other in pairwise(starts))
    assert len(starts) ** 2 <= 1.3 * MOST_REGIONS or max(np.diff(starts)) <= 64


def test_damage_on_one_side_is_treated_there(runner: Runner, clean: Picture, half_damaged: Picture) -> None:
    (found,) = runner.apply("regional", [half_damaged])
    # The last region with damage in it ends at 256, and its shares reach no further.
    left, right = np.s_[:, :150], np.s_[:, 256:]
    assert psnr_db(found[left], clean[left]) > psnr_db(half_damaged[left], clean[left]) + 2.0
    assert np.array_equal(found[right], half_damaged[right])


@pytest.mark.parametrize("method", ["regional", "soft"])
def test_clean_small_grey_and_deep_pictures(runner: Runner, clean: Picture, method: str) -> None:
    grey16 = (clean[:130, :140, 1].astype(np.uint16)) * 257
    tiny = np.ascontiguousarray(clean[:20, :9])
    results = runner.apply(method, [clean, grey16, tiny])
    assert np.array_equal(results[0], clean)
    assert np.array_equal(results[2], tiny)
    assert (results[1].shape, results[1].dtype) == (grey16.shape, grey16.dtype)
    noisy = np.clip(grey16 / 257 + np.random.default_rng(0).normal(0, 20, grey16.shape), 0, 255)
    (restored,) = runner.apply(method, [np.rint(noisy * 257).astype(np.uint16)])
    assert psnr_db(restored / 257, grey16 / 257) > psnr_db(noisy, grey16 / 257) + 4.0


def test_planes_of_a_published_protocol_are_mixed_too(runner: Runner, half_damaged: Picture, clean: Picture) -> None:
    planes = torch.from_numpy(half_damaged).permute(2, 0, 1).float() / 255
    found = runner.restore_planes("soft", planes)
    assert found.shape == planes.shape
    with pytest.raises(TypeError, match="whole pictures"):
        get_method("soft")(torch.nn.Identity(), planes[None], mask=None, contexts=[], seed=0)


def test_a_thorough_mixture_is_of_the_means_over_views(runner: Runner, clean: Picture) -> None:
    crop = np.ascontiguousarray(clean[:96, :96])
    noise = np.random.default_rng(0).normal(0, 25, crop.shape)
    noisy = np.rint(np.clip(crop + noise, 0, 255)).astype(np.uint8)
    found = {method: runner.apply_and_say(method, [noisy])[0] for method in ("soft", "soft+")}
    assert set(found["soft+"].parts) <= {f"{treatment[0]}+" for treatment in TREATMENTS}
    assert found["soft+"].parts
    assert psnr_db(found["soft+"].image, crop) > psnr_db(found["soft"].image, crop)
    (left,) = runner.apply("soft+", [crop])
    assert np.array_equal(left, crop)


@pytest.mark.parametrize("policy", ["soft", "agent"])
def test_what_treats_everything_is_planned_only_where_a_gain_is_sure(
    runner: Runner, clean: Picture, policy: str
) -> None:
    left = assess(clean, detector=load_detector(), runner=runner, policy=get_policy(policy)).plan
    assert (left.steps, left.policy) == ((), policy)
    if policy == "agent":
        # The agent itself would not leave it as it is.
        (altered,) = runner.apply("rl-restore", [clean])
        assert psnr_db(altered, clean) < 40.0


def test_the_policies_plan_them() -> None:
    options = RoutingOptions()
    gain = Gain(treatment=("denoise",), gain_db=5.0, uncertainty_db=0.1)
    noisy, none = estimate(noise_sigma=(20.0, 0.9)), scratches(0.0)
    soft = get_policy("soft").plan(noisy, none, options=options, gains=[gain])
    assert [step.method_id for step in soft.steps] == ["soft"]
    assert (soft.policy, soft.alternatives) == ("soft", (gain,))
    thorough = get_policy("soft").plan(noisy, none, options=RoutingOptions(thorough=True), gains=[gain])
    assert [step.method_id for step in thorough.steps] == ["soft+"]
    untouched = get_policy("soft").plan(estimate(), none, options=options, gains=())
    assert (untouched.steps, untouched.policy) == ((), "soft")
    regional = get_policy("regional").plan(estimate(), none, options=options, gains=())
    assert [step.method_id for step in regional.steps] == ["regional"]
    agent = get_policy("agent").plan(noisy, none, options=options, gains=[gain])
    assert ([step.method_id for step in agent.steps], agent.policy) == (["rl-restore"], "agent")
    assert {method.card.id for method in METHODS} == {"soft", "regional", "soft+", "regional+"}
    with pytest.raises(ValueError, match="did you mean 'regional'"):
        get_policy("regionl")
