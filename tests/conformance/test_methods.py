"""Every registered method through one contract: shapes, dtypes, masks, strength, sizes, tiles, cards, determinism."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors import safe_open
from torch.utils.flop_counter import FlopCounterMode

from models.blocks import enlarge
from models.method import CombiningMethod, ImageContractError, Method, largest_value, to_planes
from models.published.catalogue import card_of
from models.registry import METHODS, UnknownMethodError, get_method, unavailable
from models.run import Runner, RunSettings
from models.self_ensemble import VIEWS, SelfEnsemble
from models.weights import WEIGHTS_FOLDER

# Even two steps of a fit take seconds, and every test makes several: `-m slow` holds these to the contract.
LEARN_FROM_THE_PICTURE = (
    "deep-image-prior",
    "deep-image-prior-fast",
    "deep-image-prior-two-runs",
    "deep-image-prior-autoencoding",
    "deep-image-prior-denoise",
    "deep-image-prior-denoise-two-runs",
    "deep-image-prior-denoise-autoencoding",
    "deep-image-prior-jpeg",
    "deep-image-prior-x4",
    "deep-image-prior-x8",
    "example-internal",
    "example-internal-faithful",
    "example-online",
    "example-online-narrow",
)
# Eight times the work of methods that are held to the contract anyway: two of them are enough.
ENSEMBLES_TRIED = ("denoise+", "fill+")


def marks_of(method: Method) -> list[pytest.MarkDecorator]:
    ensemble = isinstance(method, SelfEnsemble) and method.card.id not in ENSEMBLES_TRIED
    ensemble |= isinstance(method, CombiningMethod) and method.card.id.endswith("+")
    return [pytest.mark.slow] if ensemble or method.card.id in LEARN_FROM_THE_PICTURE else []


EVERY = pytest.mark.parametrize(
    "method", [pytest.param(method, id=method.card.id, marks=marks_of(method)) for method in METHODS]
)


@pytest.fixture(autouse=True)
def _only_methods_with_weights(request: pytest.FixtureRequest) -> None:
    """Skip a method whose published weights are not on this machine; its card is checked all the same."""
    method = request.node.callspec.params.get("method") if hasattr(request.node, "callspec") else None
    if method is None or request.node.originalname == "test_card_is_complete_and_true":
        return
    reason = unavailable(method)
    if reason:
        pytest.skip(f"{method.card.id} {reason}")


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner(RunSettings(device="cpu", precision="float32", tile=96))


def picture(height: int, width: int, *, colour: bool = True, bits: int = 8, seed: int = 0) -> npt.NDArray[np.generic]:
    """A smooth picture with an edge and slight noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    planes = [0.3 + 0.4 * y + 0.2 * (x > 0.4), 0.5 + 0.3 * np.sin(9 * x), 0.2 + 0.5 * x * y]
    image = np.stack(planes, axis=-1) + rng.normal(0, 0.03, (height, width, 3))
    image = image if colour else image[:, :, 1]
    largest = 255 if bits == 8 else 65535
    return np.rint(np.clip(image, 0, 1) * largest).astype(np.uint8 if bits == 8 else np.uint16)


