"""Finds scratches, cracks, folds, dust and holes in a picture of any size, tile by tile.

It is looked at in its native resolution, and a large one at half, a quarter … of it, too (`models.scratches.pyramid`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.device import quick_products
from models.scratches.hysteresis import Components, Thresholds, grow_mask
from models.scratches.network import SIZE_MULTIPLE, ScratchUNet, prepare_for_inference
from models.scratches.pyramid import add_copy, coarser_factors, grey_of, halved
from models.tiling import evenly_cut
from models.types import TILE_PX
from models.weights import load_card, load_weights

WEIGHTS_NAME = "scratch_detector"
_ALL = Thresholds(high=1 / 255, low=1 / 255, smallest_px=1, largest_share=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSettings:
    """Thresholds of the mask, and the calibration from a component's mean probability to its chance of being damage.

    `calibration` holds (mean probability, share of real damage) pairs, both rising, measured on the calibration split.
    """

    thresholds: Thresholds
    calibration: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScratchDetection:
    """What was found in one picture.

    probability: (H, W) uint8, 255 = surely damaged. mask: (H, W) bool, True = damaged, not dilated. rim: (H, W) bool,
    the mask and what lies so near the marks of coarser copies that filling must take it, too; None = no copies.
    coverage: share of the pixels in the mask, in [0, 1]. components: how many separate marks.
    confidence: with marks, the chance that they are real damage (calibrated, weighted by area); without any, 1 minus
    the highest probability seen.
    """

    probability: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    coverage: float
    components: int
    confidence: float
    rim: NDArray[np.bool_] | None = None


def load_detector(device: str | torch.device = "cpu") -> nn.Module:
    """Return the shipped network on `device`, ready for `detect`; raises WeightsError when its file is altered."""
    network = prepare_for_inference(ScratchUNet())
    network.load_state_dict(load_weights(WEIGHTS_NAME), strict=True)
    return network.to(device=torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def shipped_settings() -> DetectorSettings:
    """Return the thresholds and calibration of the shipped weights, from their card."""
    return settings_from_metrics(load_card(WEIGHTS_NAME).metrics)


def settings_for(threshold: float | None) -> DetectorSettings:
    """Return the shipped settings, with another probability in (0, 1) from which on damage begins unless it is None.

    Damage grows from there along lower probabilities, which are lowered alike. Raises ValueError beyond (0, 1).
    """
    settings = shipped_settings()
    if threshold is None:
        return settings
    if not 0.0 < threshold < 1.0:
        raise ValueError(f"scratch threshold: got {threshold:g}, expected a probability between 0 and 1, such as 0.5")
    known = settings.thresholds
    return replace(settings, thresholds=replace(known, high=threshold, low=threshold * known.low / known.high))


def settings_from_metrics(metrics: dict[str, Any]) -> DetectorSettings:
    """Read the settings from the metrics of a card; raises KeyError naming the entry that is missing."""
    shipped = metrics["shipped_settings"]
    return DetectorSettings(
        thresholds=Thresholds(
            high=float(shipped["high"]), low=float(shipped["low"]), smallest_px=int(shipped["smallest_px"])
        ),
        calibration=tuple((float(x), float(y)) for x, y in shipped["calibration"]),
    )


def detect(
    image: NDArray[Any],
    *,
    network: nn.Module,
    device: str | torch.device = "cpu",
    tile: int = TILE_PX,
    overlap: int = 64,
    settings: DetectorSettings | None = None,
) -> ScratchDetection:
    """Return the damage found in `image` (H, W) or (H, W, 3), uint8 or uint16, sRGB; a memory map is read by tiles.

    `tile` and `overlap` are in pixels; memory is bounded by the tile apart from the two outputs and coarser copies.
    Raises ValueError for other shapes or types.
    """
    settings = settings or shipped_settings()
    look = partial(probability_map, network=network, device=device, tile=tile, overlap=overlap)
    probability, found, rim = merged(probability_maps(image, look), settings.thresholds)
    if len(found.areas):
        known, real = zip(*settings.calibration, strict=True)
        confidence = float(np.average(np.interp(found.probabilities, known, real), weights=found.areas))
    else:
        confidence = 1.0 - float(probability.max()) / 255
    return ScratchDetection(
        probability=probability,
        mask=found.mask,
        coverage=float(found.areas.sum()) / probability.size,
        components=len(found.areas),
        confidence=confidence,
        rim=rim,
    )


def mask_for_filling(detection: ScratchDetection, *, dilation_px: int = 1) -> NDArray[np.bool_]:
    """Return the mask (H, W) bool grown by `dilation_px` pixels: the rim of a scratch is blurred into the picture."""
    if dilation_px < 0:
        raise ValueError(f"dilation_px must be 0 or more, got {dilation_px}")
    side = 2 * dilation_px + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    whole = detection.mask if detection.rim is None else detection.rim
    return np.asarray(cv2.dilate(whole.view(np.uint8), kernel)).view(np.bool_)


def probability_maps(image: NDArray[Any], look: Callable[[NDArray[Any]], NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Return the probabilities of damage of `image` (H, W) and of its copies at half, a quarter … of its size.

    look: `probability_map` with its network.
    """
    found, copy = [look(image)], image
    for _ in coarser_factors(*image.shape[:2]):
        copy = halved(copy)
        found.append(look(copy))
    return found


