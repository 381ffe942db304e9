"""The degradation operators: what they draw is all they are, and the levels they name are the levels they give."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from models.degradations.blur import BoxBlur, GaussianBlur, MotionBlur, gaussian_profiles
from models.degradations.fading import ColourCast, Fading
from models.degradations.grain import FilmGrain
from models.degradations.jpeg import JpegCompression, JpegPass, encode_decode
from models.degradations.noise import GaussianNoise, PoissonNoise, SaltAndPepperNoise, SpeckleNoise
from models.degradations.operator import Degradation
from models.degradations.resample import LowResolution, resize

OPERATORS = [
    GaussianNoise,
    PoissonNoise,
    SpeckleNoise,
    SaltAndPepperNoise,
    GaussianBlur,
    BoxBlur,
    MotionBlur,
    JpegCompression,
    LowResolution,
    Fading,
    ColourCast,
    FilmGrain,
]


def _images(batch: int, channels: int, size: int = 48) -> Tensor:
    generator = np.random.default_rng(3)
    pixels = generator.random((batch, channels, size, size), dtype=np.float32)
    return torch.from_numpy(np.stack([[cv2.GaussianBlur(plane, (0, 0), 1.0) for plane in image] for image in pixels]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operator", OPERATORS)
def test_same_seed_same_pixels_and_argument_kept(operator: type, channels: int) -> None:
    images = _images(3, channels)
    kept = images.clone()
    first: Degradation = operator.draw(np.random.default_rng(5), batch=3)
    second: Degradation = operator.draw(np.random.default_rng(5), batch=3)
    assert first == second
    degraded = first.apply(images)
    assert degraded.shape == images.shape
    assert degraded.dtype == images.dtype
    assert torch.equal(degraded, second.apply(images))
    assert torch.equal(images, kept)
    assert not torch.equal(degraded, images)


@pytest.mark.parametrize("operator", OPERATORS)
def test_wrong_batch_and_integers_are_refused(operator: type) -> None:
    drawn = operator.draw(np.random.default_rng(5), batch=2)
    with pytest.raises(ValueError, match="drawn for 2"):
        drawn.apply(_images(3, 3))
    with pytest.raises(ValueError, match="float images"):
        drawn.apply(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


def test_gaussian_noise_has_the_named_sigma() -> None:
    images = torch.full((2, 3, 256, 256), 0.5)
    noise = GaussianNoise(sigma=(10.0, 40.0), achromatic=(False, True), clip=False, seed=1).apply(images) - images
    assert noise[0].std().item() * 255 == pytest.approx(10, rel=0.02)
    assert noise[1].std().item() * 255 == pytest.approx(40, rel=0.02)
    assert torch.equal(noise[1, 0], noise[1, 2])
    assert not torch.equal(noise[0, 0], noise[0, 2])


def test_poisson_variance_is_mean_over_peak() -> None:
    images = torch.full((1, 1, 256, 256), 0.25)
    noisy = PoissonNoise(peak=(100.0,), seed=1).apply(images)
    assert noisy.var().item() == pytest.approx(0.25 / 100, rel=0.05)


def test_salt_and_pepper_share() -> None:
    noisy = SaltAndPepperNoise(share=(0.1,), seed=1).apply(torch.full((1, 3, 256, 256), 0.5))
    assert (noisy != 0.5).float().mean().item() == pytest.approx(0.1, rel=0.05)
    assert set(noisy.unique().tolist()) == {0.0, 0.5, 1.0}


def test_round_gaussian_blur_agrees_with_opencv_and_with_its_2d_kernel() -> None:
    images = _images(1, 1)
    separable = GaussianBlur(sigma_major_px=(1.3,), sigma_minor_px=(1.3,), angle=(0.0,))
    blurred = separable.apply(images)
    expected = cv2.GaussianBlur(images[0, 0].numpy(), (11, 11), 1.3, borderType=cv2.BORDER_REFLECT_101)
    assert np.abs(blurred[0, 0].numpy() - expected).max() < 1e-4
    nearly = GaussianBlur(sigma_major_px=(1.3,), sigma_minor_px=(1.3 - 1e-9,), angle=(0.7,)).apply(images)
    assert torch.allclose(blurred, nearly, atol=1e-5)


@pytest.mark.parametrize(
    "blur",
    [
        GaussianBlur(sigma_major_px=(2.0,), sigma_minor_px=(1.0,), angle=(0.4,)),
        BoxBlur(width_px=(4.5,)),
        MotionBlur(length_px=(9.0,), angle=(1.0,)),
    ],
)
def test_equivalent_sigma_is_the_deviation_of_the_point_response(blur: GaussianBlur | BoxBlur | MotionBlur) -> None:
    point = torch.zeros(1, 1, 41, 41)
    point[0, 0, 20, 20] = 1
    response = blur.apply(point)[0, 0].double()
    position = torch.arange(-20, 21).double()
    variance = (response * (position[:, None] ** 2 + position[None] ** 2)).sum() / 2
    assert response.sum().item() == pytest.approx(1, abs=1e-5)
    assert blur.equivalent_sigma_px()[0] == pytest.approx(variance.sqrt().item(), rel=0.05)


def test_blur_wider_than_the_image_says_what_to_do() -> None:
    blur = BoxBlur(width_px=(31.0,))
    with pytest.raises(ValueError, match="replicate"):
        blur.apply(_images(1, 1, size=8))
    assert BoxBlur(width_px=(31.0,), border="replicate").apply(_images(1, 1, size=8)).shape == (1, 1, 8, 8)


def test_jpeg_is_the_codec_and_the_offset_moves_the_grid() -> None:
    image = (np.random.default_rng(1).random((40, 56, 3)) * 255).astype(np.uint8)
    shifted = encode_decode(image, JpegPass(quality=20, subsampling="444", offset_y=3, offset_x=5))
    aligned = encode_decode(image, JpegPass(quality=20, subsampling="444"))
    assert shifted.shape == image.shape
    inner = encode_decode(image[5:, 3:], JpegPass(quality=20, subsampling="444"))  # 8 - 3 rows, 8 - 5 columns later
    assert np.array_equal(shifted[5:21, 3:19], inner[:16, :16])
    assert not np.array_equal(aligned, shifted)


def test_jpeg_without_a_pass_changes_nothing() -> None:
    images = _images(2, 3)
    drawn = JpegCompression(passes=((), (JpegPass(quality=30), JpegPass(quality=80))))
    degraded = drawn.apply(images)
    assert torch.equal(degraded[0], images[0])
    assert not torch.equal(degraded[1], images[1])


def test_resize_agrees_with_an_antialiased_reference_away_from_the_border() -> None:
    images = _images(1, 3, size=64).double()
    ours = resize(images, height=24, width=40)
    reference = torch.nn.functional.interpolate(images, size=(24, 40), mode="bicubic", antialias=True)
    assert torch.allclose(ours[..., 4:-4, 4:-4], reference[..., 4:-4, 4:-4], atol=1e-5)


def test_resize_matlab_known_values() -> None:
    # Keys' kernel widened by 2: weights of imresize(1:16, 0.5) at an inner pixel are symmetric, so a ramp stays a ramp
    ramp = torch.arange(1, 17, dtype=torch.float64).view(1, 1, 1, 16)
    half = resize(ramp, height=1, width=8)
    assert torch.allclose(half[0, 0, 0, 2:-2], torch.tensor([5.5, 7.5, 9.5, 11.5], dtype=torch.float64), atol=1e-6)


def test_resize_of_long_lines_equals_the_dense_product(monkeypatch: pytest.MonkeyPatch) -> None:
    images = _images(1, 1, size=64)
    dense = resize(images, height=21, width=90)
    monkeypatch.setattr("models.degradations.resample._DENSE_LIMIT", 0)
    assert torch.allclose(dense, resize(images, height=21, width=90), atol=1e-5)


def test_resize_refuses_unknown_kernels() -> None:
    with pytest.raises(ValueError, match="bicubic"):
        resize(_images(1, 1), height=4, width=4, kernel="cubic")  # type: ignore[arg-type]


def test_fading_squeezes_the_range_and_cast_keeps_order_of_gains() -> None:
    images = torch.linspace(0, 1, 256).view(1, 1, 1, 256).expand(1, 3, 8, 256)
    faded = Fading(black=(0.2,), white=(0.8,), gamma=(1.0,)).apply(images)
    assert faded.min().item() == pytest.approx(0.2, abs=1e-6)
    assert faded.max().item() == pytest.approx(0.8, abs=1e-6)
    tinted = ColourCast(gain=((1.0, 0.9, 0.6),), desaturation=(0.0,)).apply(images)
    assert tinted[0, :, 0, -1].tolist() == pytest.approx([1.0, 0.9, 0.6])


def test_film_grain_is_correlated_and_weaker_in_the_shadows() -> None:
    images = torch.full((2, 1, 128, 128), 0.5)
    images[1] = 0.04
    grain = FilmGrain(sigma=(10.0, 10.0), size_px=(1.0, 1.0), achromatic=(True, True), floor=0.3, seed=2)
    noise = grain.apply(images) - images
    assert noise[0].std().item() * 255 == pytest.approx(10, rel=0.1)
    assert noise[1].std() < 0.7 * noise[0].std()
    neighbours = (noise[0, 0, :, 1:] * noise[0, 0, :, :-1]).mean() / noise[0].var()
    assert neighbours.item() > 0.5


def test_a_blur_does_not_depend_on_what_shares_the_batch() -> None:
    alone, beside = gaussian_profiles((0.5,)), gaussian_profiles((0.5, 2.0))[:1]
    margin = (beside.shape[1] - alone.shape[1]) // 2
    assert torch.equal(beside[:, margin:-margin], alone)
    assert not beside[:, :margin].any()
