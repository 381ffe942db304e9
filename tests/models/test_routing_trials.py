"""Trials: which part of a picture they look at, and that their numbers tell noise from texture."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data as bundled

from models.degradations.recipes import get_recipe
from models.estimation.estimate import UNKNOWN, estimate_with_evidence
from models.routing.gains import predict_gains
from models.routing.treatments import TREATMENTS
from models.routing.trial_evidence import TRIAL_SIDE, trial_evidence, trial_size, trial_window
from models.routing.trials import with_trials
from models.run import Runner, RunSettings
from models.types import Gain


def test_the_window_is_a_copy_of_a_busy_part_and_small_pictures_are_taken_whole() -> None:
    image = np.full((400, 500, 3), 200, np.uint8)
    image[:, 250:] = np.random.default_rng(0).integers(0, 255, (400, 250, 3))
    window = trial_window(image)
    assert window.shape == (TRIAL_SIDE, TRIAL_SIDE, 3)
    assert window.std() > 30
    assert not np.shares_memory(window, image)
    small = image[:40, :300, 0]
    assert trial_window(small).shape == (40, TRIAL_SIDE)
    np.testing.assert_array_equal(trial_window(image[:33, :34]), image[:33, :34])


@pytest.mark.parametrize("shape", [(64, 64), (33, 96, 3), (32, 32, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_numbers_are_finite_for_anything_and_do_not_depend_on_the_depth(shape: tuple[int, ...], dtype: type) -> None:
    rng = np.random.default_rng(1)
    full = np.iinfo(dtype).max // 255
    eight = rng.integers(0, 256, (1 + len(TREATMENTS), *shape)).astype(np.uint8)
    flat = np.full(shape, 77, np.uint8)
    for window, results in ((eight[0], list(eight[1:])), (flat, [flat] * len(TREATMENTS))):
        scaled = [(item.astype(dtype) * full).astype(dtype) for item in (window, *results)]
        numbers = trial_evidence(scaled[0], scaled[1:])
        assert numbers.shape == (trial_size(),)
        assert np.isfinite(numbers).all()
        np.testing.assert_allclose(numbers, trial_evidence(window, results), rtol=1e-4, atol=1e-4)


def test_noise_and_texture_look_different_though_as_much_is_taken_away() -> None:
    rng = np.random.default_rng(2)
    rows, columns = np.mgrid[0:TRIAL_SIDE, 0:TRIAL_SIDE]
    plain = 128 + 60 * np.sin(rows / 17) * np.cos(columns / 23)
    noise = rng.normal(0, 12, plain.shape)
    texture = 17 * np.sin(columns / 1.5) * (columns > TRIAL_SIDE // 2) * np.sin(rows / 1.7)
    likeness = []
    for added in (noise, texture):
        window = np.rint(np.clip(plain + added, 0, 255)).astype(np.uint8)
        clean = np.rint(plain).astype(np.uint8)
        likeness.append(trial_evidence(window, [clean] * len(TREATMENTS))[3])
    assert abs(likeness[0]) < 0.1
    assert likeness[1] > 0.3


@pytest.mark.parametrize(("damage", "shown"), [("film-grain/12", True), ("awgn/10", False), ("clean", False)])
def test_a_trial_shows_grain_and_no_white_noise(damage: str, shown: bool) -> None:
    picture = np.asarray(bundled.astronaut()[:256, :256])
    damaged = get_recipe(damage).apply(picture, seed=1).image
    if damaged.dtype != np.uint8:
        damaged = np.rint(np.clip(damaged, 0, 1) * 255).astype(np.uint8)
    assert predicted(damaged)[("degrain",)].shown == shown
    assert not any(gain.shown for treatment, gain in predicted(damaged).items() if treatment != ("degrain",))


def predicted(picture: np.ndarray) -> dict[tuple[str, ...], Gain]:
    runner = Runner(RunSettings(device="cpu", precision="float32"))
    found, evidence = estimate_with_evidence(
        picture, scratch_mask=None, scratch_coverage=UNKNOWN, jpeg_table_quality=None
    )
    (tried,) = with_trials([evidence], [trial_window(picture)], [found], runner=runner)
    return {gain.treatment: gain for gain in predict_gains(tried)}


def test_unknown_evidence_stays_unknown_and_the_others_keep_their_places() -> None:
    runner = Runner(RunSettings(device="cpu", precision="float32"))
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 8, (3, 48, 40, 3))
    windows = [
        np.uint8((bundled.astronaut()[y : y + 48, 200:240] + noise[y // 100]).clip(0, 255)) for y in (0, 100, 200)
    ]
    evidence = [np.zeros(5, np.float32), None, np.ones(5, np.float32)]
    found = with_trials(evidence, windows, [None] * 3, runner=runner)
    assert found[1] is None
    for index in (0, 2):
        alone = with_trials([evidence[index]], [windows[index]], [None], runner=runner)[0]
        assert alone is not None
        assert found[index] is not None
        np.testing.assert_allclose(found[index], alone, rtol=1e-3, atol=1e-3)
    assert with_trials([None], windows[:1], [None], runner=runner) == [None]