def merged(
    probabilities: Sequence[NDArray[np.uint8]], thresholds: Thresholds
) -> tuple[NDArray[np.uint8], Components, NDArray[np.bool_] | None]:
    """Return what was seen at any resolution: probability (H, W), the components that `thresholds` keep, and their rim.

    rim: (H, W), the mask of the components and what filling is to take with them; None without coarser copies.
    """
    probability, *coarser = probabilities
    found = grow_mask(probability, thresholds)
    if not coarser:
        return probability, found, None
    mask, rim, probability = found.mask, found.mask.copy(), probability.copy()
    low = max(1, round(thresholds.low * 255))
    for level, seen in enumerate(coarser, start=1):
        marks = grow_mask(seen, thresholds).mask
        add_copy(mask, rim, probability, seen=seen, found=marks, factor=2**level, low=low)
    # What was found at several resolutions is one mark.
    marked = np.maximum(probability, 1)
    marked[~mask] = 0
    return probability, grow_mask(marked, _ALL), rim


def probability_map(
    image: NDArray[Any],
    *,
    network: nn.Module,
    device: str | torch.device = "cpu",
    tile: int = TILE_PX,
    overlap: int = 64,
) -> NDArray[np.uint8]:
    """Return the probability of damage (H, W) uint8 of `image` at its native resolution; arguments as in `detect`."""
    _check(image, tile=tile, overlap=overlap)
    height, width = image.shape[:2]
    probability = np.empty((height, width), np.uint8)
    rows, columns = spans_of(height, tile, overlap), spans_of(width, tile, overlap)
    target = torch.device(device)
    for top, bottom, keep_top, keep_bottom in rows:
        for left, right, keep_left, keep_right in columns:
            grey = grey_of(image[top:bottom, left:right])
            result = _tile_probability(grey, network, target)
            inner = result[keep_top - top : keep_bottom - top, keep_left - left : keep_right - left]
            probability[keep_top:keep_bottom, keep_left:keep_right] = inner
    return probability


def _check(image: NDArray[Any], *, tile: int, overlap: int) -> None:
    right_shape = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if not right_shape or image.dtype not in (np.uint8, np.uint16) or 0 in image.shape:
        raise ValueError(
            f"scratch detection: expected (H, W) or (H, W, 3) uint8 or uint16, got {image.dtype} {image.shape}; "
            "drop the alpha channel, or scale floats to 16 bits"
        )
    if tile % SIZE_MULTIPLE or overlap % (2 * SIZE_MULTIPLE) or not 0 <= overlap < tile:
        raise ValueError(
            f"scratch detection: tile must be a multiple of {SIZE_MULTIPLE} and overlap a smaller multiple of "
            f"{2 * SIZE_MULTIPLE}, got tile={tile}, overlap={overlap}"
        )


def spans_of(length: int, tile: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """Cut `length` into spans (start, stop, keep from, keep to); neighbours share `overlap` and meet in its middle.

    All starts are multiples of 16, since the network's statistics live on cells of 16 pixels.
    """
    size, starts = evenly_cut(length, most=tile, overlap=overlap, multiple=SIZE_MULTIPLE)
    meeting = [0, *(start + overlap // 2 for start in starts[1:]), length]
    return [
        (start, min(start + size, length), keep_from, keep_to)
        for start, (keep_from, keep_to) in zip(starts, pairwise(meeting), strict=True)
    ]


def _tile_probability(grey: NDArray[np.float32], network: nn.Module, device: torch.device) -> NDArray[np.uint8]:
    height, width = grey.shape
    padding = ((0, -height % SIZE_MULTIPLE), (0, -width % SIZE_MULTIPLE))
    # "symmetric" repeats as often as needed, so that it also fills pictures of a few pixels.
    padded = np.pad(grey, padding, mode="symmetric")
    batch = torch.from_numpy(padded)[None, None].to(device).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), quick_products(device):
        logits = network(batch)
    levels = torch.sigmoid(logits[0, 0, :height, :width].float()).mul_(255).round_().to(torch.uint8)
    result: NDArray[np.uint8] = levels.cpu().numpy()
    return result
