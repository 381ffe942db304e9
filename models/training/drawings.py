"""Patches of what photographs do not show and archives are full of: lettering, ruled and hatched drawings, flat tone.

Networks that learned from photographs alone restore print badly: they hold a letter to be texture, and an edge between
two flat tones to be as soft as a lens makes it.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Canvas = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Drawer = Callable[[Canvas, np.random.Generator, int], None]

# Fonts that OpenCV brings with it, and of its strokes the two with serifs, which these lack.
_FONTS = ("sans", "sans", "italic", "uni", cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX)
_LETTERS = np.array(list(string.ascii_lowercase * 4 + string.ascii_uppercase + string.digits + ".,-"))
# What is drawn larger and shrunk has soft steps at its edges, as scans have; what is not has the steps of a screen.
_ENLARGED = (1, 2, 3, 4)


def drawing(side: int, *, rng: np.random.Generator, photograph: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a patch (side, side, 3) uint8: something drawn upon flat tone, a gradient or the photograph itself.

    photograph: (side, side, 3) uint8, the patch that would have been taken; a quarter of the drawings are upon it.
    """
    times = int(rng.choice(_ENLARGED))
    length = side * times
    if rng.random() < 0.25:
        canvas = np.asarray(cv2.resize(photograph, (length, length), interpolation=cv2.INTER_CUBIC), np.uint8)
        drawers: tuple[Drawer, ...] = (_lettering, _boxes)
    else:
        canvas = _ground(length, rng=rng).copy()
        drawers = (_lettering, _lines, _shapes, _hatching, _boxes)
    for _ in range(int(rng.integers(1, 4))):
        drawers[int(rng.integers(len(drawers)))](canvas, rng, times)
    if times > 1:
        canvas = np.asarray(cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    return canvas


def _tone(rng: np.random.Generator) -> tuple[float, float, float]:
    """Return a tone: mostly grey or nearly so, as ink and paper are; black and white among them."""
    level = float(rng.choice([0.0, 255.0, rng.uniform(0, 255), rng.uniform(0, 60), rng.uniform(190, 255)]))
    spread = rng.uniform(-60, 60, 3) if rng.random() < 0.3 else rng.uniform(-6, 6, 3)
    red, green, blue = (level + spread).clip(0, 255).tolist()
    return red, green, blue


def _ground(length: int, *, rng: np.random.Generator) -> Canvas:
    """Return flat tone, or a gradient: along a line, or from a point outwards."""
    tone, other = _tone(rng), _tone(rng)
    if rng.random() < 0.65:
        return np.asarray(np.broadcast_to(np.rint(tone), (length, length, 3)), np.uint8)
    return _mixed(np.asarray(tone), other, share=_ramp(length, rng=rng))


def _mixed(canvas: npt.NDArray[Any], tone: tuple[float, float, float], *, share: FloatArray) -> Canvas:
    """Return `canvas` with so much of `tone` at each pixel as `share` (H, W) says, 0 none to 1 nothing else."""
    return np.asarray(np.rint(canvas + share[:, :, None] * (np.asarray(tone) - canvas)), np.uint8)


def _ramp(length: int, *, rng: np.random.Generator) -> FloatArray:
    rows, columns = np.mgrid[0:length, 0:length] / length
    if rng.random() < 0.5:
        angle = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
        ramp = rows * np.sin(angle) + columns * np.cos(angle)
        return np.asarray((ramp - ramp.min()) / np.ptp(ramp), np.float32)
    ramp = np.hypot(rows - rng.uniform(-0.2, 1.2), columns - rng.uniform(-0.2, 1.2)) / rng.uniform(0.3, 1.4)
    return np.asarray(ramp.clip(0, 1), np.float32)


def _lettering(canvas: Canvas, rng: np.random.Generator, times: int) -> None:
    """Write lines of words, of one font, size and weight, level or turned by a quarter."""
    font, tone = _FONTS[int(rng.integers(len(_FONTS)))], _tone(rng)
    size = times * (rng.uniform(8, 40) if rng.random() < 0.8 else rng.uniform(40, 110))
    weight, leading = rng.uniform(200, 900), rng.uniform(1.1, 1.8) * size
    turned = canvas if rng.random() < 0.8 else np.ascontiguousarray(canvas.transpose(1, 0, 2))
    smoothed = cv2.LINE_AA if rng.random() < 0.5 else cv2.LINE_8
    for line in range(int(rng.choice([1, 2, 20]))):
        words = "".join(" " if rng.random() < 0.18 else str(letter) for letter in rng.choice(_LETTERS, 60))
        left, bottom = int(-rng.uniform(0, size)), int(rng.uniform(-0.2, 0.2) * size + (line + 1) * leading)
        if bottom > canvas.shape[0] + size:
            break
        if isinstance(font, str):
            # All on one line: what does not fit is cut off.
            wrap = (left, 10 * 60 * int(size))
            cv2.putText(turned, words, (left, bottom), tone, cv2.FontFace(font), int(size), int(weight), wrap=wrap)
        else:
            thickness = max(1, round(size * weight / 10000))
            scale = cv2.getFontScaleFromHeight(font, max(1, int(0.7 * size)), thickness)
            cv2.putText(turned, words, (left, bottom), font, scale, tone, thickness, smoothed)
    if turned is not canvas:
        canvas[:] = turned.transpose(1, 0, 2)


def _points(rng: np.random.Generator, count: int, length: int) -> npt.NDArray[np.int32]:
    return np.asarray(rng.uniform(-0.15, 1.15, (count, 2)) * length, np.int32)


def _lines(canvas: Canvas, rng: np.random.Generator, times: int) -> None:
    """Draw straight strokes, level and upright ones among them, and arcs."""
    length, tone = canvas.shape[0], _tone(rng)
    for _ in range(int(rng.integers(2, 12))):
        (left, top), (right, bottom) = _points(rng, 2, length).tolist()
        thickness = max(1, round(times * float(rng.choice([0.6, 1.0, 1.5, rng.uniform(1, 6)]))))
        kind = rng.random()
        if kind < 0.5:
            level, upright = rng.random() < 0.35, rng.random() < 0.35
            end = (left if upright else right, top if level else bottom)
            cv2.line(canvas, (left, top), end, tone, thickness, cv2.LINE_AA)
        else:
            axes = (max(1, abs(right - left)), max(1, abs(bottom - top)))
            begin, sweep = rng.uniform(0, 360, 2)
            cv2.ellipse(
                canvas, (left, top), axes, rng.uniform(0, 180), begin, begin + sweep, tone, thickness, cv2.LINE_AA
            )


def _shapes(canvas: Canvas, rng: np.random.Generator, times: int) -> None:
    """Fill polygons and ellipses with a tone or a gradient of their own."""
    length = canvas.shape[0]
    for _ in range(int(rng.integers(1, 5))):
        inside = np.zeros(canvas.shape[:2], np.uint8)
        if rng.random() < 0.5:
            cv2.fillPoly(inside, [_points(rng, int(rng.integers(3, 7)), length)], 1)
        else:
            ((left, top),) = _points(rng, 1, length).tolist()
            axes = np.asarray(rng.uniform(0.05, 0.7, 2) * length, int).tolist()
            cv2.ellipse(inside, (left, top), axes, rng.uniform(0, 180), 0, 360, 1, -1)
        canvas[:] = np.where(inside[:, :, None] > 0, _ground(length, rng=rng), canvas)


def _boxes(canvas: Canvas, rng: np.random.Generator, times: int) -> None:
    """Lay an upright box of flat tone or a gradient over a side or a corner, as the edge of a page or of a picture."""
    length = canvas.shape[0]
    top, left = (int(cut) for cut in rng.uniform(0, 0.8, 2) * length)
    bottom, right = (int(cut) for cut in rng.uniform(0.85, 1.6, 2) * length)
    if rng.random() < 0.4:
        top = 0
    box = canvas[top:bottom, left:right]
    box[:] = _ground(length, rng=rng)[: box.shape[0], : box.shape[1]]


def _hatching(canvas: Canvas, rng: np.random.Generator, times: int) -> None:
    """Cover the patch with bent parallel lines, as engravings and finger prints have, or with their crossings."""
    length = canvas.shape[0]
    rows, columns = np.mgrid[0:length, 0:length].astype(np.float32)
    covered = np.zeros((length, length), np.float32)
    for _ in range(1 if rng.random() < 0.7 else 2):
        period, angle = times * rng.uniform(3.0, 14.0), rng.uniform(0, np.pi)
        along = rows * np.sin(angle) + columns * np.cos(angle)
        across = rows * np.cos(angle) - columns * np.sin(angle)
        bend = rng.uniform(0, 3.0) * period * np.sin(2 * np.pi * across / (length * rng.uniform(0.6, 2.0)))
        wave = np.cos(2 * np.pi * (along + bend) / period) - rng.uniform(-0.6, 0.6)
        # Steep enough for the line's edge to take `softness` of a pixel of the patch.
        softness = times * rng.uniform(0.5, 2.0)
        covered = np.maximum(covered, (wave * period / (2 * np.pi * softness) + 0.5).clip(0, 1))
    canvas[:] = _mixed(canvas, _tone(rng), share=covered)
