"""NIQE: how far a picture's statistics are from those of pristine photographs, without a reference.

A. Mittal, R. Soundararajan, A. C. Bovik, "Making a completely blind image quality analyzer", IEEE SPL 20(3), 2013.
The published model of pristine photographs is not part of this repository: give its file to `load_niqe_model` for
values to compare with the literature. `own_niqe_model` was fitted on other photographs: its values order pictures in
the same way, mostly, but must never stand beside published NIQE values.

`python -m models.metrics.naturalness --fit DIR --out FILE.npz` fits a model and writes it with its card.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.io import loadmat

from models.metrics.planes import Pixels, Plane
from models.metrics.scene_statistics import (
    Luminance,
    Values,
    fit_asymmetric,
    half_size,
    local_normalised,
    luminance_255,
    neighbour_mean,
    side_scale,
)

NIQE_VARIABLE = "LACUNA_NIQE_MODEL"
OWN_MODEL = Path(__file__).with_name("niqe_pristine.npz")
_BLOCK, _FEATURES = 96, 36
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
# Blocks are pristine enough when sharper than this share of the sharpest of their picture (the release's sh_th).
_SHARPNESS = 0.75
# Names of the two arrays: ours, those of MATLAB's release and those of its Python translations.
_NAMES = (("mean", "covariance"), ("mu_prisparam", "cov_prisparam"), ("mu_pris_param", "cov_pris_param"))
_PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")
_LICENCE = "Apache-2.0 for the numbers; the photographs keep their own licences and are not part of them"
_NOTE = "not comparable with published NIQE values, which come from another set of pristine photographs"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NiqeModel:
    """The Gaussian of the 36 features of pristine blocks: mean (36,) and covariance (36, 36), with the file's sha256.

    The sha256 belongs beside every value: NIQE values of different models are different quantities.
    """

    mean: Values
    covariance: Values
    sha256: str = ""

    def __post_init__(self) -> None:
        if self.mean.shape != (_FEATURES,) or self.covariance.shape != (_FEATURES, _FEATURES):
            raise ValueError(
                f"NIQE model: expected a mean (36,) and a covariance (36, 36), got {self.mean.shape} and "
                f"{self.covariance.shape}; give a file written by --fit or the published parameters"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise ValueError("NIQE model: expected finite numbers, got NaN or infinity; fit it on more photographs")


def read_niqe_model(path: Path) -> NiqeModel:
    """Read a model from .npz (ours, or the published parameters) or MATLAB's .mat; nothing is ever unpickled.

    Raises FileNotFoundError, and ValueError when the two arrays are not found or misshapen.
    """
    content = path.read_bytes()
    if path.suffix == ".mat":
        arrays = {key: value for key, value in loadmat(io.BytesIO(content)).items() if not key.startswith("__")}
    else:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    for mean, covariance in _NAMES:
        if mean in arrays and covariance in arrays:
            return NiqeModel(
                mean=np.asarray(arrays[mean], np.float64).ravel(),
                covariance=np.asarray(arrays[covariance], np.float64),
                sha256=hashlib.sha256(content).hexdigest(),
            )
    known = " or ".join(f"{mean} with {covariance}" for mean, covariance in _NAMES)
    raise ValueError(f"NIQE model {path}: expected the arrays {known}, got {sorted(arrays)}")


def load_niqe_model(path: Path | None = None) -> NiqeModel | None:
    """Return the model in `path`, else in the file named by LACUNA_NIQE_MODEL, else None; never a download."""
    named = path or (Path(os.environ[NIQE_VARIABLE]) if os.environ.get(NIQE_VARIABLE) else None)
    return None if named is None else read_niqe_model(named)


def own_niqe_model() -> NiqeModel:
    """Return the shipped model, fitted on our own photographs: NOT comparable with published NIQE values."""
    return read_niqe_model(OWN_MODEL)


def _blocks(plane: Plane, side: int) -> npt.NDArray[np.float64]:
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    return plane.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows * columns, side, side)


def _block_features(blocks: Values) -> Values:
    """Return the 18 features (N, 18) of the normalised coefficients of blocks (N, S, S)."""
    flat = blocks.reshape(len(blocks), -1)
    shape, left, right = fit_asymmetric(flat)
    scale = side_scale(shape)
    columns = [shape, (left + right) / 2 * scale]
    for shift in _SHIFTS:
        products = flat * np.roll(blocks, shift, axis=(1, 2)).reshape(len(blocks), -1)
        shape, left, right = fit_asymmetric(products)
        left, right = left * side_scale(shape), right * side_scale(shape)
        columns += [shape, neighbour_mean(shape, left, right), left, right]
    return np.stack(columns, axis=1)


def niqe_features(image: Pixels, *, channel: Luminance = "grey") -> tuple[Values, Values]:
    """Return the features (N, 36) and the mean local deviation (N,) of the picture's blocks of 96x96 pixels.

    Blocks start at the top left; what is left at the right and bottom is ignored. Features of flat blocks are NaN.
    Raises ValueError for pictures smaller than 96x96.
    """
    plane = luminance_255(image, channel)
    height, width = (side // _BLOCK * _BLOCK for side in plane.shape)
    if not height or not width:
        raise ValueError(f"NIQE needs at least {_BLOCK}x{_BLOCK} pixels, got {plane.shape}; it has no value here")
    plane = np.ascontiguousarray(plane[:height, :width])
    coefficients, deviation = local_normalised(plane, replicate_border=True)
    sharpness: Values = _blocks(deviation, _BLOCK).mean(axis=(1, 2))
    coarse, _ = local_normalised(half_size(plane), replicate_border=True)
    features = [_block_features(_blocks(coefficients, _BLOCK)), _block_features(_blocks(coarse, _BLOCK // 2))]
    return np.concatenate(features, axis=1), sharpness


def niqe(image: Pixels, *, model: NiqeModel | None, channel: Luminance = "grey", border: int = 0) -> float | None:
    """Return the NIQE distance of a picture from the model, at least 0, lower = more natural; None without a model.

    None also when fewer than two blocks of 96x96 have a structure to measure (a flat picture). `border` pixels are
    left out at each side. `channel="y"` is what super-resolution papers mostly report. Raises ValueError when the
    picture is too small for two blocks.
    """
    if model is None:
        return None
    if border:
        image = image[border:-border, border:-border]
    features, _ = niqe_features(image, channel=channel)
    if len(features) < 2:
        raise ValueError(
            f"NIQE needs two blocks of {_BLOCK}x{_BLOCK} pixels for a covariance, got one of {image.shape[:2]}"
        )
    whole = features[~np.isnan(features).any(axis=1)]
    if len(whole) < 2:
        return None
    # As MATLAB's nanmean and nancov: the mean is over what each feature has, the covariance over whole rows.
    difference = model.mean - np.nanmean(features, axis=0)
    pooled = (model.covariance + np.cov(whole, rowvar=False)) / 2
    return float(np.sqrt(max(0.0, difference @ np.linalg.pinv(pooled) @ difference)))


def fit_pristine(pictures: Iterable[Pixels], *, channel: Luminance = "grey") -> NiqeModel:
    """Fit the Gaussian on the sharp blocks (above 0.75 of the sharpest of its picture) of pristine pictures.

    Raises ValueError when the pictures hold fewer than 37 such blocks, too few for a covariance.
    """
    rows: list[Values] = []
    for picture in pictures:
        features, sharpness = niqe_features(picture, channel=channel)
        rows.append(features[sharpness > _SHARPNESS * sharpness.max()])
    collected = np.concatenate(rows) if rows else np.zeros((0, _FEATURES))
    whole = collected[~np.isnan(collected).any(axis=1)]
    if len(whole) <= _FEATURES:
        raise ValueError(f"fitting NIQE needs over {_FEATURES} sharp blocks, got {len(whole)}; add photographs")
    return NiqeModel(mean=np.nanmean(collected, axis=0), covariance=np.cov(whole, rowvar=False))


def _read(path: Path) -> Pixels:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError(f"{path}: expected a picture, got bytes that cannot be decoded; leave it out of the folder")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def write_niqe_model(model: NiqeModel, path: Path, *, files: list[str], command: str, data: str) -> None:
    """Write the model as .npz and, beside it, its card as .json: data, recipe, sha256 and what it must not be used for.

    The same model gives the same bytes.
    """
    buffer = io.BytesIO()
    np.savez(buffer, mean=model.mean, covariance=model.covariance)
    path.write_bytes(buffer.getvalue())
    card = {
        "id": path.stem,
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "what": "mean (36,) and covariance (36, 36) of the NIQE features of sharp 96x96 blocks",
        "recipe": f"fit_pristine, grey, sharpness above {_SHARPNESS} of the sharpest block of each picture",
        "command": command,
        "data": data,
        "pictures": len(files),
        "licence": _LICENCE,
        "notes": _NOTE,
        "files": files,
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    """Fit a model on every picture of a folder, in the order of the names."""
    parser = argparse.ArgumentParser(prog="python -m models.metrics.naturalness", description=main.__doc__)
    parser.add_argument("--fit", type=Path, required=True, metavar="DIR", help="folder of pristine photographs")
    parser.add_argument("--out", type=Path, required=True, help="the model, FILE.npz; its card is FILE.json")
    parser.add_argument("--data", default="", help="what the photographs are and under which licence, for the card")
    arguments = parser.parse_args()
    paths = sorted(path for path in arguments.fit.iterdir() if path.suffix.lower() in _PICTURES)
    model = fit_pristine(_read(path) for path in paths)
    command = f"python -m models.metrics.naturalness --fit <{arguments.fit.name}> --out {arguments.out.name}"
    write_niqe_model(model, arguments.out, files=[path.name for path in paths], command=command, data=arguments.data)
    print(f"{arguments.out}: fitted on {len(paths)} pictures; {_NOTE}")


if __name__ == "__main__":
    main()
