"""Hole filling without learning: biharmonic equations, Telea's fast marching, Navier-Stokes.

Papers: Damelin and Hoang, "On surface completion and image inpainting by biharmonic functions", 2018;
Telea, "An image inpainting technique based on the fast marching method", 2004;
Bertalmio et al., "Navier-Stokes, fluid dynamics, and image and video inpainting", CVPR 2001.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from skimage.restoration import inpaint_biharmonic
from torch import Tensor, nn

from models.method import Context, MethodCard, PlainMethod

CV2_RADIUS_PX = 3.0


@dataclass(frozen=True, slots=True)
class ClassicalInpainter(PlainMethod):
    """Fills each tile on the CPU in float32; the algorithm is chosen by the card's id."""

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        if mask is None:
            raise ValueError(
                f"{self.card.id}: got no mask, expected (B, 1, H, W) with 1 = missing; detect damage first"
            )
        filled = [
            self._fill(picture.permute(1, 2, 0).float().cpu().numpy(), hole[0].cpu().numpy() > 0)
            for picture, hole in zip(image, mask, strict=True)
        ]
        return torch.from_numpy(np.stack(filled)).permute(0, 3, 1, 2).to(image)

    def _fill(self, picture: npt.NDArray[np.float32], hole: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        if not hole.any() or hole.all():
            return picture
        if self.card.id == "biharmonic":
            solved = inpaint_biharmonic(picture, hole, split_into_regions=False, channel_axis=-1)
            return np.asarray(np.clip(solved, 0.0, 1.0), np.float32)
        flag = cv2.INPAINT_TELEA if self.card.id == "telea" else cv2.INPAINT_NS
        # OpenCV's Telea weighs gradients against the 0-255 range whatever the dtype; in [0, 1] it diverges.
        levels = picture * 255.0
        planes = [
            cv2.inpaint(np.ascontiguousarray(levels[:, :, c]), hole.astype(np.uint8), CV2_RADIUS_PX, flag)
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
        )
    ),
    ClassicalInpainter(
        _card(
            "telea",
            title="Fast marching inpainting (OpenCV)",
            paper="Telea, Journal of Graphics Tools 2004",
            licence="Apache-2.0 (OpenCV)",
        )
    ),
    ClassicalInpainter(
        _card(
            "navier-stokes",
            title="Navier-Stokes inpainting (OpenCV)",
            paper="Bertalmio, Bertozzi and Sapiro, CVPR 2001",
            licence="Apache-2.0 (OpenCV)",
        )
    ),
)
