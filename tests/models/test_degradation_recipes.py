"""Recipes: a pure function of picture, id and seed; exact counts; masks that agree with what was changed."""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.degradations.blur import WindowedGaussianBlur
from models.degradations.fading import ColourJitter, Yellowing
from models.degradations.jpeg import JpegPass, encode_decode
from models.degradations.layer_damage import LayerDamage
from models.degradations.mixtures import JPEG_EDGES, TOTAL_LEVELS, Severity, combinations
from models.degradations.noise import GaussianNoise, SaltAndPepperNoise
from models.degradations.paper_layers import PAPER_LAYERS
from models.degradations.pixel_loss import HOLE_RATIO_BINS, IrregularHoles, PixelLoss, RowLoss
from models.degradations.recipes import get_recipe, recipe_ids
from models.degradations.resample import UnevenLowResolution, resize
from models.degradations.single_faults import scaled_quality
from models.degradations.spatial import blend_versions, smooth_field, version_weights

VARYING_IDS = tuple(f"varying:{name}" for name in recipe_ids() if name != "clean")
# Nothing of these is drawn: the seed cannot matter.
_SEEDLESS = ("jpeg/", "jpeg-420/", "blur/", "box-blur/", "bicubic/", "clean")


def _picture(*, height: int = 96, width: int = 131, channels: int = 3) -> NDArray[np.uint8]:
    rng = np.random.default_rng(11)
    planes = [cv2.GaussianBlur(rng.random((height, width), np.float32), (0, 0), 3) for _ in range(channels)]
    stretched = [30 + 190 * (plane - plane.min()) / (plane.max() - plane.min()) for plane in planes]
    picture: NDArray[np.uint8] = np.stack(stretched, axis=2).astype(np.uint8)
    return picture[:, :, 0] if channels == 1 else picture


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("recipe_id", recipe_ids() + VARYING_IDS)
def test_is_a_pure_function_of_picture_id_and_seed(recipe_id: str, channels: int) -> None:
    picture = _picture(channels=channels)
    before = picture.copy()
    recipe = get_recipe(recipe_id)
    first, second, other = (recipe.apply(picture, seed=seed) for seed in (3, 3, 4))
    assert recipe.id == recipe_id
    assert np.array_equal(picture, before)
    assert first.image.tobytes() == second.image.tobytes()
    assert first.image.dtype == first.reference.dtype == np.float32
    assert first.provenance == second.provenance
    assert json.loads(json.dumps(first.provenance)) == json.loads(json.dumps(second.provenance))
    if not recipe_id.startswith(_SEEDLESS):
        assert first.image.tobytes() != other.image.tobytes()
        assert first.provenance["steps"] != other.provenance["steps"]
    if recipe_id != "clean" and recipe.scale == 1:
        assert not np.array_equal(first.image, first.reference)


@pytest.mark.parametrize("recipe_id", recipe_ids() + VARYING_IDS)
def test_clipped_pictures_survive_an_eight_bit_file(recipe_id: str) -> None:
    degraded = get_recipe(recipe_id).apply(_picture(), seed=0)
    assert degraded.image.shape[0] * degraded.scale == degraded.reference.shape[0]
    assert degraded.image.shape[1] * degraded.scale == degraded.reference.shape[1]
    if degraded.clipped:
        stored = np.rint(degraded.image * 255).astype(np.uint8)
        assert np.array_equal(stored.astype(np.float32) / np.float32(255), degraded.image)
    else:
        assert "awgn" in recipe_id


@pytest.mark.parametrize(
    "recipe_id", ["pixels/50", "rows/60", "irregular-holes/0.2-0.3", "scratches/synthetic", "tears"]
)
@pytest.mark.parametrize("prefix", ["", "varying:"])
@pytest.mark.parametrize("channels", [1, 3])
def test_masks_mark_what_changed(recipe_id: str, prefix: str, channels: int) -> None:
    degraded = get_recipe(prefix + recipe_id).apply(_picture(channels=channels), seed=1)
    assert degraded.mask is not None
    assert degraded.mask.dtype == np.bool_
    assert degraded.mask.any()
    assert degraded.mask.ndim == (3 if channels == 3 and recipe_id == "rows/60" else 2)
    change = np.abs(degraded.image - degraded.reference)
    if degraded.mask.ndim < change.ndim:
        change = change.max(axis=2)
    assert (change[degraded.mask] > 2 / 255).all()
    # Lost pixels alone differ; damage of the surface has a faint rim below a tenth of full opacity.
    rim = 0.0 if recipe_id in ("pixels/50", "rows/60", "irregular-holes/0.2-0.3") else 0.13
    assert change[~degraded.mask].max() <= rim


