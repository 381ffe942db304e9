"""Suites, protocols, statistics and published rows of benchmarks; known figures on the standard sets."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from models import registry
from models.benchmarking import baselines, code_identity, scoring
from models.benchmarking.baselines import (
    BICUBIC,
    INPUT,
    baseline_for,
    check_method,
    method_identity,
    restore,
    told_estimate,
    unfit_reason,
)
from models.benchmarking.code_identity import code_sha256
from models.benchmarking.cost import cost_of, counted_gmac
from models.benchmarking.detection import check_detector
from models.benchmarking.protocols import Protocol, check_size, default_protocol
from models.benchmarking.published import PUBLISHED, published_for
from models.benchmarking.scoring import METRICS, Result, metrics_identity, models_named, score
from models.benchmarking.statistics import mean_of, median_of, router_power, summarize, worst_mean
from models.benchmarking.suites import SUITES, get_suite, suite_ids
from models.degradations.recipes import get_recipe
from models.method import ArrayFiller
from models.metrics.naturalness import niqe, own_niqe_model, write_niqe_model
from models.registry import METHODS, UnknownMethodError, get_method, written_in
from models.run import Runner, RunSettings

DATA = Path(os.environ.get("LACUNA_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner(RunSettings(device="cpu", precision="float32"))


def _result(restored: np.ndarray, reference: np.ndarray, **protocol: object) -> Result:
    mask = protocol.pop("mask", None)
    return Result(restored=restored, reference=reference, mask=mask, protocol=Protocol(**protocol))  # type: ignore[arg-type]


def _noise(shape: tuple[int, ...], sigma: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, sigma / 255, shape).astype(np.float32)


def test_summary_by_hand() -> None:
    values = [float(number) for number in range(1, 41)]
    found = summarize(values, inputs=[2.0] * 40)
    assert (found.n, found.mean, found.median) == (40, 20.5, 20.5)
    assert found.worst_5_percent == 1.5  # the worst two of forty
    assert found.made_worse == 1 / 40
    assert worst_mean([1.0, 2.0, 9.0], higher_is_better=False) == 9.0
    assert median_of([3.0, 1.0, 2.0]) == 2.0


def test_mean_does_not_depend_on_the_order() -> None:
    values = list(np.random.default_rng(1).normal(30, 4, 999))
    assert mean_of(values) == mean_of(values[::-1]) == mean_of(sorted(values))


def test_summaries_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        summarize([])
    with pytest.raises(ValueError, match="1 values and 2 inputs"):
        summarize([1.0], inputs=[1.0, 2.0])
    with pytest.raises(ValueError, match="no scores"):
        router_power({})


def test_router_power_by_hand() -> None:
    scores = {"a": {1: 10.0, 2: 20.0}, "b": {1: 14.0, 2: 12.0}}
    power = router_power(scores, inputs={1: 9.0, 2: 21.0})
    assert power.oracle.mean == 17.0
    assert power.oracle.made_worse == 0.5
    assert (power.best_single_id, power.best_single and power.best_single.mean) == ("a", 15.0)
    assert power.random == 14.0
    assert power.random_regret == 3.0
    assert dict(power.regret) == {"a": 2.0, "b": 4.0}
    assert dict(power.chosen) == {"a": 1, "b": 1}


def test_router_power_with_a_method_that_fits_some_cases_only() -> None:
    power = router_power({"input": {1: 10.0, 2: 20.0}, "fill": {1: 30.0}})
    assert power.oracle.mean == 25.0
    assert power.best_single_id == "input"
    assert power.random == 20.0
    assert dict(power.regret) == {"input": 10.0, "fill": 0.0}
    judged = router_power({"a": {1: 10.0}}, routers={"plan": {1: 12.0}})
    assert (judged.oracle.mean, dict(judged.regret)["plan"], dict(judged.chosen)) == (10.0, -2.0, {"a": 1})
    assert router_power({"a": {1: 1.0}, "b": {2: 1.0}}).best_single is None


def test_psnr_follows_the_protocol() -> None:
    reference = np.full((40, 40, 3), 0.5, np.float32)
    restored = reference.copy()
    restored[:4] += 0.1
    assert score(_result(restored, reference, border=4))["psnr_db"] == 100.0
    assert score(_result(restored, reference))["psnr_db"] == pytest.approx(10 + 20, abs=1e-3)
    mask = np.zeros((40, 40), bool)
    mask[:4] = True
    inside = score(_result(restored, reference, mask=mask, region="hole"))
    assert inside["psnr_db"] == pytest.approx(20, abs=1e-3)
    assert inside["ssim"] is None


def test_noise_of_sigma_25_is_20_17_db_unless_clipped() -> None:
    reference = np.full((400, 400), 0.5, np.float32)
    numbers = score(_result(reference + _noise((400, 400), 25), reference, channel="grey"))
    assert numbers["psnr_unclipped_db"] == pytest.approx(20 * math.log10(255 / 25), abs=0.05)


def test_metrics_without_their_models_are_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LACUNA_LPIPS_HEADS", raising=False)
    monkeypatch.delenv("LACUNA_BRISQUE_MODEL", raising=False)
    monkeypatch.delenv("LACUNA_BRISQUE_RANGE", raising=False)
    picture = np.random.default_rng(0).random((224, 224, 3), np.float32)
    numbers = score(_result(picture, picture))
    assert (numbers["lpips"], numbers["brisque"]) == (None, None)
    assert (numbers["ms_ssim"], numbers["colour_shift"], numbers["detail"]) == (1.0, 0.0, 1.0)
    assert {name for name, *_ in metrics_identity()} == {metric.id for metric in METRICS}


def test_niqe_is_measured_by_the_shipped_model_unless_another_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    picture = np.random.default_rng(0).random((224, 224, 3), np.float32)
    other = own_niqe_model()
    write_niqe_model(replace(other, mean=other.mean + 1), tmp_path / "other.npz", files=[], command="", data="")
    found = []
    for named in ("", str(tmp_path / "other.npz")):
        monkeypatch.setenv("LACUNA_NIQE_MODEL", named)
        for cached in (scoring._niqe_model, scoring._file_sha256):
            cached.cache_clear()
        (identity,) = (row for row in metrics_identity() if row[0] == "niqe")
        found.append((score(_result(picture, picture))["niqe"], models_named()["niqe"], identity))
    for cached in (scoring._niqe_model, scoring._file_sha256):
        cached.cache_clear()
    (first, second) = found
    assert first[0] == niqe(picture, model=own_niqe_model())
    assert first[1] == f"own model {own_niqe_model().sha256[:8]}"
    assert second[1].startswith("another model ")
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got shape .*expected that of its reference"):
        score(_result(np.zeros((20, 20), np.float32), np.zeros((20, 24), np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_result_that_is_not_finite_is_refused(value: float) -> None:
    reference = np.full((20, 20), 0.5, np.float32)
    restored = reference.copy()
    restored[3, 4] = value
    with pytest.raises(ValueError, match="restored: got NaN or infinity in 1 of 400 values"):
        score(_result(restored, reference))


def test_a_picture_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="tiny: got 18 x 40 pixels, expected at least 19"):
        check_size(40, 18, protocol=default_protocol(scale=4), needed=4, name="tiny")
    check_size(19, 40, protocol=default_protocol(scale=4), needed=4, name="tiny")


def test_unknown_suite_and_method_get_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'denoise-gray'"):
        get_suite("denoise-grey")
    with pytest.raises(UnknownMethodError, match="did you mean 'biharmonic'"):
        check_method("biharmonik")
    with pytest.raises(ValueError, match="did you mean 'top-hat'"):
        check_detector("tophat")


def test_every_suite_names_what_exists() -> None:
    assert len(set(suite_ids())) == len(SUITES)
    for suite in SUITES:
        for method in (*suite.methods, *suite.if_available):
            (check_detector if suite.detection else check_method)(method)
        for group in suite.groups:
            assert group.pairs is not None or get_recipe(group.level).id == group.level
        assert bool(suite.groups) != suite.detection


def test_published_rows_belong_to_a_group_and_name_their_source() -> None:
    groups = {(suite.id, group.dataset, group.level) for suite in SUITES for group in suite.groups}
    for row in PUBLISHED:
        assert (row.suite, row.dataset, row.level) in groups
        assert row.source
        assert 10 < row.psnr_db < 50
    assert {row.method for row in published_for("inpaint-50")} >= {"Deep Image Prior"}
    assert published_for("clean") == ()


def test_methods_that_do_not_fit_say_why() -> None:
    assert unfit_reason("biharmonic", scale=1, has_mask=False) == (
        "biharmonic fills holes and needs a mask, and there is none"
    )
    assert unfit_reason("denoise", scale=4, has_mask=False) == "denoise does not enlarge 4 times"
    assert unfit_reason(BICUBIC, scale=1, has_mask=False) == "bicubic-upscale changes the size"
    assert unfit_reason(INPUT, scale=1, has_mask=False) is None
    assert (baseline_for(1), baseline_for(2)) == (INPUT, BICUBIC)


def test_bicubic_enlarges_and_input_stays(runner: Runner) -> None:
    small = np.random.default_rng(0).random((12, 10), np.float32)
    options = {"runner": runner, "mask": None, "estimate": None, "seed": 0}
    assert restore(BICUBIC, small, scale=3, **options).shape == (36, 30)  # type: ignore[arg-type]
    assert np.array_equal(restore(INPUT, small, scale=1, **options), small)  # type: ignore[arg-type]


def test_channels_lost_on_their_own_are_filled_on_their_own(runner: Runner) -> None:
    made = get_recipe("rows/40").apply(np.full((32, 32, 3), 0.5, np.float32), seed=0)
    assert made.mask is not None
    assert made.mask.shape == (32, 32, 3)
    filled = restore("telea", made.image, runner=runner, mask=made.mask, scale=1, estimate=None, seed=0)
    assert np.array_equal(filled[~made.mask], made.image[~made.mask])
    assert np.abs(filled - 0.5).max() < 0.02


def test_only_gaussian_noise_and_blur_are_told() -> None:
    told = told_estimate("awgn/25")
    assert told is not None
    assert told.noise_sigma.value == 25
    blurred = told_estimate("blur/1.6")
    assert blurred is not None
    assert (blurred.blur_sigma_px.value, blurred.noise_sigma.value) == (1.6, None)
    noisy = told_estimate("noisy-blur/5")
    assert noisy is not None
    assert (noisy.blur_sigma_px.value, noisy.noise_sigma.value) == (1.6, None)
    assert told_estimate("varying:awgn/25") is None
    assert told_estimate("jpeg/10") is None


@pytest.mark.parametrize("method_id", [method.card.id for method in METHODS if method.card.weights == "denoise"])
def test_counted_cost_agrees_with_the_card(method_id: str) -> None:
    cost = cost_of(method_id)
    assert cost.parameters is not None
    assert cost.parameters > 1000
    assert counted_gmac(method_id) == pytest.approx(cost.gmac_per_megapixel, rel=0.02)


def test_cost_of_what_computes_nothing() -> None:
    assert cost_of(INPUT).gmac_per_megapixel is None
    assert cost_of("biharmonic").parameters is None
    assert method_identity(INPUT) == method_identity(INPUT)
    assert method_identity("denoise")[2] is not None


@pytest.mark.parametrize(("made", "part"), [("fill+", "fill"), ("regional", "deblur")])
def test_a_method_made_of_others_is_measured_anew_with_them(
    made: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = method_identity(made), Runner.weights_sha256
    method_identity.cache_clear()
    monkeypatch.setattr(Runner, "weights_sha256", lambda name: "0" * 64 if name == part else real(name))
    assert method_identity(made) != before
    method_identity.cache_clear()


def test_a_method_made_of_another_files_class_is_measured_anew_when_its_own_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("mine")
    module.__file__ = str(tmp_path / "mine.py")
    card = replace(get_method("telea").card, id="mine")
    monkeypatch.setitem(registry._METHODS_BY_ID, "mine", ArrayFiller(card, fill=lambda picture, hole: picture))
    monkeypatch.setitem(registry._MODULES_BY_ID, "mine", module)
    monkeypatch.setattr(baselines, "code_sha256", lambda path: path.read_bytes())
    found = set()
    for text in ("one", "another"):
        (tmp_path / "mine.py").write_text(text)
        method_identity.cache_clear()
        found.add(method_identity("mine"))
    method_identity.cache_clear()
    assert len(found) == 2


def test_every_method_has_a_file() -> None:
    assert {written_in(method.card.id).parent.name for method in METHODS} == {"methods"}


def test_code_identity_follows_imports() -> None:
    root = Path(code_identity.__file__).parents[1]
    method = root / "methods" / "residual_unet.py"
    reached = {path.relative_to(root).as_posix() for path in code_identity.reached(method)}
    assert {"methods/residual_unet.py", "blocks.py", "deconvolution.py", "degradations/blur.py"} <= reached
    assert "registry.py" not in reached
    assert "training/loop.py" not in reached
    assert len(code_sha256(method)) == 64
    assert code_sha256(method) != code_sha256(root / "methods" / "classical_filters.py")


def test_metrics_that_do_not_apply_are_null() -> None:
    small = np.random.default_rng(0).random((100, 100), np.float32)
    numbers = score(_result(small, small, channel="grey"))
    assert (numbers["ms_ssim"], numbers["colour_shift"]) == (None, None)
    smooth = np.full_like(small, 0.5)
    smoothed = score(_result(0.5 * small + 0.5 * smooth, small, channel="grey"))
    assert smoothed["detail"] == pytest.approx(0.25, abs=1e-3)  # half the gradients, a quarter of their energy
