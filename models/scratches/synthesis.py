"""Training patches for the scratch detector: clean photographs, damaged or left whole, then aged as a whole.

A third of the patches carry no structured damage, only blur, noise, JPEG, fading, print borders or lettering: that is
how the network learns that wires, hair, lace, text and window frames are no scratches. A batch is a pure
function of (seed, step).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.degradations.damage_layers import FloatArray, smooth_noise
from models.degradations.damage_overlays import overlay_damage
from models.degradations.scratches import DamageSettings, damage_image
from models.scratches.hard_places import Places


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchSettings:
    """What a training patch looks like: side in pixels, shares of patches, and strength of the ageing."""

    side: int = 256
    clean_share: float = 0.35
    # Patches that are neither aged before nor after the damage: most scans are sharper than old prints can be.
    plain_share: float = 0.4
    overlay_share: float = 0.35
    photographs_share: float = 0.55
    blur_sigma_px_max: float = 1.5
    noise_sigma_max: float = 20.0
    jpeg_quality_min: int = 40
    # Damage fainter than this, than the noise over it, or than the texture under it hardly counts in the loss: what
    # cannot be seen would teach the network that texture is somewhat likely to be damaged.
    faint_change: float = 10 / 255
    faint_weight: float = 0.15
    # Of the patches, photographs as dark, grainy prints; of the aged, scans that were sharpened after all. None here,
    # so that `evaluation_pictures` draws as it always did; training and `print_pictures` say how many.
    print_share: float = 0.0
    sharpened_share: float = 0.0
    # Of the patches, those that lie around `TrainingData.hard`, where there is any.
    hard_share: float = 0.25
    damage: DamageSettings = field(default_factory=DamageSettings)


# What the detector learns from: half of the light damage is emulsion lifted from the paper.
TRAINING_DAMAGE = DamageSettings(lifted_share=0.5, scale_min=0.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """Grey photographs (uint8) and overlay alphas (uint8) of one split, kept in memory.

    hard: places (picture, row, column) of `pictures` that are drawn more often, None = none.
    """

    benchmark_like: tuple[NDArray[np.uint8], ...]
    photographs: tuple[NDArray[np.uint8], ...]
    overlays: tuple[NDArray[np.uint8], ...]
    hard: Places | None = None

    @property
    def pictures(self) -> tuple[NDArray[np.uint8], ...]:
        """All photographs of the split."""
        return self.benchmark_like + self.photographs


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A grey patch in [0, 1], its mask of damage, and the weight of each pixel in the loss."""

    image: FloatArray
    mask: NDArray[np.bool_]
    weight: FloatArray


def split_files(data: Path) -> dict[str, dict[str, list[Path]]]:
    """Return the files of each split: `train`, `calibration` (thresholds are chosen on it) and `heldback` (benchmark).

    `data` holds train/bsds500, train/photos_1024 and masks/film_damage. Raises FileNotFoundError.
    """
    folders = {
        "bsds500": sorted((data / "train/bsds500").glob("*.jpg")),
        "photos": sorted((data / "train/photos_1024").rglob("*.jpg")),
        "overlays": sorted((data / "masks/film_damage").rglob("*.png")),
    }
    for name, files in folders.items():
        if not files:
            raise FileNotFoundError(
                f"no pictures for {name} under {data}; give the folder that holds train/ and masks/"
            )
    heldback = folders["bsds500"][5::13][:30]
    calibration = folders["photos"][7::22][:20]
    overlays_calibration, overlays_heldback = folders["overlays"][3::20], folders["overlays"][13::20]
    kept = set(heldback) | set(calibration) | set(overlays_calibration) | set(overlays_heldback)
    train = {name: [file for file in files if file not in kept] for name, files in folders.items()}
    return {
        "train": train,
        "calibration": {"bsds500": [], "photos": calibration, "overlays": overlays_calibration},
        "heldback": {"bsds500": heldback, "photos": [], "overlays": overlays_heldback},
    }


def read_grey(path: Path) -> NDArray[np.uint8]:
    """Read a picture as grey uint8 (H, W); raises OSError when it cannot be decoded."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise OSError(f"cannot decode {path}; expected a JPEG or PNG picture")
    return np.asarray(image, np.uint8)


def read_overlay(path: Path) -> NDArray[np.uint8]:
    """Read the alpha (H, W) uint8 of an RGBA overlay; raises OSError when there is none."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 4:
        raise OSError(f"cannot read an RGBA overlay from {path}; expected a PNG with an alpha channel")
    return np.ascontiguousarray(image[..., 3], np.uint8)


