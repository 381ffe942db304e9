"""Training examples of the degradation estimator: windows of clean photographs, degraded by known amounts.

A batch is a pure function of (seed, step): a run that was interrupted and resumed sees the same batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.degradations.blur import BoxBlur, GaussianBlur, MotionBlur
from models.degradations.fading import ColourCast, Fading
from models.degradations.grain import FilmGrain
from models.degradations.jpeg import JpegCompression, JpegPass
from models.degradations.noise import GaussianNoise, PoissonNoise
from models.degradations.resample import Kernel, LowResolution
from models.estimation.patches import BLOCK, PATCH, FloatArray, choose, to_unit_rgb

Picture = npt.NDArray[np.uint8]
SETS = ("bsds500", "photos_1024")
# Windows are degraded with a margin of one block and cut, so that no mirrored border is ever seen.
_DRAWN = PATCH + 2 * BLOCK
_HELD_BACK_EVERY = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """Size of a batch and how often each degradation occurs."""

    pictures: int = 12
    windows: int = 4
    candidates: int = 9
    clean: float = 0.2
    blurred: float = 0.4
    low_resolution: float = 0.25
    faded: float = 0.15
    tinted: float = 0.15
    grey: float = 0.25
    noisy: float = 0.5
    compressed: float = 0.45
    drawn_text: float = 0.05


def read_photos(data: Path, *, held_back: bool = False) -> list[Picture]:
    """Return the training photographs under `data`/train as RGB; every 40th is held back for validation instead.

    Raises FileNotFoundError when a set is missing.
    """
    paths: list[Path] = []
    for name in SETS:
        found = sorted(path for path in (data / "train" / name).rglob("*") if path.suffix.lower() in (".jpg", ".png"))
        if not found:
            raise FileNotFoundError(f"no pictures in {data / 'train' / name}; point --data at the folder above train/")
        paths += [path for index, path in enumerate(found) if (index % _HELD_BACK_EVERY == 7) == held_back]
    pictures = [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in paths]
    return [np.ascontiguousarray(p[:, :, ::-1]).astype(np.uint8) for p in pictures if p is not None]


def draw_text(rng: np.random.Generator, *, height: int = 480, width: int = 480) -> Picture:
    """Return a drawn page: words, lines and rectangles in two to four colours; sharp, clean, unlike a photograph."""
    page = np.full((height, width, 3), rng.integers(180, 256) if rng.random() < 0.7 else rng.integers(0, 90), np.uint8)
    ink = [int(value) for value in rng.integers(0, 256, 3)]
    for _ in range(int(rng.integers(3, 10))):
        corner, size = rng.integers(0, (width, height)), rng.integers(10, 160, 2)
        colour = [int(value) for value in rng.integers(0, 256, 3)]
        thickness = -1 if rng.random() < 0.4 else int(rng.integers(1, 4))
        end = (int(corner[0] + size[0]), int(corner[1] + size[1]))
        cv2.rectangle(page, (int(corner[0]), int(corner[1])), end, colour, thickness)
    scale = float(rng.uniform(0.35, 1.1))
    for baseline in range(int(30 * scale), height, int(34 * scale)):
        letters = "".join(chr(int(code)) for code in rng.choice([*range(97, 123), 32, 32, 44], int(60 / scale)))
        cv2.putText(page, letters, (8, baseline), int(rng.integers(0, 5)), scale, ink, 1, cv2.LINE_AA)
    return page


def draw_windows(photo: Picture, rng: np.random.Generator, *, settings: BatchSettings) -> FloatArray:
    """Return (windows, 112, 112, 3) of a photograph at a random reduction, chosen as those of a picture to estimate."""
    reduction = float(rng.uniform(1.0, min(2.5, min(photo.shape[:2]) / _DRAWN)))
    size = round(_DRAWN * reduction)
    found = []
    for _ in range(settings.candidates):
        top, left = (int(rng.integers(0, room - size + 1)) for room in photo.shape[:2])
        found.append(photo[top : top + size, left : left + size])
    ranked = [to_unit_rgb(window) for window in found]
    chosen = choose(ranked, count=settings.windows, damage=[0.0] * len(ranked))
    windows = [cv2.resize(ranked[i], (_DRAWN, _DRAWN), interpolation=cv2.INTER_AREA) for i in chosen]
    return np.stack(windows).astype(np.float32)


def _with(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What happens to one picture, in this order; neutral values mean that a step does not happen."""

    grey: bool
    gaussian_sigma_px: tuple[float, float, float]
    box_width_px: float
    motion: tuple[float, float]
    scale: float
    fading: tuple[float, float, float]
    cast: ColourCast | None
    noise: str
    noise_level: float
    grain_size_px: float
    achromatic: bool
    clipped: bool
    passes: tuple[JpegPass, ...]

    def blur_sigma_px(self) -> float:
        """Return the sigma of a Gaussian with the variance of all blurs, the lost resolution among them.

        Shrinking to a share s with bicubic kernels and back has the half-contrast frequency of a Gaussian of sigma
        0.48 sqrt(1 / s^2 - 1) px.
        """
        major, minor, _ = self.gaussian_sigma_px
        box = BoxBlur(width_px=(self.box_width_px,)).equivalent_sigma_px()[0]
        lost = 0.48**2 * (1 / self.scale**2 - 1)
        return math.sqrt((major**2 + minor**2) / 2 + box**2 + self.motion[0] ** 2 / 24 + lost)

    def effective_scale(self) -> float:
        """Return the share of the resolution left: the drawn scale, or where a blur leaves a tenth of the contrast."""
        major, minor, _ = self.gaussian_sigma_px
        box = BoxBlur(width_px=(self.box_width_px,)).equivalent_sigma_px()[0]
        blur = math.sqrt((major**2 + minor**2) / 2 + box**2 + self.motion[0] ** 2 / 24)
        return min(1.0, self.scale, 0.683 / max(blur, 1e-3))


