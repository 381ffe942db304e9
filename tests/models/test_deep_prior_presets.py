"""Deep Image Prior: the settings of each published experiment, our own presets, and enlarging without a network."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.deep_prior import picture_fit
from models.deep_prior.budget import limited_iterations
from models.deep_prior.data_terms import SmallPicture
from models.deep_prior.resampling import LanczosDownsampler
from models.deep_prior.settings import OWN, PUBLISHED, Preset
from models.deep_prior.without_network import (
    NO_PRIOR,
    TV_PRIOR,
    PixelSettings,
    enlarge_without_network,
    total_variation,
)
from models.method import Context
from models.registry import get_method
from tests.models.test_deep_prior import picture

# Iterations, rate, source and its planes, perturbation, share of the running mean, dB of a fall that is taken back.
NOTEBOOKS: dict[str, tuple[int, float, str, int, float, float, float | None]] = {
    "denoise-sigma-25": (3000, 0.01, "noise", 32, 1 / 30, 0.99, 5.0),
    "denoise-sigma-50": (3000, 0.01, "noise", 32, 1 / 20, 0.99, 5.0),
    "jpeg": (2400, 0.01, "noise", 3, 1 / 30, 0.99, 5.0),
    "upscale-4": (2000, 0.01, "noise", 32, 0.03, 0.0, None),
    "upscale-8": (4000, 0.01, "noise", 32, 0.05, 0.0, None),
    "upscale-prior-effect": (2000, 0.01, "noise", 3, 1 / 30, 0.0, None),
    "inpaint-text": (6001, 0.01, "noise", 32, 0.03, 0.0, None),
    "inpaint-vase": (5001, 0.01, "meshgrid", 2, 0.03, 0.0, None),
    "inpaint-library-depth-6": (3001, 0.01, "noise", 1, 0.0, 0.0, None),
    "inpaint-library-depth-4": (3001, 0.01, "noise", 1, 0.0, 0.0, None),
    "inpaint-library-depth-2": (3001, 0.01, "noise", 1, 0.0, 0.0, None),
    "inpaint-library-resnet": (3001, 0.001, "noise", 1, 0.0, 0.0, None),
    "inpaint-library-unet": (3001, 0.001, "noise", 1, 0.0, 0.0, None),
    "inpaint-half-missing": (11000, 0.001, "noise", 32, 0.03, 0.0, 5.0),
    "inpaint-few-known": (1000, 0.01, "noise", 32, 0.0, 0.0, 5.0),
    "flash": (601, 0.1, "noise", 3, 0.0, 0.0, None),
}


def test_every_published_preset_has_the_settings_of_its_notebook() -> None:
    found = {
        name: (
            preset.fit.iterations,
            preset.fit.learning_rate,
            preset.fit.source,
            preset.fit.source_channels,
            preset.fit.perturbation,
            preset.fit.smoothing,
            preset.fit.backtrack_db,
        )
        for name, preset in PUBLISHED.items()
    }
    assert found == NOTEBOOKS
    # As published: all iterations, one run, and the rate stays.
    assert all(preset.stop is None and preset.runs == 1 for preset in PUBLISHED.values())
    assert all(preset.fit.backtrack_rate == 1.0 for preset in PUBLISHED.values())


def test_two_runs_differ_from_one_in_nothing_else() -> None:
    for kind in ("fill", "denoise"):
        once, twice = OWN[kind], OWN[f"{kind}-two-runs"]
        assert (once.runs, twice.runs) == (1, 2)
        assert (twice.network, twice.fit, twice.stop) == (once.network, once.fit, once.stop)
        assert OWN[f"{kind}-autoencoding"].fit.autoencode_every == 2


@pytest.mark.parametrize(
    ("method_id", "fits", "planes_in"),
    [
        ("deep-image-prior", 1, 32),
        ("deep-image-prior-two-runs", 2, 32),
        ("deep-image-prior-autoencoding", 1, 3),
        ("deep-image-prior-denoise", 1, 32),
        ("deep-image-prior-denoise-two-runs", 2, 32),
        ("deep-image-prior-denoise-autoencoding", 1, 3),
    ],
)
def test_two_runs_and_autoencoding_are_methods(
    method_id: str, fits: int, planes_in: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, int]] = []
    build = picture_fit.untrained

    def spy(preset: Preset, *, seed: int, in_channels: int, **given: Any) -> torch.nn.Module:
        made.append((seed, in_channels))
        return build(preset, seed=seed, in_channels=in_channels, **given)

    monkeypatch.setattr(picture_fit, "untrained", spy)
    method = get_method(method_id)
    mask = torch.zeros(1, 1, 64, 64)
    mask[:, :, 20:30, 20:30] = 1.0
    image = picture(64, 64, channels=3)
    with torch.inference_mode(), limited_iterations(1):
        found = method(
            method.build(), image, mask=mask if method.card.needs_mask else None, contexts=[Context()], seed=0
        )
    assert found.shape == image.shape
    assert len({seed for seed, _ in made}) == fits
    assert {planes for _, planes in made} == {planes_in}
    assert method.card.opt_in


def test_without_a_network_the_picture_shrinks_to_the_small_one_and_total_variation_calms_it() -> None:
    small = LanczosDownsampler(4)(picture(64, 64, channels=3))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        plain, again = (
            enlarge_without_network(small, factor=4, settings=PixelSettings(iterations=300), seed=0) for _ in range(2)
        )
        calm = enlarge_without_network(small, factor=4, settings=PixelSettings(iterations=300, tv_weight=1e-5), seed=0)
    assert plain.shape == (1, 3, 64, 64)
    assert torch.equal(plain, again)
    term = SmallPicture(small.clone(), 4)
    assert float(term.loss(plain)) < 1e-4
    assert float(total_variation(calm)) < 0.5 * float(total_variation(plain))
    assert (NO_PRIOR.iterations, NO_PRIOR.learning_rate, NO_PRIOR.tv_weight) == (2000, 0.01, 0.0)
    assert (TV_PRIOR.iterations, TV_PRIOR.learning_rate, TV_PRIOR.tv_weight) == (2000, 0.01, 1e-7)
    with pytest.raises(ValueError, match="expected at least 1"):
        PixelSettings(iterations=0)


def test_total_variation_sums_the_lengths_of_gradients_and_is_smooth_where_there_are_none() -> None:
    ramp = (torch.arange(5.0) * 0.03)[None, :] + (torch.arange(4.0) * 0.04)[:, None]
    values = ramp[None, None].requires_grad_()
    assert float(total_variation(values).detach()) == pytest.approx(0.05 * 3 * 4, rel=1e-4)
    flat = torch.full((1, 1, 3, 3), 0.5, requires_grad=True)
    total_variation(flat).backward()  # type: ignore[no-untyped-call]
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()
