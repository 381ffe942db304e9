"""`python -m benchmarks.restoration SUITE… [--data DIR] [--limit N] [--update-cards]`: our methods beside baselines.

Protocols. denoise-color, denoise-gray: additive white Gaussian noise, seed 0, neither clipped nor rounded; PSNR of the
clipped result, RGB or grey, no border. deblock: grey, OpenCV's JPEG. deblock-color: RGB, 4:2:0. deblur: Gaussian blur,
rounded to 8 bits; RGB, 8 px border left out. fill-50: the authors' masks of the Deep Image Prior table (0 inside the
hole; an all-black border row is not a hole), grey, whole picture. fill-scratches: procedural scratches, cracks and
holes, RGB, PSNR inside the hole. Published rows carry their source and are not measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.degradations.blur import GaussianBlur
from models.degradations.damage_layers import LAYERS
from models.degradations.jpeg import JpegPass, encode_decode
from models.run import Runner, RunSettings
from models.training.photographs import read_rgb
from models.types import DegradationEstimate, Estimated
from models.weights import WEIGHTS_FOLDER, weight_names

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Case:
    """One degraded picture (H, W, 3) in [0, 1] with its reference; `grey` says that only one plane counts."""

    name: str
    level: str
    degraded: Pixels
    reference: Pixels
    mask: npt.NDArray[np.bool_] | None = None
    estimate: DegradationEstimate | None = None
    grey: bool = False
    border: int = 0
    inside_mask: bool = False


@dataclass(frozen=True, slots=True)
class Suite:
    """What is measured: cases from the data folder, the methods, and what others published on the same protocol."""

    id: str
    cases: Callable[[Path, int | None], Iterator[Case]]
    methods: tuple[str, ...]
    published: tuple[str, ...]


def pictures(folder: Path, limit: int | None) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Yield name and RGB pixels of the folder's pictures in order."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".bmp", ".jpg"))
    for path in paths[:limit]:
        yield path.stem, read_rgb(path)


def estimate_of(*, noise: float | None = None, blur: float | None = None) -> DegradationEstimate:
    """An estimate that knows the truth, for baselines that must be told."""
    unknown = Estimated(value=None, confidence=0.0)
    return DegradationEstimate(
        noise_sigma=Estimated(value=noise, confidence=1.0) if noise is not None else unknown,
        blur_sigma_px=Estimated(value=blur, confidence=1.0) if blur is not None else unknown,
        jpeg_quality=unknown,
        effective_scale=unknown,
        scratch_coverage=unknown,
        fading=unknown,
        colour_cast=unknown,
    )


def noisy(folder: str, *, grey: bool) -> Callable[[Path, int | None], Iterator[Case]]:
    def cases(data: Path, limit: int | None) -> Iterator[Case]:
        for sigma in (15, 25, 50):
            rng = np.random.default_rng(0)
            for name, image in pictures(data / "test" / folder, limit):
                clean = image.astype(np.float32) / 255.0
                shape = (*clean.shape[:2], 1) if grey else clean.shape
                noise = rng.normal(0.0, sigma / 255.0, shape).astype(np.float32)
                yield Case(name, f"σ {sigma}", clean + noise, clean, estimate=estimate_of(noise=sigma), grey=grey)

    return cases


def compressed(folder: str, *, grey: bool) -> Callable[[Path, int | None], Iterator[Case]]:
    def cases(data: Path, limit: int | None) -> Iterator[Case]:
        for quality in (10, 20, 30, 40):
            for name, image in pictures(data / "test" / folder, limit):
                if grey:
                    decoded = encode_decode(np.ascontiguousarray(image[:, :, 0]), JpegPass(quality=quality))
                    decoded = np.repeat(decoded[:, :, None], 3, axis=2)
                else:
                    decoded = encode_decode(image, JpegPass(quality=quality, subsampling="420"))
                degraded, reference = (part.astype(np.float32) / 255.0 for part in (decoded, image))
                yield Case(name, f"q {quality}", degraded, reference, grey=grey)

    return cases


def blurred(data: Path, limit: int | None) -> Iterator[Case]:
    for sigma in (0.8, 1.2, 1.6, 2.0):
        for name, image in pictures(data / "test" / "CBSD68", limit):
            clean = image.astype(np.float32) / 255.0
            blur = GaussianBlur(sigma_major_px=(sigma,), sigma_minor_px=(sigma,), angle=(0.0,))
            soft = blur.apply(torch.from_numpy(clean).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
            rounded = np.rint(np.clip(soft, 0, 1) * 255.0).astype(np.float32) / 255.0
            yield Case(name, f"σ {sigma} px", rounded, clean, estimate=estimate_of(blur=sigma), border=8)


def half_missing(data: Path, limit: int | None) -> Iterator[Case]:
    folder = data / "test" / "dip_inpaint_50"
    for path in sorted(folder.glob("*_GT.png"))[:limit]:
        reference = read_rgb(path).astype(np.float32) / 255.0
        masked = read_rgb(path.with_name(path.name.replace("_GT", "_masked")))[:, :, 0]
        mask = (masked == 0) & (reference[:, :, 0] > 0)
        degraded = np.where(mask[:, :, None], 0.0, reference).astype(np.float32)
        yield Case(path.stem.removesuffix("_GT"), "50 %", degraded, reference, mask=mask, grey=True)


def scratched(data: Path, limit: int | None) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for name, image in pictures(data / "test" / "CBSD68", limit):
        mask = np.zeros(image.shape[:2], bool)
        for layer in ("scratches", "cracks", "holes"):
            mask |= LAYERS[layer](image.shape[:2], rng, scale=1.0) > 0.1
        grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        reference = image.astype(np.float32) / 255.0
        degraded = np.where(grown[:, :, None], 0.0, reference).astype(np.float32)
        if grown.any():
            yield Case(name, "scratches", degraded, reference, mask=grown, inside_mask=True)


SUITES = (
    Suite(
        "denoise-color",
        noisy("CBSD68", grey=False),
        ("denoise", "nlm"),
        ("CBM3D 33.52 / 30.71 / 27.38", "CDnCNN-B 33.89 / 31.23 / 27.92", "DRUNet 34.30 / 31.69 / 28.51"),
    ),
    Suite(
        "denoise-gray",
        noisy("BSD68", grey=True),
        ("denoise", "nlm"),
        ("BM3D 31.07 / 28.57 / 25.62", "DnCNN-B 31.61 / 29.16 / 26.23", "DRUNet 31.91 / 29.48 / 26.59"),
    ),
    Suite(
        "deblock",
        compressed("classic5", grey=True),
        ("deblock", "nlm"),
        ("AR-CNN 29.03 / 31.15 / 32.51 / 33.34", "DnCNN-3 29.40 / 31.63 / 32.91 / 33.77"),
    ),
    Suite("deblock-color", compressed("CBSD68", grey=False), ("deblock",), ()),
    Suite("deblur", blurred, ("deblur", "unsharp"), ()),
    Suite(
        "fill-50",
        half_missing,
        ("fill", "biharmonic", "telea", "navier-stokes"),
        ("Deep Image Prior 33.44 mean (recomputed from the authors' pictures)", "Papyan 31.16"),
    ),
    Suite("fill-scratches", scratched, ("fill", "biharmonic", "telea", "navier-stokes"), ()),
)


def psnr_db(case: Case, restored: Pixels) -> float:
    """PSNR of the clipped result under the case's protocol; grey pictures are compared in one plane."""
    error = np.square(np.clip(restored, 0.0, 1.0) - case.reference)
    error = error[:, :, :1] if case.grey else error
    if case.inside_mask and case.mask is not None:
        error = error[case.mask]
    elif case.border:
        error = error[case.border : -case.border, case.border : -case.border]
    return float(-10.0 * np.log10(max(float(error.mean()), 1e-12)))


