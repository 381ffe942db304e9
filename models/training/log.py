"""The log of a training, a line of JSON every so many steps: written by the loop, read by whoever follows it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


class DivergedError(RuntimeError):
    """A training whose loss or validation is no longer a finite number."""


class Pending:
    """What the next line of the log is made of: the losses since the last one, and the seconds spent so far.

    Part of the checkpoint, so that the log of a run that was killed and resumed is that of an uninterrupted one.
    """

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []
        self._before, self._began = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Return how long the run took so far, in all its calls."""
        return self._before + time.monotonic() - self._began

    def means(self) -> dict[str, float]:
        """Return the mean of every loss by its name."""
        return {name: sum(found[name] for found in self.losses) / len(self.losses) for name in self.losses[0]}

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {"losses": list(self.losses), "seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on from `state_dict`'s result."""
        self.losses = list(state["losses"])
        self._before, self._began = float(state["seconds"]), time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One line of a run's log: mean losses since the last line, and PSNR in dB on the validation set where measured.

    named_psnr_db: on every named set that is followed, then. The generator's and the discriminator's adversarial losses
    are those of training with a discriminator.
    """

    step: int
    steps: int
    loss: float
    lr: float
    seconds: float
    validation_psnr_db: float | None = None
    named_psnr_db: Mapping[str, float] | None = None
    adversarial_loss: float | None = None
    discriminator_loss: float | None = None


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log, in order of step; after a resume, a step that was done again counts once."""
    rows = {row["step"]: row for row in read_lines(path)}
    return [rows[step] for step in sorted(rows)]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log as they were written, none without a file.

    A last line that a kill left in the middle is not counted; one before it that is no JSON raises ValueError.
    """
    return [json.loads(line) for line in _whole(path)]


def mend_log(path: Path) -> None:
    """Cut off a last line that a kill left in the middle, so that a line can be added."""
    if path.is_file():
        text = "".join(f"{line}\n" for line in _whole(path))
        if text != path.read_text():
            path.write_text(text)


def _whole(path: Path) -> list[str]:
    if not path.is_file():
        return []
    # A kill in the middle of a letter of several bytes must not stop the reader either.
    lines = path.read_bytes().decode("utf-8", errors="replace").splitlines()
    try:
        json.loads(lines[-1] if lines else "{}")
    except json.JSONDecodeError:
        return lines[:-1]
    return lines


def require_finite(values: Mapping[str, float], *, step: int, out: Path) -> None:
    """Raise DivergedError unless all values, by name, of a training's step are finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise DivergedError(
                f"training: got a {name} of {value} at step {step}, expected a finite number; the last checkpoint in "
                f"{out} is as it was: go on from it with a lower learning rate, after a look at the photographs"
            )


def validations(rows: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Return the PSNR in dB by step, of the lines that have one."""
    return {row["step"]: row["validation_psnr_db"] for row in rows if row.get("validation_psnr_db") is not None}


def has_settled(measured: Mapping[int, float], *, patience: int | None) -> bool:
    """Whether the last `patience` validations (by step) were none of them better than the best before; None = never."""
    if patience is None or not measured:
        return False
    best = max(measured, key=lambda step: measured[step])
    return sum(step > best for step in measured) >= patience
