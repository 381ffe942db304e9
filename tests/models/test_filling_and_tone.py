"""Wide holes, tiles that are all hole, blank sheets, and sharpening where nothing is blurred."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.blocks import pull_push
from models.run import Runner
from tests.models.test_routing import estimate


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner()


@pytest.mark.parametrize(("height", "width", "hole"), [(640, 640, 300), (8, 512, 200), (513, 100, 480)])
def test_a_hole_of_any_width_in_grey_is_filled_with_that_grey(height: int, width: int, hole: int) -> None:
    image = torch.full((1, 3, height, width), 0.5)
    mask = torch.zeros(1, 1, height, width)
    mask[..., (height - min(hole, height)) // 2 :, (width - min(hole, width)) // 2 :][..., :hole, :hole] = 1
    mask[..., 0, 0] = 0
    assert torch.allclose(pull_push(image * (1 - mask), mask), image, atol=1e-5)


def test_nothing_is_made_of_a_tile_without_a_known_pixel(runner: Runner) -> None:
    picture = np.full((64, 64, 3), 90, np.uint8)
    (found,) = runner.apply("fill", [picture], masks=[np.ones((64, 64), np.bool_)])
    assert np.array_equal(found, picture)


@pytest.mark.parametrize("tone", [(204, 189, 153), (127, 127, 127), (250, 10, 128)])
def test_a_blank_sheet_keeps_its_tone(runner: Runner, tone: tuple[int, int, int]) -> None:
    sheet = np.broadcast_to(np.array(tone, np.uint8), (80, 60, 3))
    (found,) = runner.apply("tonal-range", [np.ascontiguousarray(sheet)])
    assert np.abs(found.astype(int) - sheet).max() <= 1


def test_a_faded_picture_gets_its_whole_range_with_and_without_a_file(runner: Runner) -> None:
    ramp = np.tile(np.linspace(70, 180, 256).astype(np.uint8)[None, :, None], (64, 1, 3))
    (found,) = runner.apply("tonal-range", [ramp])
    assert found.min() <= 1
    assert found.max() >= 254
    planes = torch.from_numpy(ramp).permute(2, 0, 1).float() / 255
    alike = runner.restore_planes("tonal-range", planes).clamp(0, 1) * 255
    assert np.abs(alike.permute(1, 2, 0).numpy() - found).max() <= 1


def test_what_is_estimated_sharp_is_hardly_sharpened(runner: Runner) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    sharp, soft = (estimate(blur_sigma_px=(value, 0.9)) for value in (0.0, 1.0))
    changes = [
        np.abs(runner.apply("unsharp", [noise], estimates=[seen])[0].astype(int) - noise).mean()
        for seen in (sharp, soft)
    ]
    assert changes[0] < 0.2 * changes[1]