def restore(runner: Runner, method_id: str, case: Case) -> Pixels:
    """Run one method on one case as floats."""
    planes = torch.from_numpy(case.degraded).permute(2, 0, 1).contiguous()
    mask: Tensor | None = None if case.mask is None else torch.from_numpy(case.mask)[None].float()
    restored = runner.restore_planes(method_id, planes, mask=mask, estimate=case.estimate)
    if case.grey:
        restored = restored.mean(0, keepdim=True).expand(3, -1, -1)
    return np.asarray(restored.permute(1, 2, 0).numpy(), np.float32)


def run(suite: Suite, *, data: Path, limit: int | None, runner: Runner) -> dict[str, dict[str, float]]:
    """Print the suite's table and return mean PSNR by method and level."""
    gathered: dict[str, dict[str, list[float]]] = {}
    seconds: dict[str, float] = dict.fromkeys(suite.methods, 0.0)
    megapixels = 0.0
    for case in suite.cases(data, limit):
        megapixels += case.reference.shape[0] * case.reference.shape[1] / 1e6
        gathered.setdefault("(degraded)", {}).setdefault(case.level, []).append(psnr_db(case, case.degraded))
        for method_id in suite.methods:
            started = time.perf_counter()
            restored = restore(runner, method_id, case)
            seconds[method_id] += time.perf_counter() - started
            gathered.setdefault(method_id, {}).setdefault(case.level, []).append(psnr_db(case, restored))
    means = {name: {level: float(np.mean(row)) for level, row in rows.items()} for name, rows in gathered.items()}
    count = len(next(iter(gathered["(degraded)"].values())))
    print(f"\n{suite.id}: {count} pictures a level, {runner.precision} on {runner.device}, PSNR dB")
    for name, rows in means.items():
        speed = f"{seconds[name] / megapixels:6.2f} s/MP" if name in seconds else " " * 11
        print(f"  {name:<14} {speed}  " + "  ".join(f"{level}: {value:.2f}" for level, value in rows.items()))
    for line in suite.published:
        print(f"  published: {line}")
    if suite.id == "fill-50":
        print("  per picture, fill: " + ", ".join(f"{value:.2f}" for value in gathered["fill"]["50 %"]))
    return means


