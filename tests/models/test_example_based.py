"""Learning from one picture by its patches: networks, patches, both modes; and hole filling without any learning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.restoration import inpaint_biharmonic
from torch import Tensor
from torch.nn.functional import mse_loss

from models.deep_prior.budget import limited_iterations
from models.example_based.blind_spot import (
    BlindSpotSettings,
    _BlindSpots,
    choose_trained,
    fill_with_blind_spots,
    hidden_loss,
)
from models.example_based.faithful import FaithfulSettings, fill_faithfully, masked_loss
from models.example_based.learning import Budget, EarlyStopping, LearningProgress
from models.example_based.networks import RECIPES, OnSmoothFill, build_network, recipe_of
from models.example_based.patches import Patches
from models.example_based.smooth_start import smooth_fill
from models.method import Context
from models.methods import example_based
from models.methods.simple_inpainting import factorized, nearest_known, region_regression

TINY = FaithfulSettings(network="single", epochs=2, batch=256)
BLIND = BlindSpotSettings(network="deep_denoise", steps=12, batch=4, crop_px=16, validate_every=4)


def picture(height: int = 24, width: int = 28, *, channels: int = 1) -> Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    planes = [0.2 + 0.6 * y * x, 0.3 + 0.4 * (x > 0.5), 0.5 + 0.3 * torch.sin(6 * x)]
    return torch.stack(planes[:channels])[None]


def holes(height: int = 24, width: int = 28, *, share: float = 0.4) -> Tensor:
    return (torch.rand((1, 1, height, width), generator=torch.Generator().manual_seed(3)) < share).float()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Sums over the layers of (inputs x kernel + 1) x outputs, written down by hand for 6 planes in and 3 out.
        ("single", (6 * 25 + 1) * 64 + (64 * 25 + 1) * 3),
        ("denoise", (6 * 9 + 1) * 16 + 3 * (16 * 9 + 1) * 16 + (16 * 25 + 1) * 3),
        ("deep", 880 + 2320 + 4640 + 18496 + 16448 + 36928 + 18464 + 4128 + 4624 + 2320 + 435),
        ("deep_denoise", 880 + 2320 + 4640 + 9248 + 18496 + 18464 + 9248 + 4624 + 2320 + 1203),
        ("deep_wide_denoise", 1760 + 9248 + 18496 + 36928 + 73856 + 73792 + 36928 + 18464 + 9248 + 2403),
    ],
)
def test_networks_have_the_layers_of_the_author(name: str, parameters: int) -> None:
    network = build_network(name, channels=3, seed=0)
    assert sum(value.numel() for value in network.parameters()) == parameters
    assert network(torch.rand(2, 6, 8, 8)).shape == (2, 3, 8, 8)
    assert build_network(name, channels=1, seed=0)(torch.rand(1, 2, 12, 20)).shape == (1, 1, 12, 20)


def test_weights_start_as_in_keras_and_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (build_network("single", channels=3, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])
    assert float(first["0.bias"].abs().max()) == 0.0
    limit = (6 / (25 * (6 + 64))) ** 0.5
    assert 0.95 * limit < float(first["0.weight"].abs().max()) <= limit


def test_an_unknown_network_is_answered_with_the_nearest() -> None:
    assert recipe_of("denoise").learning_rate == 1e-2
    assert {name: recipe.learning_rate for name, recipe in RECIPES.items() if name != "denoise"} == {
        "single": 1e-4,
        "deep": 1e-4,
        "deep_denoise": 1e-4,
        "deep_wide_denoise": 1e-4,
    }
    with pytest.raises(ValueError, match="did you mean 'deep_denoise'"):
        recipe_of("deep_denoize")


def test_patches_are_all_windows_in_order() -> None:
    planes = torch.arange(2 * 9 * 11.0).view(1, 2, 9, 11)
    patches = Patches(planes, side=8)
    assert len(patches) == 2 * 4
    assert torch.equal(patches.take(torch.tensor([5]))[0], planes[0, :, 1:9, 1:9])
    assert len(Patches(torch.zeros(1, 1, 256, 256), side=8)) == 62_001
    with pytest.raises(ValueError, match="at least 8 each way"):
        Patches(torch.zeros(1, 1, 7, 30), side=8)


@pytest.mark.parametrize("batch", [1, 7, 40, 10_000])
def test_the_mean_of_overlaps_gives_an_unchanged_picture_back(batch: int) -> None:
    planes = torch.rand(1, 3, 13, 17)
    same = Patches(planes, side=8).mean_of_overlaps(lambda patches: patches, batch=batch)
    assert torch.allclose(same, planes, atol=1e-6)


def test_the_mean_of_overlaps_is_a_plain_mean() -> None:
    patches = Patches(torch.zeros(1, 1, 9, 8), side=8)
    values = iter([1.0, 3.0])
    result = patches.mean_of_overlaps(lambda taken: torch.full_like(taken, next(values)), batch=1)
    assert result[0, 0, :, 0].tolist() == [1.0] + [2.0] * 7 + [3.0]


def test_the_masked_loss_leaves_out_what_is_missing_but_counts_it() -> None:
    patches = torch.tensor([[[[0.5, 0.0]], [[1.0, 0.0]]]])
    assert float(masked_loss(torch.tensor([[[[0.1, 7.0]]]]), patches)) == pytest.approx(0.16 / 2)


def test_the_identity_has_no_loss_in_the_faithful_mode_which_is_its_flaw() -> None:
    image, known = picture(channels=3), 1 - holes()
    patches = Patches(torch.cat([image * known, known.expand_as(image)], dim=1), side=8).take(torch.arange(20))
    assert float(masked_loss(patches[:, :3], patches)) == 0.0


def test_nothing_seen_is_supervised_in_the_corrected_mode() -> None:
    image, missing = picture(), holes()
    shown = 1 - missing
    spots = _BlindSpots(image, shown=shown, held_out=torch.zeros_like(shown), settings=BLIND, seed=0)
    inputs, values, hidden = spots._hide(spots._draw())
    seen_values, seen = inputs.chunk(2, dim=1)
    assert float(hidden.sum()) > 0
    assert float((seen * hidden).sum()) == 0.0
    assert float((seen_values * hidden).abs().sum()) == 0.0
    assert float(((1 - seen - hidden) * values).abs().sum()) == 0.0
    assert float(hidden.sum() / (hidden + seen).sum()) == pytest.approx(BLIND.hidden_share, abs=0.1)
    assert float(hidden_loss(seen_values, values, hidden=hidden)) > 0.01


def test_early_stopping_waits_for_its_patience() -> None:
    stopping = EarlyStopping(2, smallest_gain=0.1)
    assert [stopping.see(loss) for loss in (1.0, 0.95, 0.8, 0.75, 0.71)] == [
        (True, False),
        (False, False),
        (True, False),
        (False, False),
        (False, True),
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_faithful_mode_lowers_its_loss_and_keeps_known_pixels(channels: int) -> None:
    image, missing = picture(channels=channels), holes()
    result = fill_faithfully(image * (1 - missing), missing, settings=replace(TINY, epochs=4), seed=0)
    known = missing.expand_as(image) == 0
    assert torch.equal(result.image[known], image[known])
    losses = [loss for _, loss in result.validation]
    assert losses[-1] < losses[0]
    assert result.stopped_by == "steps"


def test_the_faithful_mode_stops_when_held_out_patches_gain_too_little() -> None:
    settings = replace(TINY, epochs=50, patience=2, smallest_gain=1.0)
    result = fill_faithfully(picture(), holes(), settings=settings, seed=0)
    assert (result.stopped_by, len(result.validation)) == ("patience", 3)


def test_the_corrected_mode_learns_to_fill() -> None:
    image, missing = picture(32, 32), holes(32, 32)
    settings = replace(
        BLIND, network="single", smooth_start=False, steps=120, batch=4, validate_every=20, learning_rate=3e-3
    )
    result = fill_with_blind_spots(image * (1 - missing), missing, settings=settings, seed=0)
    known = missing == 0
    assert torch.equal(result.image[known], image[known])
    mean = torch.full_like(image, float(image[known].mean()))
    assert float(mse_loss(result.image[~known], image[~known])) < 0.3 * float(mse_loss(mean[~known], image[~known]))
    assert result.best_step in {step for step, _ in result.validation}
    assert dict(result.validation)[result.best_step] == min(loss for _, loss in result.validation)


@pytest.mark.parametrize("mode", ["faithful", "blind-spot"])
def test_the_seed_decides_and_what_is_missing_has_no_influence(mode: str) -> None:
    image, missing = picture(), holes()

    def fill(value: float, *, seed: int) -> Tensor:
        damaged = torch.where(missing > 0, torch.full_like(image, value), image)
        if mode == "faithful":
            return fill_faithfully(damaged, missing, settings=TINY, seed=seed).image
        return fill_with_blind_spots(damaged, missing, settings=BLIND, seed=seed).image

    assert torch.equal(fill(0.0, seed=1), fill(1.0, seed=1))
    assert not torch.equal(fill(0.0, seed=1), fill(0.0, seed=2))


@pytest.mark.parametrize("size", [(8, 8), (9, 30), (50, 17)])
def test_the_corrected_mode_takes_pictures_of_any_size(size: tuple[int, int]) -> None:
    image, missing = picture(*size), holes(*size)
    result = fill_with_blind_spots(image, missing, settings=BLIND, seed=0, budget=Budget(steps=2))
    assert result.image.shape == image.shape
    assert (result.steps, result.stopped_by) == (2, "steps")


def test_the_budget_the_caller_and_an_interrupt_end_the_learning_with_a_picture() -> None:
    image, missing = picture(), holes()

    def interrupt(told: LearningProgress) -> None:
        if told.step == 3:
            raise KeyboardInterrupt

    endings = {
        "caller": lambda told: told.step < 3,
        "interrupt": interrupt,
    }
    for expected, progress in endings.items():
        blind = fill_with_blind_spots(image, missing, settings=BLIND, seed=0, progress=progress)
        faithful = fill_faithfully(image, missing, settings=TINY, seed=0, progress=progress)
        assert blind.stopped_by == faithful.stopped_by == expected
        assert blind.image.shape == faithful.image.shape == image.shape
    late = fill_with_blind_spots(image, missing, settings=BLIND, seed=0, budget=Budget(seconds=0.0))
    assert (late.steps, late.stopped_by) == (1, "seconds")


def test_nothing_known_and_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="no known pixel"):
        fill_faithfully(picture(), torch.ones_like(holes()), settings=TINY, seed=0)
    with pytest.raises(ValueError, match="expected"):
        fill_with_blind_spots(picture(), holes(9, 9), settings=BLIND, seed=0)
    with pytest.raises(ValueError, match="multiple of 4"):
        BlindSpotSettings(crop_px=10)


def test_a_smooth_start_is_the_smooth_fill_until_trained() -> None:
    image, known = picture(channels=3), 1 - holes()
    planes = torch.cat([image * known, known.expand_as(image)], dim=1)
    network = OnSmoothFill(build_network("deep_denoise", channels=3, seed=0))
    expected = smooth_fill((image * known)[0][:, None], 1 - known.expand(3, -1, -1, -1)).view(image.shape)
    assert torch.allclose(network(planes), expected, atol=1e-6)
    with pytest.raises(ValueError, match="expected deep_denoise"):
        OnSmoothFill(build_network("deep", channels=3, seed=0))


def test_the_smooth_fill_comes_close_to_the_biharmonic_one() -> None:
    image, missing = picture(40, 40, channels=3)[:, 2:], holes(40, 40)
    filled = smooth_fill(image * (1 - missing), missing)
    assert torch.equal(filled[missing == 0], image[missing == 0])
    solved = inpaint_biharmonic(image[0, 0].numpy(), missing[0, 0].numpy() > 0)
    assert float((filled - torch.from_numpy(solved)).abs().mean()) < 0.005


def test_where_no_step_helps_the_smooth_fill_stays() -> None:
    image, missing = picture(32, 32)[:, :1], holes(32, 32)
    settings = replace(BLIND, steps=3, learning_rate=1.0)
    result = fill_with_blind_spots(image, missing, settings=settings, seed=0)
    assert result.best_step == 0
    assert torch.allclose(result.image, smooth_fill(image, missing), atol=1e-6)


def taught(name: str = "deep_denoise") -> OnSmoothFill:
    network = OnSmoothFill(build_network(name, channels=3, seed=5))
    torch.nn.init.normal_(network.hourglass.head.weight, std=1e-3, generator=torch.Generator().manual_seed(0))
    return network


def test_a_network_learned_beforehand_is_copied_and_at_no_steps_used_as_it_is() -> None:
    image, missing, network = picture(channels=3), holes(), taught()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    result = fill_with_blind_spots(image, missing, settings=replace(BLIND, steps=0), seed=0, network=network)
    known = (1 - missing).expand_as(image)
    with torch.no_grad():
        once = network(torch.cat([image * known, known], dim=1)).clamp(0, 1)
    torch.testing.assert_close(result.image, torch.where(known > 0, image, once))
    assert (result.steps, result.best_step) == (0, 0)
    learned = fill_with_blind_spots(image, missing, settings=replace(BLIND, keep="last"), seed=0, network=network)
    assert not torch.equal(learned.image, result.image)
    assert learned.best_step == learned.steps == BLIND.steps
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_only_what_follows_the_last_merge_learns_when_asked() -> None:
    network = taught()
    choose_trained(network, "last")
    learning = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert {name.split(".")[1] for name in learning} == {"from_middle", "head"}
    with pytest.raises(ValueError, match="expected an hourglass"):
        choose_trained(build_network("single", channels=3, seed=0), "last")


def test_with_nothing_hidden_all_that_is_known_is_supervised() -> None:
    image, missing = picture(), holes()
    known = 1 - missing
    settings = replace(BLIND, hidden_share=0.0)
    training = _BlindSpots(image, shown=known, held_out=torch.zeros_like(known), settings=settings, seed=0)
    inputs, _, supervised = training._hide(training._draw())
    assert torch.equal(inputs.chunk(2, dim=1)[1], supervised)
    assert bool(supervised.any())


@pytest.mark.parametrize("wrong", [{"hidden_share": 1.0}, {"steps": -1}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="got"):
        BlindSpotSettings(**wrong)  # type: ignore[arg-type]


def test_methods_learn_from_grey_as_one_plane_and_obey_the_limit() -> None:
    grey = picture().expand(-1, 3, -1, -1)
    both = torch.cat([picture(channels=3), grey])
    missing = holes().expand(2, -1, -1, -1)
    for method in example_based.METHODS:
        with torch.inference_mode(), limited_iterations(1):
            result = method(method.build(), both, mask=missing, contexts=[Context()] * 2, seed=0)
        assert result.shape == both.shape
        assert torch.equal(result[1, 0], result[1, 2])
        known = missing.expand_as(both) == 0
        assert torch.equal(result[known], both[known])
        nothing = method(method.build(), grey, mask=torch.ones_like(holes()), contexts=[Context()], seed=0)
        assert torch.equal(nothing, grey)


def test_region_regression_gives_planes_back_exactly() -> None:
    y, x = np.mgrid[0:20, 0:24].astype(np.float32)
    plane = np.stack([0.01 * y + 0.02 * x, 0.5 - 0.01 * x, np.full_like(x, 0.3)], axis=-1)
    hole = holes(20, 24)[0, 0].numpy() > 0
    filled = region_regression(np.where(hole[:, :, None], np.float32(0.9), plane), hole)
    assert np.abs(filled - plane).max() < 1e-5


def test_region_regression_copes_with_few_known_pixels() -> None:
    image = np.full((16, 16, 1), 0.4, np.float32)
    hole = np.ones((16, 16), bool)
    hole[2, 2:5] = False
    filled = region_regression(image, hole)
    assert np.allclose(filled, 0.4, atol=1e-6)


def test_the_nearest_known_pixel_is_taken() -> None:
    image = np.array([[[0.1], [0.0], [0.0], [0.0], [0.9]]], np.float32)
    hole = np.array([[False, True, True, True, False]])
    assert nearest_known(image, hole)[0, [1, 3], 0].tolist() == pytest.approx([0.1, 0.9])


def test_factors_recover_a_picture_of_low_rank() -> None:
    rng = np.random.default_rng(0)
    image = (rng.uniform(0, 0.7, (40, 2)) @ rng.uniform(0, 0.7, (2, 50)))[:, :, None].astype(np.float32)
    hole = rng.random((40, 50)) < 0.4
    filled = factorized(np.where(hole[:, :, None], np.float32(0), image), hole, factors=4, ridge=1e-4)
    mean = image[~hole].mean()
    assert np.array_equal(filled[~hole], image[~hole])
    assert np.square(filled - image)[hole].mean() < 0.01 * np.square(mean - image)[hole].mean()
