"""Training of the detector: batches repeat, a resumed run equals an unbroken one, the measures are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.scratches.calibration import CalibrationSettings, calibrate_confidence, choose_thresholds
from models.scratches.detector import load_detector
from models.scratches.evaluation import EvaluationPicture, Histogram, Overlap, evaluation_pictures, print_pictures
from models.scratches.network import NetworkSettings, ScratchUNet, widen
from models.scratches.synthesis import PatchSettings, TrainingData, make_batch, make_patch
from models.scratches.training import Trainer, TrainingSettings, detection_loss, learning_rate


@pytest.fixture(scope="module")
def data() -> TrainingData:
    rng = np.random.default_rng(0)
    overlay = np.zeros((120, 120), np.uint8)
    overlay[50:53, 10:110] = 255
    photographs = tuple(rng.integers(60, 180, (150, 170), dtype=np.uint8) for _ in range(2))
    return TrainingData(benchmark_like=photographs[:1], photographs=photographs[1:], overlays=(overlay,))


def test_batches_are_a_function_of_seed_and_step(data: TrainingData) -> None:
    settings = PatchSettings(side=64)
    first, again, other = (make_batch(data, seed=1, step=step, count=3, settings=settings) for step in (4, 4, 5))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))
    assert first[0].tobytes() != other[0].tobytes()
    assert all(array.shape == (3, 1, 64, 64) and array.dtype == np.float32 for array in first)
    assert first[0].min() >= 0
    assert first[0].max() <= 1
    assert set(np.unique(first[1])) <= {0.0, 1.0}


def _train(data: TrainingData, out: Path, *, steps: int, resume: bool) -> dict[str, torch.Tensor]:
    out.mkdir(exist_ok=True)
    settings = TrainingSettings(steps=4, seed=3, batch=2)
    trainer = Trainer(data, out, settings=settings, patches=PatchSettings(side=32))
    if resume:
        trainer.resume()
    trainer.network.train()
    while trainer.step < steps:
        trainer.train_step()
    trainer.save()
    return trainer.average


def test_a_resumed_run_equals_an_unbroken_one(data: TrainingData, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    unbroken = _train(data, tmp_path / "a", steps=4, resume=False)
    _train(data, tmp_path / "b", steps=2, resume=False)
    resumed = _train(data, tmp_path / "b", steps=4, resume=True)
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_a_widened_network_computes_the_same() -> None:
    torch.manual_seed(0)
    narrow = ScratchUNet(NetworkSettings(widths=(8, 16, 16, 24), blocks=(1, 1, 2, 1))).eval()
    wide = ScratchUNet(NetworkSettings(widths=(16, 24, 32, 32), blocks=(2, 2, 2, 2))).eval()
    picture = torch.rand(1, 1, 64, 48)
    before = wide(picture)
    widen(wide, narrow.state_dict())
    assert torch.allclose(wide(picture), narrow(picture), atol=1e-5)
    assert not torch.allclose(before, wide(picture), atol=1e-3)


def test_shipped_weights_go_on_where_they_are(data: TrainingData, tmp_path: Path) -> None:
    folded = load_detector()
    trainer = Trainer(
        data, tmp_path, settings=TrainingSettings(steps=4, seed=3, batch=2), patches=PatchSettings(side=64)
    )
    trainer.start_from_folded(dict(folded.state_dict()), batches=2)
    pictures = torch.from_numpy(make_batch(data, seed=9, step=0, count=8, settings=PatchSettings(side=128))[0])
    with torch.no_grad():
        shipped = folded(pictures)
        assert torch.allclose(trainer.network.eval()(pictures), shipped, atol=1e-3)
        # With the statistics of a batch of its own it stays near: the norms know what they are to undo.
        near = (trainer.network.train()(pictures) - shipped).abs().mean()
    assert float(near) < 0.3 * float(shipped.abs().mean())


def test_prints_are_drawn_the_same_each_time_and_half_of_them_whole(data: TrainingData) -> None:
    first, again = (list(print_pictures(data, seed=4)) for _ in range(2))
    assert len(first) == 4
    assert all(a.image.tobytes() == b.image.tobytes() for a, b in zip(first, again, strict=True))
    assert [bool(picture.mask.any()) for picture in first] == [True, False, True, False]
    # Paper shows where the emulsion is gone: far lighter than the print.
    damaged = first[0]
    assert damaged.image[damaged.mask].max() > damaged.image[~damaged.mask].mean() + 40


def test_damage_hidden_by_texture_hardly_counts(data: TrainingData) -> None:
    # The photographs are noise of deviation 35 levels: weaker damage is camouflaged, and nothing else is light here.
    settings = PatchSettings(side=64, clean_share=0, plain_share=1, overlay_share=0)
    patches = [make_patch(data, np.random.default_rng(seed), settings) for seed in range(30)]
    damaged = [patch.weight[patch.mask] for patch in patches]
    assert {round(float(weight), 3) for weights in damaged for weight in np.unique(weights)} == {0.15, 1.0}
    shares = [float((weights < 1).mean()) for weights in damaged if len(weights)]
    assert min(shares) < 0.9
    assert max(shares) > 0.1


def test_learning_rate_rises_stays_and_falls() -> None:
    settings = TrainingSettings(steps=1000, seed=0, warmup_steps=100, decay_share=0.3, learning_rate=1.0)
    rates = [learning_rate(step, settings) for step in (0, 99, 600, 850, 1000)]
    assert rates == pytest.approx([0.01, 1.0, 1.0, 0.5, 0.0])


def test_loss_prefers_the_truth() -> None:
    settings = TrainingSettings(steps=1, seed=0)
    masks = torch.zeros(1, 1, 8, 8)
    masks[..., 3, :] = 1
    weights = torch.ones_like(masks)
    right = detection_loss((masks * 2 - 1) * 5, masks, weights, settings=settings)
    wrong = detection_loss((1 - masks * 2) * 5, masks, weights, settings=settings)
    assert float(right) < 0.05 < float(wrong)


def _picture(mask: NDArray[np.bool_]) -> EvaluationPicture:
    contrast = np.where(mask, np.float32(9), np.float32(np.inf))
    return EvaluationPicture(
        image=mask.view(np.uint8), mask=mask, counts=np.ones_like(mask), contrast=contrast, aged=False
    )


def _striped() -> tuple[EvaluationPicture, NDArray[np.uint8]]:
    mask = np.zeros((30, 40), np.bool_)
    mask[10:13] = True
    picture = _picture(mask)
    return picture, np.where(mask, 255, 20).astype(np.uint8)


def test_roc_auc_matches_its_definition() -> None:
    rng = np.random.default_rng(2)
    picture, _ = _striped()
    probability = rng.integers(0, 40, picture.mask.shape).astype(np.uint8)
    histogram = Histogram()
    histogram.add(probability, picture)
    damaged, intact = probability[picture.mask].astype(int), probability[~picture.mask].astype(int)
    pairs = damaged[:, None] - intact[None]
    assert histogram.roc_auc() == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_overlap_counts_pixels() -> None:
    picture, probability = _striped()
    found = probability > 100
    found[12] = False
    overlap = Overlap()
    overlap.add(found, picture)
    assert (overlap.precision, overlap.recall, overlap.iou) == pytest.approx((1.0, 2 / 3, 2 / 3))


def test_calibration_finds_thresholds_between_the_classes() -> None:
    picture, probability = _striped()
    nothing = _picture(picture.mask & False)
    quiet = (nothing, [np.full(picture.mask.shape, 20, np.uint8)])
    thresholds, figures = choose_thresholds([(picture, [probability])], [quiet], settings=CalibrationSettings())
    assert figures["f1"] == 1.0
    assert 20 / 255 < thresholds.low <= thresholds.high <= 1
    points = calibrate_confidence([(picture, [probability]), quiet], thresholds)
    assert points[-1][1] == 1.0
    with pytest.raises(ValueError, match="no thresholds"):
        choose_thresholds([(picture, [probability])], [(nothing, [probability])], settings=CalibrationSettings())


def test_evaluation_pictures_repeat(data: TrainingData) -> None:
    first, second = (list(evaluation_pictures(data, seed=1, side_max=100)) for _ in range(2))
    assert len(first) == 6
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True))
    assert [picture.mask.any() for picture in first[2::3]] == [False, False]


def test_only_damage_of_enough_contrast_counts(data: TrainingData) -> None:
    picture = next(evaluation_pictures(data, seed=1, side_max=100))
    assert np.isinf(picture.contrast[~picture.mask]).all()
    weak = picture.mask & picture.counts & (picture.contrast < 2.0)
    strong = picture.mask & picture.counts & (picture.contrast >= 2.0)
    assert weak.any()
    assert strong.any()
    judged = picture.from_contrast(2.0)
    assert not judged.counts[weak].any()
    assert judged.counts[strong | ~picture.mask].all()
