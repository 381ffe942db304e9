"""Denoising and sharpening without learning, as baselines and for material nothing was trained on.

Papers: Buades, Coll and Morel, "A non-local algorithm for image denoising", CVPR 2005;
unsharp masking as in Gonzalez and Woods, "Digital Image Processing", section 3.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from skimage.restoration import denoise_nl_means, estimate_sigma
from torch import Tensor, nn

from models.deconvolution import believed_sigma
from models.method import Context, MethodCard, PlainMethod


@dataclass(frozen=True, slots=True)
class NonLocalMeans(PlainMethod):
    """scikit-image's fast non-local means: patch 5, distance 6, h = 0.6 σ; σ from the estimate, else from the tile."""

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        restored = []
        for picture, context in zip(image, contexts, strict=True):
            pixels = picture.permute(1, 2, 0).float().cpu().numpy()
            sigma = _noise_sigma(pixels, context=context)
            restored.append(
                denoise_nl_means(
                    pixels, patch_size=5, patch_distance=6, h=0.6 * sigma, sigma=sigma, fast_mode=True, channel_axis=-1
                ).astype(np.float32)
            )
        return torch.from_numpy(np.stack(restored)).permute(0, 3, 1, 2).to(image)


def _noise_sigma(pixels: npt.NDArray[np.float32], *, context: Context) -> float:
    if context.estimate is not None and context.estimate.noise_sigma.value is not None:
        return max(context.estimate.noise_sigma.value / 255.0, 1e-4)
    return max(float(estimate_sigma(pixels, channel_axis=-1, average_sigmas=True)), 1e-4)


@dataclass(frozen=True, slots=True)
class UnsharpMask(PlainMethod):
    """Adds back what a Gaussian blur of the estimated σ takes away, once."""

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        restored = []
        for picture, context in zip(image, contexts, strict=True):
            pixels = picture.permute(1, 2, 0).float().cpu().numpy()
            value = context.estimate.blur_sigma_px.value if context.estimate is not None else None
            (sigma,) = believed_sigma([value])
            restored.append(2.0 * pixels - cv2.GaussianBlur(pixels, (0, 0), sigma))
        return torch.from_numpy(np.stack(restored)).permute(0, 3, 1, 2).to(image)


METHODS = (
    NonLocalMeans(
        MethodCard(
            id="nlm",
            title="Non-local means (scikit-image)",
            paper="Buades, Coll and Morel, CVPR 2005",
            purpose="denoise",
            licence="BSD-3-Clause (scikit-image)",
            size_multiple=8,  # the search window needs a few pixels even in a tiny picture
            context_px=10,
            half_precision=False,
        )
    ),
    UnsharpMask(
        MethodCard(
            id="unsharp",
            title="Unsharp masking (OpenCV)",
            paper="Gonzalez and Woods, Digital Image Processing, section 3.6",
            purpose="deblur",
            licence="Apache-2.0 (OpenCV)",
            context_px=16,
            half_precision=False,
        )
    ),
)
