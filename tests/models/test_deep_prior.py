"""Deep Image Prior: networks as published, observation models, sources, stopping rules, the loop and its tasks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.deep_prior import picture_fit, settings
from models.deep_prior.data_terms import KnownPixels, SmallPicture, WholePicture, crop_to_multiple, keep_known
from models.deep_prior.fitting import fit, with_budget
from models.deep_prior.networks import SkipSettings
from models.deep_prior.picture_fit import Progress, first_source, untrained
from models.deep_prior.resampling import LanczosDownsampler, lanczos_profile
from models.deep_prior.restoring import denoise, enlarge, inpaint
from models.deep_prior.settings import PUBLISHED, FitSettings, Preset, StopSettings
from models.deep_prior.sources import meshgrid_source, noise_source
from models.deep_prior.stopping import HeldOutPixels, MovingVariance, Verdict, WindowedVariance, hold_out
from models.deep_prior.variants import ResNetSettings, UNetSettings

SMALL = SkipSettings(down=(8, 8), up=(8, 8), skip=(4, 4))


def small(iterations: int = 30, **changes: object) -> Preset:
    fit_settings = FitSettings(iterations=iterations, source_channels=4, perturbation=0.03)
    return Preset(network=SMALL, fit=replace(fit_settings, **changes))  # type: ignore[arg-type]


def picture(height: int = 32, width: int = 32, *, channels: int = 1) -> Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    planes = [0.2 + 0.6 * y * x, 0.3 + 0.4 * (x > 0.5), 0.5 + 0.3 * torch.sin(6 * x)]
    return torch.stack(planes[:channels])[None]


def holes(height: int = 32, width: int = 32, *, share: float = 0.5) -> Tensor:
    return (torch.rand((1, 1, height, width), generator=torch.Generator().manual_seed(3)) < share).float()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("denoise-sigma-25", 2_217_831),
        ("denoise-sigma-50", 2_217_831),
        ("jpeg", 572_827),
        ("upscale-4", 2_217_831),
        ("upscale-8", 2_217_831),
        ("upscale-prior-effect", 2_184_307),
        ("inpaint-text", 3_002_627),
        ("inpaint-vase", 2_157_955),
        ("inpaint-library-depth-6", 2_996_467),
        ("inpaint-library-depth-4", 1_060_339),
        ("inpaint-library-depth-2", 59_635),
        ("inpaint-library-resnet", 158_979),
        ("inpaint-library-unet", 1_616_315),
        ("inpaint-half-missing", 2_217_831),
        ("inpaint-few-known", 1_027_379),
        ("flash", 2_184_307),
    ],
)
def test_published_networks_have_their_number_of_parameters(name: str, parameters: int) -> None:
    preset = PUBLISHED[name]
    network = preset.network.build(preset.fit.source_channels, 3)
    assert sum(value.numel() for value in network.parameters()) == parameters


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_published_preset_gives_a_picture_of_the_right_size(name: str) -> None:
    preset = PUBLISHED[name]
    side = math.ceil(preset.network.smallest_side / 64) * 64
    network = untrained(preset, in_channels=preset.fit.source_channels, out_channels=1, seed=0)
    source = first_source(preset, height=side, width=side, seed=0)
    with torch.no_grad():
        output = network(source)
    assert output.shape == (1, 1, side, side)
    assert 0.0 <= output.min() <= output.max() <= 1.0


@pytest.mark.parametrize("kind", ["stride", "average", "max", "lanczos2"])
@pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
def test_odd_sizes_are_cropped_in_the_middle(kind: str, upsampling: str) -> None:
    network = replace(SMALL, downsampling=kind, upsampling=upsampling).build(4, 3)  # type: ignore[arg-type]
    size = (36, 44) if kind != "stride" else (37, 41)
    assert network(torch.rand(1, 4, *size)).shape == (1, 3, *size)


def test_unequal_numbers_of_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="same number"):
        SkipSettings(down=(8, 8), up=(8,), skip=(0, 0))


@pytest.mark.parametrize("upsampling", ["deconvolution", "nearest", "bilinear"])
def test_the_u_net_comes_back_to_its_size_with_each_kind_of_upsampling(upsampling: str) -> None:
    network = UNetSettings(widths=(4, 8, 8), upsampling=upsampling).build(1, 3)  # type: ignore[arg-type]
    assert network(torch.rand(1, 1, 16, 24)).shape == (1, 3, 16, 24)


def test_the_resnet_keeps_its_size() -> None:
    assert ResNetSettings(blocks=2, width=4).build(1, 3)(torch.rand(1, 1, 9, 11)).shape == (1, 3, 9, 11)


def test_the_global_random_state_is_left_alone_and_weights_depend_on_the_seed() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (untrained(small(), in_channels=4, out_channels=1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [torch.cat([value.flatten() for value in net.parameters()]) for net in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(("factor", "taps"), [(2, 8), (4, 16), (8, 32)])
def test_the_lanczos_kernel_is_even_symmetric_and_sums_to_one(factor: int, taps: int) -> None:
    profile = lanczos_profile(factor)
    assert profile.shape == (taps,)
    assert float(profile.sum()) == pytest.approx(1.0)
    assert torch.allclose(profile, profile.flip(0))
    assert float(profile.min()) < 0.0


@pytest.mark.parametrize("factor", [4, 8])
def test_shrinking_keeps_a_constant_and_the_place_of_a_ramp(factor: int) -> None:
    shrink = LanczosDownsampler(factor)
    assert torch.allclose(shrink(torch.full((1, 3, 64, 64), 0.3)), torch.full((1, 3, 64 // factor, 64 // factor), 0.3))
    ramp = torch.arange(64.0).expand(1, 1, 64, 64)
    middles = torch.arange(64.0 // factor) * factor + (factor - 1) / 2
    found = shrink(ramp)[0, 0, 4]
    assert torch.allclose(found[3:-3], middles[3:-3], atol=1e-3)


def test_sources_are_what_was_published() -> None:
    noise = noise_source(32, height=20, width=30, seed=0)
    assert noise.shape == (1, 32, 20, 30)
    assert 0.0 <= noise.min() < 0.001
    assert 0.099 < noise.max() < 0.1
    grid = meshgrid_source(height=3, width=5)
    assert torch.equal(grid[0, 0, 0], torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert torch.equal(grid[0, 1, :, 0], torch.tensor([0.0, 0.5, 1.0]))


def test_missing_pixels_do_not_matter_but_count_in_the_mean() -> None:
    observed, missing = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    output = torch.tensor([[[[9.0, 1.0], [0.0, 0.0]]]])
    assert float(KnownPixels(observed, missing).loss(output)) == pytest.approx(0.25)
    assert torch.equal(keep_known(output, observed, missing=missing), torch.tensor([[[[9.0, 0.0], [0.0, 0.0]]]]))


def test_a_small_picture_asks_for_a_large_one() -> None:
    term = SmallPicture(torch.full((1, 3, 8, 6), 0.5), 4)
    assert term.shape == (3, 32, 24)
    assert float(term.loss(torch.full((1, 3, 32, 24), 0.5))) == pytest.approx(0.0, abs=1e-10)


def test_pictures_are_cut_in_the_middle_to_a_multiple() -> None:
    assert crop_to_multiple(torch.rand(1, 1, 70, 100), 32).shape == (1, 1, 64, 96)
    with pytest.raises(ValueError, match="at least 64"):
        crop_to_multiple(torch.rand(1, 1, 20, 100), 64)


def test_held_out_pixels_are_known_ones() -> None:
    missing = holes()
    held = hold_out(missing, fraction=0.1, seed=0)
    known = int((missing == 0).sum())
    assert int(held.sum()) == round(0.1 * known)
    assert float((held * missing).sum()) == 0.0
    assert torch.equal(held, hold_out(missing, fraction=0.1, seed=0))
    assert not torch.equal(held, hold_out(missing, fraction=0.1, seed=1))
    with pytest.raises(ValueError, match="nothing to learn from"):
        hold_out(torch.ones(1, 1, 4, 4), fraction=0.1, seed=0)


def test_the_held_out_rule_keeps_the_lowest_error_and_stops_after_its_patience() -> None:
    observed, held = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    rule = HeldOutPixels(observed, held_out=held, patience=3, every=1)
    errors = [0.9, 0.5, 0.6, 0.7, 0.8]
    verdicts = [
        rule.judge(observed, candidate=torch.full((1, 1, 2, 2), error), iteration=step)
        for step, error in enumerate(errors, 1)
    ]
    assert [verdict.best for verdict in verdicts] == [True, True, False, False, False]
    assert [verdict.stop for verdict in verdicts] == [False, False, False, False, True]
    assert verdicts[1].score == pytest.approx(0.25)


def test_the_windowed_variance_is_that_of_the_window() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.rand((1, 1, 6, 6), generator=generator) for _ in range(9)]
    rule = WindowedVariance(window=4, patience=100)
    scores = [rule.judge(output, candidate=output, iteration=step).score for step, output in enumerate(outputs, 1)]
    assert scores[:3] == [None, None, None]
    for last in range(4, 10):
        window = torch.stack(outputs[last - 4 : last])
        expected = float((window - window.mean(0)).square().mean())
        assert scores[last - 1] == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("rule", [WindowedVariance(window=10, patience=30), MovingVariance(rate=0.2, patience=30)])
def test_variance_rules_find_where_the_outputs_stand_still(rule: WindowedVariance | MovingVariance) -> None:
    best = stopped = 0
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 200):
        spread = abs(step - 80) / 200 + 0.01
        output = 0.5 + spread * torch.randn((1, 1, 16, 16), generator=generator)
        verdict = rule.judge(output, candidate=output, iteration=step)
        best = step if verdict.best else best
        if verdict.stop:
            stopped = step
            break
    assert 78 <= best <= 95
    assert stopped == best + 30


def test_a_fit_comes_closer_and_the_same_seed_gives_the_same_picture() -> None:
    term = WholePicture(picture())
    first, again = (fit(term, preset=small(25), seed=4) for _ in range(2))
    other = fit(term, preset=small(25), seed=5)
    assert first.losses[-1] < 0.5 * first.losses[0]
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, other.image)
    assert (first.iterations, first.best_iteration, first.stopped_by) == (25, 25, "iterations")


def test_it_also_learns_under_inference_mode_and_autocast() -> None:
    term = WholePicture(picture())
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        result = denoise(term.observed, preset=small(25), seed=4)
    assert result.losses[-1] < 0.5 * result.losses[0]
    exact = fit(term, preset=small(25), seed=4)
    assert 0.5 < result.losses[-1] / exact.losses[-1] < 2.0


def test_the_smoothed_result_is_a_running_mean_from_the_first_output() -> None:
    seen: list[Tensor] = []

    def remember(told: Progress) -> None:
        seen.append(told.best().clone())

    raw = fit(WholePicture(picture()), preset=small(3), seed=0, progress=remember)
    expected = 0.9 * (0.9 * seen[0] + 0.1 * seen[1]) + 0.1 * seen[2]
    smooth = fit(WholePicture(picture()), preset=small(3, smoothing=0.9), seed=0)
    assert torch.allclose(smooth.image, expected, atol=1e-6)
    assert not torch.allclose(raw.image, expected, atol=1e-4)


def test_a_fall_brings_real_copies_of_the_parameters_back() -> None:
    network = untrained(small(), in_channels=4, out_channels=1, seed=0)
    way_back = picture_fit._WayBack(5.0)
    assert not way_back.fell(network, loss=0.01)
    good = [parameter.detach().clone() for parameter in network.parameters()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    assert not way_back.fell(network, loss=0.02)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    assert way_back.fell(network, loss=0.1)
    for parameter, before in zip(network.parameters(), good, strict=True):
        assert torch.allclose(parameter, before + 1.0)
    assert way_back.fell(network, loss=float("nan"))


def test_a_fall_is_looked_for_every_so_many_iterations_and_at_once_where_there_is_no_number() -> None:
    network = untrained(small(), in_channels=4, out_channels=1, seed=0)
    way_back = picture_fit._WayBack(5.0, every=3)
    # Looked at: the first, the fourth, and after its fall the fifth; none before the seventh after that.
    fell = [way_back.fell(network, loss=loss) for loss in (0.01, 0.9, 0.9, 0.9, 0.02, 0.9, float("nan"), 0.9, 0.9)]
    assert fell == [False, False, False, True, False, False, True, False, True]
    with pytest.raises(ValueError, match="backtrack_every"):
        small(backtrack_every=0)
    every = {name: preset.fit.backtrack_every for name, preset in PUBLISHED.items() if preset.fit.backtrack_db}
    assert every == {
        "denoise-sigma-25": 1,
        "denoise-sigma-50": 1,
        "jpeg": 1,
        "inpaint-half-missing": 50,
        "inpaint-few-known": 50,
    }


def test_each_fall_lowers_the_learning_rate() -> None:
    preset = small(12, backtrack_db=1e-6, backtrack_rate=0.5)
    fitted = picture_fit.PictureFit(
        picture_fit.FitTask(term=WholePicture(picture()), seed=0), preset=preset, layout=torch.contiguous_format
    )
    rate = fitted.optimizer.param_groups[0]["lr"]
    output = torch.full((1, 1, 32, 32), 0.5)
    for loss in (0.1, 0.2, 0.05, 0.3):  # the second and the fourth are worse
        fitted.settle(output, loss=loss, seconds=0.0)
    assert fitted.result().restored == 2
    assert fitted.optimizer.param_groups[0]["lr"] == pytest.approx(rate / 4)
    with pytest.raises(ValueError, match="backtrack_rate"):
        small(backtrack_rate=0.0)


def test_the_caller_can_stop_and_gets_the_best_so_far() -> None:
    result = fit(WholePicture(picture()), preset=small(50), seed=0, progress=lambda told: told.iteration < 7)
    assert (result.iterations, result.stopped_by) == (7, "caller")


def test_an_interrupt_returns_the_best_so_far() -> None:
    def interrupt(told: Progress) -> None:
        if told.iteration == 5:
            raise KeyboardInterrupt

    result = fit(WholePicture(picture()), preset=small(50), seed=0, progress=interrupt)
    assert (result.iterations, result.stopped_by) == (5, "interrupt")
    assert result.image.shape == (1, 1, 32, 32)


def test_a_budget_in_seconds_ends_the_fit() -> None:
    result = fit(WholePicture(picture()), preset=with_budget(small(10_000), seconds=0.2), seed=0)
    assert result.stopped_by == "seconds"
    assert result.iterations < 10_000
    assert with_budget(small(30), iterations=100).fit.iterations == 30
    assert with_budget(small(30), iterations=2).fit.iterations == 2


def test_a_picture_too_small_for_the_network_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 64 each way"):
        fit(WholePicture(torch.zeros(1, 1, 63, 64)), preset=settings.FILL, seed=0)
    with pytest.raises(ValueError, match=r"expected \(1, C, H, W\)"):
        fit(WholePicture(torch.zeros(1, 64, 64)), preset=settings.FILL, seed=0)


def test_filling_keeps_known_pixels_and_beats_their_mean() -> None:
    image, missing = picture(channels=3), holes()
    seen = image * (1 - missing)
    preset = replace(small(80, smoothing=0.9), stop=StopSettings(rule="held-out", patience=60, fraction=0.1))
    result = inpaint(seen, missing, preset=preset, seed=0)
    known = missing.expand_as(image) == 0
    assert torch.equal(result.image[known], image[known])
    error = float((result.image - image)[~known].square().mean())
    mean = image[known].view(3, -1).mean(1).view(1, 3, 1, 1)
    assert error < 0.2 * float((mean - image).expand_as(image)[~known].square().mean())
    assert result.best_iteration % 5 == 0


def test_what_is_missing_has_no_influence() -> None:
    image, missing = picture(), holes()
    preset = replace(small(6), stop=StopSettings(rule="held-out", fraction=0.1))
    results = [
        inpaint(torch.where(missing > 0, torch.full_like(image, value), image), missing, preset=preset, seed=0).image
        for value in (0.0, 1.0)
    ]
    assert torch.equal(results[0], results[1])


def test_denoising_stops_by_itself_and_a_wrong_rule_is_refused() -> None:
    noisy = (picture() + 0.1 * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    stopping = StopSettings(rule="variance", window=5, patience=5)
    result = denoise(noisy, preset=replace(small(2000, smoothing=0.9), stop=stopping), seed=0)
    assert result.stopped_by == "rule"
    assert result.best_iteration == result.iterations - 5
    with pytest.raises(ValueError, match="expected 'variance'"):
        denoise(noisy, preset=replace(small(), stop=StopSettings(rule="held-out")), seed=0)
    with pytest.raises(ValueError, match="expected 'held-out'"):
        inpaint(noisy, holes(), preset=replace(small(), stop=stopping), seed=0)


def test_enlarging_makes_a_picture_that_shrinks_to_the_small_one() -> None:
    shrunk = LanczosDownsampler(4)(picture(64, 64))
    result = enlarge(shrunk, factor=4, preset=small(80), seed=0)
    assert result.image.shape == (1, 1, 64, 64)
    assert result.losses[-1] < 0.2 * result.losses[0]


def test_a_picture_as_the_source_replaces_the_noise() -> None:
    flash = picture(channels=3)
    result = denoise(picture(), preset=small(5), seed=0, source=flash)
    assert result.image.shape == (1, 1, 32, 32)


def test_a_running_mean_is_taken_when_it_has_reached_the_best_output() -> None:
    class BestAtTen:
        def judge(self, output: Tensor, *, candidate: Tensor, iteration: int) -> Verdict:
            means.append(candidate)
            return Verdict(best=iteration == 10, of_output=self.of_output)

    for of_output, taken in ((True, 14), (False, 10)):
        means: list[Tensor] = []
        BestAtTen.of_output = of_output  # type: ignore[attr-defined]
        result = fit(WholePicture(picture()), preset=small(30, smoothing=0.8), seed=0, rule=BestAtTen())
        assert result.best_iteration == 10
        assert torch.equal(result.image, means[taken - 1])
    # Ended before, the latest mean is nearest to it.
    means, BestAtTen.of_output = [], True  # type: ignore[attr-defined]
    early = fit(WholePicture(picture()), preset=small(12, smoothing=0.8), seed=0, rule=BestAtTen())
    assert early.best_iteration == 10
    assert torch.equal(early.image, means[11])
