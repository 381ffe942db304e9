"""Scratch detection measured: how much of seeded damage is found, and how much of clean pictures is marked for nothing.

Damaged: 30 held-back photographs with drawn marks and held-back overlays, once without and once with stains and holes,
as they are, after ageing, and in a finer scan; and as dark, grainy prints. Clean: CBSD68, Set5 and Set14. No threshold
is chosen here.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.benchmarking.code_identity import code_sha256
from models.degradations.scratches import DamageSettings
from models.scratches.detector import WEIGHTS_NAME, detect, load_detector, probability_map, shipped_settings
from models.scratches.evaluation import (
    CONSPICUOUS,
    STRIKING,
    EvaluationPicture,
    Histogram,
    Overlap,
    evaluation_pictures,
    marks_only,
    print_pictures,
)
from models.scratches.hysteresis import grow_mask
from models.scratches.synthesis import TrainingData, load_split, split_files
from models.weights import load_card

SEED = 11
# "marks" leaves stains and holes out.
SETS: dict[str, DamageSettings] = {"marks": marks_only(DamageSettings()), "damaged": DamageSettings()}
PRINTS = "prints"
FINER = 4
FINE = f"marks, {FINER} times finer"
CLEAN_SETS = ("CBSD68", "Set5", "Set14")
LEARNED, NATIVE, TOP_HAT = "scratch-detector", "scratch-detector-native", "top-hat"
TITLES = {
    LEARNED: "Lacuna's trained detector",
    NATIVE: "The same, at native resolution alone",
    TOP_HAT: "White and black top-hat, Otsu's threshold",
}
Detector = Callable[[NDArray[np.uint8]], tuple[NDArray[np.uint8], NDArray[np.bool_]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionRow:
    """One detector on one set, over all pixels that count. None = does not apply: a clean set has nothing to be found.

    marked: mean share of the pixels that are marked; marked_worst: the largest share of a picture.
    """

    detector: str
    set: str
    n: int
    roc_auc: float | None = None
    precision: float | None = None
    recall: float | None = None
    iou: float | None = None
    marked: float
    marked_worst: float


def check_detector(detector_id: str) -> None:
    """Raise ValueError, naming the nearest, for an unknown detector."""
    if detector_id not in TITLES:
        near = difflib.get_close_matches(detector_id, TITLES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"detector: got {detector_id!r}, expected one of {sorted(TITLES)}{hint}")


def detector_identity(detector_id: str) -> tuple[str, str, str | None, str]:
    """Return (id, sha256 of the code, sha256 of the weights, thresholds): what figures depend on besides pictures."""
    code = code_sha256(Path(inspect.getfile(DetectionRow)))
    if detector_id == TOP_HAT:
        return detector_id, code, None, ""
    return detector_id, code, load_card(WEIGHTS_NAME).sha256, repr(shipped_settings())


def data_identity(data: Path) -> list[tuple[str, int]]:
    """Return name and size of every picture that is measured; FileNotFoundError when a set is absent."""
    held_back = [path for files in split_files(data)["heldback"].values() for path in files]
    return [(path.name, path.stat().st_size) for path in (*held_back, *clean_pictures(data))]


def measure_detector(detector_id: str, *, data: Path, device: str, limit: int | None = None) -> list[DetectionRow]:
    """Return one row per set; `data` holds train/, masks/ and test/.

    limit: only the first so many pictures of each set. Raises ValueError and FileNotFoundError.
    """
    check_detector(detector_id)
    find = top_hat if detector_id == TOP_HAT else _learned(device, native=detector_id == NATIVE)
    tallies: dict[str, _Tally] = {}
    for set_name, picture in _pictures(load_split(data, "heldback"), limit=limit):
        probability, mask = find(picture.image)
        for group, judged in _groups(set_name, picture):
            tallies.setdefault(group, _Tally()).add(judged, probability=probability, mask=mask)
    for path in clean_pictures(data, limit=limit):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise OSError(f"cannot decode {path}")
        _, mask = find(np.asarray(image, np.uint8))
        tallies.setdefault("clean", _Tally()).shares.append(float(mask.mean()))
    return [tally.row(detector_id, name) for name, tally in tallies.items()]


def _pictures(held_back: TrainingData, *, limit: int | None) -> Iterator[tuple[str, EvaluationPicture]]:
    """Yield every picture that detectors are shown, with the name of its set."""
    for name, damage in SETS.items():
        # Three of every photograph, and two of it as a print.
        pictures = evaluation_pictures(held_back, seed=SEED, damage=damage)
        for picture in islice(pictures, None if limit is None else 3 * limit):
            yield name, picture
            if name == "marks" and picture.mask.any() and not picture.aged:
                yield FINE, picture.finer(FINER)
    for picture in islice(print_pictures(held_back, seed=SEED), None if limit is None else 2 * limit):
        yield PRINTS, picture


def _groups(set_name: str, picture: EvaluationPicture) -> Iterator[tuple[str, EvaluationPicture]]:
    if not picture.mask.any():
        # Nothing to be found, whether it was aged or not: the same question.
        yield f"{PRINTS}, intact" if set_name == PRINTS else "intact", picture
        return
    name = f"{set_name}, aged" if picture.aged and set_name != PRINTS else set_name
    yield name, picture
    if set_name == FINE:
        return
    yield f"{name}, conspicuous", picture.from_contrast(CONSPICUOUS)
    yield f"{name}, striking", picture.from_contrast(STRIKING)


class _Tally:
    """Counts over the pictures of one set."""

    def __init__(self) -> None:
        self.histogram, self.overlap = Histogram(), Overlap()
        self.shares: list[float] = []

    def add(self, picture: EvaluationPicture, *, probability: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
        self.histogram.add(probability, picture)
        self.overlap.add(mask, picture)
        self.shares.append(float(mask.mean()))

    def row(self, detector_id: str, name: str) -> DetectionRow:
        found = self.histogram.damaged.sum() > 0
        return DetectionRow(
            detector=detector_id,
            set=name,
            n=len(self.shares),
            roc_auc=self.histogram.roc_auc() if found else None,
            precision=self.overlap.precision if found else None,
            recall=self.overlap.recall if found else None,
            iou=self.overlap.iou if found else None,
            marked=float(np.mean(self.shares)),
            marked_worst=max(self.shares),
        )


def top_hat(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the larger of white and black top-hat (9 x 9) of `image` as a score, and its mask by Otsu's threshold."""
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    light = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, kernel)
    score = np.maximum(light, cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, kernel))
    _, mask = cv2.threshold(score, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray(score, np.uint8), np.asarray(mask > 0)


def _learned(device: str, *, native: bool) -> Detector:
    network, settings = load_detector(device), shipped_settings()

    def find(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        found = detect(image, network=network, device=device, settings=settings)
        return found.probability, found.mask

    def find_at_native_resolution(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        probability = probability_map(image, network=network, device=device)
        return probability, grow_mask(probability, settings.thresholds).mask

    return find_at_native_resolution if native else find


def clean_pictures(data: Path, *, limit: int | None = None) -> list[Path]:
    """Return the clean standard pictures; FileNotFoundError when a set is absent."""
    files: list[Path] = []
    for name in CLEAN_SETS:
        folder = data / "test" / name
        names = sorted(folder.iterdir()) if folder.is_dir() else []
        found = [path for path in names if path.suffix in (".png", ".bmp", ".jpg")]
        if not found:
            raise FileNotFoundError(f"There are no pictures in {folder}; scratch-detection needs {name}.")
        files += found[:limit]
    return files
