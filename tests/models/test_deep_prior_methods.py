"""Deep Image Prior as methods of the registry: planes, nothing known, interrupts, limits of iterations."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from models.deep_prior import picture_fit
from models.deep_prior.budget import iteration_limit, limited_iterations
from models.deep_prior.picture_fit import FitResult
from models.deep_prior.settings import Preset
from models.method import Context
from models.methods import deep_prior
from models.registry import get_method


def picture(height: int, width: int) -> Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(2))


def holes(height: int, width: int) -> Tensor:
    return (torch.rand((1, 1, height, width), generator=torch.Generator().manual_seed(3)) < 0.5).float()


@pytest.fixture
def two_iterations() -> Iterator[None]:
    with limited_iterations(2):
        yield


def test_a_limit_on_iterations_holds_inside_its_block_only() -> None:
    assert iteration_limit() is None
    with limited_iterations(7):
        assert iteration_limit() == 7
        with limited_iterations(3):
            assert iteration_limit() == 3
        assert iteration_limit() == 7
    assert iteration_limit() is None
    with pytest.raises(ValueError, match="at least 1"), limited_iterations(0):
        pass


@pytest.mark.usefixtures("two_iterations")
def test_methods_fill_and_denoise_grey_as_one_plane_and_colour_as_three(monkeypatch: pytest.MonkeyPatch) -> None:
    channels: list[int] = []
    build = picture_fit.untrained

    def spy(preset: Preset, *, in_channels: int, out_channels: int, seed: int) -> torch.nn.Module:
        channels.append(out_channels)
        return build(preset, in_channels=in_channels, out_channels=out_channels, seed=seed)

    monkeypatch.setattr(picture_fit, "untrained", spy)
    colour = picture(64, 64)
    grey = colour[:, :1].expand(-1, 3, -1, -1)
    both = torch.cat([colour, grey])
    missing = holes(64, 64).expand(2, -1, -1, -1)
    for method_id, mask in (("fast", missing), ("denoise", None)):
        method = get_method(f"deep-image-prior-{method_id}")
        with torch.inference_mode():
            result = method(method.build(), both, mask=mask, contexts=[Context()] * 2, seed=0)
        assert result.shape == both.shape
        assert torch.equal(result[1, 0], result[1, 2])
    assert channels == [1, 3, 1, 3]


@pytest.mark.usefixtures("two_iterations")
@pytest.mark.parametrize("scale", [4, 8])
def test_methods_enlarge_grey_as_one_plane_and_no_more_than_a_tile_at_once(scale: int) -> None:
    method = get_method(f"deep-image-prior-x{scale}")
    side = 2 * deep_prior.SIZE_MULTIPLE // scale
    grey = picture(side, side)[:, :1].expand(-1, 3, -1, -1)
    with torch.inference_mode():
        result = method(method.build(), grey, mask=None, contexts=[Context()], seed=0)
    assert result.shape == (1, 3, side * scale, side * scale)
    assert torch.equal(result[0, 0], result[0, 2])
    assert method.card.largest_tile == 512 // scale


@pytest.mark.usefixtures("two_iterations")
def test_a_picture_without_known_pixels_comes_back() -> None:
    method, image = deep_prior.METHODS[1], picture(64, 64)
    result = method(method.build(), image, mask=torch.ones(1, 1, 64, 64), contexts=[Context()], seed=0)
    assert torch.equal(result, image)


def test_an_interrupt_ends_the_run_of_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    method, image = deep_prior.METHODS[1], picture(64, 64)
    stopped = FitResult(
        image=image,
        network=torch.nn.Identity(),
        iterations=3,
        best_iteration=3,
        stopped_by="interrupt",
        losses=(),
        restored=0,
        seconds=0.0,
    )
    monkeypatch.setattr(deep_prior, "inpaint_all", lambda *_, **__: [stopped])
    with pytest.raises(KeyboardInterrupt):
        method(method.build(), image, mask=holes(64, 64), contexts=[Context()], seed=0)


def test_the_networks_of_methods_fit_their_cards() -> None:
    for method in deep_prior.METHODS:
        side = method.card.size_multiple * method.card.scale
        assert side % method.preset.network.source_scale == 0
        assert method.preset.network.smallest_side <= side
        assert method.card.opt_in
        assert method.card.stochastic
