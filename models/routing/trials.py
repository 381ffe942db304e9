"""Trying every treatment on a small part of each picture; what it does there is evidence for what it would bring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.estimation.patches import FloatArray
from models.routing.treatments import TREATMENTS
from models.routing.trial_evidence import trial_evidence
from models.run import Runner
from models.types import DegradationEstimate


def with_trials(
    evidence: Sequence[FloatArray | None],
    windows: Sequence[npt.NDArray[Any]],
    estimates: Sequence[DegradationEstimate | None],
    *,
    runner: Runner,
) -> list[FloatArray | None]:
    """Return the evidence (E,) of every picture followed by that of a trial on its window; None stays None.

    windows: from `trial_window`, 8 or 16 bit; all are treated together. estimates: of whole pictures, which some
    treatments follow.
    """
    known = [index for index, numbers in enumerate(evidence) if numbers is not None]
    if not known:
        return list(evidence)
    results = treated(runner, [windows[index] for index in known], [estimates[index] for index in known])
    found = list(evidence)
    for place, index in enumerate(known):
        tried = trial_evidence(windows[index], [column[place] for column in results])
        found[index] = np.concatenate([np.asarray(evidence[index], np.float32), tried])
    return found


def treated(
    runner: Runner, pictures: Sequence[npt.NDArray[Any]], estimates: Sequence[DegradationEstimate | None]
) -> list[list[npt.NDArray[Any]]]:
    """Return for every one of TREATMENTS the treated pictures; what treatments begin with in common is done once."""
    done: dict[tuple[str, ...], list[npt.NDArray[Any]]] = {(): list(pictures)}
    for treatment in TREATMENTS:
        for length in range(1, len(treatment) + 1):
            if treatment[:length] not in done:
                before = done[treatment[: length - 1]]
                done[treatment[:length]] = runner.apply(treatment[length - 1], before, estimates=estimates)
    return [done[treatment] for treatment in TREATMENTS]
