"""Beyond the published Deep Image Prior: quick gradients, deep decoder, autoencoding, several runs, warm starts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.deep_prior import cuda_graph
from models.deep_prior.cuda_graph import replayed
from models.deep_prior.data_terms import KnownPixels, WholePicture
from models.deep_prior.decoder import DecoderSettings
from models.deep_prior.enlarged_convolution import Enlarging, convolve_enlarged, enlarge_twice
from models.deep_prior.fitting import fit, fit_together
from models.deep_prior.networks import quickened
from models.deep_prior.picture_fit import FitTask, first_source, untrained
from models.deep_prior.restoring import denoise, inpaint, inpaint_all
from models.deep_prior.settings import DENOISE_DECODER, PUBLISHED, FitSettings, Preset, StopSettings
from models.deep_prior.stopping import WindowedVariance
from tests.models.test_deep_prior import holes, picture, small


@pytest.mark.parametrize("kind", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(2, 2), (5, 3), (4, 7), (9, 12)])
def test_a_convolution_of_the_enlarged_picture_is_what_its_steps_are(kind: Enlarging, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 3, *size), (3,), (3,), (5, 3, 3, 3), (5,)]
    values = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    x, scale, shift, weight, bias = values
    normalized = functional.batch_norm(enlarge_twice(x, kind=kind), None, None, scale, shift, training=True, eps=1e-5)
    plain = functional.conv2d(functional.pad(normalized, (1, 1, 1, 1), mode="reflect"), weight, bias)
    ours = convolve_enlarged(x, scale=scale, shift=shift, weight=weight, bias=bias, epsilon=1e-5, kind=kind)
    gradient = torch.randn(plain.shape, generator=generator, dtype=torch.float64)
    assert torch.allclose(ours, plain)
    wanted, found = (torch.autograd.grad(result, values, gradient) for result in (plain, ours))
    for name, first, second in zip(("x", "scale", "shift", "weight", "bias"), wanted, found, strict=True):
        assert torch.allclose(first, second), name


@pytest.mark.parametrize("name", ["inpaint-half-missing", "inpaint-text", "inpaint-vase", "flash", "jpeg"])
def test_the_quick_form_of_a_network_is_the_plain_one(name: str) -> None:
    preset = PUBLISHED[name]
    network = untrained(preset, in_channels=preset.fit.source_channels, out_channels=3, seed=0).double()
    source = first_source(preset, height=64, width=96, seed=0).double()
    found = []
    for quick in (False, True):
        quickened(network, quick=quick).zero_grad()
        output = network(source)
        output.square().mean().backward()
        found.append((output, [value.grad.clone() for value in network.parameters()]))
    assert torch.allclose(found[0][0], found[1][0])
    for first, second in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(first, second, atol=1e-9 + 1e-6 * float(first.abs().max()))


def test_the_deep_decoder_is_as_published_and_takes_any_size() -> None:
    network = untrained(DENOISE_DECODER, in_channels=128, out_channels=3, seed=0)
    assert sum(value.numel() for value in network.parameters()) == 100_224
    preset = Preset(
        network=DecoderSettings(width=16, enlargements=3), fit=FitSettings(iterations=60, source_channels=16)
    )
    truth = picture(45, 70, channels=3)
    result = fit(WholePicture(truth), preset=preset, seed=0)
    assert result.image.shape == truth.shape
    assert result.losses[-1] < 0.5 * result.losses[0]


def test_autoencoding_begins_with_the_picture_and_follows_its_output() -> None:
    settings = {"source": "picture", "autoencode_every": 2, "perturbation": 0.0, "learning_rate": 0.003}
    missing = holes()
    term = KnownPixels(picture(channels=3), missing)
    assert float(term.first_guess()[missing.expand(1, 3, -1, -1) > 0].abs().sum()) == 0.0
    result = fit(term, preset=small(60, **settings), seed=0)
    assert result.losses[-1] < 0.3 * result.losses[0]
    # Held to its source, it is another fit than one that is not.
    free = fit(term, preset=small(60, **{**settings, "autoencode_weight": 0.0}), seed=0)
    assert not torch.equal(free.image, result.image)
    with pytest.raises(ValueError, match="'picture'"):
        FitSettings(iterations=1, autoencode_every=2)


def test_two_runs_give_their_mean_and_hold_out_pixels_of_their_own() -> None:
    seen: list[int] = []
    once = replace(small(20), stop=StopSettings(rule="held-out"))
    image, missing = picture(), holes()
    both = inpaint(
        image, missing, preset=replace(once, runs=2), seed=0, progress=lambda told: seen.append(told.iteration)
    )
    first = inpaint(image, missing, preset=once, seed=0)
    assert seen == [*range(1, 21), *range(1, 21)]
    assert both.iterations == 40
    assert len(both.losses) == 40
    assert not torch.equal(both.image, first.image)
    assert torch.equal(both.image[missing == 0], image[missing == 0])


def test_runs_end_with_the_one_that_the_caller_stops() -> None:
    result = denoise(picture(), preset=replace(small(20), runs=3), seed=0, progress=lambda told: told.iteration < 5)
    assert (result.iterations, result.stopped_by) == (5, "caller")
    with pytest.raises(ValueError, match="at least 1"):
        replace(small(20), runs=0)


def test_a_fit_of_a_like_picture_is_a_better_start_than_none() -> None:
    def psnr(image: Tensor) -> float:
        return -10 * math.log10(float((image - other).square().mean()))

    before = denoise(picture(), preset=small(150), seed=0)
    other = picture().flip(3) * 0.9
    cold = denoise(other, preset=small(15), seed=0)
    warm = denoise(other, preset=small(15), seed=0, start=before.network.state_dict())
    assert psnr(warm.image) > psnr(cold.image) + 1.0


def test_several_pictures_fitted_together_are_as_alone_and_end_by_themselves() -> None:
    # Few iterations: roundings grow, and later it would depend on them which iteration was the best.
    preset = replace(small(20), stop=StopSettings(rule="held-out", patience=5))
    images = torch.cat([picture(), picture().flip(2), 1 - picture()])
    missing = torch.cat([holes(share=share) for share in (0.2, 0.5, 0.8)])
    together = inpaint_all(images, missing, preset=preset, seed=0, together=3)
    assert {result.stopped_by for result in together} == {"rule", "iterations"}
    for index, result in enumerate(together):
        alone = inpaint(images[index : index + 1], missing[index : index + 1], preset=preset, seed=0)
        assert result.losses == pytest.approx(alone.losses, rel=0.05)
        assert torch.allclose(result.image, alone.image, atol=0.01)
        assert (result.stopped_by, result.best_iteration) == (alone.stopped_by, alone.best_iteration)


def test_pictures_of_several_sizes_are_not_fitted_together() -> None:
    tasks = [FitTask(term=WholePicture(picture(side, 32)), seed=0) for side in (32, 40)]
    with pytest.raises(ValueError, match="expected one size"):
        fit_together(tasks, preset=small(2))


def test_factors_of_normalizations_start_as_they_did_when_it_was_published() -> None:
    network = untrained(PUBLISHED["denoise-sigma-25"], in_channels=32, out_channels=3, seed=0)
    factors = torch.cat([part.weight.detach() for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)])
    assert 0.0 <= float(factors.min()) < 0.01
    assert 0.99 < float(factors.max()) < 1.0
    assert float(factors.mean()) == pytest.approx(0.5, abs=0.02)


class RecordedOnTheCpu:
    """`torch.cuda.make_graphed_callables` as far as memory goes: one place for the input, one for the output."""

    def __init__(self) -> None:
        self.replays = 0

    def __call__(self, network: nn.Module, sample: tuple[Tensor]) -> nn.Module:
        forward, kept = network.forward, sample[0]
        place: list[Tensor] = []

        def replay(given: Tensor) -> Tensor:
            self.replays += 1
            with torch.no_grad():
                kept.copy_(given)
            found: Tensor = forward(kept)
            place[:1] = place[:1] or [torch.empty_like(found)]
            return _Placed.apply(found, place[0])  # type: ignore[no-any-return, no-untyped-call]

        network.forward = replay
        return network


class _Placed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, found: Tensor, place: Tensor) -> Tensor:
        return place.copy_(found).detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


@pytest.mark.parametrize("settings", [{}, {"source": "picture", "autoencode_every": 2, "perturbation": 0.0}])
def test_a_replayed_network_fits_as_the_network_itself(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    preset = small(iterations=8, smoothing=0.9, **settings)
    term = WholePicture(picture(32, 32, channels=3))
    rules = [WindowedVariance(window=3) for _ in range(2)]
    plain = fit(term, preset=preset, seed=1, rule=rules[0])
    recorder = RecordedOnTheCpu()
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", recorder)
    monkeypatch.setattr(cuda_graph, "_can_record", lambda source: True)
    recorded = fit(term, preset=preset, seed=1, rule=rules[1])
    assert recorder.replays == 8
    assert torch.equal(recorded.image, plain.image)
    assert recorded.losses == plain.losses
    assert "forward" not in vars(recorded.network)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["inpaint-half-missing", "inpaint-text", "flash"])
def test_a_gpu_replays_what_it_would_compute(name: str) -> None:
    preset = PUBLISHED[name]
    network = untrained(preset, in_channels=preset.fit.source_channels, out_channels=3, seed=0).cuda()
    source = first_source(preset, height=64, width=64, seed=0).cuda()
    plain = network(source)
    (wanted,) = torch.autograd.grad(plain.square().mean(), [network.get_parameter("head.weight")])
    with replayed(network, source=source) as run:
        for _ in range(2):
            found = run(source)
            (gradient,) = torch.autograd.grad(found.square().mean(), [network.get_parameter("head.weight")])
    assert torch.allclose(found, plain, atol=1e-4)
    assert torch.allclose(gradient, wanted, atol=1e-4, rtol=1e-3)
