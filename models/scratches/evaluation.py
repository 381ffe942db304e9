"""Measures of scratch detection on seeded synthetic damage: ROC AUC, precision, recall, intersection over union."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from models.degradations.damage_layers import FloatArray
from models.degradations.scratches import DamageSettings
from models.scratches.synthesis import (
    TRAINING_DAMAGE,
    PatchSettings,
    TrainingData,
    age_damaged,
    as_print,
    damage_picture,
    local_deviation,
)

# Damage of at least this contrast: not camouflaged by the texture that it lies on; standing out from it at once.
CONSPICUOUS, STRIKING = 1.0, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPicture:
    """An 8-bit grey picture (H, W), its true mask, and which pixels count (False = damage too faint to be seen).

    `contrast`: how far the damage stands out from what it lies on: its change over the deviation of the clean picture
    around it (of at least `PatchSettings.faint_change`). Below 1 it is camouflaged, for a human eye too; infinite where
    the picture is intact.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    counts: NDArray[np.bool_]
    contrast: FloatArray
    aged: bool

    def from_contrast(self, least: float) -> EvaluationPicture:
        """Return the same picture where of the damage only what has at least this contrast counts."""
        return replace(self, counts=self.counts & (self.contrast >= least))

    def finer(self, times: int) -> EvaluationPicture:
        """Return the picture as a scan of so many times the resolution would show it, but for its finest detail."""
        size = (self.mask.shape[1] * times, self.mask.shape[0] * times)

        def repeated(values: NDArray[np.bool_]) -> NDArray[np.bool_]:
            return np.asarray(cv2.resize(values.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)).view(np.bool_)

        return EvaluationPicture(
            image=np.asarray(cv2.resize(self.image, size, interpolation=cv2.INTER_CUBIC), np.uint8),
            mask=repeated(self.mask),
            counts=repeated(self.counts),
            contrast=np.asarray(cv2.resize(self.contrast, size, interpolation=cv2.INTER_NEAREST), np.float32),
            aged=self.aged,
        )


# What scratch detection is asked to find; stains and holes are told from the scene by what it shows, if at all.
MARKS = ("scratches", "film_lines", "cracks", "folds", "dust", "hairs")


def marks_only(settings: DamageSettings) -> DamageSettings:
    """Return the settings without stains and holes; the other kinds keep their relative frequency."""
    return replace(settings, weights=tuple(pair for pair in settings.weights if pair[0] in MARKS))


def evaluation_pictures(
    data: TrainingData, *, seed: int, side_max: int = 512, damage: DamageSettings | None = None
) -> Iterator[EvaluationPicture]:
    """Yield every picture of `data` three times: damaged, damaged and aged, and aged only (nothing to be found).

    Larger pictures are cut to their middle `side_max` pixels. The draws depend on `seed`, the settings of the damage
    and the picture's place alone.
    """
    settings = PatchSettings() if damage is None else PatchSettings(damage=damage)
    for index, clean in enumerate(_middles(data, side_max)):
        rng = np.random.default_rng((seed, index))
        for aged, damaged in ((False, True), (True, True), (True, False)):
            picture, mask = _damaged(clean, data, rng, settings, damaged=damaged)
            yield _judged(clean, picture, mask, rng, settings, aged=aged)


def print_pictures(data: TrainingData, *, seed: int, side_max: int = 512) -> Iterator[EvaluationPicture]:
    """Yield every picture of `data` twice as a dark, grainy print, scanned and at times sharpened: damaged, and not.

    Half of the light damage is emulsion lifted from the paper (`TRAINING_DAMAGE`), stains and holes left out.
    """
    settings = PatchSettings(damage=marks_only(TRAINING_DAMAGE), sharpened_share=0.5)
    for index, clean in enumerate(_middles(data, side_max)):
        rng = np.random.default_rng((seed, index))
        for damaged in (True, False):
            printed, grain = as_print(clean, rng)
            picture, mask = _damaged(printed, data, rng, settings, damaged=damaged)
            yield _judged(printed, picture, mask, rng, settings, aged=True, grain=grain)


def _middles(data: TrainingData, side_max: int) -> Iterator[FloatArray]:
    for whole in (*data.benchmark_like, *data.photographs):
        top, left = max(0, (whole.shape[0] - side_max) // 2), max(0, (whole.shape[1] - side_max) // 2)
        yield whole[top : top + side_max, left : left + side_max].astype(np.float32) * np.float32(1 / 255)


def _damaged(
    clean: FloatArray, data: TrainingData, rng: np.random.Generator, settings: PatchSettings, *, damaged: bool
) -> tuple[FloatArray, NDArray[np.bool_]]:
    if damaged:
        return damage_picture(clean, data.overlays, rng, settings)
    return clean, np.zeros(clean.shape, np.bool_)


def _judged(
    clean: FloatArray,
    picture: FloatArray,
    mask: NDArray[np.bool_],
    rng: np.random.Generator,
    settings: PatchSettings,
    *,
    aged: bool,
    grain: float = 0.0,
) -> EvaluationPicture:
    """Age a damaged copy of `clean` (H, W) if asked for, and say which of its pixels count."""
    change = np.abs(picture - clean)
    counts = np.asarray(change >= settings.faint_change)
    texture = np.maximum(local_deviation(clean), settings.faint_change)
    contrast = np.where(mask, change / texture, np.inf).astype(np.float32)
    if aged:
        picture, weight = age_damaged(clean, picture, mask, rng, settings=settings, grain=grain)
        counts = weight == 1
    levels = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return EvaluationPicture(image=levels, mask=mask, counts=counts | ~mask, contrast=contrast, aged=aged)


@dataclass(slots=True)
class Histogram:
    """Counts of intact and damaged pixels at each of the 256 levels of a probability: all a ROC curve needs."""

    intact: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    damaged: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))

    def add(self, probability: NDArray[np.uint8], picture: EvaluationPicture) -> None:
        """Count the pixels of one picture."""
        self.intact += np.bincount(probability[picture.counts & ~picture.mask], minlength=256)
        self.damaged += np.bincount(probability[picture.counts & picture.mask], minlength=256)

    def roc_auc(self) -> float:
        """Area under the ROC curve, ties counted half; raises ValueError when one class is absent."""
        intact, damaged = float(self.intact.sum()), float(self.damaged.sum())
        if not intact or not damaged:
            raise ValueError("ROC AUC: expected intact and damaged pixels, got only one kind; add pictures")
        below = np.cumsum(self.intact) - self.intact
        return float((self.damaged * (below + self.intact / 2)).sum() / intact / damaged)


@dataclass(slots=True)
class Overlap:
    """Counts of pixels for precision, recall and intersection over union of masks."""

    hits: int = 0
    false_alarms: int = 0
    misses: int = 0

    def add(self, found: NDArray[np.bool_], picture: EvaluationPicture) -> None:
        """Count the pixels of one picture; those that do not count are left out."""
        self.hits += int((found & picture.mask & picture.counts).sum())
        self.false_alarms += int((found & ~picture.mask & picture.counts).sum())
        self.misses += int((~found & picture.mask & picture.counts).sum())

    @property
    def precision(self) -> float:
        return self.hits / max(1, self.hits + self.false_alarms)

    @property
    def recall(self) -> float:
        return self.hits / max(1, self.hits + self.misses)

    @property
    def iou(self) -> float:
        return self.hits / max(1, self.hits + self.false_alarms + self.misses)

    @property
    def f1(self) -> float:
        return 2 * self.hits / max(1, 2 * self.hits + self.false_alarms + self.misses)
