"""Pairs of 63 x 63 that choosing tools is measured on: those the authors of RL-Restore ship, and ones made alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from models.degradations.recipes import get_recipe
from models.rl_restore.networks import AGENT_SIDE
from models.training.photographs import read_rgb

SEVERITIES = ("mild", "moderate", "severe")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Degraded pictures and references (N, 3, 63, 63) in [0, 1], and the severity of each."""

    degraded: Tensor
    references: Tensor
    severities: tuple[str, ...]

    def first(self, count: int) -> Pairs:
        """Return the first pairs; severities take turns in those that are made."""
        return Pairs(self.degraded[:count], self.references[:count], self.severities[:count])


def planes(path: Path) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(read_rgb(path))).permute(2, 0, 1) / 255.0


def stacked(rows: list[tuple[Tensor, Tensor, str]]) -> Pairs:
    inputs, references = torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])
    return Pairs(inputs, references, tuple(row[2] for row in rows))


def official_pairs(data: Path) -> Pairs:
    """The pairs shipped with the authors' code; inputs and references sort alike though two are named otherwise."""
    rows: list[tuple[Tensor, Tensor, str]] = []
    for severity in SEVERITIES:
        folders = [data / "test" / "RL-Restore_test" / f"{severity}_{kind}" for kind in ("in", "gt")]
        inputs, references = (sorted(folder.glob("*.png"), key=lambda path: path.name[0]) for folder in folders)
        rows += [(planes(a), planes(b), severity) for a, b in zip(inputs, references, strict=True)]
    return stacked(rows)


def made_pairs(data: Path, *, count: int) -> Pairs:
    """`count` pairs a severity: each picture halved (as the paper's down-sampled DIV2K), a random place, our recipe."""
    paths = sorted(path for path in (data / "test" / "CBSD68").iterdir() if path.suffix in (".png", ".jpg", ".bmp"))
    rng = np.random.default_rng(0)
    rows: list[tuple[Tensor, Tensor, str]] = []
    for index in range(count * len(SEVERITIES)):
        severity = SEVERITIES[index % len(SEVERITIES)]
        picture = read_rgb(paths[int(rng.integers(len(paths)))])
        small = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        top, left = (int(rng.integers(length - AGENT_SIDE + 1)) for length in small.shape[:2])
        patch = np.ascontiguousarray(small[top : top + AGENT_SIDE, left : left + AGENT_SIDE])
        made = get_recipe(f"rl-restore/{severity}").apply(patch, seed=index)
        degraded, reference = (torch.from_numpy(image).permute(2, 0, 1) for image in (made.image, made.reference))
        rows.append((degraded, reference, severity))
    return stacked(rows)
