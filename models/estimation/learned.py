"""The trained network's reading of a few windows of a picture, in units and with confidences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from models.estimation.network import EstimatorNetwork, decode
from models.estimation.patches import FloatArray
from models.estimation.rounded import rounded
from models.types import Estimated
from models.weights import load_weights

WEIGHTS = "estimator"


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedEstimates:
    """What the network read; see models.types.DegradationEstimate for the units."""

    noise_sigma: Estimated
    blur_sigma_px: Estimated
    jpeg_quality: Estimated
    effective_scale: Estimated


@lru_cache(maxsize=1)
def load_network() -> EstimatorNetwork:
    """Return the shipped network, ready for inference; WeightsError when its file is altered or absent.

    It is always on the CPU: a few small patches a picture, read beside what a GPU is recording or restoring.
    """
    network = EstimatorNetwork()
    network.load_state_dict(load_weights(WEIGHTS))
    return network.eval()


# A typical error of this size, in the unit of each quantity, leaves a confidence of 1 / e: (constant, share of value).
_TOLERANCE = ((2.0, 0.12), (0.5, 0.2), (20.0, 0.0), (0.3, 0.0))


def to_estimates(value: Tensor, log_scale: Tensor) -> LearnedEstimates:
    """Turn the (4,) outputs of the network for one picture into values and confidences.

    The confidence is exp(-error / tolerance), error being the predicted mean absolute error carried to the unit.
    """
    scale = torch.exp(log_scale)
    middle = decode(value)
    error = (decode(value + scale) - decode(value - scale)).abs() / 2
    found = []
    for measured, wrong, (constant, share) in zip(middle.tolist(), error.tolist(), _TOLERANCE, strict=True):
        confidence = math.exp(-wrong / (constant + share * measured))
        found.append(rounded(measured, confidence=confidence))
    return LearnedEstimates(
        noise_sigma=found[0], blur_sigma_px=found[1], jpeg_quality=found[2], effective_scale=found[3]
    )


@torch.inference_mode()
def read_windows(windows: FloatArray, *, network: EstimatorNetwork) -> LearnedEstimates:
    """Return the estimates for one picture from its windows (N, S, S, 3) in [0, 1], S a multiple of 8."""
    return describe_windows(windows, network=network)[0]


@torch.inference_mode()
def describe_windows(windows: FloatArray, *, network: EstimatorNetwork) -> tuple[LearnedEstimates, FloatArray]:
    """Return what `read_windows` does and the (8 + description_size,) numbers behind it, raw outputs first."""
    device = next(network.parameters()).device
    batch = torch.from_numpy(np.ascontiguousarray(windows.transpose(0, 3, 1, 2))).to(device)
    batch = batch.to(memory_format=torch.channels_last)
    found = [part[0].float().cpu() for part in network.describe(batch.unsqueeze(0))]
    behind: FloatArray = torch.cat(found).numpy()
    return to_estimates(found[0], found[1]), behind