def draw_recipe(rng: np.random.Generator, *, settings: BatchSettings) -> Recipe:
    """Draw the degradation of one picture."""
    clean = _with(rng, settings.clean)
    blurred = not clean and _with(rng, settings.blurred)
    kind = rng.choice(["round", "long", "box", "motion"], p=[0.7, 0.15, 0.08, 0.07]) if blurred else "none"
    sigma = float(rng.uniform(0.3, 1.5) if _with(rng, 0.5) else rng.uniform(0.5, 4.0))
    gaussian = (0.0, 0.0, 0.0)
    if kind in ("round", "long"):
        share = 1.0 if kind == "round" else float(rng.uniform(0.4, 1.0))
        gaussian = (sigma, sigma * share, float(rng.uniform(0, math.pi)))
    noisy = not clean and _with(rng, settings.noisy)
    noise = str(rng.choice(["gaussian", "poisson", "grain"], p=[0.78, 0.08, 0.14])) if noisy else "none"
    level = float(rng.uniform(0, 55) if _with(rng, 0.5) else np.exp(rng.uniform(math.log(0.5), math.log(25))))
    tinted = _with(rng, settings.tinted)
    compressed = not clean and _with(rng, settings.compressed)
    faded = _with(rng, settings.faded)
    fading = (float(rng.uniform(0, 0.35)), float(rng.uniform(0.6, 1)), float(rng.uniform(0.7, 1.4)))
    grey = _with(rng, settings.grey)
    return Recipe(
        grey=grey,
        gaussian_sigma_px=gaussian,
        box_width_px=float(rng.uniform(1.5, 8)) if kind == "box" else 1.0,
        motion=(float(rng.uniform(2, 14)), float(rng.uniform(0, math.pi))) if kind == "motion" else (0.0, 0.0),
        scale=float(rng.uniform(0.25, 0.9)) if not clean and _with(rng, settings.low_resolution) else 1.0,
        fading=fading if faded else (0.0, 1.0, 1.0),
        cast=ColourCast.draw(rng, batch=1) if tinted else None,
        noise=noise,
        noise_level=level if noisy else 0.0,
        grain_size_px=float(rng.uniform(0.3, 1.0)),
        achromatic=grey or _with(rng, 0.1),
        clipped=_with(rng, 0.75),
        passes=JpegCompression.draw(
            rng, batch=1, quality=(8, 92), misaligned_probability=0.25, double_probability=0.12
        ).passes[0]
        if compressed
        else (),
    )


def _repeat(operator: Any, times: int) -> Any:
    """Return the operator with every per-image value repeated: all windows of a picture suffer the same."""
    changed = {
        field.name: tuple(item for item in value for _ in range(times))
        for field in fields(operator)
        if isinstance(value := getattr(operator, field.name), tuple)
    }
    return replace(operator, **changed)


def _soften(windows: Tensor, recipes: list[Recipe], count: int) -> Tensor:
    """Apply the blurs and the loss of resolution."""
    major, minor, angle = zip(*(recipe.gaussian_sigma_px for recipe in recipes), strict=True)
    steps: list[Any] = [GaussianBlur(sigma_major_px=major, sigma_minor_px=minor, angle=angle)]
    if any(recipe.box_width_px > 1 for recipe in recipes):
        steps.append(BoxBlur(width_px=tuple(recipe.box_width_px for recipe in recipes)))
    if any(recipe.motion[0] > 0 for recipe in recipes):
        length, direction = zip(*(recipe.motion for recipe in recipes), strict=True)
        steps.append(MotionBlur(length_px=length, angle=direction))
    kernels: tuple[Kernel, ...] = tuple("bicubic" for _ in recipes)
    scales = tuple(recipe.scale for recipe in recipes)
    steps.append(LowResolution(scale=scales, shrink_kernel=kernels, grow_kernel=kernels))
    for step in steps:
        windows = _repeat(step, count).apply(windows)
    return windows.clamp_(0, 1)


