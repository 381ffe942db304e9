"""Upscaling: the network's start, what its training sees, and how the runner enlarges in tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models import registry
from models.benchmarking.baselines import unfit_reason
from models.blocks import ResidualUNet, ResidualUpscaler, enlarge
from models.degradations.resample import resize
from models.methods.super_resolution import METHODS, Upscaler
from models.registry import METHODS as REGISTERED
from models.routing.rules import UPSCALERS, RoutingOptions, enlargement, plan_for
from models.run import Runner, RunSettings
from models.training.corruption import Shrunk
from models.training.first_weights import start_from
from models.training.photographs import PatchSettings, Photographs
from models.training.recipes import get_recipe
from models.training.validation import mean_psnr_db, validation_examples
from models.types import DegradationEstimate, Estimated, ScratchReport, plain_id


class RandomUpscaler(Upscaler):
    """An upscaler whose weights were drawn, not trained, so that its tiles have something to disagree about."""

    def build(self) -> torch.nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = ResidualUpscaler(scale=self.card.scale, widths=(8, 8, 8), blocks=1)
            torch.nn.init.normal_(network.tail.weight, std=0.02)
        return network


@pytest.fixture(params=[2, 4], ids=["x2", "x4"])
def scale(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A scale, for which "drawn" is a registered method."""
    card = replace(METHODS[0].card, id="drawn", scale=request.param, weights=None, context_px=16)
    monkeypatch.setitem(registry._METHODS_BY_ID, "drawn", RandomUpscaler(card))
    return int(request.param)


def runner(*, tile: int = 512) -> Runner:
    return Runner(RunSettings(device="cpu", precision="float32", tile=tile))


def picture(height: int, width: int, *, kind: type[np.unsignedinteger] = np.uint8) -> npt.NDArray[np.unsignedinteger]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width] / 20.0
    planes = np.stack([0.5 + 0.3 * np.sin(x), 0.5 + 0.3 * np.cos(y), 0.2 + 0.1 * (x + y) % 0.6], axis=-1)
    noisy = np.clip(planes + rng.normal(0, 0.02, planes.shape), 0, 1)
    return np.rint(noisy * np.iinfo(kind).max).astype(kind)


@pytest.mark.parametrize("scale_", [2, 3, 4])
def test_enlarging_is_matlabs_bicubic_inside(scale_: int) -> None:
    image = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    reference = resize(image.double(), height=20 * scale_, width=24 * scale_).float()
    for layout in (torch.contiguous_format, torch.channels_last):
        ours = enlarge(image.contiguous(memory_format=layout), scale=scale_)
        inside = (..., slice(3 * scale_, -3 * scale_), slice(3 * scale_, -3 * scale_))
        assert (ours - reference)[inside].abs().max() < 1e-5


def test_an_untrained_upscaler_is_plain_enlargement() -> None:
    image = torch.rand(1, 3, 16, 20)
    assert torch.equal(ResidualUpscaler(scale=4)(image), enlarge(image, scale=4))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour", [True, False])
def test_the_runner_enlarges_and_keeps_the_type(scale: int, kind: type[np.unsignedinteger], colour: bool) -> None:
    image = picture(37, 50, kind=kind)
    image = image if colour else np.ascontiguousarray(image[:, :, 0])
    (result,) = runner().apply("drawn", [image])
    assert result.shape == (37 * scale, 50 * scale, *image.shape[2:])
    assert result.dtype == kind


def test_tiles_of_an_enlargement_agree_with_the_whole(scale: int) -> None:
    image = picture(150, 210)
    (whole,) = runner().apply("drawn", [image])
    (tiled,) = runner(tile=96).apply("drawn", [image])
    assert np.abs(whole.astype(int) - tiled).max() <= 2


def test_pictures_of_different_sizes_enlarge_together_as_alone(scale: int) -> None:
    images = [picture(40, 64), picture(33, 47), picture(1, 1)]
    together = runner().apply("drawn", images)
    for image, result in zip(images, together, strict=True):
        assert np.abs(runner().apply("drawn", [image])[0].astype(int) - result).max() <= 1


def test_strength_goes_from_plain_to_full_enlargement(scale: int) -> None:
    image = picture(40, 48)
    plain, half, full = runner().apply("drawn", [image] * 3, strengths=[0.0, 0.5, 1.0])
    expected = enlarge(torch.from_numpy(image).permute(2, 0, 1)[None] / 255.0, scale=scale)[0].permute(1, 2, 0)
    assert np.abs(plain - expected.clamp(0, 1).numpy() * 255).max() <= 0.51
    inside = (full > 0) & (full < 255) & (plain > 0) & (plain < 255)
    assert np.abs(half - (plain.astype(float) + full) / 2)[inside].max() <= 1.0