def test_known_pixels_of_float_pictures_keep_their_exact_value() -> None:
    picture = np.random.default_rng(0).random((40, 50), np.float32)
    degraded = get_recipe("pixels/50").apply(picture, seed=0)
    assert degraded.mask is not None
    assert np.array_equal(degraded.image[~degraded.mask], picture[~degraded.mask])


@pytest.mark.parametrize("prefix", ["", "varying:"])
@pytest.mark.parametrize(("percent", "width"), [(40, 131), (60, 131), (80, 131), (29, 100)])
def test_rows_lose_exactly_the_named_number_in_every_channel(percent: int, width: int, prefix: str) -> None:
    picture = _picture(height=33, width=width)
    mask = get_recipe(f"{prefix}rows/{percent}").apply(picture, seed=5).mask
    assert mask is not None
    assert mask.shape == (33, width, 3)
    assert (mask.sum(axis=1) == percent * width // 100).all()
    assert not np.array_equal(mask[:, :, 0], mask[:, :, 1])


@pytest.mark.parametrize(("severity", "count"), [("mild", 163), ("moderate", 434), ("severe", 163)])
def test_rl_restore_has_the_papers_combinations(severity: Severity, count: int) -> None:
    found = combinations(severity)
    low, high = TOTAL_LEVELS[severity]
    assert len(found) == len(set(found)) == count
    assert all(1 <= level <= 10 for levels in found for level in levels)
    assert {sum(levels) - 2 for levels in found} == set(range(low, high + 1))


def test_rl_restore_draws_within_its_levels() -> None:
    recipe, picture = get_recipe("rl-restore/moderate"), _picture(height=24, width=24)
    seen: Counter[int] = Counter()
    for seed in range(60):
        grid, blur, noise, jpeg = recipe.apply(picture, seed=seed).provenance["steps"]
        assert 12 <= grid["level"] == grid["blur_level"] + grid["noise_level"] + grid["jpeg_level"] - 2 <= 17
        assert 0.5 * (grid["blur_level"] - 1) <= blur["sigma_px"] <= 0.5 * grid["blur_level"]
        assert 5 * (grid["noise_level"] - 1) <= noise["sigma"] <= 5 * grid["noise_level"]
        quality = jpeg["passes"][0]["quality"]
        assert JPEG_EDGES[grid["jpeg_level"]] <= quality <= JPEG_EDGES[grid["jpeg_level"] - 1]
        assert blur["window_px"] == 21
        assert blur["border"] == "replicate"
        seen[grid["level"]] += 1
    assert set(seen) == set(range(12, 18))


def test_rl_restore_order_is_blur_noise_jpeg() -> None:
    picture = _picture(height=40, width=40)
    degraded = get_recipe("rl-restore/severe").apply(picture, seed=2)
    _, blur, noise, jpeg = degraded.provenance["steps"]
    blurred = cv2.GaussianBlur(degraded.reference, (21, 21), blur["sigma_px"], borderType=cv2.BORDER_REPLICATE)
    batch = torch.from_numpy(blurred.transpose(2, 0, 1).copy())[None]
    noisy = GaussianNoise(sigma=(noise["sigma"],), achromatic=(False,), clip=True, seed=noise["seed"]).apply(batch)
    levels = noisy[0].permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()
    expected = encode_decode(np.ascontiguousarray(levels), JpegPass(**jpeg["passes"][0]))
    difference = np.abs(expected / 255 - degraded.image)
    assert difference.mean() < 1 / 255  # a blur rounded differently in its last bit moves single coefficients


def test_awgn_is_neither_clipped_nor_rounded() -> None:
    picture = np.full((256, 256), 250, np.uint8)
    degraded = get_recipe("awgn/25").apply(picture, seed=0)
    noise = (degraded.image - degraded.reference) * 255
    assert not degraded.clipped
    assert degraded.image.max() > 1
    assert noise.std() == pytest.approx(25, rel=0.02)
    assert abs(noise.mean()) < 0.5


def test_bicubic_is_matlabs_and_rounded() -> None:
    picture = _picture(height=97, width=133)
    degraded = get_recipe("bicubic/x4").apply(picture, seed=0)
    assert degraded.reference.shape == (96, 132, 3)
    planes = torch.from_numpy(degraded.reference.transpose(2, 0, 1).copy())
    small = resize(planes, height=24, width=33).clamp(0, 1).mul(255).round().div(255)
    assert np.array_equal(degraded.image, small.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("low", "high"), HOLE_RATIO_BINS)
@pytest.mark.parametrize("size", [(32, 32), (64, 200)])
def test_holes_take_a_share_within_their_bin(low: float, high: float, size: tuple[int, int]) -> None:
    for seed in range(12):
        operator = IrregularHoles.draw(np.random.default_rng(seed), batch=2, bins=((low, high),))
        for share in operator.masks(size).float().mean(dim=(1, 2, 3)).tolist():
            assert low < share <= high + 1e-6


@pytest.mark.parametrize("operator", [PixelLoss, RowLoss, IrregularHoles])
def test_loss_operators_apply_their_masks_to_batches(operator: Any) -> None:
    images = torch.rand(3, 3, 40, 48) * 0.5 + 0.25
    drawn = operator.draw(np.random.default_rng(1), batch=3)
    lost = drawn.apply(images) == 0
    mask = drawn.masks((3, 40, 48)) if operator is RowLoss else drawn.masks((40, 48))
    assert torch.equal(lost, mask.expand_as(lost))
    assert not torch.equal(mask[0], mask[1])
    assert drawn == operator.draw(np.random.default_rng(1), batch=3)


def test_pixel_loss_follows_its_field() -> None:
    field = np.linspace(0, 1, 400, dtype=np.float32)[None].repeat(200, axis=0)
    mask = PixelLoss(ratio=(0.4,), seed=0).masks((200, 400), field=field)[0, 0].float()
    assert mask.mean().item() == pytest.approx(0.4, abs=0.01)
    assert mask[:, :100].mean() < 0.15 < 0.6 < mask[:, 300:].mean()


@pytest.mark.parametrize("operator", [ColourJitter, LayerDamage, UnevenLowResolution, WindowedGaussianBlur, Yellowing])
@pytest.mark.parametrize("channels", [1, 3])
def test_new_operators_keep_the_contract(operator: Any, channels: int) -> None:
    images = torch.rand(2, channels, 64, 48, generator=torch.Generator().manual_seed(1))
    kept = images.clone()
    first, second = (operator.draw(np.random.default_rng(6), batch=2) for _ in range(2))
    damaged = first.apply(images)
    assert first == second
    assert torch.equal(damaged, second.apply(images))
    assert torch.equal(images, kept)
    assert damaged.shape == images.shape
    assert not torch.equal(damaged, images)
    assert damaged.min() >= -1e-6
    assert damaged.max() <= 1 + 1e-6
    with pytest.raises(ValueError, match="drawn for 2"):
        first.apply(torch.rand(3, channels, 64, 48))


@pytest.mark.parametrize("kind", sorted(PAPER_LAYERS))
def test_paper_layers_are_coverages(kind: str) -> None:
    for seed in range(6):
        coverage = PAPER_LAYERS[kind]((90, 120), np.random.default_rng(seed), scale=1.0)
        again = PAPER_LAYERS[kind]((90, 120), np.random.default_rng(seed), scale=1.0)
        assert coverage.dtype == np.float32
        assert coverage.shape == (90, 120)
        assert coverage.min() >= 0
        assert coverage.max() <= 1
        assert coverage.max() > 0.3
        assert np.array_equal(coverage, again)


@pytest.mark.parametrize("blend", ["add", "lighten", "screen"])
def test_light_blends_never_darken(blend: str) -> None:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    layer = LayerDamage.draw(np.random.default_rng(3), batch=1, kinds=("paper_texture",), blends=(blend,))  # type: ignore[arg-type]
    damaged, mask = layer.damage(images)
    assert (damaged >= images - 1e-6).all()
    assert (damaged - images).abs().amax(dim=1, keepdim=True)[mask].min() > 4 / 255


def test_windowed_blur_is_cut_at_its_window() -> None:
    image = torch.zeros(1, 1, 41, 41)
    image[0, 0, 20, 20] = 1
    blurred = WindowedGaussianBlur(sigma_px=(5.0,), window_px=(21,)).apply(image)[0, 0]
    expected = cv2.GaussianBlur(image[0, 0].numpy(), (21, 21), 5.0)
    assert np.allclose(blurred.numpy(), expected, atol=1e-6)
    assert blurred[20, 9] == 0
    with pytest.raises(ValueError, match="odd windows"):
        WindowedGaussianBlur(sigma_px=(1.0,), window_px=(4,))


def test_salt_share_and_channels_of_salt_and_pepper() -> None:
    images = torch.full((1, 3, 200, 200), 0.5)
    noisy = SaltAndPepperNoise(share=(0.2,), seed=0, salt_share=(0.75,), per_channel=True).apply(images)
    white, black = (noisy == 1).float().mean().item(), (noisy == 0).float().mean().item()
    assert white == pytest.approx(0.15, abs=0.01)
    assert black == pytest.approx(0.05, abs=0.01)
    assert not torch.equal(noisy[0, 0], noisy[0, 1])


def test_scaled_quality_scales_the_quantization_tables() -> None:
    assert all(scaled_quality(quality, 1.0) == quality for quality in range(1, 101))
    assert scaled_quality(10, 1 / 3) == 30
    assert scaled_quality(50, 2.0) == 25
    assert scaled_quality(1, 5.0) == 1


def test_smooth_field_is_smooth_and_spans_the_range() -> None:
    field = smooth_field((80, 120), seed=1, cell_px=27.0)
    assert field.min() == 0
    assert field.max() == pytest.approx(1)
    assert np.abs(np.diff(field, axis=1)).max() < 0.15
    assert np.array_equal(field, smooth_field((80, 120), seed=1, cell_px=27.0))
    assert np.allclose(sum(version_weights(field, count=3)), 1)


def test_blends_between_the_versions() -> None:
    field = np.array([[0.0, 0.25, 0.5, 1.0]], np.float32)
    versions = [np.full((1, 4), level, np.float32) for level in (0.0, 1.0, 3.0)]
    assert np.allclose(blend_versions(versions, field), [[0.0, 0.5, 1.0, 3.0]])
    with pytest.raises(ValueError, match="at least 2"):
        blend_versions(versions[:1], field)


def test_varying_noise_is_weak_and_strong_where_the_field_says() -> None:
    picture = np.full((300, 300), 128, np.uint8)
    degraded = get_recipe("varying:awgn/30").apply(picture, seed=1)
    told = degraded.provenance["steps"][0]
    field = smooth_field((300, 300), seed=told["seed"], cell_px=told["cell_px"])
    noise = (degraded.image - degraded.reference) * 255
    for low, high in ((0.2, 0.3), (0.45, 0.55), (0.7, 0.8)):
        here = (field > low) & (field < high)
        expected = 30 * (1 / 3 + 4 / 3 * (low + high) / 2)
        assert noise[here].std() == pytest.approx(expected, rel=0.08)


def test_recipes_travel_between_processes() -> None:
    for recipe_id in ("awgn/12.5", "varying:rl-restore/mild"):
        recipe = get_recipe(recipe_id)
        again = pickle.loads(pickle.dumps(recipe))
        assert again == recipe
        assert again.apply(_picture(), seed=1).image.tobytes() == recipe.apply(_picture(), seed=1).image.tobytes()


def test_ids_are_canonical() -> None:
    assert len(set(recipe_ids())) == len(recipe_ids())
    assert get_recipe("awgn/25.0").id == "awgn/25"
    assert {get_recipe(recipe_id).task for recipe_id in recipe_ids()} == {
        "denoise",
        "deblock",
        "deblur",
        "super-resolution",
        "inpaint",
        "mixed",
        "scratches",
        "none",
    }


@pytest.mark.parametrize(
    ("recipe_id", "message"),
    [
        ("rl-restore/modrate", "did you mean 'rl-restore/moderate'"),
        ("varying:old-photo/mixd", "did you mean 'varying:old-photo/mixed'"),
        ("awgn/loud", "unknown recipe 'awgn/loud'"),
        ("awgn/-5", "expected a number from 0.1 to 255"),
        ("awgn/nan", "expected a number"),
        ("jpeg/10.5", "expected a whole number from 1 to 95"),
        ("bicubic/x0", "expected a whole number from 2 to 16"),
        ("varying:clean", "no strength that could vary"),
        ("", "unknown recipe"),
    ],
)
def test_unknown_ids_name_the_next_step(recipe_id: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_recipe(recipe_id)


def test_wrong_pictures_and_seeds_are_refused() -> None:
    recipe = get_recipe("old-photo/mixed")
    with pytest.raises(ValueError, match="got a picture of 20x50, expected at least 32x32"):
        recipe.apply(np.zeros((20, 50), np.uint8), seed=0)
    with pytest.raises(ValueError, match=r"expected a picture \(H, W\) or \(H, W, 3\)"):
        recipe.apply(np.zeros((50, 50, 4), np.uint8), seed=0)
    with pytest.raises(ValueError, match=r"expected floats in \[0, 1\]"):
        recipe.apply(np.full((50, 50), 200.0, np.float32), seed=0)
    with pytest.raises(ValueError, match=r"expected floats in \[0, 1\]"):
        recipe.apply(np.full((50, 50), np.nan, np.float32), seed=0)
    with pytest.raises(ValueError, match="uint16"):
        recipe.apply(np.zeros((50, 50), np.uint16), seed=0)
    with pytest.raises(ValueError, match="expected a seed"):
        recipe.apply(np.zeros((50, 50), np.uint8), seed=-1)


@pytest.mark.parametrize("recipe_id", recipe_ids() + VARYING_IDS)
def test_takes_pictures_of_its_smallest_side(recipe_id: str) -> None:
    recipe = get_recipe(recipe_id)
    side = recipe.min_side
    recipe.apply(_picture(height=side, width=side + 1), seed=0)
    if side > 1:
        with pytest.raises(ValueError, match="expected at least"):
            recipe.apply(_picture(height=side - 1, width=side + 1), seed=0)


def _test_set(name: str, pattern: str) -> list[NDArray[np.uint8]]:
    root = Path(os.environ.get("LACUNA_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    files = sorted((root / "test" / name).glob(pattern))
    if not files:
        pytest.skip(f"no {pattern} in {root / 'test' / name}: set LACUNA_DATA to the folder of the data sets")
    return [np.asarray(cv2.imread(str(file), cv2.IMREAD_COLOR_RGB), np.uint8) for file in files]


def _luma(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.rint(levels @ np.array([65.481, 128.553, 24.966]) / 255 + 16), np.float64)


@pytest.mark.data
@pytest.mark.parametrize(("scale", "published"), [(2, 33.66), (3, 30.39), (4, 28.42)])
def test_bicubic_gives_the_published_psnr_on_set5(scale: int, published: float) -> None:
    found = []
    for picture in _test_set("Set5", "*_GT.bmp"):
        degraded = get_recipe(f"bicubic/x{scale}").apply(picture, seed=0)
        planes = torch.from_numpy(degraded.image.transpose(2, 0, 1).astype(np.float64))
        height, width = degraded.reference.shape[:2]
        grown = resize(planes, height=height, width=width).clamp(0, 1).mul(255).round().permute(1, 2, 0).numpy()
        error = _luma(grown) - _luma(degraded.reference.astype(np.float64) * 255)
        found.append(10 * np.log10(255**2 / np.mean(error[scale:-scale, scale:-scale] ** 2)))
    assert np.mean(found) == pytest.approx(published, abs=0.02)


@pytest.mark.data
@pytest.mark.parametrize(("quality", "published"), [(10, 27.82), (20, 30.12), (30, 31.48), (40, 32.43)])
def test_jpeg_gives_the_published_psnr_on_classic5(quality: int, published: float) -> None:
    found = []
    for picture in _test_set("classic5", "*.bmp"):
        degraded = get_recipe(f"jpeg/{quality}").apply(np.ascontiguousarray(picture[:, :, 0]), seed=0)
        found.append(-10 * np.log10(np.mean((degraded.image - degraded.reference) ** 2)))
    assert np.mean(found) == pytest.approx(published, abs=0.01)
