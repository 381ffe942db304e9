"""Fits that an interrupt ends from another thread: what is kept, what is given up, and who is told of the fits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from models.deep_prior.budget import fits_told_to, limited_iterations
from models.deep_prior.data_terms import WholePicture, keep_known
from models.deep_prior.fitting import fit
from models.deep_prior.networks import SkipSettings
from models.deep_prior.picture_fit import Progress
from models.deep_prior.restoring import FitsInterruptedError, denoise, denoise_all, inpaint_all
from models.deep_prior.settings import FitSettings, Preset
from models.example_based.blind_spot import BlindSpotSettings, fill_with_blind_spots
from models.example_based.faithful import FaithfulSettings, fill_faithfully
from models.example_based.learning import LearningProgress
from models.interruption import allow_work, interrupt_work, work_interrupted
from models.method import Context
from models.registry import get_method

SMALL = Preset(
    network=SkipSettings(down=(8, 8), up=(8, 8), skip=(4, 4)), fit=FitSettings(iterations=30, source_channels=4)
)


def pictures(count: int = 1, *, side: int = 32, channels: int = 1) -> Tensor:
    return torch.rand((count, channels, side, side), generator=torch.Generator().manual_seed(2))


def holes(count: int = 1, *, side: int = 32) -> Tensor:
    return (torch.rand((count, 1, side, side), generator=torch.Generator().manual_seed(3)) < 0.3).float()


@pytest.fixture(autouse=True)
def _fits_allowed() -> Iterator[None]:
    allow_work()
    yield
    allow_work()


def interrupt_at(iteration: int) -> object:
    """As a signal does while the fit runs in another thread: nothing is raised where it runs."""

    def told(progress: Progress | LearningProgress) -> None:
        done = progress.iteration if isinstance(progress, Progress) else progress.step
        if done == iteration:
            interrupt_work()

    return told


def test_a_fit_ends_with_the_iteration_in_which_fits_are_interrupted() -> None:
    result = fit(WholePicture(pictures()), preset=SMALL, seed=0, progress=interrupt_at(4))  # type: ignore[arg-type]
    assert (result.iterations, result.stopped_by) == (4, "interrupt")
    assert work_interrupted()
    assert denoise(pictures(), preset=SMALL, seed=0).iterations == 1, "until fits are allowed again, none goes on"
    allow_work()
    assert denoise(pictures(), preset=SMALL, seed=0).stopped_by == "iterations"


def test_a_fit_that_ends_in_that_iteration_is_a_finished_one() -> None:
    result = fit(WholePicture(pictures()), preset=SMALL, seed=0, progress=interrupt_at(30))  # type: ignore[arg-type]
    assert (result.iterations, result.stopped_by) == (30, "iterations")


@pytest.mark.parametrize("mode", ["faithful", "blind spots"])
def test_learning_from_examples_ends_with_the_step_in_which_fits_are_interrupted(mode: str) -> None:
    image, missing, told = pictures(), holes(), interrupt_at(3)
    if mode == "faithful":
        result = fill_faithfully(image, missing, settings=FaithfulSettings(batch=64), seed=0, progress=told)  # type: ignore[arg-type]
    else:
        settings = BlindSpotSettings(network="deep_denoise", steps=40, batch=2, crop_px=8)
        result = fill_with_blind_spots(image, missing, settings=settings, seed=0, progress=told)  # type: ignore[arg-type]
    assert (result.steps, result.stopped_by) == (3, "interrupt")


@pytest.mark.parametrize("method_id", ["deep-image-prior-fast", "example-internal"])
def test_methods_give_no_half_finished_picture(method_id: str) -> None:
    method, image = get_method(method_id), pictures(side=64, channels=3)
    interrupt_work()
    with pytest.raises(KeyboardInterrupt), limited_iterations(5), torch.inference_mode():
        method(method.build(), image, mask=holes(side=64), contexts=[Context()], seed=0)


class InterruptInThird:
    """Plays an interrupt after six iterations of the third picture, whichever way it comes."""

    def __init__(self, *, raised: bool, at: int) -> None:
        self.raised, self.at, self.begun = raised, at, 0

    def __call__(self, told: Progress) -> None:
        self.begun += told.iteration == 1
        if self.begun == 3 and told.iteration == self.at:
            if self.raised:
                raise KeyboardInterrupt
            interrupt_work()


@pytest.mark.parametrize("raised", [False, True])
def test_pictures_that_were_finished_before_an_interrupt_are_kept(raised: bool) -> None:
    images = pictures(4)
    whole = denoise_all(images, preset=SMALL, seed=0)
    with pytest.raises(FitsInterruptedError, match="2 of 4 pictures finished") as caught:
        denoise_all(images, preset=SMALL, seed=0, progress=InterruptInThird(raised=raised, at=6))
    finished = caught.value.finished
    assert [found is not None for found in finished] == [True, True, False, False]
    for found, expected in zip(finished[:2], whole, strict=False):
        assert found is not None
        assert torch.equal(found.image, expected.image)


def test_finished_pictures_keep_what_is_known_of_them() -> None:
    images, missing = pictures(4), holes(4)
    with pytest.raises(FitsInterruptedError) as caught:
        inpaint_all(images, missing, preset=SMALL, seed=0, progress=InterruptInThird(raised=False, at=1))
    first = caught.value.finished[0]
    assert first is not None
    assert torch.equal(first.image, keep_known(first.image, images[:1], missing=missing[:1]))


def test_who_listens_is_told_of_every_fit_and_its_end() -> None:
    news: list[tuple[int, int, bool]] = []
    with fits_told_to(lambda *told: news.append(told)):
        denoise_all(pictures(2), preset=SMALL, seed=0)
        fill_with_blind_spots(
            pictures(),
            holes(),
            settings=BlindSpotSettings(network="deep_denoise", steps=7, batch=2, crop_px=8),
            seed=0,
        )
    once = [(1, 30, False), (10, 30, False), (20, 30, False), (30, 30, True)]
    assert news == [*once, *once, (1, 7, False), (7, 7, True)]
    denoise(pictures(), preset=SMALL, seed=0)
    assert len(news) == 10, "nobody listens after the block"


def test_a_start_of_another_form_is_refused_with_what_to_do() -> None:
    grey = fit(WholePicture(pictures()), preset=SMALL, seed=0, progress=lambda _: False)
    with pytest.raises(ValueError, match=r"expected .*as many planes \(grey has 1, colour 3\)"):
        denoise(pictures(channels=3), preset=SMALL, seed=0, start=grey.network.state_dict())
    with pytest.raises(ValueError, match="got a start with nothing"):
        denoise(pictures(), preset=SMALL, seed=0, start={})
    again = denoise(pictures(), preset=SMALL, seed=0, start=grey.network.state_dict(), progress=lambda _: False)
    assert again.iterations == 1
