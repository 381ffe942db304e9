"""NIQE agrees with MATLAB, BRISQUE with its definition; both say None without a model and explain bad input."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from scipy.special import gamma

from models.degradations.resample import resize
from models.metrics.brisque import (
    BrisqueModel,
    brisque,
    brisque_features,
    load_brisque_model,
    read_brisque_model,
)
from models.metrics.naturalness import (
    OWN_MODEL,
    NiqeModel,
    fit_pristine,
    load_niqe_model,
    niqe,
    niqe_features,
    own_niqe_model,
    read_niqe_model,
    write_niqe_model,
)
from models.metrics.scene_statistics import fit_asymmetric, fit_symmetric, half_size, luminance_255

DATA = Path(os.environ.get("LACUNA_DATA", Path(__file__).parents[3] / "shared" / "data"))
PUBLISHED = DATA / "parity" / "NIQE" / "niqe_pris_params.npz"
SET14 = DATA / "test" / "Set14"


def _picture(height: int = 200, width: int = 300, seed: int = 0) -> np.ndarray:
    """A picture of 1/f texture, coloured, uint8: nearer to a photograph than white noise."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for sigma in (0.7, 1.5, 3, 6, 12, 24):
        layer = cv2.GaussianBlur(rng.normal(size=(height, width, 3)), (0, 0), sigma)
        total += layer / layer.std()
    return np.clip(128 + 20 * total, 0, 255).astype(np.uint8)


def _naive_coefficients(plane: np.ndarray, mode: str) -> np.ndarray:
    rows, columns = np.mgrid[-3:4, -3:4]
    window = np.exp(-(rows**2 + columns**2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    mean = correlate(plane, window, mode=mode, cval=0.0)
    deviation = np.sqrt(np.abs(correlate(plane * plane, window, mode=mode, cval=0.0) - mean * mean))
    return (plane - mean) / (deviation + 1)


def _naive_aggd(samples: np.ndarray) -> tuple[float, float, float]:
    """The release's search, word by word: every shape is tried."""
    shapes = np.arange(0.2, 10.001, 0.001)
    table = gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))
    left = math.sqrt(np.mean(samples[samples < 0] ** 2))
    right = math.sqrt(np.mean(samples[samples > 0] ** 2))
    skew = left / right
    ratio = np.mean(np.abs(samples)) ** 2 / np.mean(samples**2)
    wanted = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    return float(shapes[np.argmin((table - wanted) ** 2)]), left, right


def _naive_features(block: np.ndarray) -> list[float]:
    """The 18 features of NIQE of one block of coefficients, as in computefeature.m."""
    shape, left, right = _naive_aggd(block.ravel())
    scale = math.sqrt(gamma(1 / shape) / gamma(3 / shape))
    features = [shape, (left + right) / 2 * scale]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = _naive_aggd((block * np.roll(block, shift, axis=(0, 1))).ravel())
        scale = math.sqrt(gamma(1 / shape) / gamma(3 / shape))
        mean = (right - left) * scale * gamma(2 / shape) / gamma(1 / shape)
        features += [shape, mean, left * scale, right * scale]
    return features


def test_niqe_features_are_those_of_the_release() -> None:
    picture = _picture(192, 192)
    features, sharpness = niqe_features(picture)
    plane = luminance_255(picture)
    coarse = resize(torch.from_numpy(plane)[None, None], height=96, width=96).numpy()[0, 0]
    first, second = _naive_coefficients(plane, "nearest"), _naive_coefficients(coarse, "nearest")
    for index, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        block = first[row * 96 : row * 96 + 96, column * 96 : column * 96 + 96]
        small = second[row * 48 : row * 48 + 48, column * 48 : column * 48 + 48]
        expected = _naive_features(block) + _naive_features(small)
        assert features[index] == pytest.approx(expected, abs=1e-9)
    assert sharpness.shape == (4,)


def test_half_size_is_matlabs_for_even_and_odd_sizes() -> None:
    plane = np.random.default_rng(2).random((50, 64)) * 255
    expected = resize(torch.from_numpy(plane)[None], height=25, width=32).numpy()[0]
    assert half_size(plane) == pytest.approx(expected, abs=1e-9)
    # imresize(x, 0.5) of 5 pixels by hand: centres 1.5, 3.5, 5.5 (counted from 1), mirrored ends.
    line = np.array([[0.0, 0, 0, 0, 256]] * 2)
    taps = np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256
    mirrored = np.array([0, 0, 0, 0, 0, 0, 0, 256, 256, 0, 0, 0])
    by_hand = [float(taps @ mirrored[start : start + 8]) for start in (0, 2, 4)]
    assert half_size(line)[0] == pytest.approx(by_hand, abs=1e-9)


