"""What can be done against noise, blur, compression and mixtures of them, and what doing it truly brought."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.types import Treatment

SINGLE_FAULTS = ("denoise", "degrain", "deblock", "deblur")
GRAIN: Treatment = ("degrain",)
MIXTURE: Treatment = ("all-in-one",)
# Chains of two (deblock then denoise, denoise then deblur) were tried: over 300 training examples the best choice among
# single methods and these gains 2.24 dB, among single methods 2.23.
TREATMENTS: tuple[Treatment, ...] = (*((method,) for method in SINGLE_FAULTS), MIXTURE)
TREATING_METHODS = tuple(method for (method,) in TREATMENTS)
# In grey levels²: one level of error cannot be seen, and a clean picture would have an infinite PSNR.
ERROR_FLOOR = 1.0


def squared_error(
    image: npt.NDArray[Any], reference: npt.NDArray[Any], *, mask: npt.NDArray[np.bool_] | None = None
) -> float:
    """Return the mean squared difference of two 8-bit pictures in grey levels², over all channels outside `mask`."""
    squares = (image.astype(np.float32) - reference.astype(np.float32)) ** 2
    if mask is not None and not mask.all():
        squares = squares[~mask]
    return float(squares.mean(dtype=np.float64))


def gain_db(*, before: float, after: float) -> float:
    """Return the gain of PSNR in dB from mean squared errors, both raised by ERROR_FLOOR.

    So it is finite and below zero for everything that is done to a clean picture, and is the plain gain of PSNR where
    errors are far above a grey level.
    """
    return float(10.0 * np.log10((before + ERROR_FLOOR) / (after + ERROR_FLOOR)))
