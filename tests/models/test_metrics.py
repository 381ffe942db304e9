"""The metrics agree with reference implementations and with values worked out by hand."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from models.metrics.change import changed_fraction, colour_shift, detail_retention
from models.metrics.fidelity import ms_ssim, psnr_db, ssim
from models.metrics.masks import mask_scores, roc_auc
from models.metrics.planes import select_channel, to_unit


def _pair(shape: tuple[int, ...], sigma: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    clean = cv2.GaussianBlur(rng.random(shape).astype(np.float32), (0, 0), 2)
    clean = (clean - clean.min()) / (clean.max() - clean.min())
    noisy = clean + rng.normal(0, sigma / 255, shape)
    return np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8), np.round(clean * 255).astype(np.uint8)


def test_psnr_agrees_with_scikit_image() -> None:
    noisy, clean = _pair((64, 80, 3))
    assert psnr_db(noisy, clean) == pytest.approx(peak_signal_noise_ratio(clean, noisy), abs=1e-9)
    assert psnr_db(clean, clean) == math.inf


@pytest.mark.parametrize("shape", [(64, 80), (64, 80, 3)])
def test_ssim_agrees_with_scikit_image(shape: tuple[int, ...]) -> None:
    noisy, clean = _pair(shape)
    expected = structural_similarity(
        clean,
        noisy,
        channel_axis=2 if len(shape) == 3 else None,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    assert ssim(noisy, clean) == pytest.approx(expected, abs=1e-6)


def test_border_and_sixteen_bits() -> None:
    noisy, clean = _pair((64, 80))
    cropped = psnr_db(noisy[4:-4, 4:-4], clean[4:-4, 4:-4])
    assert psnr_db(noisy, clean, border=4) == pytest.approx(cropped, abs=1e-12)
    deep = psnr_db(noisy.astype(np.uint16) * 257, clean.astype(np.uint16) * 257)
    assert deep == pytest.approx(psnr_db(noisy, clean), abs=1e-9)


def test_luma_is_that_of_matlab() -> None:
    ends = to_unit(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8))
    assert (select_channel(ends, "y") * 255).tolist() == [pytest.approx([16, 235])]
    assert (select_channel(ends, "grey") * 255).tolist() == [pytest.approx([0, 255])]


def test_floats_are_clipped_and_rounded_when_asked() -> None:
    reference = np.full((16, 16), 1.0)
    assert psnr_db(np.full((16, 16), 1.3), reference) == math.inf
    assert psnr_db(np.full((16, 16), 0.999), reference, round_to_8_bits=True) == math.inf


def test_ms_ssim_is_one_for_equal_pictures_and_falls_with_noise() -> None:
    values = []
    for sigma in (0, 10, 30):
        noisy, clean = _pair((192, 192), sigma)
        values.append(ms_ssim(noisy, clean))
    assert values[0] == pytest.approx(1)
    assert values[0] > values[1] > values[2]
    with pytest.raises(ValueError, match="176"):
        ms_ssim(noisy[:100], clean[:100])


def test_shapes_channels_and_sizes_are_checked() -> None:
    noisy, clean = _pair((32, 32))
    with pytest.raises(ValueError, match="one shape"):
        psnr_db(noisy, clean[:16])
    with pytest.raises(ValueError, match="rgb, y, grey"):
        psnr_db(noisy, clean, channel="lab")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leaves nothing"):
        psnr_db(noisy, clean, border=16)
    with pytest.raises(ValueError, match="11x11"):
        ssim(noisy[:8], clean[:8])


def test_roc_auc_counts_pairs() -> None:
    rng = np.random.default_rng(4)
    score, truth = rng.integers(0, 6, 60), rng.random(60) < 0.4
    above = score[truth][:, None] > score[~truth][None]
    tied = score[truth][:, None] == score[~truth][None]
    assert roc_auc(score, truth) == pytest.approx(float((above + tied / 2).mean()))
    with pytest.raises(ValueError, match="both classes"):
        roc_auc(score, np.ones(60))


def test_mask_scores_by_hand() -> None:
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    found = np.array([1, 1, 0, 1, 0, 0, 0, 0])
    scores = mask_scores(found, truth)
    assert (scores.precision, scores.recall, scores.iou) == (2 / 3, 2 / 3, 0.5)
    assert scores.false_positive_rate == 0.2
    assert mask_scores(np.zeros(8), truth).precision is None


def test_change_metrics() -> None:
    noisy, clean = _pair((64, 64, 3))
    assert colour_shift(clean, clean) == 0
    assert colour_shift(noisy, clean) > 0
    assert detail_retention(clean, clean) == 1
    assert (detail_retention(cv2.GaussianBlur(clean, (0, 0), 3), clean) or 9) < 0.5
    assert detail_retention(np.zeros((8, 8)), np.zeros((8, 8))) is None
    one = clean.copy()
    one[3, 4, 1] ^= 1
    assert changed_fraction(one, clean) == 1 / 64**2
    assert changed_fraction(one, clean, tolerance=1) == 0


def test_detail_retention_leaves_out_repaired_damage() -> None:
    _, clean = _pair((64, 64))
    damaged = clean.copy()
    damaged[20:24] = 255
    where = np.ones((64, 64))
    where[18:26] = 0
    assert detail_retention(clean, damaged, where=where) == pytest.approx(1)


def test_ciede2000_of_a_published_pair() -> None:
    # Grey 119 and 120 differ by about 0.35 in L*, which CIEDE2000 leaves nearly as it is at mid-grey.
    first, second = np.full((16, 16, 3), 119, np.uint8), np.full((16, 16, 3), 120, np.uint8)
    assert 0.2 < colour_shift(first, second) < 0.5
