"""Treatments in shares instead of one for all: of a whole picture, or of each of its regions.

Where damage differs from place to place, one treatment for all is a compromise (the future work that Yu et al.,
"RL-Restore", CVPR 2018, name); and a weighted mean of several can beat the best of them (Suganuma et al.,
"Attention-based adaptive selection of operations", CVPR 2019, mix operations by weights instead of choosing). Here the
gain of every treatment is predicted for each region and becomes its share; between regions the shares go over smoothly,
so that there are no seams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from models.estimation.estimate import estimate_with_evidence
from models.method import LEARNED_LICENCE, Context, MethodCard, PlainMethod
from models.routing.gain_thresholds import GainThresholds
from models.routing.gains import WEIGHTS, GainNetwork, gains_of
from models.routing.rules import Thresholds, deviations_where_unseen, shows_faults_of
from models.routing.treatments import TREATING_METHODS, TREATMENTS
from models.routing.trial_evidence import TRIAL_SIDE, trial_corner, trial_evidence
from models.self_ensemble import VIEWS
from models.shares import FloatArray, Shares
from models.types import DegradationEstimate, Estimated, Gain, thorough_id

REGION_PX = 128
# Regions overlap by half, but there are never more than this many of a picture: each takes 0.05 s to look at.
STEP_PX, MOST_REGIONS = 64, 144
# In dB: a treatment that is expected to bring this much more gets e times the share.
TEMPERATURE_DB = 0.25
# Of all its parts.
GMAC_PER_MEGAPIXEL = 815.8

Picture = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Mixture(PlainMethod):
    """Mixes all treatments by their predicted gains; in regions, or with the same shares everywhere."""

    regional: bool = True
    parts: tuple[str, ...] = TREATING_METHODS

    def build(self) -> nn.Module:
        return GainNetwork()

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        raise TypeError(f"{self.card.id}: is made of whole pictures, not of tiles; run it by a Runner")

    def shares(
        self, network: nn.Module, image: Picture, results: Sequence[Picture], *, estimate: DegradationEstimate | None
    ) -> Shares:
        """Return the share of each of `results`, the parts' of `image` (H, W) or (H, W, 3), 8 or 16 bit."""
        gains = cast(GainNetwork, network)
        size = image.shape[0] * image.shape[1]
        rows, columns = (_starts(length, size) if self.regional else [0] for length in image.shape[:2])
        sides = [min(REGION_PX, length) if self.regional else length for length in image.shape[:2]]
        looked = [
            _look(image, results, window=(slice(top, top + sides[0]), slice(left, left + sides[1])))
            for top in rows
            for left in columns
        ]
        thresholds = gains.chosen_thresholds()
        values = [
            shares_of(
                () if evidence is None else gains_of(evidence[None], network=gains)[0],
                thresholds=thresholds,
                estimate=seen,
            )
            for seen, evidence in looked
        ]
        return Shares(
            rows=np.asarray(rows, np.float32) + (sides[0] - 1) / 2,
            columns=np.asarray(columns, np.float32) + (sides[1] - 1) / 2,
            values=np.asarray(values, np.float32).reshape(len(rows), len(columns), len(results) + 1),
        )


def shares_of(
    gains: Sequence[Gain], *, thresholds: GainThresholds, estimate: DegradationEstimate
) -> npt.NDArray[np.float64]:
    """Return the shares of TREATMENTS and, last, of doing nothing: by their expected gains, if these are sure.

    Besides, the estimate or a trial must show the fault.
    """
    expected = np.full(len(TREATMENTS) + 1, -np.inf)
    expected[-1] = 0.0
    for gain in gains:
        if _shown(gain, estimate=estimate) and thresholds.sure_gain_db(gain) > thresholds.least_gain_db:
            expected[TREATMENTS.index(gain.treatment)] = gain.gain_db
    found = np.exp((expected - expected.max()) / TEMPERATURE_DB)
    return np.asarray(found / found.sum())


def _shown(gain: Gain, *, estimate: DegradationEstimate) -> bool:
    """Whether estimate or trial show the fault; a mixture, whose parts hide each other, may be surer instead.

    Without either, 12 of 1,303 regions of 55 clean pictures would be treated, all of them as mixtures; many regions of
    severe mixtures show no part of it.
    """
    if gain.shown or shows_faults_of(estimate, treatment=gain.treatment, thresholds=Thresholds()):
        return True
    enough = deviations_where_unseen(estimate, treatment=gain.treatment, thresholds=Thresholds())
    return gain.beyond(enough)


def _look(
    image: Picture, results: Sequence[Picture], *, window: tuple[slice, slice]
) -> tuple[DegradationEstimate, FloatArray | None]:
    """Return what is estimated of a part of the picture, and all evidence of it; None if it is too small for any."""
    part = np.ascontiguousarray(image[window])
    nothing = Estimated(value=0.0, confidence=1.0)
    estimate, evidence = estimate_with_evidence(
        part, scratch_mask=None, scratch_coverage=nothing, jpeg_table_quality=None
    )
    if evidence is None:
        return estimate, None
    top, left = trial_corner(part)
    tried = (slice(top, top + TRIAL_SIDE), slice(left, left + TRIAL_SIDE))
    seen = trial_evidence(
        np.ascontiguousarray(part[tried]), [np.ascontiguousarray(result[window][tried]) for result in results]
    )
    return estimate, np.concatenate([np.asarray(evidence, np.float32), seen])


def _starts(length: int, size: int) -> list[int]:
    """Return where regions begin along one side of a picture of so many pixels."""
    last = length - min(length, REGION_PX)
    step = max(STEP_PX, (size / MOST_REGIONS) ** 0.5)
    count = int(np.ceil(last / step)) + 1
    return [round(index * last / max(count - 1, 1)) for index in range(count)]


def _card(method_id: str, *, title: str, paper: str) -> MethodCard:
    return MethodCard(
        id=method_id,
        title=title,
        paper=paper,
        purpose="mixed",
        licence=LEARNED_LICENCE,
        half_precision=False,
        weights=WEIGHTS,
        gmac_per_megapixel=GMAC_PER_MEGAPIXEL,
        opt_in=True,
    )


def _thorough(mixture: Mixture) -> Mixture:
    """Return the mixture of what its parts make of all flips and turns of the picture, at eight times the work."""
    card = replace(
        mixture.card,
        id=thorough_id(mixture.card.id),
        title=f"{mixture.card.title}; of the means of {len(VIEWS)} flips and turns",
        gmac_per_megapixel=len(VIEWS) * GMAC_PER_MEGAPIXEL,
    )
    return replace(mixture, card=card, parts=tuple(thorough_id(part) for part in mixture.parts))


_PLAIN = (
    Mixture(
        _card(
            "regional",
            title="All treatments, in shares that follow their predicted gain from region to region",
            paper="Ours; the future work named in Yu et al., RL-Restore, CVPR 2018",
        )
    ),
    Mixture(
        _card(
            "soft",
            title="All treatments, in shares that follow their predicted gain",
            paper="Ours, after Suganuma et al., Operation-wise attention, CVPR 2019",
        ),
        regional=False,
    ),
)
METHODS = (*_PLAIN, *(_thorough(mixture) for mixture in _PLAIN))