def hole(height: int, width: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros((height, width), bool)
    mask[height // 3 : height // 3 + 3, width // 8 : -width // 8] = True
    return mask


def masks_for(method: Method, *images: npt.NDArray[np.generic]) -> list[npt.NDArray[np.bool_] | None]:
    return [hole(*image.shape[:2]) if method.card.needs_mask else None for image in images]


def result_shape(method: Method, image: npt.NDArray[np.generic]) -> tuple[int, ...]:
    """The picture's own shape, height and width times the method's scale."""
    return (image.shape[0] * method.card.scale, image.shape[1] * method.card.scale, *image.shape[2:])


def plain(method: Method, image: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """What a method starts from: the picture itself, or its bicubic enlargement."""
    if method.card.scale == 1:
        return image
    planes = enlarge(to_planes(image)[None], scale=method.card.scale)[0]
    values = planes[0] if image.ndim == 2 else planes.permute(1, 2, 0)
    return np.rint(values.clamp(0, 1).numpy() * largest_value(image.dtype)).astype(image.dtype)


@EVERY
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colour", [True, False])
def test_keeps_shape_and_dtype(method: Method, runner: Runner, bits: int, colour: bool) -> None:
    image = picture(50, 70, colour=colour, bits=bits)
    (result,) = runner.apply(method.card.id, [image], masks=masks_for(method, image))
    assert result.shape == result_shape(method, image)
    assert result.dtype == image.dtype


@EVERY
def test_pictures_of_different_sizes_in_one_call_equal_one_by_one(method: Method, runner: Runner) -> None:
    images = [picture(40, 64, seed=1), picture(33, 47, seed=2), picture(40, 64, seed=3)]
    together = runner.apply(method.card.id, images, masks=masks_for(method, *images))
    for image, result in zip(images, together, strict=True):
        (alone,) = runner.apply(method.card.id, [image], masks=masks_for(method, image))
        assert np.abs(alone.astype(int) - result.astype(int)).max() <= 1


@EVERY
def test_black_and_white_stored_as_rgb_stays_so(method: Method, runner: Runner) -> None:
    grey = picture(40, 48, colour=False)
    mask = hole(40, 48) if method.card.needs_mask else None
    stored = np.repeat(grey[:, :, None], 3, axis=2)
    if mask is not None:
        stored[mask] = (200, 30, 60)  # the damage has a colour
    (result,) = runner.apply(method.card.id, [stored], masks=[mask])
    (same,) = runner.apply(method.card.id, [np.ascontiguousarray(stored[:, :, 0])], masks=[mask])
    assert np.array_equal(result, np.repeat(same[:, :, None], 3, axis=2))


@EVERY
def test_strength_zero_returns_the_input_bit_for_bit_or_plainly_enlarged(method: Method, runner: Runner) -> None:
    image = picture(40, 40, bits=16)
    (result,) = runner.apply(method.card.id, [image], masks=masks_for(method, image), strengths=[0.0])
    if method.card.scale == 1:
        assert np.array_equal(result, image)
    else:
        assert np.abs(result.astype(int) - plain(method, image)).max() <= 1


@EVERY
def test_half_strength_lies_between(method: Method, runner: Runner) -> None:
    image = picture(48, 48)  # whole for every network: enlarged plainly, a padded one differs at its border
    (half,) = runner.apply(method.card.id, [image], masks=masks_for(method, image), strengths=[0.5])
    (full,) = runner.apply(method.card.id, [image], masks=masks_for(method, image))
    middle = (plain(method, image).astype(float) + full) / 2
    inside = (full > 0) & (full < 255)
    assert np.abs(half - middle)[inside].max() <= 1.0


@EVERY
def test_outside_the_mask_nothing_changes(method: Method, runner: Runner) -> None:
    if not method.card.needs_mask:
        pytest.skip("takes no mask")
    image = picture(150, 200, bits=16)
    mask = hole(150, 200)
    (result,) = runner.apply(method.card.id, [image], masks=[mask])
    assert np.array_equal(result[~mask], image[~mask])
    assert not np.array_equal(result[mask], image[mask])


@EVERY
def test_a_missing_mask_is_refused(method: Method, runner: Runner) -> None:
    if not method.card.needs_mask:
        pytest.skip("takes no mask")
    with pytest.raises(ValueError, match="got no mask"):
        runner.apply(method.card.id, [picture(20, 20)])


@EVERY
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (65, 9)])
def test_tiny_and_thin_pictures(method: Method, runner: Runner, size: tuple[int, int]) -> None:
    image = picture(*size)
    mask = np.zeros(size, bool)
    mask[0, 0] = True
    (result,) = runner.apply(method.card.id, [image], masks=[mask if method.card.needs_mask else None])
    assert result.shape == result_shape(method, image)


@EVERY
def test_tiles_agree_with_the_whole(method: Method, runner: Runner) -> None:
    image = picture(176, 232)
    masks = masks_for(method, image)
    (tiled,) = runner.apply(method.card.id, [image], masks=masks)
    (whole,) = Runner(RunSettings(device="cpu", precision="float32", tile=512)).apply(
        method.card.id, [image], masks=masks
    )
    difference = np.abs(tiled.astype(int) - whole.astype(int))
    assert difference.mean() < 0.1
    assert np.percentile(difference, 99.5) <= 2


@EVERY
def test_same_input_gives_same_bytes(method: Method, runner: Runner) -> None:
    image = picture(48, 48)
    first, second = (runner.apply(method.card.id, [image], masks=masks_for(method, image))[0] for _ in range(2))
    assert np.array_equal(first, second)


@EVERY
def test_the_input_is_not_changed(method: Method, runner: Runner) -> None:
    image = picture(40, 56)
    before = image.copy()
    runner.apply(method.card.id, [image], masks=masks_for(method, image))
    assert np.array_equal(image, before)


@EVERY
def test_card_is_complete_and_true(method: Method) -> None:
    card = method.card
    assert card.title
    assert card.paper
    assert card.licence
    assert (card.scale > 1) == (card.purpose == "upscale")
    assert card.scale == 1 or (card.opt_in and not card.needs_mask)
    if card.weights is None:
        assert card.gmac_per_megapixel is None
        return
    weights = card_of(card.weights)
    network = method.build()
    if card.fits_each_picture:
        assert card.gmac_per_megapixel is None, "hundreds of passes with gradients are no cost of one pass"
        return
    if weights.beside:
        with safe_open(WEIGHTS_FOLDER / f"{weights.id}.safetensors", framework="pt") as file:
            assert weights.parameters == sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
        weights = card_of(weights.beside)
    assert weights.parameters == sum(value.numel() for value in network.state_dict().values())
    if isinstance(method, CombiningMethod):
        parts = [get_method(part).card.gmac_per_megapixel or 0.0 for part in method.parts]
        assert card.gmac_per_megapixel == pytest.approx(sum(parts), rel=0.01)
        return
    with torch.device("meta"):
        counted = method.build()
        example = torch.empty(1, getattr(counted, "in_channels", 3), 1000, 1000)
    with FlopCounterMode(display=False) as flops:
        counted(example)
    views = len(VIEWS) if isinstance(method, SelfEnsemble) else 1
    assert card.gmac_per_megapixel == pytest.approx(views * flops.get_total_flops() / 2e9, rel=0.01)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.float32), "expected uint8 or uint16"),
        (np.zeros((4, 4, 4), np.uint8), "split alpha off"),
        (np.zeros((0, 4), np.uint8), "not empty"),
    ],
)
def test_images_that_break_the_contract_are_refused(
    runner: Runner, image: npt.NDArray[np.generic], message: str
) -> None:
    with pytest.raises(ImageContractError, match=message):
        runner.apply("nlm", [image])


def test_a_mask_of_the_wrong_size_is_refused(runner: Runner) -> None:
    with pytest.raises(ImageContractError, match="True = missing"):
        runner.apply("telea", [picture(10, 10)], masks=[np.zeros((9, 10), bool)])


def test_a_strength_out_of_range_is_refused(runner: Runner) -> None:
    with pytest.raises(ValueError, match="strength"):
        runner.apply("nlm", [picture(10, 10)], strengths=[1.5])


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownMethodError, match="did you mean 'denoise'"):
        get_method("denoize")