def load_split(data: Path, split: str) -> TrainingData:
    """Load the pictures and overlays of one split of `split_files` into memory."""
    files = split_files(data)[split]
    return TrainingData(
        benchmark_like=tuple(read_grey(path) for path in files["bsds500"]),
        photographs=tuple(read_grey(path) for path in files["photos"]),
        overlays=tuple(read_overlay(path) for path in files["overlays"]),
    )


def _crop(image: NDArray[np.uint8], rng: np.random.Generator, side: int) -> FloatArray:
    draw = rng.random()
    factor = 1.0 if draw < 0.55 else float(rng.uniform(0.6, 1.0) if draw < 0.7 else rng.uniform(1.0, 2.2))
    size = min(round(side * factor), *image.shape)
    top = int(rng.integers(image.shape[0] - size + 1))
    left = int(rng.integers(image.shape[1] - size + 1))
    patch = image[top : top + size, left : left + size]
    if size != side:
        how = cv2.INTER_AREA if size > side else cv2.INTER_CUBIC
        patch = np.asarray(cv2.resize(patch, (side, side), interpolation=how), np.uint8)
    patch = np.rot90(patch, int(rng.integers(4)) if rng.random() < 0.3 else 0)
    patch = patch[:, ::-1] if rng.random() < 0.5 else patch
    return np.ascontiguousarray(patch, np.float32) * np.float32(1 / 255)


def _crop_at(image: NDArray[np.uint8], middle: tuple[int, int], rng: np.random.Generator, side: int) -> FloatArray:
    """Cut a patch in native size so that `middle` lies anywhere in it; a smaller picture is mirrored at its edges."""
    top, left = (
        int(np.clip(at - rng.integers(side), 0, max(0, length - side)))
        for at, length in zip(middle, image.shape, strict=True)
    )
    patch = image[top : top + side, left : left + side]
    patch = np.pad(patch, [(0, side - length) for length in patch.shape], mode="symmetric")
    patch = patch[:, ::-1] if rng.random() < 0.5 else patch
    return np.ascontiguousarray(patch, np.float32) * np.float32(1 / 255)


def _blur(patch: FloatArray, sigma_px: float) -> FloatArray:
    return np.asarray(cv2.GaussianBlur(patch, (0, 0), sigma_px), np.float32)


_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)
_LETTERS = np.array(list("ABCDEFGHIKLMNOPRSTUVWabcdefghiklmnoprstuvwxyz0123456789.,;-   "))