@pytest.mark.parametrize("shape", [0.8, 1.0, 2.0, 3.5])
def test_fits_recover_the_shape_they_were_drawn_from(shape: float) -> None:
    rng = np.random.default_rng(3)
    count = 400_000
    magnitude = rng.gamma(1 / shape, 1.0, count) ** (1 / shape)
    even = magnitude * rng.choice([-1.0, 1.0], count)
    found, deviation = fit_symmetric(even)
    assert found == pytest.approx(shape, rel=0.03)
    assert deviation == pytest.approx(math.sqrt(gamma(3 / shape) / gamma(1 / shape)), rel=0.02)
    # A side is taken in proportion to its scale: 1 on the left, 2 on the right.
    skewed = np.where(rng.random(count) < 1 / 3, -magnitude, 2 * magnitude)
    shapes, left, right = fit_asymmetric(skewed[None])
    assert shapes[0] == pytest.approx(shape, rel=0.05)
    assert right[0] / left[0] == pytest.approx(2, rel=0.02)


@pytest.mark.data
def test_niqe_agrees_with_matlab() -> None:
    """MATLAB R2021a with the published parameters gives 5.72957338 for the luma of Set14's baboon (basicsr, NIQE)."""
    picture = SET14 / "baboon.bmp"
    if not (PUBLISHED.is_file() and picture.is_file()):
        pytest.skip(f"SKIPPED: no {PUBLISHED} or {picture}; set LACUNA_DATA to the folder above parity/ and test/")
    rgb = cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB)
    assert niqe(rgb, model=read_niqe_model(PUBLISHED), channel="y") == pytest.approx(5.72957338, abs=1e-5)


@pytest.mark.data
def test_own_and_published_models_order_damage_alike() -> None:
    if not (PUBLISHED.is_file() and SET14.is_dir()):
        pytest.skip(f"SKIPPED: no {PUBLISHED} or {SET14}; set LACUNA_DATA to the folder above parity/ and test/")
    rng = np.random.default_rng(0)
    for name in ("lenna", "monarch", "barbara"):
        clean = cv2.imread(str(SET14 / f"{name}.bmp"))[:, :, ::-1]
        noisy = np.clip(clean + rng.normal(0, 30, clean.shape), 0, 255) / 255
        blurred = cv2.GaussianBlur(clean, (0, 0), 2.5)
        for model in (read_niqe_model(PUBLISHED), own_niqe_model()):
            values = [niqe(picture, model=model) or 0.0 for picture in (clean, noisy, blurred)]
            assert values[0] < min(values[1:]), (name, values)


def test_own_model_is_the_one_on_its_card() -> None:
    card = json.loads(OWN_MODEL.with_suffix(".json").read_text())
    assert hashlib.sha256(OWN_MODEL.read_bytes()).hexdigest() == card["sha256"] == own_niqe_model().sha256
    assert len(card["files"]) == card["pictures"] > 100
    assert "not comparable" in card["notes"]
    assert np.linalg.eigvalsh(own_niqe_model().covariance).min() > 0
    assert OWN_MODEL.stat().st_size < 40_000


def test_own_model_finds_damage_less_natural() -> None:
    picture, model = _picture(288, 288), own_niqe_model()
    noise = np.random.default_rng(1).normal(0, 40, picture.shape)
    clean = niqe(picture, model=model)
    noisy = niqe(np.clip(picture + noise, 0, 255) / 255, model=model)
    assert clean is not None
    assert noisy is not None
    assert 0 < clean < noisy


def test_niqe_is_the_same_for_every_depth_and_border() -> None:
    picture, model = _picture(200, 210), own_niqe_model()
    value = niqe(picture, model=model)
    assert niqe(picture.astype(np.uint16) * 257, model=model) == value
    assert niqe(picture / 255, model=model) == value
    padded = np.pad(picture, ((3, 3), (3, 3), (0, 0)))
    assert niqe(padded, model=model, border=3) == value
    assert niqe(picture, model=model, channel="y") != value


def test_niqe_without_model_or_structure_is_none() -> None:
    assert niqe(_picture(), model=None) is None
    assert niqe(np.full((200, 200), 77, np.uint8), model=own_niqe_model()) is None


def test_niqe_explains_bad_input() -> None:
    model = own_niqe_model()
    with pytest.raises(ValueError, match="96x96"):
        niqe(_picture(90, 300), model=model)
    with pytest.raises(ValueError, match="two blocks"):
        niqe(_picture(100, 100), model=model)
    with pytest.raises(ValueError, match="grey, y"):
        niqe(_picture(), model=model, channel="lab")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(36,\)"):
        NiqeModel(mean=np.zeros(35), covariance=np.eye(36))
    with pytest.raises(ValueError, match="sharp blocks"):
        fit_pristine([_picture()])


