"""LPIPS is the published network, the Frechet distance its closed form; fidelity and colour agree with references."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.linalg import sqrtm
from scipy.ndimage import correlate1d
from skimage.color import deltaE_ciede2000, rgb2lab
from torch import Tensor
from torch.nn import functional

from models.metrics.change import colour_shift, detail_retention, over_processing
from models.metrics.distribution import FeatureMoments, collect_moments, frechet_distance
from models.metrics.fidelity import ms_ssim
from models.metrics.perceptual import Backbone, Lpips, load_lpips, lpips, read_lpips, unit_length
from models.weights import WeightsError

# Layer number: (channels out, channels in, kernel side), as torchvision publishes the two classifiers.
_PUBLISHED: dict[Backbone, dict[int, tuple[int, int, int]]] = {
    "alex": {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)},
    "vgg": {
        number: (out, into, 3)
        for number, into, out in (
            *((0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256)),
            *((17, 256, 512), (19, 512, 512), (21, 512, 512), (24, 512, 512), (26, 512, 512), (28, 512, 512)),
        )
    },
}
_WIDTHS: dict[Backbone, tuple[int, ...]] = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}


def _published_files(folder: Path, backbone: Backbone) -> tuple[Path, Path]:
    """Random weights under the names and shapes of the published files."""
    generator = torch.Generator().manual_seed(5)
    classifier: dict[str, Tensor] = {"classifier.1.weight": torch.zeros(4, 4), "classifier.1.bias": torch.zeros(4)}
    for number, (out, into, side) in _PUBLISHED[backbone].items():
        spread = math.sqrt(2 / (into * side * side))
        classifier[f"features.{number}.weight"] = spread * torch.randn(out, into, side, side, generator=generator)
        classifier[f"features.{number}.bias"] = 0.1 * torch.randn(out, generator=generator)
    heads = {
        f"lin{index}.model.1.weight": torch.rand(1, width, 1, 1, generator=generator) / width
        for index, width in enumerate(_WIDTHS[backbone])
    }
    paths = folder / f"{backbone}net.pth", folder / f"{backbone}.pth"
    torch.save(classifier, paths[0])
    torch.save(heads, paths[1])
    return paths


def _model(folder: Path, backbone: Backbone = "alex") -> Lpips:
    return read_lpips(*_published_files(folder, backbone), backbone=backbone)


def _picture(seed: int, height: int = 64, width: int = 70) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return np.round(255 * (smooth - smooth.min()) / (smooth.max() - smooth.min())).astype(np.uint8)


@pytest.mark.parametrize("backbone", ["alex", "vgg"])
def test_lpips_is_a_distance(tmp_path: Path, backbone: Backbone) -> None:
    model = _model(tmp_path, backbone)
    first, second = _picture(1), _picture(2)
    slightly = np.clip(first.astype(int) + 4 * (-1) ** np.arange(70)[None, :, None], 0, 255).astype(np.uint8)
    assert lpips(first, first, model=model) == 0
    there, back = lpips(first, second, model=model), lpips(second, first, model=model)
    near = lpips(slightly, first, model=model)
    assert there is not None
    assert near is not None
    assert there == pytest.approx(back, rel=1e-6)
    assert 0 < near < there


def test_lpips_by_hand(tmp_path: Path) -> None:
    """The same number from the files alone, with functional convolutions and the published constants."""
    files = _published_files(tmp_path, "alex")
    weights, heads = (torch.load(path, weights_only=True) for path in files)
    first, second = _picture(1), _picture(2)

    def features(picture: np.ndarray) -> list[Tensor]:
        x = torch.from_numpy(picture.transpose(2, 0, 1).copy()).float()[None] / 255
        # (2x - 1 - shift) / scale is ImageNet's (x - mean) / deviation with the mean and deviation rounded.
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (x - mean.view(1, 3, 1, 1)) / deviation.view(1, 3, 1, 1)
        collected = []
        for number, (stride, padding) in {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}.items():
            if number in (3, 6):
                x = functional.max_pool2d(x, 3, 2)
            weight, bias = weights[f"features.{number}.weight"], weights[f"features.{number}.bias"]
            x = functional.relu(functional.conv2d(x, weight, bias, stride=stride, padding=padding))
            collected.append(x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10))
        return collected

    expected = 0.0
    for index, (one, other) in enumerate(zip(features(first), features(second), strict=True)):
        weighted = heads[f"lin{index}.model.1.weight"] * (one - other) ** 2
        expected += float(weighted.sum(dim=1).mean())
    assert lpips(first, second, model=read_lpips(*files)) == pytest.approx(expected, rel=1e-5)


def test_lpips_takes_grey_borders_and_safetensors(tmp_path: Path) -> None:
    files = _published_files(tmp_path, "alex")
    model = read_lpips(*files)
    first, second = _picture(1)[:, :, 0], _picture(2)[:, :, 0]
    grey = lpips(first, second, model=model)
    colour = lpips(np.repeat(first[:, :, None], 3, 2), np.repeat(second[:, :, None], 3, 2), model=model)
    assert grey == colour
    inner = lpips(first[4:-4, 4:-4].copy(), second[4:-4, 4:-4].copy(), model=model)
    assert lpips(first, second, model=model, border=4) == inner
    again = [tmp_path / "backbone.safetensors", tmp_path / "heads.safetensors"]
    for source, path in zip(files, again, strict=True):
        save_file(torch.load(source, weights_only=True), path)
    assert lpips(first, second, model=read_lpips(again[0], again[1])) == grey


def test_features_have_unit_length_and_the_published_shapes(tmp_path: Path) -> None:
    model = _model(tmp_path, "vgg")
    maps = model.compared_features(torch.rand(2, 3, 64, 48))
    assert [tuple(m.shape) for m in maps] == [
        (2, width, 64 >> level, 48 >> level) for level, width in enumerate(_WIDTHS["vgg"])
    ]
    lengths = unit_length(torch.randn(2, 5, 4, 4)).square().sum(dim=1)
    assert torch.allclose(lengths, torch.ones_like(lengths))
    assert unit_length(torch.zeros(1, 5, 2, 2)).abs().max() == 0
    alex = _model(tmp_path).compared_features(torch.rand(1, 3, 64, 64))
    assert [m.shape[-1] for m in alex] == [15, 7, 3, 3, 3]


def test_lpips_without_weights_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LACUNA_LPIPS_BACKBONE", raising=False)
    monkeypatch.delenv("LACUNA_LPIPS_HEADS", raising=False)
    assert load_lpips() is None
    assert lpips(_picture(1), _picture(2), model=None) is None
    backbone, heads = _published_files(tmp_path, "alex")
    monkeypatch.setenv("LACUNA_LPIPS_BACKBONE", str(backbone))
    with pytest.raises(ValueError, match="LACUNA_LPIPS_HEADS"):
        load_lpips()
    monkeypatch.setenv("LACUNA_LPIPS_HEADS", str(heads))
    assert isinstance(load_lpips(), Lpips)


def test_lpips_explains_bad_weights_and_pictures(tmp_path: Path) -> None:
    alex, alex_heads = _published_files(tmp_path, "alex")
    vgg, vgg_heads = _published_files(tmp_path, "vgg")
    with pytest.raises(WeightsError, match="torchvision"):
        read_lpips(vgg, alex_heads)
    with pytest.raises(WeightsError, match="LPIPS"):
        read_lpips(vgg, alex_heads, backbone="vgg")
    with pytest.raises(FileNotFoundError):
        read_lpips(tmp_path / "absent.pth", vgg_heads)
    with pytest.raises(ValueError, match="alex, vgg"):
        read_lpips(alex, alex_heads, backbone="resnet")  # type: ignore[arg-type]
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="dictionary"):
        read_lpips(tmp_path / "list.pth", alex_heads)
    model = read_lpips(alex, alex_heads)
    with pytest.raises(ValueError, match="31 px"):
        lpips(_picture(1, 30, 40), _picture(2, 30, 40), model=model)
    assert lpips(_picture(1, 31, 31), _picture(2, 31, 31), model=model) is not None
    with pytest.raises(ValueError, match="one shape"):
        lpips(_picture(1, 40, 40), _picture(2, 40, 50), model=model)


def _moments(features: np.ndarray, batch: int = 17) -> FeatureMoments:
    moments = FeatureMoments()
    for start in range(0, len(features), batch):
        moments.add(features[start : start + batch])
    return moments


def test_moments_do_not_depend_on_the_batches() -> None:
    features = 1e6 + np.random.default_rng(0).normal(size=(101, 5))
    for batch in (1, 7, 101):
        moments = _moments(features, batch)
        assert moments.count == 101
        assert moments.mean == pytest.approx(features.mean(axis=0), rel=1e-12)
        assert moments.covariance == pytest.approx(np.cov(features, rowvar=False), abs=1e-8)


def test_frechet_distance_in_one_dimension() -> None:
    """(m1 - m2)² + (s1 - s2)² for two Gaussians on a line."""
    first, second = np.array([[0.0], [2.0]]), np.array([[4.0], [10.0]])
    expected = 6.0**2 + (math.sqrt(2) - math.sqrt(18)) ** 2
    assert frechet_distance(_moments(first), _moments(second)) == pytest.approx(expected)


def test_frechet_distance_of_shifted_and_scaled_sets() -> None:
    features = np.random.default_rng(1).normal(size=(200, 6)) @ np.random.default_rng(2).normal(size=(6, 6))
    original = _moments(features)
    assert frechet_distance(original, _moments(features[::-1])) == pytest.approx(0, abs=1e-9)
    shift = np.arange(6.0)
    assert frechet_distance(original, _moments(features + shift)) == pytest.approx(float(shift @ shift))
    centred = features - features.mean(axis=0)
    expected = (3 - 1) ** 2 * float(np.trace(np.cov(features, rowvar=False)))
    assert frechet_distance(_moments(centred), _moments(3 * centred)) == pytest.approx(expected)


def test_frechet_distance_agrees_with_the_published_formula() -> None:
    rng = np.random.default_rng(3)
    first, second = (rng.normal(size=(300, 12)) @ rng.normal(size=(12, 12)) + rng.normal(size=12) for _ in range(2))
    one, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    expected = float(((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum())
    expected += float(np.trace(one + other - 2 * np.real(sqrtm(one @ other))))
    distance = frechet_distance(_moments(first), _moments(second))
    assert distance == pytest.approx(expected, rel=1e-8)
    assert distance == pytest.approx(frechet_distance(_moments(second), _moments(first)), rel=1e-9)


def test_frechet_distance_of_fewer_pictures_than_features() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(10, 64)), rng.normal(size=(10, 64))
    value = frechet_distance(_moments(first), _moments(second))
    assert math.isfinite(value)
    assert value > 0
    assert frechet_distance(_moments(first), _moments(first)) == pytest.approx(0, abs=1e-6)


def test_features_of_pictures_are_pooled_and_collected() -> None:
    pictures = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    maps = collect_moments(pictures.split(4), extractor=lambda batch: batch)
    flat = collect_moments([pictures], extractor=lambda batch: batch.mean(dim=(2, 3)))
    assert maps.mean == pytest.approx(flat.mean, abs=1e-6)
    assert frechet_distance(maps, flat) == pytest.approx(0, abs=1e-9)


def test_frechet_explains_bad_input() -> None:
    with pytest.raises(ValueError, match="at least 2 pictures, got 1"):
        frechet_distance(_moments(np.zeros((1, 3))), _moments(np.zeros((4, 3))))
    with pytest.raises(ValueError, match="one extractor"):
        frechet_distance(_moments(np.zeros((4, 2))), _moments(np.zeros((4, 3))))
    with pytest.raises(ValueError, match=r"\(B, 3\)"):
        _moments(np.zeros((4, 3))).add(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="NaN"):
        FeatureMoments().add(np.full((2, 2), np.nan))


def test_ms_ssim_agrees_with_wangs_definition() -> None:
    """Against scipy's Gaussian (valid part) and 2x2 means, in float64, with the exponents of the paper."""
    clean = _picture(3, 192, 208)[:, :, 0].astype(np.float64)
    noisy = np.clip(np.round(clean + np.random.default_rng(0).normal(0, 15, clean.shape)), 0, 255)
    line = np.exp(-((np.arange(11) - 5.0) ** 2) / 4.5)
    line /= line.sum()

    def blurred(plane: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(plane, line, axis=0), line, axis=1)[5:-5, 5:-5]

    product, a, b = 1.0, noisy, clean
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mean_a, mean_b = blurred(a), blurred(b)
        spread = blurred(a * a) - mean_a**2 + blurred(b * b) - mean_b**2
        value = (2 * (blurred(a * b) - mean_a * mean_b) + 58.5225) / (spread + 58.5225)
        if scale == 4:
            value = value * (2 * mean_a * mean_b + 6.5025) / (mean_a**2 + mean_b**2 + 6.5025)
        product *= float(value.mean()) ** weight
        a, b = (cv2.blur(plane, (2, 2), anchor=(0, 0))[::2, ::2] for plane in (a, b))
    assert ms_ssim(noisy.astype(np.uint8), clean.astype(np.uint8)) == pytest.approx(product, abs=1e-6)


