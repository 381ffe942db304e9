"""Scratch detection measured: how much of seeded damage is found, and how much of clean pictures is marked for nothing.

Damaged: 30 held-back photographs with drawn marks and held-back overlays, once without and once with stains and holes,
as they are and after ageing. Clean: CBSD68, Set5 and Set14. No threshold is chosen here.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.benchmarking.code_identity import code_sha256
from models.degradations.scratches import DamageSettings
from models.scratches.detector import WEIGHTS_NAME, detect, load_detector, shipped_settings
from models.scratches.evaluation import (
    CONSPICUOUS,
    STRIKING,
    EvaluationPicture,
    Histogram,
    Overlap,
    evaluation_pictures,
    marks_only,
)
from models.scratches.synthesis import load_split, split_files
from models.weights import load_card

SEED = 11
# "marks" leaves stains and holes out.
SETS: dict[str, DamageSettings] = {"marks": marks_only(DamageSettings()), "damaged": DamageSettings()}
CLEAN_SETS = ("CBSD68", "Set5", "Set14")
LEARNED, TOP_HAT = "scratch-detector", "top-hat"
TITLES = {LEARNED: "Lacuna's trained detector", TOP_HAT: "White and black top-hat, Otsu's threshold"}
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
    if detector_id != LEARNED:
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
    find = top_hat if detector_id == TOP_HAT else _learned(device)
    tallies: dict[str, _Tally] = {}
    for set_name, damage in SETS.items():
        pictures = evaluation_pictures(load_split(data, "heldback"), seed=SEED, damage=damage)
        for index, picture in enumerate(pictures):
            if limit is not None and index >= 3 * limit:
                break
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


def _groups(set_name: str, picture: EvaluationPicture) -> Iterator[tuple[str, EvaluationPicture]]:
    if not picture.mask.any():
        # Nothing to be found, whether it was aged or not: the same question.
        yield "intact", picture
        return
    name = f"{set_name}, aged" if picture.aged else set_name
    yield name, picture
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


def _learned(device: str) -> Detector:
    network, settings = load_detector(device), shipped_settings()

    def find(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        found = detect(image, network=network, device=device, settings=settings)
        return found.probability, found.mask

    return find


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