def test_model_files_round_trip_and_name_what_they_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fit_pristine(_picture(400, 400, seed) for seed in range(12))
    for name in ("a", "b"):
        write_niqe_model(model, tmp_path / f"{name}.npz", files=["x.png"], command="", data="")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = read_niqe_model(tmp_path / "a.npz")
    assert np.array_equal(again.covariance, model.covariance)
    monkeypatch.delenv("LACUNA_NIQE_MODEL", raising=False)
    assert load_niqe_model() is None
    monkeypatch.setenv("LACUNA_NIQE_MODEL", str(tmp_path / "a.npz"))
    loaded = load_niqe_model()
    assert loaded is not None
    assert loaded.sha256 == again.sha256
    np.savez(tmp_path / "published.npz", mu_pris_param=model.mean[None], cov_pris_param=model.covariance)
    assert np.array_equal(read_niqe_model(tmp_path / "published.npz").mean, model.mean)
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(ValueError, match="weights"):
        read_niqe_model(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        read_niqe_model(tmp_path / "absent.npz")


def test_the_command_fits_and_writes_a_card(tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for seed in range(8):
        cv2.imwrite(str(folder / f"{seed}.png"), _picture(300, 400, seed))
    command = [sys.executable, "-m", "models.metrics.naturalness", "--fit", str(folder), "--out"]
    done = subprocess.run([*command, str(tmp_path / "m.npz")], capture_output=True, text=True, check=True)
    assert "not comparable" in done.stdout
    card = json.loads((tmp_path / "m.json").read_text())
    assert card["files"] == [f"{seed}.png" for seed in range(8)]
    assert read_niqe_model(tmp_path / "m.npz").sha256 == card["sha256"]


def test_brisque_features_are_those_of_the_release() -> None:
    picture = _picture(120, 131)
    plane, expected = luminance_255(picture), []
    for scale in range(2):
        plane = half_size(plane) if scale else plane
        coefficients = _naive_coefficients(plane, "constant")
        shapes = np.arange(0.2, 10.001, 0.001)
        table = gamma(1 / shapes) * gamma(3 / shapes) / gamma(2 / shapes) ** 2
        square = np.mean(coefficients**2)
        expected += [shapes[np.argmin(np.abs(square / np.mean(np.abs(coefficients)) ** 2 - table))], square]
        for shift in ((0, 1), (1, 0), (1, 1), (-1, 1)):
            shape, left, right = _naive_aggd((coefficients * np.roll(coefficients, shift, axis=(0, 1))).ravel())
            mean = (right - left) * math.sqrt(gamma(1 / shape) / gamma(3 / shape))
            expected += [shape, mean * gamma(2 / shape) / gamma(1 / shape), left**2, right**2]
    assert brisque_features(picture) == pytest.approx(expected, abs=1e-9)


def _write_model(folder: Path, *, kernel: str = "rbf", total: int = 2) -> tuple[Path, Path]:
    regression, ranges = folder / "allmodel", folder / "allrange"
    regression.write_text(
        f"svm_type epsilon_svr\nkernel_type {kernel}\ngamma 0.05\nnr_class 2\ntotal_sv {total}\nrho -40\nprobA 5\nSV\n"
        "30 1:-0.5 2:0.25 36:1 \n-12.5 3:0.75 \n"
    )
    lines = "".join(f"{index} {-index} {index}\n" for index in range(1, 36))
    ranges.write_text(f"x\n-1 1\n{lines}")
    return regression, ranges


def test_regression_is_evaluated_as_libsvm_does(tmp_path: Path) -> None:
    model = read_brisque_model(*_write_model(tmp_path))
    features = np.arange(1, 37) * 0.5
    scaled = np.full(36, 0.5)
    scaled[35] = 0  # svm-scale leaves out a feature that its range does not name
    first, second = np.zeros(36), np.zeros(36)
    first[[0, 1, 35]], second[2] = (-0.5, 0.25, 1), 0.75
    expected = 30 * math.exp(-0.05 * ((first - scaled) ** 2).sum()) + 40
    expected -= 12.5 * math.exp(-0.05 * ((second - scaled) ** 2).sum())
    assert model.scaled(features) == pytest.approx(scaled)
    assert model.predict(features) == pytest.approx(expected, abs=1e-12)
    assert isinstance(brisque(_picture(), model=model), float)


def test_brisque_without_model_or_structure_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("LACUNA_BRISQUE_MODEL", "LACUNA_BRISQUE_RANGE"):
        monkeypatch.delenv(variable, raising=False)
    assert load_brisque_model() is None
    assert brisque(_picture(), model=None) is None
    model = load_brisque_model(*_write_model(tmp_path))
    assert isinstance(model, BrisqueModel)
    assert brisque(np.zeros((64, 64), np.uint8), model=model) is None


def test_brisque_explains_bad_input(tmp_path: Path) -> None:
    regression, ranges = _write_model(tmp_path)
    with pytest.raises(ValueError, match="both"):
        load_brisque_model(regression)
    with pytest.raises(ValueError, match="16x16"):
        brisque_features(_picture(12, 40))
    with pytest.raises(ValueError, match="'x'"):
        read_brisque_model(regression, regression)
    with pytest.raises(ValueError, match="rbf"):
        read_brisque_model(_write_model(tmp_path, kernel="linear")[0], ranges)
    with pytest.raises(ValueError, match="support vectors"):
        read_brisque_model(_write_model(tmp_path, total=5)[0], ranges)
