"""The whole estimate with the shipped weights: degraded pictures are measured, clean ones are not accused."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from models.degradations.jpeg import JpegPass, encode_decode
from models.estimation.classical_jpeg import JpegTraces
from models.estimation.estimate import combine_jpeg, combine_noise, estimate_degradation
from models.estimation.network import EstimatorNetwork, decode, encode
from models.estimation.training import TrainingSettings, train
from models.estimation.training_data import BatchSettings, draw_batch, draw_text
from models.types import DegradationEstimate, Estimated

NONE = Estimated(value=0.0, confidence=1.0)
DATA = Path(os.environ.get("LACUNA_DATA", Path(__file__).parents[3] / "shared" / "data"))


def _estimate(image: np.ndarray, *, table: float | None = None, mask: np.ndarray | None = None) -> DegradationEstimate:
    return estimate_degradation(image, scratch_mask=mask, scratch_coverage=NONE, jpeg_table_quality=table)


def _noisy(image: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).round().astype(np.uint8)


def _accused(estimate: DegradationEstimate) -> list[str]:
    """Return what a router with cautious thresholds would treat."""
    limits = {"noise_sigma": 4.5, "blur_sigma_px": 0.75, "jpeg_quality": -80.0, "effective_scale": -0.8}
    found = []
    for name, limit in limits.items():
        measured = getattr(estimate, name)
        sign = -1 if limit < 0 else 1
        if measured.confidence >= 0.5 and measured.value is not None and sign * measured.value >= limit:
            found.append(f"{name} {measured}")
    return found


@pytest.mark.parametrize(
    "name", ["astronaut", "chelsea", "coffee", "grass", "gravel", "brick", "camera", "text", "page"]
)
def test_clean_pictures_and_textures_are_not_accused(name: str) -> None:
    assert _accused(_estimate(getattr(data, name)())) == []


@pytest.mark.parametrize("sigma", [10.0, 25.0, 50.0])
@pytest.mark.parametrize("grey", [False, True])
def test_noise_is_measured_and_sure(sigma: float, grey: bool) -> None:
    image = data.camera() if grey else data.astronaut()
    measured = _estimate(_noisy(image, sigma)).noise_sigma
    assert measured.value == pytest.approx(sigma, rel=0.12)
    assert measured.confidence >= 0.5


def test_sixteen_bits_say_the_same_as_eight() -> None:
    image = _noisy(data.camera(), 15)
    assert _estimate(image.astype(np.uint16) * 257) == _estimate(image)


@pytest.mark.parametrize("quality", [10, 40, 75])
def test_jpeg_quality_after_decoding(quality: int) -> None:
    measured = _estimate(encode_decode(data.astronaut(), JpegPass(quality=quality))).jpeg_quality
    assert measured.value == pytest.approx(quality, abs=1)
    assert measured.confidence >= 0.5


def test_tables_are_exact_unless_an_earlier_compression_was_stronger() -> None:
    strong = encode_decode(data.astronaut(), JpegPass(quality=30))
    again = encode_decode(strong, JpegPass(quality=95, subsampling="444"))
    assert _estimate(again, table=95.0).jpeg_quality.value == pytest.approx(30, abs=1)
    once = encode_decode(data.astronaut(), JpegPass(quality=82))
    assert _estimate(once, table=82.5).jpeg_quality == Estimated(value=82.5, confidence=1.0)


def test_blur_is_found() -> None:
    blurred = _estimate(cv2.GaussianBlur(data.astronaut(), (0, 0), 1.5))
    assert blurred.blur_sigma_px.value == pytest.approx(1.5, abs=0.4)
    assert blurred.effective_scale.value is not None
    assert blurred.effective_scale.value < 0.7


def test_damage_is_avoided_and_its_coverage_passed_through() -> None:
    image = data.astronaut()
    mask = np.zeros(image.shape[:2], np.uint8)
    image[:256, :] = np.random.default_rng(1).integers(0, 256, (256, 512, 3))
    mask[:256] = 255
    coverage = Estimated(value=0.5, confidence=0.7)
    found = estimate_degradation(image, scratch_mask=mask, scratch_coverage=coverage, jpeg_table_quality=None)
    assert found.scratch_coverage == coverage
    assert found.noise_sigma.value is not None
    assert found.noise_sigma.value < 4.5


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("size", [1, 20, 33, 64, 200])
def test_flat_and_tiny_pictures_end_without_an_accusation(value: int, size: int) -> None:
    assert _accused(_estimate(np.full((size, size + 3), value, np.uint8))) == []


def test_a_large_memory_map_costs_a_bounded_amount(tmp_path: Path) -> None:
    large = np.lib.format.open_memmap(tmp_path / "large.npy", mode="w+", dtype=np.uint8, shape=(6000, 6000, 3))
    large[2000:2512, 2000:2512] = data.astronaut()
    assert _estimate(np.load(tmp_path / "large.npy", mmap_mode="r")).noise_sigma.value is not None


def test_same_picture_same_estimate() -> None:
    image = _noisy(data.astronaut(), 12)
    assert _estimate(image) == _estimate(image)


def test_wrong_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="alpha"):
        _estimate(np.zeros((64, 64, 4), np.uint8))
    with pytest.raises(ValueError, match="scratch_mask"):
        _estimate(np.zeros((64, 64), np.uint8), mask=np.zeros((32, 32), bool))
    with pytest.raises(ValueError, match="nonzero = damaged"):
        _estimate(np.zeros((64, 64), np.uint8), mask=np.zeros((64, 64), np.float32))


def test_the_network_never_raises_the_measured_noise() -> None:
    classical, learned = Estimated(value=6.0, confidence=0.4), Estimated(value=20.0, confidence=0.9)
    combined = combine_noise(classical, learned)
    assert combined.value == 6.0
    assert combined.confidence < 0.5
    assert combine_noise(classical, Estimated(value=1.0, confidence=0.9)).value == 1.0


def test_compression_is_believed_only_as_far_as_its_grid_shows() -> None:
    no_grid = JpegTraces(quality=Estimated(value=100.0, confidence=0.8), offset_y=0, offset_x=0, blockiness=1.0)
    learned = Estimated(value=40.0, confidence=0.9)
    assert combine_jpeg(no_grid, learned, table_quality=None).confidence < 0.5


def test_encoding_is_inverted() -> None:
    values = torch.tensor([[0.0, 0.0, 100.0, 1.0], [25.0, 1.5, 30.0, 0.5], [5.0, 0.7, 90.0, 0.8]])
    assert torch.allclose(decode(encode(values)), values, atol=1e-2)


def test_network_is_small_and_takes_any_number_of_windows() -> None:
    network = EstimatorNetwork()
    assert sum(parameter.numel() for parameter in network.parameters()) <= 200_000
    value, log_scale = network(torch.rand(2, 3, 3, 96, 96))
    assert value.shape == log_scale.shape == (2, 4)


def _photos() -> list[np.ndarray]:
    return [draw_text(np.random.default_rng(seed), height=256, width=256) for seed in range(2)]


def test_batches_are_a_function_of_seed_and_step() -> None:
    settings = BatchSettings(pictures=3, windows=2, candidates=3)
    first = draw_batch(_photos(), seed=4, step=7, settings=settings)
    again = draw_batch(_photos(), seed=4, step=7, settings=settings)
    other = draw_batch(_photos(), seed=4, step=8, settings=settings)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (3, 2, 3, 96, 96)


class _Killed(Exception):  # noqa: N818 - stands for a kill, not for an error
    pass


def test_training_resumes_exactly(tmp_path: Path) -> None:
    batch = BatchSettings(pictures=2, windows=1, candidates=2)
    whole = TrainingSettings(steps=4, seed=3, warm_up=1, checkpoint_every=2)
    straight = train(_photos(), settings=whole, batch=batch)
    checkpoint = tmp_path / "checkpoint.pt"

    def stop(step: int) -> None:
        if step == 2:
            raise _Killed

    with pytest.raises(_Killed):
        train(_photos(), settings=whole, batch=batch, checkpoint=checkpoint, after_step=stop)
    resumed = train(_photos(), settings=whole, batch=batch, checkpoint=checkpoint)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.data
def test_the_87_clean_pictures_are_left_alone() -> None:
    if not (DATA / "test" / "CBSD68").is_dir():
        pytest.skip(f"SKIPPED: no test pictures in {DATA}; set LACUNA_DATA to the folder above test/")
    # These were compressed video or JPEG before they became part of the sets: saying so is no false alarm.
    compressed = {"woman_GT", "foreman", "coastguard", "zebra"}
    names = ("CBSD68", "Set5", "Set14")
    paths = [p for name in names for p in sorted((DATA / "test" / name).glob("*")) if p.suffix in (".png", ".bmp")]
    assert len(paths) == 87
    for path in paths:
        found = _accused(_estimate(np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1])))
        assert [text for text in found if path.stem not in compressed or "jpeg" not in text] == [], path.stem