def _add_lettering(patch: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Lines of print or handwriting, at times on plain paper: regular marks that are no damage."""
    side = patch.shape[0]
    if rng.random() < 0.5:
        patch = patch * np.float32(0.1) + np.float32(rng.uniform(0.5, 0.9))
    canvas = np.zeros((side, side), np.uint8)
    size, font = rng.uniform(0.3, 1.2), _FONTS[int(rng.integers(len(_FONTS)))]
    slope = rng.normal(0, 2)
    for row in range(int(rng.integers(1, 9))):
        text = "".join(rng.choice(_LETTERS, 24))
        origin = (int(rng.integers(-30, 20)), int((row + 1) * size * 32 + rng.uniform(0, 3)))
        cv2.putText(canvas, text, origin, font, size, 255, 1 + int(rng.random() < size - 0.4), cv2.LINE_AA)
    turned = cv2.warpAffine(canvas, cv2.getRotationMatrix2D((side / 2, side / 2), slope, 1.0), (side, side))
    alpha = turned.astype(np.float32) * np.float32(rng.uniform(0.5, 1) / 255)
    ink = float(rng.uniform(0, 0.3) if patch.mean() > 0.4 else rng.uniform(0.7, 1))
    return np.asarray(patch + alpha * (ink - patch), np.float32)


def _add_border(patch: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A print or film border along one or two sides: a straight, clean edge of the picture is no damage."""
    patch = patch.copy()
    value = float(rng.uniform(0.75, 1.0) if rng.random() < 0.7 else rng.uniform(0, 0.15))
    for _ in range(int(rng.integers(1, 3))):
        turn = int(rng.integers(4))
        view = np.rot90(patch, turn)
        view[: int(rng.integers(2, 30))] = value
    return _blur(patch, 0.6) if rng.random() < 0.5 else patch


def _tone(patch: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, float]:
    """Change the tone scale: gamma, then lifted blacks and greyed whites; returns it with the contrast that is left."""
    patch = np.power(np.clip(patch, 0, 1), np.float32(np.exp(rng.uniform(-0.5, 0.7))))
    low = rng.uniform(0, 0.25)
    high = rng.uniform(low + 0.3, 1.0)
    return np.asarray(low + (high - low) * patch, np.float32), float(high - low)


def _grain(patch: FloatArray, rng: np.random.Generator, sigma: float) -> FloatArray:
    noise = rng.standard_normal(patch.shape, dtype=np.float32)
    if rng.random() < 0.4:
        noise = _blur(noise, float(rng.uniform(0.4, 1.0)))
        noise /= noise.std() + np.float32(1e-6)
    return np.asarray(patch + np.float32(sigma) * noise, np.float32)


def _sharpen(patch: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Unsharp masking, as scanners and their users apply it: halos along damage, and stronger grain."""
    soft = _blur(patch, float(np.exp(rng.uniform(np.log(0.5), np.log(2.0)))))
    return np.asarray(patch + np.float32(np.exp(rng.uniform(np.log(0.3), np.log(3.0)))) * (patch - soft), np.float32)


def as_print(clean: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, float]:
    """Make a photograph a dark print, its paper white far above the lightest tone; returns it and its grain."""
    gamma = np.float32(np.exp(rng.uniform(-0.3, 0.8)))
    low = float(rng.uniform(0.0, 0.15))
    high = float(rng.uniform(low + 0.3, 0.85))
    clean = np.asarray(low + (high - low) * np.power(np.clip(clean, 0, 1), gamma), np.float32)
    if rng.random() < 0.5:
        clean = _blur(clean, float(rng.uniform(0.3, 1.5)))
    grain = float(rng.uniform(1, 9) / 255)
    return np.asarray(np.clip(_grain(clean, rng, grain), 0, 1), np.float32), grain


def _age(patch: FloatArray, rng: np.random.Generator, settings: PatchSettings) -> tuple[FloatArray, float, float]:
    """Blur, grain, fade and compress the patch; returns it, the contrast left and the deviation of the grain added."""
    sigma, contrast = 0.0, 1.0
    if rng.random() < 0.4:
        patch = _blur(patch, float(rng.uniform(0.2, settings.blur_sigma_px_max)))
    if rng.random() < 0.35:
        patch, contrast = _tone(patch, rng)
    if rng.random() < 0.5:
        # Mostly fine grain: under the strongest noise there is little left to learn.
        sigma = float(settings.noise_sigma_max * rng.random() ** 1.6 / 255)
        patch = _grain(patch, rng, sigma)
    if settings.sharpened_share and rng.random() < settings.sharpened_share:
        patch = _sharpen(patch, rng)
    patch = np.clip(patch, 0, 1)
    if rng.random() < 0.5:
        quality = int(rng.integers(settings.jpeg_quality_min, 101))
        done, data = cv2.imencode(".jpg", np.round(patch * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])
        if done:
            patch = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.float32) * np.float32(1 / 255)
    return np.asarray(patch, np.float32), contrast, sigma


def _worn(clean: FloatArray, rng: np.random.Generator, settings: PatchSettings) -> tuple[FloatArray, float]:
    """Make the intact picture look like an old print: soft, faded, grainy, unevenly lit; returns it and its grain."""
    if rng.random() < 0.3:
        clean = _blur(clean, float(rng.uniform(0.3, 2.0)))
    if rng.random() < 0.5:
        clean, _ = _tone(clean, rng)
    grain = float(rng.uniform(0, 12) / 255) if rng.random() < 0.3 else 0.0
    if grain:
        clean = _grain(clean, rng, grain)
    if rng.random() < 0.2:
        amount = np.float32(rng.uniform(0, 0.08))
        clean = clean + amount * smooth_noise((settings.side, settings.side), rng, cell=float(rng.uniform(8, 60)))
    return np.asarray(np.clip(clean, 0, 1), np.float32), grain


def _clean_patch(data: TrainingData, rng: np.random.Generator, settings: PatchSettings) -> FloatArray:
    if data.hard is not None and rng.random() < settings.hard_share:
        picture, row, column = (int(value) for value in data.hard[int(rng.integers(len(data.hard)))])
        return _crop_at(data.pictures[picture], (row, column), rng, settings.side)
    use_photographs = not data.benchmark_like or (data.photographs and rng.random() < settings.photographs_share)
    pool = data.photographs if use_photographs else data.benchmark_like
    return np.clip(_crop(pool[int(rng.integers(len(pool)))], rng, settings.side), 0, 1)


def make_patch(data: TrainingData, rng: np.random.Generator, settings: PatchSettings) -> Patch:
    """Draw one patch (side, side) with its mask and loss weights from `rng`."""
    clean = _clean_patch(data, rng, settings)
    if rng.random() < 0.07:
        clean = _add_lettering(clean, rng)
    if rng.random() < 0.07:
        clean = _add_border(clean, rng)
    plain = settings.plain_share > 0 and rng.random() < settings.plain_share
    grain = 0.0
    if settings.print_share and rng.random() < settings.print_share:
        clean, grain = as_print(clean, rng)
        plain = plain and grain < settings.faint_change / 2
    elif not plain:
        clean, grain = _worn(clean, rng, settings)
    if rng.random() >= settings.clean_share:
        damaged, shown = damage_picture(clean, data.overlays, rng, settings)
    else:
        damaged, shown = clean, np.zeros(clean.shape, np.bool_)
    change, image = np.abs(damaged - clean), damaged
    if plain:
        weight = _weights(change, shown, settings.faint_change, settings)
    else:
        image, weight = age_damaged(clean, damaged, shown, rng, settings=settings, grain=grain)
    weight[shown & (change < local_deviation(clean))] = settings.faint_weight
    return Patch(image=image, mask=shown, weight=weight)


def age_damaged(
    clean: FloatArray,
    damaged: FloatArray,
    mask: NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    settings: PatchSettings,
    grain: float = 0.0,
) -> tuple[FloatArray, FloatArray]:
    """Age a damaged picture (H, W) as a whole; returns it with the weight (H, W) of its pixels in loss and scores.

    `grain` is the deviation of the noise that `clean` already carried.
    """
    change = np.abs(damaged - clean)
    image, contrast, sigma = _age(damaged, rng, settings)
    limit = max(settings.faint_change, float(np.hypot(grain * contrast, sigma)))
    return image, _weights(change * np.float32(contrast), mask, limit, settings)


def local_deviation(grey: FloatArray, *, sigma_px: float = 4.0) -> FloatArray:
    """Return the standard deviation of `grey` (H, W) around each pixel, in a Gaussian window."""
    mean = cv2.GaussianBlur(grey, (0, 0), sigma_px)
    square = cv2.GaussianBlur(grey * grey, (0, 0), sigma_px)
    return np.asarray(np.sqrt(np.maximum(square - mean * mean, 0)), np.float32)


def _weights(change: FloatArray, mask: NDArray[np.bool_], limit: float, settings: PatchSettings) -> FloatArray:
    """Damage that cannot be seen, and visible change at the faint rim of a layer, are neither right nor wrong."""
    return np.asarray(np.where(mask == (change < limit), settings.faint_weight, 1), np.float32)


def damage_picture(
    clean: FloatArray, overlays: tuple[NDArray[np.uint8], ...], rng: np.random.Generator, settings: PatchSettings
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Damage a picture (H, W) by drawn layers, by one or two of the overlays, or by both; returns it and its mask."""
    damaged, mask = clean, np.zeros(clean.shape, np.bool_)
    draw = rng.random()
    if draw >= settings.overlay_share * 0.7:
        result = damage_image(clean, rng, settings=settings.damage)
        damaged, mask = result.image, result.mask
    if draw < settings.overlay_share and overlays:
        for _ in range(int(rng.integers(1, 3))):
            overlay = overlays[int(rng.integers(len(overlays)))]
            laid = overlay_damage(damaged, overlay, rng, settings=settings.damage)
            damaged, mask = laid.image, mask | laid.mask
    return damaged, mask


def make_batch(
    data: TrainingData, *, seed: int, step: int, count: int, settings: PatchSettings
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return images, masks and weights (count, 1, side, side), float32: a pure function of `seed` and `step`."""
    rngs = [np.random.default_rng((seed, step, index)) for index in range(count)]
    patches = [make_patch(data, rng, settings) for rng in rngs]
    stacks = [np.stack(parts)[:, None] for parts in zip(*((p.image, p.mask, p.weight) for p in patches), strict=True)]
    return stacks[0], stacks[1].astype(np.float32), stacks[2]
