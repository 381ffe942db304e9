"""From predicted gains and true ones to thresholds: how far predictions are off, and how sure to be before treating.

Everything here is measured on training photographs that were held back, never on a test set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt

from models.estimation.patches import FloatArray
from models.routing.gain_thresholds import GainThresholds
from models.routing.treatments import MIXTURE, TREATMENTS

LARGEST_HARM_DB = 0.1
# What may happen to held-back pictures: no clean one touched, this share harmed, this share of the clean ones doubted.
_HARMED_SHARE, _DOUBTED_SHARE = 0.01, 0.01
_DOUBTS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
_STARTS = (0.0, 0.5, 1.0, 2.0)
_LEAST_GAINS_DB = (0.1, 0.2, 0.3, 0.5)
_REVIEWS_DB = (0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 20.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Expected gains and their deviations, (N, treatments) in dB.

    shown: (N, treatments), whether the estimate shows the fault that a treatment is for, of a mixture any; None = it is
    not asked. unseen: (N, treatments), how many deviations a gain must be worth where none is shown.
    """

    gains: FloatArray
    deviations: FloatArray
    shown: npt.NDArray[np.bool_] | None = None
    unseen: FloatArray | float = np.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What decisions led to. regret_db: how much the best choice would have brought beyond them, on average."""

    gain_db: float
    regret_db: float
    harmed: float
    treated: float


def decide(predicted: Predictions, thresholds: GainThresholds) -> npt.NDArray[np.int64]:
    """Return the chosen treatment of every picture (N,), -1 = untouched; as `models.routing.policies.PredictedGain`."""
    surely = predicted.gains - np.array(thresholds.doubts, np.float32) * predicted.deviations
    allowed = surely > thresholds.least_gain_db
    if predicted.shown is not None:
        mixture = np.array([treatment == MIXTURE for treatment in TREATMENTS])
        best = np.arange(len(TREATMENTS)) == surely.argmax(axis=1)[:, None]
        allowed &= predicted.shown | ((best | ~mixture) & (predicted.gains > predicted.unseen * predicted.deviations))
    chosen = np.where(allowed, surely, -np.inf).argmax(axis=1)
    return np.where(allowed.any(axis=1), chosen, -1)


def doubted(predicted: Predictions, thresholds: GainThresholds) -> npt.NDArray[np.bool_]:
    """Return which pictures (N,) are left untouched but marked for review."""
    return np.asarray((decide(predicted, thresholds) < 0) & (predicted.gains.max(axis=1) > thresholds.review_db))


def outcome(chosen: npt.NDArray[np.int64], gains: FloatArray) -> Outcome:
    """Return what the choices (N,) brought, given the true gains (N, treatments)."""
    brought = np.concatenate([gains, np.zeros((len(gains), 1), gains.dtype)], axis=1)[np.arange(len(gains)), chosen]
    best = np.maximum(gains.max(axis=1), 0.0)
    return Outcome(
        gain_db=float(brought.mean()),
        regret_db=float((best - brought).mean()),
        harmed=float((brought < -LARGEST_HARM_DB).mean()),
        treated=float((chosen >= 0).mean()),
    )


def widening(predicted: Predictions, gains: FloatArray) -> FloatArray:
    """Return by which factor each treatment's deviations (T,) must grow to fit the true errors of held-back ones."""
    errors = (predicted.gains - gains) / predicted.deviations
    # A few far outliers must not decide alone.
    return np.asarray(np.sqrt(np.square(np.clip(errors, -5.0, 5.0)).mean(axis=0)), np.float32)


def choose_thresholds(predicted: Predictions, gains: FloatArray, *, clean: Predictions) -> GainThresholds:
    """Return the thresholds with the highest mean gain that harm at most 1 % and touch no clean picture.

    predicted, gains: of held-back pictures of every kind, (N, treatments). clean: of whole undamaged ones. Doubts are
    moved one after the other, from several beginnings, until none can be bettered. With these, the lowest review
    threshold that marks at most 1 % of the clean ones.
    """

    def badness(thresholds: GainThresholds) -> tuple[int, float, float]:
        found = outcome(decide(predicted, thresholds), gains)
        touched = int((decide(clean, thresholds) >= 0).sum())
        return touched, max(found.harmed, _HARMED_SHARE), -found.gain_db

    count = gains.shape[1]
    starts = [
        GainThresholds(doubts=(start,) * count, least_gain_db=least)
        for start, least in product(_STARTS, _LEAST_GAINS_DB)
    ]
    best = min((_bettered(start, badness) for start in starts), key=badness)
    for review in _REVIEWS_DB:
        best = replace(best, review_db=review)
        if doubted(clean, best).mean() <= _DOUBTED_SHARE:
            break
    return best


def _bettered(
    thresholds: GainThresholds, badness: Callable[[GainThresholds], tuple[int, float, float]]
) -> GainThresholds:
    """Return thresholds that no change of a single doubt betters."""
    least = badness(thresholds)
    while True:
        before = least
        for index in range(len(thresholds.doubts)):
            for doubt in _DOUBTS:
                doubts = (*thresholds.doubts[:index], doubt, *thresholds.doubts[index + 1 :])
                tried = replace(thresholds, doubts=doubts)
                if (found := badness(tried)) < least:
                    thresholds, least = tried, found
        if least == before:
            return thresholds