def _tone(windows: Tensor, recipes: list[Recipe], count: int) -> Tensor:
    """Turn grey, fade and tint."""
    grey = torch.tensor([recipe.grey for recipe in recipes]).repeat_interleave(count).view(-1, 1, 1, 1)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    windows = torch.where(grey, (windows * weights).sum(dim=1, keepdim=True), windows)
    black, white, gamma = zip(*(recipe.fading for recipe in recipes), strict=True)
    windows = _repeat(Fading(black=black, white=white, gamma=gamma), count).apply(windows)
    gain = tuple(recipe.cast.gain[0] if recipe.cast else (1.0, 1.0, 1.0) for recipe in recipes)
    lost = tuple(recipe.cast.desaturation[0] if recipe.cast else 0.0 for recipe in recipes)
    tinted: Tensor = _repeat(ColourCast(gain=gain, desaturation=lost), count).apply(windows)
    return tinted


def _add_noise(windows: Tensor, recipes: list[Recipe], count: int, rng: np.random.Generator) -> Tensor:
    """Add each picture's noise; those that are `clipped` are cut to [0, 1] and rounded to 8 bits as a file is."""
    result = windows.clone()
    for kind in ("gaussian", "poisson", "grain"):
        which = [index for index, recipe in enumerate(recipes) if recipe.noise == kind]
        if not which:
            continue
        some = [recipes[index] for index in which]
        sigma, grey = tuple(r.noise_level for r in some), tuple(r.achromatic for r in some)
        seed = int(rng.integers(0, 2**62))
        operator: Any = GaussianNoise(sigma=sigma, achromatic=grey, clip=False, seed=seed)
        if kind == "poisson":
            operator = PoissonNoise(peak=tuple(min(2e4, 0.4 * (255 / max(s, 1)) ** 2) for s in sigma), seed=seed)
        elif kind == "grain":
            sizes = tuple(r.grain_size_px for r in some)
            operator = FilmGrain(sigma=sigma, size_px=sizes, achromatic=grey, floor=0.3, seed=seed)
        rows = torch.tensor([index * count + k for index in which for k in range(count)])
        result[rows] = _repeat(operator, count).apply(windows[rows])
    cut = torch.tensor([r.clipped or r.noise == "none" for r in recipes]).repeat_interleave(count).view(-1, 1, 1, 1)
    return torch.where(cut, (result.clamp(0, 1) * 255).round() / 255, result)


def degrade(windows: Tensor, recipes: list[Recipe], *, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return the degraded (P * K, 3, S, S) windows and (P, 4) labels in units, in the order of network.QUANTITIES.

    The noise label is the sigma that was drawn for Gaussian noise, and the measured deviation for the other kinds and
    for noise that a later compression has partly removed.
    """
    pictures = len(recipes)
    count = windows.shape[0] // pictures
    quiet = _tone(_soften(windows, recipes, count), recipes, count)
    noisy = _add_noise(quiet, recipes, count, rng)
    noise = _deviation(noisy - quiet, pictures)
    passes = tuple(recipe.passes for recipe in recipes)
    final: Tensor = _repeat(JpegCompression(passes=passes), count).apply(noisy)
    both = tuple(p if recipe.noise != "none" else () for p, recipe in zip(passes, recipes, strict=True))
    if any(both):
        reference: Tensor = _repeat(JpegCompression(passes=both), count).apply(quiet)
        left = _deviation(final - reference, pictures)
        noise = [min(a, b) if p else a for a, b, p in zip(noise, left, both, strict=True)]
    labels = []
    for measured, recipe in zip(noise, recipes, strict=True):
        exact = recipe.noise == "gaussian" and not recipe.passes
        sigma = recipe.noise_level if exact else measured if recipe.noise != "none" else 0.0
        quality = float(min((jpeg.quality for jpeg in recipe.passes), default=100))
        labels.append((sigma, recipe.blur_sigma_px(), quality, recipe.effective_scale()))
    return final, torch.tensor(labels)


def _deviation(difference: Tensor, pictures: int) -> list[float]:
    rows = difference.reshape(pictures, -1)
    variance = rows.square().mean(dim=1) - rows.mean(dim=1).square()
    return [math.sqrt(max(0.0, value)) * 255 for value in variance.tolist()]


def draw_batch(photos: list[Picture], *, seed: int, step: int, settings: BatchSettings) -> tuple[Tensor, Tensor]:
    """Return windows (P, K, 3, 96, 96) in [0, 1] and labels (P, 4) in units; a pure function of its arguments."""
    rng = np.random.default_rng([seed, step])
    found = []
    for _ in range(settings.pictures):
        drawn = _with(rng, settings.drawn_text)
        photo = draw_text(rng) if drawn else photos[int(rng.integers(len(photos)))]
        windows = draw_windows(photo, rng, settings=settings)
        turn = (slice(None), slice(None, None, -1 if _with(rng, 0.5) else 1))
        found.append(windows[turn] if _with(rng, 0.5) else np.swapaxes(windows[turn], 1, 2))
    recipes = [draw_recipe(rng, settings=settings) for _ in range(settings.pictures)]
    clean = torch.from_numpy(np.ascontiguousarray(np.concatenate(found).transpose(0, 3, 1, 2)))
    degraded, labels = degrade(clean, recipes, rng=rng)
    cut = degraded[:, :, BLOCK:-BLOCK, BLOCK:-BLOCK]
    return cut.reshape(settings.pictures, settings.windows, 3, PATCH, PATCH), labels
