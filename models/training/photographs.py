"""Clean photographs for training, held in memory, and the seeded patches cut from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.training.drawings import drawing

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class PatchSettings:
    """How patches are cut: side in pixels, patches in a batch, shares cut at half and at a third of the scale.

    drawn_share: of patches that are drawn instead, or drawn upon, see `models.training.drawings`.

    Shrunk photographs have finer texture, sharper edges and less noise of their own. Shares that no photograph is
    large enough for are cut at full scale.

    In a patch of 64 px every pixel of the deepest level is near the zeros around it; networks trained long on such
    patches gain on them and lose on whole pictures (CBSD68 σ 50: 27.34 dB after 7,300 steps, 26.58 after 16,000).
    """

    side: int = 128
    batch: int = 4
    half_scale_share: float = 0.3
    third_scale_share: float = 0.0
    grey_share: float = 0.0
    tint_share: float = 0.0
    drawn_share: float = 0.0


class Photographs:
    """Pictures decoded once to RGB uint8 (H, W, 3), and the files among them that were left out of the training."""

    def __init__(self, pictures: list[npt.NDArray[np.uint8]], *, held_back: Sequence[Path] = ()) -> None:
        self.pictures = pictures
        self.held_back = tuple(held_back)
        self._largest_patch = max((min(picture.shape[:2]) for picture in pictures), default=0)

    @classmethod
    def below(cls, folders: Sequence[Path], *, hold_back: int = 0) -> Photographs:
        """Load every picture below `folders` but `hold_back` of them (every n-th of the sorted list; a fifth at most).

        Raises FileNotFoundError when there is none.
        """
        paths = sorted(path for folder in folders for path in pictures_below(folder))
        if not paths:
            raise FileNotFoundError(
                f"training photographs: found none below {[str(folder) for folder in folders]}; expected pictures with "
                f"the suffixes {IMAGE_SUFFIXES}; pass the folder that holds them with --data"
            )
        hold_back = min(hold_back, len(paths) // 5)
        stride = len(paths) // hold_back if hold_back else 0
        held_back = [path for index, path in enumerate(paths) if stride and index % stride == stride // 2]
        kept = set(held_back)
        return cls([read_rgb(path) for path in paths if path not in kept], held_back=held_back)

    def only_held_back(self) -> Photographs:
        """Return the pictures that were left out, for validation; raises ValueError when none was."""
        if not self.held_back:
            raise ValueError("validation: no photograph was held back; give at least five")
        return Photographs([read_rgb(path) for path in self.held_back])

    def patches(self, settings: PatchSettings, *, rng: np.random.Generator) -> Tensor:
        """Return a batch (B, 3, side, side) float32 in [0, 1], flipped and turned at random."""
        batch = [self._patch(settings, rng=rng) for _ in range(settings.batch)]
        stacked = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).contiguous()
        return stacked.float().div_(255.0)

    def _patch(self, settings: PatchSettings, *, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        draw, halved = rng.random(), settings.half_scale_share
        factor = 2 if draw < halved else 3 if draw < halved + settings.third_scale_share else 1
        if self._largest_patch < factor * settings.side:
            factor = 1
        side = settings.side * factor
        if self._largest_patch < side:
            raise ValueError(f"training photographs: none is {side} px wide and high; give larger ones")
        while True:
            picture = self.pictures[int(rng.integers(len(self.pictures)))]
            height, width = picture.shape[:2]
            if min(height, width) >= side:
                break
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        patch = picture[top : top + side, left : left + side]
        if factor > 1:
            patch = np.asarray(
                cv2.resize(patch, (settings.side, settings.side), interpolation=cv2.INTER_AREA), np.uint8
            )
        patch = np.rot90(patch, int(rng.integers(4)))
        patch = patch[:, ::-1] if rng.random() < 0.5 else patch
        # Nothing is drawn by lot where nothing is to be drawn: older recipes keep their patches.
        if settings.drawn_share > 0 and rng.random() < settings.drawn_share:
            patch = drawing(settings.side, rng=rng, photograph=patch)
        draw = rng.random()
        if draw < settings.grey_share:
            return grey_as_rgb(patch)
        if draw < settings.grey_share + settings.tint_share:
            return tinted(patch, rng=rng)
        return np.ascontiguousarray(patch)


def pictures_below(folder: Path) -> list[Path]:
    """Return the files below a folder that are pictures by their ending."""
    return [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """Read an 8-bit picture as (H, W, 3) RGB; ValueError names a file that does not decode."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError(f"{path}: got a file that does not decode, expected a picture; remove or replace it")
    return np.ascontiguousarray(bgr[:, :, ::-1]).astype(np.uint8, copy=False)


def grey_as_rgb(patch: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the BT.601 luma of an RGB patch, three times over."""
    grey = cv2.cvtColor(np.ascontiguousarray(patch), cv2.COLOR_RGB2GRAY)
    return np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8, copy=False)


def tinted(patch: npt.NDArray[np.uint8], *, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return the patch as a toned print would show it: grey times a random warm or cold tone."""
    tone = 1.0 + rng.uniform(-0.2, 0.2, 3)
    toned = grey_as_rgb(patch).astype(np.float32) * (tone / tone.max()).astype(np.float32)
    return np.asarray(np.rint(toned), np.uint8)
