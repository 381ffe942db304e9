"""Examples for learning what treatments bring: evidence of a damaged crop and of a trial, and all true gains.

Example n is a function of (seed, n), the photographs and the methods' weights. Examples are kept in files of 100, so a
run that was interrupted goes on where it was; new weights of a method need a new folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from models.estimation.estimate import estimate_with_evidence
from models.estimation.patches import FloatArray
from models.estimation.training_data import SETS, draw_text
from models.routing.gain_damage import KINDS, Damaged, damage
from models.routing.treatments import gain_db, squared_error
from models.routing.trial_evidence import trial_evidence, trial_window
from models.routing.trials import treated, with_trials
from models.run import Runner, RunSettings
from models.training.photographs import IMAGE_SUFFIXES, read_rgb
from models.types import Estimated

Picture = npt.NDArray[np.uint8]
_IN_A_FILE, _TOGETHER = 100, 20
_HELD_BACK_EVERY = 5
_SIDES, _SIDE_CHANCES = (64, 96, 128, 160, 192, 256, 384), (0.07, 0.1, 0.2, 0.2, 0.18, 0.17, 0.08)
_GREY, _TEXT = 0.25, 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Evidence (N, E) float32, true gains (N, treatments) in dB, kind (N,) as index into KINDS, held_back (N,) bool.

    before: mean squared error of the damaged pictures in grey levels². Pictures held back are never learned from.
    """

    evidence: FloatArray
    gains: FloatArray
    kind: npt.NDArray[np.int64]
    held_back: npt.NDArray[np.bool_]
    before: FloatArray

    def of(self, chosen: npt.NDArray[np.bool_]) -> Examples:
        """Return the examples where `chosen` (N,) is True."""
        return Examples(
            evidence=self.evidence[chosen],
            gains=self.gains[chosen],
            kind=self.kind[chosen],
            held_back=self.held_back[chosen],
            before=self.before[chosen],
        )


def photographs(data: Path) -> list[tuple[Path, bool]]:
    """Return the training photographs below `data`/train, and of each whether it is held back: every fifth of a set.

    Among those are the ones that the estimator did not learn from either. FileNotFoundError when a set is missing.
    """
    found: list[tuple[Path, bool]] = []
    for name in SETS:
        paths = sorted(path for path in (data / "train" / name).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise FileNotFoundError(f"no pictures in {data / 'train' / name}; point --data at the folder above train/")
        found += [(path, index % _HELD_BACK_EVERY == 2) for index, path in enumerate(paths)]
    return found


def draw_clean(photo: Picture, rng: np.random.Generator) -> Picture:
    """Return a crop of 64-384 px a side at full size or reduced up to 2.5 times; a quarter of them grey (H, W)."""
    sides = [int(side) for side in rng.choice(_SIDES, 2, p=_SIDE_CHANCES)]
    room = min(length / side for length, side in zip(photo.shape[:2], sides, strict=True))
    reduction = float(rng.uniform(1.0, min(2.5, room))) if room > 1.0 and rng.random() < 0.5 else 1.0
    height, width = (min(length, round(side * reduction)) for length, side in zip(photo.shape[:2], sides, strict=True))
    top, left = int(rng.integers(photo.shape[0] - height + 1)), int(rng.integers(photo.shape[1] - width + 1))
    crop = np.ascontiguousarray(photo[top : top + height, left : left + width])
    if reduction > 1.0:
        size = (min(width, sides[1]), min(height, sides[0]))
        crop = np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), np.uint8)
    crop = crop[:, ::-1] if rng.random() < 0.5 else crop
    grey = rng.random() < _GREY
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY) if grey else crop, np.uint8)


def true_gains(
    degraded: npt.NDArray[Any],
    results: Sequence[npt.NDArray[Any]],
    *,
    clean: npt.NDArray[Any],
    mask: npt.NDArray[np.bool_] | None = None,
) -> tuple[float, list[float]]:
    """Return the mean squared error of a damaged picture in grey levels² and the gain in dB of each result."""
    grown = None if mask is None else cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    before = squared_error(degraded, clean, mask=grown)
    after = [squared_error(result, clean, mask=grown) for result in results]
    return before, [gain_db(before=before, after=error) for error in after]


def _example(photos: Sequence[tuple[Path, bool]], *, seed: int, index: int) -> tuple[Damaged, bool]:
    rng = np.random.default_rng([seed, index])
    path, held_back = photos[int(rng.integers(len(photos)))]
    photo = draw_text(rng) if rng.random() < _TEXT else read_rgb(path)
    return damage(draw_clean(photo, rng), rng), held_back


