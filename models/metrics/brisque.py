"""BRISQUE: a no-reference score from 36 scene statistics and a support vector regression trained on human opinions.

A. Mittal, A. K. Moorthy, A. C. Bovik, "No-reference image quality assessment in the spatial domain", IEEE TIP 21(12),
2012. The features are computed here; the regression was trained on the LIVE database and is not part of this
repository: give its two files (libsvm's `allmodel` and svm-scale's `allrange`) to `load_brisque_model`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.metrics.planes import Pixels, Plane
from models.metrics.scene_statistics import (
    Luminance,
    Values,
    fit_asymmetric,
    fit_symmetric,
    half_size,
    local_normalised,
    luminance_255,
    neighbour_mean,
    side_scale,
)

BRISQUE_MODEL_VARIABLE = "LACUNA_BRISQUE_MODEL"
BRISQUE_RANGE_VARIABLE = "LACUNA_BRISQUE_RANGE"
_FEATURES, _SMALLEST = 36, 16
_SHIFTS = ((0, 1), (1, 0), (1, 1), (-1, 1))


def _scale_features(plane: Plane) -> list[float]:
    coefficients, _ = local_normalised(plane, replicate_border=False)
    shape, deviation = fit_symmetric(coefficients)
    features = [shape, deviation**2]
    for shift in _SHIFTS:
        products = coefficients * np.roll(coefficients, shift, axis=(0, 1))
        shapes, left, right = fit_asymmetric(products.reshape(1, -1))
        scale = side_scale(shapes)
        mean = neighbour_mean(shapes, left * scale, right * scale)
        features += [float(shapes[0]), float(mean[0]), float(left[0] ** 2), float(right[0] ** 2)]
    return features


def brisque_features(image: Pixels, *, channel: Luminance = "grey") -> Values:
    """Return the 36 features: 18 at full and 18 at half size; NaN where a flat picture has no statistics.

    Raises ValueError for pictures smaller than 16x16.
    """
    plane = luminance_255(image, channel)
    if min(plane.shape) < _SMALLEST:
        raise ValueError(
            f"BRISQUE needs at least {_SMALLEST}x{_SMALLEST} pixels, got {plane.shape}; use no such metric"
        )
    return np.array(_scale_features(plane) + _scale_features(half_size(plane)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BrisqueModel:
    """A radial-basis support vector regression on features scaled to a range.

    value = Σ coefficients · exp(-gamma |x - vectors|²) - rho, x = the 36 features brought from [minimum, maximum] to
    [lower, upper] and not clipped, as svm-scale does; a feature that svm-scale left out (minimum = maximum) is 0.
    """

    vectors: Values
    coefficients: Values
    gamma: float
    rho: float
    minimum: Values
    maximum: Values
    lower: float = -1.0
    upper: float = 1.0

    def scaled(self, features: Values) -> Values:
        """Return the features (36,) brought to the range that the regression was trained on."""
        span = self.maximum - self.minimum
        share = np.divide(features - self.minimum, span, out=np.zeros(_FEATURES), where=span != 0)
        return np.where(span != 0, self.lower + (self.upper - self.lower) * share, 0.0)

    def predict(self, features: Values) -> float:
        """Return the score of unscaled features (36,): about 0 (pristine) to 100 (bad), not clipped."""
        distance = ((self.vectors - self.scaled(features)) ** 2).sum(axis=1)
        return float(self.coefficients @ np.exp(-self.gamma * distance) - self.rho)


def _sparse_row(entries: list[str], *, where: str) -> Values:
    row = np.zeros(_FEATURES)
    for entry in entries:
        index, _, value = entry.partition(":")
        if not index.isdigit() or not 1 <= int(index) <= _FEATURES:
            raise ValueError(f"{where}: expected INDEX:VALUE with an index of 1 to {_FEATURES}, got {entry!r}")
        row[int(index) - 1] = float(value)
    return row


def _read_regression(path: Path) -> tuple[dict[str, str], Values, Values]:
    """Return the header, support vectors (N, 36) and coefficients (N,) of a libsvm model file."""
    header, _, body = path.read_text().replace("\r\n", "\n").partition("\nSV\n")
    fields = dict(line.split(maxsplit=1) for line in header.splitlines() if len(line.split()) > 1)
    if fields.get("svm_type") not in ("epsilon_svr", "nu_svr") or fields.get("kernel_type") != "rbf" or not body:
        raise ValueError(
            f"{path}: expected a libsvm regression with an rbf kernel, got svm_type {fields.get('svm_type')!r} and "
            f"kernel_type {fields.get('kernel_type')!r}; give the file `allmodel` of the BRISQUE release"
        )
    lines = [line.split() for line in body.splitlines() if line.strip()]
    if len(lines) != int(fields.get("total_sv", -1)):
        raise ValueError(f"{path}: expected {fields.get('total_sv')} support vectors, got {len(lines)}; copy it again")
    vectors = np.stack([_sparse_row(line[1:], where=str(path)) for line in lines])
    return fields, vectors, np.array([float(line[0]) for line in lines])


def _read_range(path: Path) -> tuple[float, float, Values, Values]:
    """Return lower, upper, minima (36,) and maxima (36,) of an svm-scale range file; its optional y part is skipped."""
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    start = next((number for number, line in enumerate(lines) if line == ["x"]), None)
    if start is None or len(lines) < start + 2:
        raise ValueError(f"{path}: expected an svm-scale range with a line 'x', got none; give the file `allrange`")
    minimum, maximum = np.zeros(_FEATURES), np.zeros(_FEATURES)
    for index, low, high in lines[start + 2 :]:
        if not 1 <= int(index) <= _FEATURES:
            raise ValueError(f"{path}: expected features 1 to {_FEATURES}, got {index}; this is another feature set")
        minimum[int(index) - 1], maximum[int(index) - 1] = float(low), float(high)
    return float(lines[start + 1][0]), float(lines[start + 1][1]), minimum, maximum


def read_brisque_model(model: Path, ranges: Path) -> BrisqueModel:
    """Read the regression and its range file; FileNotFoundError or ValueError when one is absent or of another kind."""
    fields, vectors, coefficients = _read_regression(model)
    lower, upper, minimum, maximum = _read_range(ranges)
    return BrisqueModel(
        vectors=vectors,
        coefficients=coefficients,
        gamma=float(fields["gamma"]),
        rho=float(fields["rho"]),
        minimum=minimum,
        maximum=maximum,
        lower=lower,
        upper=upper,
    )


def load_brisque_model(model: Path | None = None, ranges: Path | None = None) -> BrisqueModel | None:
    """Return the model in two files, else in those named by LACUNA_BRISQUE_MODEL and _RANGE, else None.

    Never a download. Raises ValueError when only one of the two is given.
    """
    named = [
        str(path) if path else os.environ.get(variable, "")
        for path, variable in ((model, BRISQUE_MODEL_VARIABLE), (ranges, BRISQUE_RANGE_VARIABLE))
    ]
    if not any(named):
        return None
    if not all(named):
        raise ValueError(
            f"BRISQUE needs the regression and its range file, got {named}; set both {BRISQUE_MODEL_VARIABLE} and "
            f"{BRISQUE_RANGE_VARIABLE}"
        )
    return read_brisque_model(Path(named[0]), Path(named[1]))


def brisque(image: Pixels, *, model: BrisqueModel | None, channel: Luminance = "grey", border: int = 0) -> float | None:
    """Return the BRISQUE score, lower = better; None without a model and for flat pictures.

    `border` pixels are left out at each side. Raises ValueError for pictures smaller than 16x16.
    """
    if model is None:
        return None
    features = brisque_features(image[border:-border, border:-border] if border else image, channel=channel)
    return model.predict(features) if np.isfinite(features).all() else None
