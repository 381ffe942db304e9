"""The metrics of a benchmark, as a table: adding one is one entry here."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from models.benchmarking.protocols import LARGEST_PSNR_DB, Protocol
from models.metrics.brisque import (
    BRISQUE_MODEL_VARIABLE,
    BRISQUE_RANGE_VARIABLE,
    BrisqueModel,
    brisque,
    load_brisque_model,
)
from models.metrics.change import colour_shift, detail_retention
from models.metrics.fidelity import ms_ssim, psnr_db, ssim
from models.metrics.naturalness import NIQE_VARIABLE, OWN_MODEL, NiqeModel, load_niqe_model, niqe, own_niqe_model
from models.metrics.perceptual import BACKBONE_VARIABLE, HEADS_VARIABLE, Lpips, load_lpips, lpips
from models.metrics.planes import comparable

_NIQE_BLOCK, _LPIPS_SIDE, _MS_SSIM_SIDE, _BRISQUE_SIDE = 96, 64, 176, 16
Pixels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A restored picture beside its reference, both (H, W) or (H, W, 3) in [0, 1] (restored may leave the range)."""

    restored: Pixels
    reference: Pixels
    mask: Mask | None
    protocol: Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number about a result. `measure` returns None where it does not apply or its model is not there.

    higher_is_better None: best is 1. version: raise it whenever the same pixels give another number; cells measured
    before are then measured again. files: environment variables that name the files of its model, which count as well.
    own_model: the file that is taken where they name none.
    """

    id: str
    title: str
    decimals: int
    higher_is_better: bool | None
    measure: Callable[[Result], float | None]
    version: str = "1"
    files: tuple[str, ...] = ()
    own_model: Path | None = None


def _capped(decibels: float) -> float:
    return min(decibels, LARGEST_PSNR_DB)


def _decibels(squared_error: float) -> float:
    return LARGEST_PSNR_DB if squared_error <= 0 else _capped(-10 * math.log10(squared_error))


def _psnr(result: Result) -> float | None:
    protocol = result.protocol
    if protocol.region == "whole":
        return _capped(
            psnr_db(
                result.restored,
                result.reference,
                channel=protocol.channel,
                border=protocol.border,
                round_to_8_bits=protocol.round_to_8_bits,
            )
        )
    if result.mask is None or not result.mask.any():
        return None
    first, second = comparable(
        result.restored,
        result.reference,
        channel=protocol.channel,
        border=0,
        round_to_8_bits=protocol.round_to_8_bits,
    )
    return _decibels(float(np.mean((first[result.mask] - second[result.mask]) ** 2)))


def _psnr_unclipped(result: Result) -> float | None:
    """Neither clipped nor cropped, over all channels: what σ 25 puts at 20.17 dB by definition."""
    error = result.restored.astype(np.float64) - result.reference.astype(np.float64)
    return _decibels(float(np.mean(error**2)))


def _ssim(result: Result) -> float | None:
    if result.protocol.region == "hole":
        return None
    return ssim(
        result.restored,
        result.reference,
        channel=result.protocol.channel,
        border=result.protocol.border,
        round_to_8_bits=result.protocol.round_to_8_bits,
    )


def _ms_ssim(result: Result) -> float | None:
    protocol = result.protocol
    if protocol.region == "hole" or min(result.restored.shape[:2]) - 2 * protocol.border < _MS_SSIM_SIDE:
        return None
    return ms_ssim(result.restored, result.reference, channel=protocol.channel, border=protocol.border)


def _colour_shift(result: Result) -> float | None:
    return None if result.reference.ndim == 2 else colour_shift(result.restored, result.reference)


def _detail(result: Result) -> float | None:
    """Gradient energy of the result over that of the reference: below 1 = too smooth, above 1 = noise or ringing."""
    return detail_retention(result.restored, result.reference)


def _brisque(result: Result) -> float | None:
    border = result.protocol.border
    if min(result.restored.shape[:2]) - 2 * border < _BRISQUE_SIDE:
        return None
    channel: Literal["grey", "y"] = "y" if result.protocol.channel == "y" else "grey"
    return brisque(np.clip(result.restored, 0, 1), model=_brisque_model(), channel=channel, border=border)


def _niqe(result: Result) -> float | None:
    border = result.protocol.border
    blocks = [(side - 2 * border) // _NIQE_BLOCK for side in result.restored.shape[:2]]
    if blocks[0] * blocks[1] < 2:
        return None
    channel: Literal["grey", "y"] = "y" if result.protocol.channel == "y" else "grey"
    return niqe(np.clip(result.restored, 0, 1), model=_niqe_model(), channel=channel, border=border)


def _lpips(result: Result) -> float | None:
    border = result.protocol.border
    if min(result.restored.shape[:2]) - 2 * border < _LPIPS_SIDE:
        return None
    return lpips(np.clip(result.restored, 0, 1), result.reference, model=_lpips_model(), border=border)


@lru_cache(maxsize=1)
def _niqe_model() -> NiqeModel:
    return load_niqe_model() or own_niqe_model()


@lru_cache(maxsize=1)
def _brisque_model() -> BrisqueModel | None:
    return load_brisque_model()


@lru_cache(maxsize=1)
def _lpips_model() -> Lpips | None:
    return load_lpips()


METRICS: tuple[Metric, ...] = (
    Metric(id="psnr_db", title="PSNR, dB", decimals=2, higher_is_better=True, measure=_psnr),
    Metric(id="ssim", title="SSIM", decimals=4, higher_is_better=True, measure=_ssim),
    Metric(
        id="psnr_unclipped_db",
        title="PSNR unclipped, dB",
        decimals=2,
        higher_is_better=True,
        measure=_psnr_unclipped,
    ),
    Metric(id="ms_ssim", title="MS-SSIM", decimals=4, higher_is_better=True, measure=_ms_ssim),
    Metric(id="colour_shift", title="CIEDE2000", decimals=2, higher_is_better=False, measure=_colour_shift),
    Metric(id="detail", title="detail kept", decimals=2, higher_is_better=None, measure=_detail),
    Metric(
        id="brisque",
        title="BRISQUE",
        decimals=1,
        higher_is_better=False,
        measure=_brisque,
        files=(BRISQUE_MODEL_VARIABLE, BRISQUE_RANGE_VARIABLE),
    ),
    Metric(
        id="niqe",
        title="NIQE",
        decimals=2,
        higher_is_better=False,
        measure=_niqe,
        files=(NIQE_VARIABLE,),
        own_model=OWN_MODEL,
    ),
    Metric(
        id="lpips",
        title="LPIPS",
        decimals=4,
        higher_is_better=False,
        measure=_lpips,
        files=(BACKBONE_VARIABLE, HEADS_VARIABLE),
    ),
)


def score(result: Result) -> dict[str, float | None]:
    """Return every metric of the table for one result; None = it does not apply, or its model is not there.

    Raises ValueError when the shapes of the pictures differ, and for a result with NaN or infinity in it.
    """
    if result.restored.shape != result.reference.shape:
        raise ValueError(
            f"restored: got shape {result.restored.shape}, expected that of its reference {result.reference.shape}; "
            "the method or the reference does not belong to this case"
        )
    # None would take the case out of the method's mean: what breaks on hard pictures would rise in the table.
    broken = int(result.restored.size - np.isfinite(result.restored).sum())
    if broken:
        raise ValueError(
            f"restored: got NaN or infinity in {broken} of {result.restored.size} values, expected finite numbers; "
            "mend the method, or leave it out"
        )
    return {metric.id: _finite(metric.measure(result)) for metric in METRICS}


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def metrics_identity() -> list[list[str]]:
    """Return what the numbers depend on, for content addresses: ids, versions and models of all metrics."""
    return [
        [metric.id, metric.version, *(_file_sha256(name, metric.own_model) for name in metric.files)]
        for metric in METRICS
    ]


def models_named() -> dict[str, str]:
    """Return by metric which model measures it, where one is shipped: values of different models do not compare."""
    return {
        metric.id: f"{'another' if os.environ.get(name) else 'own'} model {_file_sha256(name, metric.own_model)[:8]}"
        for metric in METRICS
        if metric.own_model is not None
        for name in metric.files
    }


@lru_cache(maxsize=16)
def _file_sha256(variable: str, own_model: Path | None) -> str:
    named = os.environ.get(variable)
    path = Path(named) if named else own_model
    return "absent" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