def test_whole_float_planes_of_any_size_are_enlarged(scale: int) -> None:
    planes = torch.rand(3, 21, 30)
    assert runner().restore_planes("drawn", planes).shape == (3, 21 * scale, 30 * scale)


def test_shrunk_patches_are_rounded_and_their_target_is_the_patch() -> None:
    clean = torch.rand(6, 3, 32, 48)
    example = Shrunk(scale=4, as_file_share=1.0)(clean, np.random.default_rng(0))
    assert example.network_input.shape == (6, 3, 8, 12)
    assert torch.equal(example.target, clean)
    levels = example.network_input * 255
    assert (levels - levels.round()).abs().max() < 1e-4
    exact = resize(clean, height=8, width=12).clamp(0, 1)
    assert (example.network_input - exact).abs().max() <= 0.5 / 255 + 1e-6


def test_validation_measures_the_enlargement() -> None:
    rng = np.random.default_rng(0)
    pictures = [np.repeat(rng.integers(0, 256, (160, 176, 1)), 3, axis=2).astype(np.uint8) for _ in range(2)]
    patches = PatchSettings(side=32, batch=2)
    examples = validation_examples(Photographs(pictures), Shrunk(scale=2), patches=patches, batches=1)
    assert examples[0].network_input.shape == (2, 3, 80, 80)
    network = ResidualUpscaler(scale=2, widths=(4, 8), blocks=1)
    assert 5.0 < mean_psnr_db(network, examples, device="cpu", bf16=False) < 30.0


def test_an_upscaler_starts_from_the_trunk_of_another_network() -> None:
    denoise, upscaler = get_recipe("denoise").network(), get_recipe("upscale-x4").network()
    first = upscaler.state_dict()["head.weight"].clone()
    start_from(upscaler, denoise.state_dict())
    state = upscaler.state_dict()
    assert torch.equal(state["body.0.first.weight"], denoise.state_dict()["body.0.first.weight"])
    assert torch.equal(state["head.weight"], first)
    assert not state["tail.weight"].any()


def test_the_trunk_is_shared_without_changing_the_other_networks() -> None:
    torch.manual_seed(0)
    network = ResidualUNet(widths=(8, 16), unshuffle=2)
    image = torch.rand(1, 3, 32, 32)
    features = network.trunk(network.head(torch.nn.functional.pixel_unshuffle(image, 2)))
    expected = image - torch.nn.functional.pixel_shuffle(network.tail(features), 2)
    assert torch.equal(network(image), expected)


def test_a_benchmark_runs_an_upscaler_at_its_own_scale_only(scale: int) -> None:
    assert unfit_reason("drawn", scale=scale, has_mask=False) is None
    assert unfit_reason("drawn", scale=3, has_mask=False) == "drawn does not enlarge 3 times"
    assert unfit_reason("drawn", scale=1, has_mask=False) == "drawn changes the size"


def clean_finding() -> tuple[DegradationEstimate, ScratchReport]:
    nothing = Estimated(value=0.0, confidence=0.9)
    estimate = DegradationEstimate(
        noise_sigma=Estimated(value=20.0, confidence=0.9),
        blur_sigma_px=nothing,
        jpeg_quality=Estimated(value=100.0, confidence=0.9),
        effective_scale=Estimated(value=1.0, confidence=0.9),
        scratch_coverage=nothing,
        fading=nothing,
        colour_cast=nothing,
    )
    report = ScratchReport(
        coverage=0.0, components=0, confidence=0.9, threshold=0.5, mask=None, mask_sha256=None, detector="test"
    )
    return estimate, report


def test_pictures_are_enlarged_last_and_only_when_asked() -> None:
    estimate, report = clean_finding()
    assert enlargement(plan_for(estimate, report)) == 1
    asked = RoutingOptions(strengths=(("upscale-x4", 1.0),))
    plan = plan_for(estimate, report, options=asked)
    assert [step.method_id for step in plan.steps] == ["denoise", "upscale-x4"]
    assert plan.reason.endswith("enlargement 4 times was asked for.")
    assert enlargement(plan) == 4
    refused = RoutingOptions(strengths=(("upscale-x2", 0.0),))
    assert enlargement(plan_for(estimate, report, options=refused)) == 1


def test_two_enlargements_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="choose one"):
        RoutingOptions(strengths=(("upscale-x2", 1.0), ("upscale-x4", 1.0)))


def test_routing_knows_the_scale_of_every_upscaler() -> None:
    found = {plain_id(method.card.id): method.card.scale for method in REGISTERED if method.card.scale > 1}
    assert found == UPSCALERS
