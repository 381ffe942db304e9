"""All numbers that an estimate was made of, in one vector of fixed length, for what is learned on top of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from models.estimation.classical_jpeg import JpegTraces
from models.estimation.network import QUANTITIES, EstimatorNetwork, encode
from models.estimation.patches import FloatArray
from models.types import Estimated

# Where a quantity could not be measured its neutral value stands, with confidence 0.
_NEUTRAL = {"noise_sigma": 0.0, "blur_sigma_px": 0.0, "jpeg_quality": 100.0, "effective_scale": 1.0}
_CLASSICAL = ("noise_sigma", "blur_sigma_px", "effective_scale")
# Four combined and three classical quantities with their confidences, then the comb's quality, its confidence and the
# blockiness.
ESTIMATE_SIZE = 8 + 6 + 3


def evidence_size() -> int:
    """Return the length of the vector: the estimates first, then what the network read."""
    return ESTIMATE_SIZE + 2 * len(QUANTITIES) + EstimatorNetwork().description_size


def _encoded(quantities: Mapping[str, Estimated]) -> dict[str, float]:
    """Return the values on the scales that the network predicts, each of order 1."""
    values = {name: quantities[name].value if name in quantities else None for name in QUANTITIES}
    filled = [_NEUTRAL[name] if value is None else value for name, value in values.items()]
    return dict(zip(QUANTITIES, encode(torch.tensor([filled]))[0].tolist(), strict=True))


def gather_evidence(
    *,
    combined: Mapping[str, Estimated],
    classical: Sequence[Estimated],
    traces: JpegTraces,
    behind: FloatArray,
) -> FloatArray:
    """Return the (evidence_size(),) float32 vector of one picture.

    combined: the estimate by name. classical: noise, blur and scale as measured without the network. behind: what
    `models.estimation.learned.describe_windows` returns.
    """
    first = _encoded(combined)
    second = _encoded(dict(zip(_CLASSICAL, classical, strict=True)))
    comb = _encoded({"jpeg_quality": traces.quality})["jpeg_quality"]
    values = [number for name in QUANTITIES for number in (first[name], combined[name].confidence)]
    for name, measured in zip(_CLASSICAL, classical, strict=True):
        values += [second[name], 0.0 if measured.value is None else measured.confidence]
    values += [comb, traces.quality.confidence, min(traces.blockiness, 4.0)]
    return np.concatenate([np.asarray(values, np.float32), behind.astype(np.float32)])
