"""Hole filling without learning: biharmonic equations, Telea's fast marching, Navier-Stokes.

Papers: Damelin and Hoang, "On surface completion and image inpainting by biharmonic functions", 2018;
Telea, "An image inpainting technique based on the fast marching method", 2004;
Bertalmio et al., "Navier-Stokes, fluid dynamics, and image and video inpainting", CVPR 2001.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from skimage.restoration import inpaint_biharmonic

from models.method import ArrayFiller, Hole, MethodCard, Picture

CV2_RADIUS_PX = 3.0


@dataclass(frozen=True, slots=True)
class ClassicalInpainter(ArrayFiller):
    """A filler of this file."""


def biharmonic(picture: Picture, hole: Hole) -> Picture:
    """Return (H, W, 3) with the hole filled by the solution of the biharmonic equation (Damelin and Hoang, 2018)."""
    solved = inpaint_biharmonic(picture, hole, split_into_regions=False, channel_axis=-1)
    return np.asarray(np.clip(solved, 0.0, 1.0), np.float32)


def by_opencv(picture: Picture, hole: Hole, *, algorithm: int) -> Picture:
    """Return (H, W, 3) with the hole filled by cv2.INPAINT_TELEA or cv2.INPAINT_NS, each channel on its own."""
    # OpenCV's Telea weighs gradients against the 0-255 range whatever the dtype; in [0, 1] it diverges.
    levels = picture * 255.0
    planes = [
        cv2.inpaint(np.ascontiguousarray(levels[:, :, c]), hole.astype(np.uint8), CV2_RADIUS_PX, algorithm)
        for c in range(3)
    ]
    return np.stack(planes, axis=-1).astype(np.float32) / 255.0


def _card(method_id: str, *, title: str, paper: str, licence: str) -> MethodCard:
    return MethodCard(
        id=method_id,
        title=title,
        paper=paper,
        purpose="fill",
        licence=licence,
        needs_mask=True,
        context_px=32,
        half_precision=False,
    )


METHODS = (
    ClassicalInpainter(
        _card(
            "biharmonic",
            title="Biharmonic inpainting (scikit-image)",
            paper="Damelin and Hoang, International Journal of Mathematics and Mathematical Sciences 2018",
            licence="BSD-3-Clause (scikit-image)",
        ),
        biharmonic,
    ),
    ClassicalInpainter(
        _card(
            "telea",
            title="Fast marching inpainting (OpenCV)",
            paper="Telea, Journal of Graphics Tools 2004",
            licence="Apache-2.0 (OpenCV)",
        ),
        partial(by_opencv, algorithm=cv2.INPAINT_TELEA),
    ),
    ClassicalInpainter(
        _card(
            "navier-stokes",
            title="Navier-Stokes inpainting (OpenCV)",
            paper="Bertalmio, Bertozzi and Sapiro, CVPR 2001",
            licence="Apache-2.0 (OpenCV)",
        ),
        partial(by_opencv, algorithm=cv2.INPAINT_NS),
    ),
)
