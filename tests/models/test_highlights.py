"""Where noise was clipped at white, a network without biases is shown the negative as well."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data as bundled
from torch import Tensor

from models.highlights import WINDOW_PX, share_of_negative, with_highlights
from models.run import Runner, RunSettings

NOISE = np.random.default_rng(0).normal(0, 20, (128, 192, 3))


def page(*, paper: int) -> np.ndarray:
    """Return a picture with paper of one brightness to its right, noisy as a file holds it: clipped and rounded."""
    clean = np.full((128, 192, 3), paper, float)
    clean[:, :96] = bundled.astronaut()[40:168, 180:276]
    return (clean + NOISE).clip(0, 255).round().astype(np.uint8)


def planes(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255.0


@pytest.mark.parametrize("method_id", ["denoise", "degrain"])
@pytest.mark.parametrize("paper", [255, 245, 0])
def test_paper_keeps_its_brightness(method_id: str, paper: int) -> None:
    restored = Runner(RunSettings(device="cpu", precision="float32")).apply(method_id, [page(paper=paper)])[0]
    assert restored[16:-16, 128:-16].mean() == pytest.approx(paper, abs=2.5)


def test_grey_shadows_and_what_was_never_clipped_are_restored_once() -> None:
    shown: list[Tensor] = []

    def restore(image: Tensor) -> Tensor:
        shown.append(image)
        return image * 0.9

    grey, dark = planes(page(paper=128)) * 0.9, planes(page(paper=0)) * 0.9
    above = torch.cat([planes(page(paper=250)) + 0.1, grey])
    for image in (grey, dark, above):
        assert torch.equal(with_highlights(restore, image), image * 0.9)
    assert len(shown) == 3


def test_only_the_pictures_with_clipped_white_are_shown_again_and_only_there_changed() -> None:
    shown: list[Tensor] = []

    def restore(image: Tensor) -> Tensor:
        shown.append(image)
        return image * 0.9

    batch = torch.cat([planes(page(paper=128)) * 0.9, planes(page(paper=255))])
    restored = with_highlights(restore, batch)
    assert [len(image) for image in shown] == [2, 1]
    assert torch.equal(shown[1], 1.0 - batch[1:])
    assert torch.equal(restored[0], batch[0] * 0.9)
    share = share_of_negative(batch)[1, 0]
    assert share[:, 130:].min() > 0.9
    far = share[:, : 96 - 2 * (WINDOW_PX // 2)]
    assert torch.equal(far, share_of_negative(batch[1:, :, :, :96])[0, 0, :, : far.shape[1]]), "beyond its window"
    expected = torch.lerp(batch[1] * 0.9, 1.0 - (1.0 - batch[1]) * 0.9, share)
    torch.testing.assert_close(restored[1], expected)
