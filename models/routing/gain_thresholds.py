"""How sure a predicted gain must be. Without torch, which planning does not need."""

from __future__ import annotations

from dataclasses import dataclass

from models.routing.treatments import TREATMENTS
from models.types import Gain


@dataclass(frozen=True, slots=True, kw_only=True)
class GainThresholds:
    """How sure a gain must be, chosen on training pictures that were held back; see `models.routing.calibration`.

    doubts: for each of TREATMENTS how many deviations below its expected gain it is taken to bring. Noise is mistaken
    for texture more often than blocks are for anything, so they differ. least_gain_db: what it must bring then.
    review_db: an untouched picture with an expected gain above this is marked for review.
    """

    doubts: tuple[float, ...] = (1.0,) * len(TREATMENTS)
    least_gain_db: float = 0.1
    review_db: float = 1.0

    def sure_gain_db(self, gain: Gain) -> float:
        """Return the lower bound of a gain."""
        return gain.gain_db - self.doubts[TREATMENTS.index(gain.treatment)] * gain.uncertainty_db

    def numbers(self) -> tuple[float, ...]:
        """Return all of them as they are stored beside the weights."""
        return (*self.doubts, self.least_gain_db, self.review_db)
