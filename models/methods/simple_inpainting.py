"""Hole filling baselines of example-based work: a plane per window, the nearest known pixel, matrix factorization.

Region regression fits value = a·row + b·column + c to the known pixels of each window and channel; its blocks are what
example-based methods were made to avoid. Nearest = the Voronoi cells of the known pixels. Matrix factorization: Koren,
Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems", Computer 2009.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from models.method import ArrayFiller, Hole, MethodCard, Picture

WINDOW_PX = 8
NEAREST_CONTEXT_PX = 32
FACTOR_CONTEXT_PX = 128
FACTORS, SWEEPS, RIDGE = 20, 10, 0.02


def nearest_known(picture: Picture, hole: Hole) -> Picture:
    """Return (H, W, C) with every missing pixel taken from the nearest known one; at least one must be known."""
    rows, columns = distance_transform_edt(hole, return_distances=False, return_indices=True)
    return np.asarray(picture[rows, columns], np.float32)


def region_regression(picture: Picture, hole: Hole, *, window: int = WINDOW_PX) -> Picture:
    """Return (H, W, C) with missing pixels on the plane that fits the known ones of their window and channel best.

    A window with fewer than three known pixels, or with all on one line, gets the least-norm plane around their mean;
    one without any is filled from the nearest known pixels.
    """
    filled = nearest_known(picture, hole)
    for top in range(0, picture.shape[0], window):
        for left in range(0, picture.shape[1], window):
            part = (slice(top, top + window), slice(left, left + window))
            missing = hole[part]
            if missing.any() and not missing.all():
                filled[part][missing] = _plane(picture[part], missing)
    return np.clip(filled, 0.0, 1.0)


def _plane(window: Picture, missing: Hole) -> Picture:
    """Return the (n, C) values of a window's missing pixels."""
    places = np.argwhere(~missing).astype(np.float64)
    middle = places.mean(axis=0)
    values = window[~missing].astype(np.float64)
    mean = values.mean(axis=0)
    slopes = np.linalg.lstsq(places - middle, values - mean, rcond=1e-6)[0]
    return np.asarray(mean + (np.argwhere(missing) - middle) @ slopes, np.float32)


def factorized(
    picture: Picture, hole: Hole, *, factors: int = FACTORS, sweeps: int = SWEEPS, ridge: float = RIDGE, seed: int = 0
) -> Picture:
    """Return (H, W, C) with missing pixels from rows x factors times factors x columns, fitted to the known ones.

    Alternating ridge regressions, per channel, of what the means of row and column leave.
    """
    planes = [
        _factorized_plane(
            picture[:, :, c].astype(np.float64), ~hole, factors=factors, sweeps=sweeps, ridge=ridge, seed=seed
        )
        for c in range(picture.shape[2])
    ]
    return np.where(hole[:, :, None], np.clip(np.stack(planes, axis=-1), 0.0, 1.0), picture).astype(np.float32)


def _factorized_plane(
    plane: npt.NDArray[np.float64], known: Hole, *, factors: int, sweeps: int, ridge: float, seed: int
) -> npt.NDArray[np.float64]:
    mean = plane[known].mean()
    of_row = _damped_mean(plane - mean, known, axis=1)
    of_column = _damped_mean(plane - mean - of_row, known, axis=0)
    level = mean + of_row + of_column
    rest = np.where(known, plane - level, 0.0)
    columns = np.random.default_rng(seed).normal(0.0, 0.1, (plane.shape[1], factors))
    rows = np.zeros((plane.shape[0], factors))
    for _ in range(sweeps):
        rows = _ridge(rest, known, columns, ridge=ridge)
        columns = _ridge(rest.T, known.T, rows, ridge=ridge)
    return np.asarray(level + rows @ columns.T)


def _damped_mean(values: npt.NDArray[np.float64], known: Hole, *, axis: int) -> npt.NDArray[np.float64]:
    count = known.sum(axis=axis, keepdims=True)
    return np.asarray(np.where(known, values, 0.0).sum(axis=axis, keepdims=True) / (count + 1.0))


def _ridge(
    rest: npt.NDArray[np.float64], known: Hole, others: npt.NDArray[np.float64], *, ridge: float
) -> npt.NDArray[np.float64]:
    """Return for each row of `rest` the factors that explain its known values best, the penalty growing with them."""
    weights = known.astype(np.float64)
    squares = np.einsum("ij,jk,jl->ikl", weights, others, others, optimize=True)
    penalty = (ridge * weights.sum(axis=1) + 1e-6)[:, None, None] * np.eye(others.shape[1])
    return np.linalg.solve(squares + penalty, (rest @ others)[:, :, None])[:, :, 0]


@dataclass(frozen=True, slots=True)
class SimpleInpainter(ArrayFiller):
    """A filler of this file."""


def _on_few_planes(fill: Callable[[Picture, Hole], Picture], picture: Picture, hole: Hole) -> Picture:
    """Fill a picture that is grey, three equal planes, as one plane."""
    is_grey = bool((picture == picture[:, :, :1]).all())
    return np.broadcast_to(fill(picture[:, :, :1] if is_grey else picture, hole), picture.shape)


def _card(
    method_id: str, *, title: str, paper: str, context_px: int, size_multiple: int = 1, licence: str = "Apache-2.0"
) -> MethodCard:
    return MethodCard(
        id=method_id,
        title=title,
        paper=paper,
        purpose="fill",
        licence=licence,
        needs_mask=True,
        size_multiple=size_multiple,
        context_px=context_px,
        half_precision=False,
        opt_in=True,
    )


METHODS = (
    SimpleInpainter(
        _card(
            "region-regression",
            title="A plane fitted to each window of 8 x 8 pixels",
            paper="Baseline of Xinglu Wang, Image restoration (course project), 2017",
            # Tiles start at multiples of the window, so that the windows are those of the whole picture.
            context_px=WINDOW_PX,
            size_multiple=WINDOW_PX,
        ),
        partial(_on_few_planes, region_regression),
    ),
    SimpleInpainter(
        _card(
            "nearest-known",
            title="The nearest known pixel (Voronoi cells; SciPy)",
            paper="Baseline of Ulyanov et al., Deep Image Prior, CVPR 2018",
            context_px=NEAREST_CONTEXT_PX,
            licence="Apache-2.0; BSD-3-Clause (SciPy)",
        ),
        partial(_on_few_planes, nearest_known),
    ),
    SimpleInpainter(
        _card(
            "matrix-factorization",
            title="Low-rank factors of rows and columns per channel",
            paper="Koren, Bell and Volinsky, Matrix Factorization Techniques for Recommender Systems, Computer 2009",
            context_px=FACTOR_CONTEXT_PX,
        ),
        partial(_on_few_planes, factorized),
    ),
)
