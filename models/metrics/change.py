"""What a restoration did to a picture without a reference: colour shift, kept detail, share of changed pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from skimage.color import deltaE_ciede2000, rgb2lab

from models.metrics.fidelity import psnr_db
from models.metrics.planes import Pixels, Plane, comparable

_COLOUR_SIDE = 512


def _reduced(picture: Plane) -> Plane:
    scale = _COLOUR_SIDE / max(picture.shape[:2])
    if scale < 1:
        picture = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.float64)
    return np.repeat(picture[:, :, None], 3, axis=2) if picture.ndim == 2 else picture


def colour_shift(restored: Pixels, reference: Pixels) -> float:
    """Return the mean CIEDE2000 difference of two sRGB pictures (about 1 = just visible; D65).

    Pictures are averaged down to at most 512 px first, so that noise and detail count little and colour counts.
    """
    first, second = comparable(restored, reference, channel="rgb", border=0)
    difference = deltaE_ciede2000(rgb2lab(_reduced(first)), rgb2lab(_reduced(second)))
    return float(np.mean(difference))


def detail_retention(restored: Pixels, before: Pixels, *, where: npt.NDArray[Any] | None = None) -> float | None:
    """Return the ratio of the gradient energies of the grey pictures, restored over before; None without any gradient.

    1 = as much detail as before, below 1 = smoothed (noise removed counts too), above 1 = sharpened.
    `where` (H, W), nonzero = count this pixel, keeps repaired damage out of the ratio.
    """
    first, second = comparable(restored, before, channel="grey", border=0)
    energies = []
    for plane in (first, second):
        grey = plane if plane.ndim == 2 else plane.mean(axis=2)
        rows, columns = np.diff(grey, axis=0)[:, :-1], np.diff(grey, axis=1)[:-1]
        energy = rows**2 + columns**2
        energies.append(float(energy.sum() if where is None else energy[where[:-1, :-1] != 0].sum()))
    return energies[0] / energies[1] if energies[1] > 0 else None


def changed_fraction(restored: Pixels, before: Pixels, *, tolerance: float = 0.0) -> float:
    """Return the share of pixels in which any channel differs by more than `tolerance` 8-bit levels, in [0, 1]."""
    first, second = comparable(restored, before, channel="rgb", border=0)
    difference = np.abs(first - second)
    # Dividing by 255 or 65535 leaves rounding errors far below a thousandth of a level: they are not changes.
    changed = difference > (tolerance + 1e-6) / 255
    return float((changed.any(axis=2) if changed.ndim == 3 else changed).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class OverProcessing:
    """What was done to a picture that needed nothing: best is infinite dB, 0, 0 and 1.

    `psnr_to_input_db` in dB, infinite when nothing changed; `changed_fraction` in [0, 1]; `largest_change` in levels of
    8 bits, [0, 255]; `detail_retention` 1 = as before, None for a picture without any gradient.
    """

    psnr_to_input_db: float
    changed_fraction: float
    largest_change: float
    detail_retention: float | None


def over_processing(restored: Pixels, clean: Pixels, *, tolerance: float = 0.0) -> OverProcessing:
    """Return what a restoration did to its clean input; `tolerance` (8-bit levels) is for `changed_fraction` only.

    Raises ValueError when the shapes differ.
    """
    first, second = comparable(restored, clean, channel="rgb", border=0)
    return OverProcessing(
        psnr_to_input_db=psnr_db(restored, clean),
        changed_fraction=changed_fraction(restored, clean, tolerance=tolerance),
        largest_change=float(np.abs(first - second).max() * 255),
        detail_retention=detail_retention(restored, clean),
    )