def test_colour_shift_agrees_with_scikit_image_and_published_pairs() -> None:
    first, second = _picture(1), _picture(2)
    expected = float(deltaE_ciede2000(rgb2lab(first), rgb2lab(second)).mean())
    assert colour_shift(first, second) == pytest.approx(expected, abs=1e-9)
    # G. Sharma, W. Wu, E. N. Dalal, Color Research and Application 30(1), 2005, table 1: pairs 1, 7, 17 and 25.
    pairs = (
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    )
    for one, other, published in pairs:
        assert float(deltaE_ciede2000(np.array(one), np.array(other))) == pytest.approx(published, abs=5e-5)


def test_over_processing_of_a_clean_picture() -> None:
    clean = _picture(1)
    untouched = over_processing(clean, clean)
    assert untouched.psnr_to_input_db == math.inf
    assert (untouched.changed_fraction, untouched.largest_change, untouched.detail_retention) == (0, 0, 1)
    touched = clean.copy()
    touched[:32] = cv2.GaussianBlur(touched, (0, 0), 2)[:32]
    result = over_processing(touched, clean)
    assert 0 < result.changed_fraction <= 0.5
    assert result.largest_change == np.abs(touched.astype(int) - clean).max()
    assert result.detail_retention == detail_retention(touched, clean)
    assert result.psnr_to_input_db < 60
    assert over_processing(touched, clean, tolerance=255).changed_fraction == 0
