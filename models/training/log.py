"""The log of a training, a line of JSON every so many steps: written by the loop, read by whoever follows it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One line of a run's log: mean losses since the last line, and PSNR in dB on the validation set where measured.

    The generator's and the discriminator's adversarial losses are those of training with a discriminator.
    """

    step: int
    steps: int
    loss: float
    lr: float
    seconds: float
    validation_psnr_db: float | None = None
    adversarial_loss: float | None = None
    discriminator_loss: float | None = None


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log, in order of step; after a resume, a step that was done again counts once."""
    if not path.is_file():
        return []
    rows = {row["step"]: row for row in map(json.loads, path.read_text().splitlines())}
    return [rows[step] for step in sorted(rows)]


def validations(rows: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Return the PSNR in dB by step, of the lines that have one."""
    return {row["step"]: row["validation_psnr_db"] for row in rows if row.get("validation_psnr_db") is not None}


def has_settled(measured: Mapping[int, float], *, patience: int | None) -> bool:
    """Whether the last `patience` validations (by step) were none of them better than the best before; None = never."""
    if patience is None or not measured:
        return False
    best = max(measured, key=lambda step: measured[step])
    return sum(step > best for step in measured) >= patience