def _measure(drawn: Sequence[tuple[Damaged, bool]], *, runner: Runner) -> Examples:
    found = []
    for example, _ in drawn:
        mask = example.mask if example.known_mask else None
        covered = Estimated(value=0.0 if mask is None else float(mask.mean()), confidence=0.9)
        estimate, evidence = estimate_with_evidence(
            example.degraded,
            scratch_mask=mask,
            scratch_coverage=covered,
            jpeg_table_quality=example.table_quality,
        )
        if evidence is None:
            raise ValueError(f"example: got a crop of {example.degraded.shape}, expected at least 32 x 32 pixels")
        found.append((estimate, evidence))
    pictures, estimates = [example.degraded for example, _ in drawn], [estimate for estimate, _ in found]
    windows = [trial_window(picture) for picture in pictures]
    tried = with_trials([evidence for _, evidence in found], windows, estimates, runner=runner)
    results = treated(runner, pictures, estimates)
    measured = [
        true_gains(example.degraded, [column[i] for column in results], clean=example.clean, mask=example.mask)
        for i, (example, _) in enumerate(drawn)
    ]
    return Examples(
        evidence=np.stack([evidence for evidence in tried if evidence is not None]),
        gains=np.array([gains for _, gains in measured], np.float32),
        kind=np.array([KINDS.index(example.kind) for example, _ in drawn]),
        held_back=np.array([held_back for _, held_back in drawn]),
        before=np.array([before for before, _ in measured], np.float32),
    )


def make_examples(data: Path, *, out: Path, count: int, seed: int, workers: int = 1) -> Examples:
    """Return `count` examples (rounded up to a whole file of 100), made where `out` does not hold them yet.

    workers: processes that make them, with one thread each.
    """
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"examples-{seed}-{start:06d}.npz" for start in range(0, count, _IN_A_FILE)]
    missing = [(index * _IN_A_FILE, path) for index, path in enumerate(paths) if not path.exists()]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        made = [pool.submit(_make_file, data, path, seed, start) for start, path in missing]
        for number, future in enumerate(as_completed(made), start=1):
            future.result()
            print(f"{number * _IN_A_FILE} of {len(missing) * _IN_A_FILE} examples", flush=True)
    return merge([_kept(path) for path in paths])


def _make_file(data: Path, path: Path, seed: int, start: int) -> None:
    torch.set_num_threads(1)
    photos, runner = photographs(data), _runner()
    groups = []
    for first in range(start, start + _IN_A_FILE, _TOGETHER):
        drawn = [_example(photos, seed=seed, index=index) for index in range(first, first + _TOGETHER)]
        groups.append(_measure(drawn, runner=runner))
    _keep(merge(groups), path)


@lru_cache(maxsize=1)
def _runner() -> Runner:
    """Return the runner of this process, with the networks it has loaded."""
    return Runner(RunSettings(device="cpu"))


def merge(parts: Sequence[Examples]) -> Examples:
    """Return several sets of examples as one."""
    names = Examples.__dataclass_fields__
    return Examples(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def clean_examples(data: Path, *, out: Path, held_back: bool) -> Examples:
    """Return the whole photographs, held back or not, undamaged, and each of them reduced; kept below `out`.

    What treatments do to a clean picture is measured on the window that they are tried on.
    """
    path = out / f"clean-{'held-back' if held_back else 'learned'}.npz"
    if not path.exists():
        paths = [photo for photo, kept in photographs(data) if kept == held_back]
        groups = []
        for first in range(0, len(paths), _TOGETHER):
            pictures = [read_rgb(photo) for photo in paths[first : first + _TOGETHER]]
            reductions = np.random.default_rng([first, held_back]).uniform(1.2, 2.5, len(pictures))
            groups.append(_measure_clean([*pictures, *map(_reduced, pictures, reductions)], held_back=held_back))
        _keep(merge(groups), path)
    return _kept(path)


def _reduced(picture: Picture, times: float) -> Picture:
    height, width = (round(side / times) for side in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _measure_clean(pictures: Sequence[Picture], *, held_back: bool) -> Examples:
    found = [
        estimate_with_evidence(
            picture,
            scratch_mask=None,
            scratch_coverage=Estimated(value=0.0, confidence=0.9),
            jpeg_table_quality=None,
        )
        for picture in pictures
    ]
    estimates, windows = [estimate for estimate, _ in found], [trial_window(picture) for picture in pictures]
    results = treated(_runner(), windows, estimates)
    rows = []
    for index, ((_, evidence), window) in enumerate(zip(found, windows, strict=True)):
        if evidence is None:
            continue
        done = [column[index] for column in results]
        rows.append((np.concatenate([evidence, trial_evidence(window, done)]), true_gains(window, done, clean=window)))
    return Examples(
        evidence=np.stack([evidence for evidence, _ in rows]).astype(np.float32),
        gains=np.array([gains for _, (_, gains) in rows], np.float32),
        kind=np.full(len(rows), KINDS.index("clean")),
        held_back=np.full(len(rows), held_back),
        before=np.zeros(len(rows), np.float32),
    )


def _keep(examples: Examples, path: Path) -> None:
    partial = path.with_suffix(".part.npz")
    np.savez(partial, **{name: getattr(examples, name) for name in Examples.__dataclass_fields__})
    partial.rename(path)


def _kept(path: Path) -> Examples:
    with np.load(path) as stored:
        return Examples(**{name: stored[name] for name in Examples.__dataclass_fields__})