def update_card(method_id: str, suite: Suite, levels: dict[str, float]) -> None:
    """Record what was just measured on the weight's card."""
    path = WEIGHTS_FOLDER / f"{method_id}.json"
    card = json.loads(path.read_text())
    card["metrics"][f"{suite.id} (PSNR dB)"] = {level: round(value, 2) for level, value in levels.items()}
    path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restoration", description=__doc__)
    parser.add_argument("suites", nargs="*", default=[suite.id for suite in SUITES])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LACUNA_DATA", "../shared/data")))
    parser.add_argument("--limit", type=int, help="only the first N pictures of each set")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--only", help="measure this method alone")
    parser.add_argument("--update-cards", action="store_true")
    arguments = parser.parse_args()
    known = {suite.id: suite for suite in SUITES}
    unknown = [name for name in arguments.suites if name not in known]
    if unknown:
        parser.error(f"got {unknown}, expected suites among {sorted(known)}")
    if not arguments.data.is_dir():
        parser.error(f"--data: {arguments.data} is no folder; point it or LACUNA_DATA at the data sets")
    runner = Runner(RunSettings(precision=arguments.precision))
    for name in arguments.suites:
        suite = known[name]
        if arguments.only:
            suite = Suite(suite.id, suite.cases, (arguments.only,), suite.published)
        means = run(suite, data=arguments.data, limit=arguments.limit, runner=runner)
        if arguments.update_cards and arguments.limit is None:
            for method_id in sorted(set(suite.methods) & set(weight_names())):
                update_card(method_id, suite, means[method_id])


if __name__ == "__main__":
    main()
