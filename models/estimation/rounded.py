"""Estimates without the last digits, which depend on how many threads made a sum: a catalogue must not."""

from __future__ import annotations

from models.types import Estimated

_DECIMALS = 4


def rounded(value: float, *, confidence: float) -> Estimated:
    """Return an estimate, value and confidence to four decimals."""
    return Estimated(value=round(value, _DECIMALS), confidence=round(confidence, _DECIMALS))
