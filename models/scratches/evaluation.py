"""Measures of scratch detection on seeded synthetic damage: ROC AUC, precision, recall, intersection over union."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from models.degradations.damage_layers import FloatArray
from models.degradations.scratches import DamageSettings
from models.scratches.synthesis import PatchSettings, TrainingData, age_damaged, damage_picture, local_deviation

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
    for index, whole in enumerate((*data.benchmark_like, *data.photographs)):
        top, left = max(0, (whole.shape[0] - side_max) // 2), max(0, (whole.shape[1] - side_max) // 2)
        clean = whole[top : top + side_max, left : left + side_max].astype(np.float32) * np.float32(1 / 255)
        nothing, texture = np.zeros(clean.shape, np.bool_), local_deviation(clean)
        rng = np.random.default_rng((seed, index))
        for aged, damaged in ((False, True), (True, True), (True, False)):
            picture, mask = damage_picture(clean, data.overlays, rng, settings) if damaged else (clean, nothing)
            change = np.abs(picture - clean)
            counts = np.asarray(change >= settings.faint_change)
            contrast = np.where(mask, change / np.maximum(texture, settings.faint_change), np.inf).astype(np.float32)
            if aged:
                picture, weight = age_damaged(clean, picture, mask, rng, settings=settings)
                counts = weight == 1
            levels = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
            yield EvaluationPicture(image=levels, mask=mask, counts=counts | ~mask, contrast=contrast, aged=aged)


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
