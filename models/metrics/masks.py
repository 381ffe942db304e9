"""How well a damage mask was found: precision, recall, intersection over union, and ROC AUC of the probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskScores:
    """Shares in [0, 1]; None where the ratio has no meaning (nothing found, nothing to find)."""

    precision: float | None
    recall: float | None
    iou: float | None
    false_positive_rate: float | None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _same_shape(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> None:
    if first.shape != second.shape:
        raise ValueError(f"expected arrays of one shape, got {first.shape} and {second.shape}; resize one of them")


def mask_scores(found: npt.NDArray[Any], truth: npt.NDArray[Any]) -> MaskScores:
    """Return the scores of a binary mask against the true one, any shape; nonzero = damaged."""
    _same_shape(found, truth)
    found, truth = found.astype(bool), truth.astype(bool)
    hits, flagged, damaged = int((found & truth).sum()), int(found.sum()), int(truth.sum())
    return MaskScores(
        precision=_ratio(hits, flagged),
        recall=_ratio(hits, damaged),
        iou=_ratio(hits, flagged + damaged - hits),
        false_positive_rate=_ratio(flagged - hits, truth.size - damaged),
    )


def roc_auc(score: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Return the area under the ROC curve, in [0, 1]: the chance that a damaged pixel scores above a sound one.

    Ties count one half (the Mann-Whitney statistic). Raises ValueError when `truth` holds one class only.
    """
    _same_shape(score, truth)
    damaged = truth.astype(bool).ravel()
    positives = int(damaged.sum())
    negatives = damaged.size - positives
    if not positives or not negatives:
        raise ValueError(f"ROC AUC needs both classes, got {positives} damaged and {negatives} sound pixels")
    _, inverse, counts = np.unique(score.ravel(), return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(middle_rank[inverse][damaged].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
