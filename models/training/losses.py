"""What regression lowers: the distance of a batch of outputs from their targets."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

PixelLoss = Literal["charbonnier", "log-error"]

# Mean squared error below which a picture is as good as its 8-bit target can say (50 dB).
_GOOD_ENOUGH = 1e-5
# Root mean squared error at which the gradient of the logarithm is as large as that of a mean absolute error.
_USUAL_ERROR = 0.03


def charbonnier(output: Tensor, target: Tensor, *, weight: Tensor | None, epsilon: float = 1e-3) -> Tensor:
    """Mean of sqrt(error² + ε²), over the values of `weight` where given (Lai et al., LapSRN, 2017)."""
    loss = torch.sqrt((output - target).square() + epsilon**2)
    if weight is None:
        return loss.mean()
    weight = weight.expand_as(loss)
    return (loss * weight).sum() / weight.sum().clamp_min(1.0)


def log_error(output: Tensor, target: Tensor, *, weight: Tensor | None) -> Tensor:
    """Mean over the pictures (B, C, H, W) of the logarithm of their root mean squared error, over `weight` where given.

    That is the mean PSNR, as tables have it, times a constant (Chen et al., "Simple Baselines for Image Restoration",
    ECCV 2022, train with it). A smooth picture, of which little is unknown, counts as much as one of fine texture; in a
    mean of errors it counts for next to nothing, and what is left in skies and walls is what is seen first.
    """
    mean = mean_squared_errors(output, target, weight=weight)
    return _USUAL_ERROR * 0.5 * torch.log(mean + _GOOD_ENOUGH).mean()


def mean_squared_errors(output: Tensor, target: Tensor, *, weight: Tensor | None) -> Tensor:
    """Return the mean squared error of each picture (B,) of (B, C, H, W), over the values of `weight` where given."""
    error = (output - target).square()
    weight = torch.ones_like(error) if weight is None else weight.expand_as(error)
    return (error * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp_min(1.0)


def pixel_loss(kind: PixelLoss, output: Tensor, target: Tensor, *, weight: Tensor | None) -> Tensor:
    """Return the loss that a recipe names."""
    return {"charbonnier": charbonnier, "log-error": log_error}[kind](output, target, weight=weight)
