"""The mean over flips and turns: views, what it equals, where plans ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.method import Context, MethodCard, PlainMethod
from models.registry import METHODS, get_method
from models.routing.policies import get_policy
from models.routing.rules import RoutingOptions, enlargement
from models.run import Runner, RunSettings
from models.self_ensemble import VIEWS, SelfEnsemble, seen, unseen
from models.types import SELF_ENSEMBLED, Gain, plain_id, thorough_id
from tasks.acceptance import is_expected
from tests.models.test_routing import estimate, scratches


@dataclass(frozen=True, slots=True)
class ShiftsLeft(PlainMethod):
    """Moves every pixel one to the left and writes zeros at the right: no flip or turn leaves it the same."""

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        moved = torch.zeros_like(image)
        moved[..., :-1] = image[..., 1:]
        return moved if mask is None else moved * mask


SHIFTS = SelfEnsemble(ShiftsLeft(MethodCard(id="shifts", title="", paper="", purpose="denoise", licence="")))


def test_views_are_all_different_and_turn_back() -> None:
    image = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).view(2, 3, 4, 5)
    assert all(torch.equal(unseen(seen(image, view), view), image) for view in VIEWS)
    square = torch.arange(9.0).view(1, 1, 3, 3)
    assert len({tuple(seen(square, view).flatten().tolist()) for view in VIEWS}) == 8


def test_the_result_is_the_mean_over_the_views() -> None:
    image = torch.zeros(1, 3, 5, 5)
    image[:, :, 2, 2] = 1.0
    found = SHIFTS(nn.Identity(), image, mask=None, contexts=[Context()], seed=0)
    expected = torch.zeros(5, 5)
    expected[[1, 2, 2, 3], [2, 1, 3, 2]] = 0.25  # two of the eight views move it each way
    assert torch.equal(found[0, 0], expected)


def test_masks_are_turned_with_the_picture() -> None:
    mask = torch.zeros(1, 1, 4, 6)
    mask[..., :2, 1:5] = 1.0
    found = SHIFTS(nn.Identity(), torch.ones(1, 3, 4, 6), mask=mask, contexts=[Context()], seed=0)
    assert torch.equal(found[0, 0] > 0, mask[0, 0] > 0)


def test_turning_the_picture_turns_the_result() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    runner = Runner(RunSettings(device="cpu", precision="float32"))
    plain, turned = runner.apply("denoise+", [image, np.rot90(image).copy()])
    assert np.abs(np.rot90(plain).astype(int) - turned.astype(int)).max() <= 1
    single, other = runner.apply("denoise", [image, np.rot90(image).copy()])
    assert np.abs(np.rot90(single).astype(int) - other.astype(int)).max() > 1


def test_each_has_the_weights_of_its_method_and_says_what_it_is() -> None:
    for method_id in SELF_ENSEMBLED:
        card, plain = get_method(thorough_id(method_id)).card, get_method(method_id).card
        assert (card.weights, card.purpose, card.scale) == (plain.weights, plain.purpose, plain.scale)
        assert "mean of 8 flips and turns" in card.title
        assert card.opt_in
        assert plain_id(card.id) == method_id
    assert {method.card.id for method in METHODS if isinstance(method, SelfEnsemble)} == {
        f"{method_id}+" for method_id in SELF_ENSEMBLED
    }


@pytest.mark.parametrize("policy", ["rules", "predicted-gain", "fixed:denoise"])
def test_a_thorough_plan_is_the_same_with_the_methods_that_have_a_mean(policy: str) -> None:
    gains = (Gain(treatment=("denoise",), gain_db=6.0, uncertainty_db=0.1),)
    noisy = estimate(noise_sigma=(25.0, 0.9))
    plain, thorough = (
        get_policy(policy).plan(
            noisy,
            scratches(),
            options=RoutingOptions(thorough=wanted, strengths=(("upscale-x2", 1.0), ("denoise", 0.7))),
            gains=gains,
        )
        for wanted in (False, True)
    )
    assert [step.method_id for step in plain.steps] == ["denoise", "upscale-x2"]
    assert [step.method_id for step in thorough.steps] == ["denoise+", "upscale-x2+"]
    assert [step.strength for step in thorough.steps] == [0.7, 1.0]
    assert (thorough.reason, enlargement(thorough)) == (plain.reason, 2)
    assert is_expected(thorough, "denoise+")


def test_a_method_without_a_mean_stays_as_it_is() -> None:
    plan = get_policy("fixed:nlm").plan(estimate(), scratches(), options=RoutingOptions(thorough=True))
    assert [step.method_id for step in plan.steps] == ["nlm"]


def test_a_strength_counts_under_either_id() -> None:
    options = RoutingOptions(thorough=True, strengths=(("denoise+", 0.5), ("upscale-x4+", 1.0)))
    assert (options.strength("denoise"), options.strength("denoise+")) == (0.5, 0.5)
    plan = get_policy("rules").plan(estimate(noise_sigma=(25.0, 0.9)), scratches(), options=options)
    assert [(step.method_id, step.strength) for step in plan.steps] == [("denoise+", 0.5), ("upscale-x4+", 1.0)]
    fixed = RoutingOptions(strengths=(("denoise", 0.5),))
    assert get_policy("fixed:denoise+").plan(estimate(), scratches(), options=fixed).steps[0].strength == 0.5
    with pytest.raises(ValueError, match="expected one enlargement"):
        RoutingOptions(strengths=(("upscale-x4", 1.0), ("upscale-x4+", 1.0)))
