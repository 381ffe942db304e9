"""Measures scratch detection: ``python -m benchmarks.scratch_detection --data DIR [--write-card] [--json FILE]``.

Two questions, each asked of the shipped detector and of a classical one (top-hat and Otsu's threshold): how much of the
damage is found on 30 held-back photographs damaged by drawn marks and held-back overlays (seeded; once without and once
with stains and holes), and how much of 87 clean standard pictures (CBSD68, Set5, Set14) is marked although nothing is
there. No threshold is chosen here.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.degradations.scratches import DamageSettings
from models.scratches.detector import WEIGHTS_NAME, detect, load_detector, shipped_settings
from models.scratches.evaluation import Histogram, Overlap, evaluation_pictures, marks_only
from models.scratches.hysteresis import Thresholds, grow_mask
from models.scratches.synthesis import load_split
from models.weights import WEIGHTS_FOLDER

SEED = 11
# "marks" leaves stains and holes out. Damage camouflaged by texture of its own contrast counts in `conspicuous` only.
SETS: dict[str, DamageSettings] = {"marks": marks_only(DamageSettings()), "damaged": DamageSettings()}
CLEAN_SETS = ("CBSD68", "Set5", "Set14")
Detector = Callable[[NDArray[np.uint8]], tuple[NDArray[np.uint8], NDArray[np.bool_]]]


def classical_detection(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the larger of white and black top-hat (9 x 9) of `image` as a score, and its mask by Otsu's threshold."""
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    light = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, kernel)
    score = np.maximum(light, cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, kernel))
    _, mask = cv2.threshold(score, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray(score, np.uint8), np.asarray(mask > 0)


def learned_detection(network: nn.Module) -> Detector:
    """Return the shipped detector as a function from a picture to its probability and mask."""
    settings = shipped_settings()

    def run(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        found = detect(image, network=network, settings=settings)
        return found.probability, found.mask

    return run


def score_damaged(data: Path, detector: Detector) -> dict[str, dict[str, float]]:
    """Return ROC AUC, precision, recall and IoU on the held-back sets, as damaged and after ageing."""
    histograms: dict[str, Histogram] = {}
    overlaps: dict[str, Overlap] = {}
    aged_only: list[float] = []
    for set_name, damage in SETS.items():
        for picture in evaluation_pictures(load_split(data, "heldback"), seed=SEED, damage=damage):
            probability, mask = detector(picture.image)
            if not picture.mask.any():
                aged_only.append(float(mask.mean()))
                continue
            name = f"{set_name}_and_aged" if picture.aged else set_name
            for group, judged in ((name, picture), (f"{name}_conspicuous", picture.without_camouflaged())):
                histograms.setdefault(group, Histogram()).add(probability, judged)
                overlaps.setdefault(group, Overlap()).add(mask, judged)
    scores = {
        name: {
            "roc_auc": histograms[name].roc_auc(),
            "precision": overlap.precision,
            "recall": overlap.recall,
            "iou": overlap.iou,
        }
        for name, overlap in overlaps.items()
    }
    scores["aged_only"] = {"marked_share_mean": float(np.mean(aged_only)), "marked_share_worst": max(aged_only)}
    return scores


def clean_pictures(data: Path) -> list[Path]:
    """Return the clean standard pictures; FileNotFoundError when a set is absent."""
    files: list[Path] = []
    for name in CLEAN_SETS:
        found = sorted(path for path in (data / "test" / name).iterdir() if path.suffix in (".png", ".bmp", ".jpg"))
        if not found:
            raise FileNotFoundError(f"no pictures in {data / 'test' / name}")
        files += found
    return files


def score_clean(data: Path, detector: Detector) -> dict[str, Any]:
    """Return the share of pixels marked on clean pictures: mean, worst, and how many pictures exceed 0.3 %."""
    shares: dict[str, float] = {}
    for path in clean_pictures(data):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise OSError(f"cannot decode {path}")
        _, mask = detector(np.asarray(image, np.uint8))
        shares[f"{path.parent.name}/{path.stem}"] = float(mask.mean())
    worst = max(shares, key=lambda name: shares[name])
    values = np.array(list(shares.values()))
    return {
        "pictures": len(values),
        "marked_share_mean": float(values.mean()),
        "marked_share_worst": float(values.max()),
        "worst_picture": worst,
        "pictures_marked": int((values > 0).sum()),
        "pictures_above_0.3_percent": int((values > 0.003).sum()),
    }


def seconds_per_megapixel(network: nn.Module) -> float:
    """Return the processor seconds that one megapixel takes, the best of three runs on 4 megapixels of grey noise."""
    image = np.random.default_rng(0).integers(0, 256, (2048, 2048), dtype=np.uint8)
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        detect(image, network=network)
        best = min(best, (time.process_time() - start) / (image.size / 1e6))
    return best


def oracle_thresholds(data: Path, network: nn.Module) -> dict[str, float]:
    """Return the best F1 over single thresholds chosen on the held-back set itself: a bound, never shipped."""
    best = {"f1": 0.0, "threshold": 0.0}
    measured = [
        (picture, detect(picture.image, network=network).probability)
        for picture in evaluation_pictures(load_split(data, "heldback"), seed=SEED)
        if picture.mask.any()
    ]
    for threshold in (0.3, 0.4, 0.5, 0.6, 0.7):
        overlap = Overlap()
        for picture, probability in measured:
            found = grow_mask(probability, Thresholds(high=threshold, low=threshold, smallest_px=1))
            overlap.add(found.mask, picture.without_camouflaged())
        if overlap.f1 > best["f1"]:
            best = {"f1": overlap.f1, "threshold": threshold}
    return best


def _print(title: str, figures: dict[str, Any]) -> None:
    shown = (f"{key} {value:.5f}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items())
    print(f"{title:32s} " + "  ".join(shown))


def _write_card(results: dict[str, Any]) -> None:
    path = WEIGHTS_FOLDER / f"{WEIGHTS_NAME}.json"
    card = json.loads(path.read_text())
    card["metrics"]["heldback_synthetic"] = results["learned"]["damaged"]
    card["metrics"]["clean_CBSD68_Set5_Set14"] = results["learned"]["clean"]
    path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description="Benchmark of scratch detection.")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/, masks/ and test/")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--write-card", action="store_true", help="record the figures in the card of the weights")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    network = load_detector("cpu")
    results: dict[str, Any] = {}
    for name, detector in (("learned", learned_detection(network)), ("top-hat + Otsu", classical_detection)):
        damaged, clean = score_damaged(arguments.data, detector), score_clean(arguments.data, detector)
        results[name] = {"damaged": damaged, "clean": clean}
        for title, figures in (*damaged.items(), ("clean", clean)):
            _print(f"{name}: {title}", figures)
    results["oracle"] = oracle_thresholds(arguments.data, network)
    _print("learned: best single threshold", results["oracle"])
    results["cpu_seconds_per_megapixel"] = seconds_per_megapixel(network)
    print(f"processor seconds per megapixel  {results['cpu_seconds_per_megapixel']:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    if arguments.write_card:
        _write_card(results)


if __name__ == "__main__":
    main()
