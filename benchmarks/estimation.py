"""`python -m benchmarks.estimation [--data DIR] [--every N] [--json FILE] [--card]`: errors of the estimates.

Protocols, all seeded. Noise: white Gaussian, 5/15/25/50, (a) on the green channel alone as a grey picture, unclipped
floats or clipped and rounded to 8 bits, for our estimate and for the classical estimators; of the nine pictures of the
Deep Image Prior denoising table those that the data folder holds (F16, baboon, lena, peppers) stand apart; (b) in RGB,
8 bits. Blur: Gaussian, 8 bits. JPEG: OpenCV's codec, 4:2:0. `classical` are our classical measurements alone, `network`
the network alone, `final` what the router is given. `sure` is the share with a confidence of at least 0.5, `error if
sure` the error over those. Last: what is reported for the clean pictures, whose extremes the router's thresholds must
stay clear of. With `--card` the errors of what the router is given go on the card of the estimator.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from skimage.restoration import estimate_sigma

from models.degradations.jpeg import JpegPass, encode_decode
from models.estimation.classical_jpeg import estimate_jpeg
from models.estimation.classical_noise import estimate_noise, smallest_eigenvalue_sigma
from models.estimation.classical_sharpness import estimate_blur, estimate_scale
from models.estimation.estimate import estimate_degradation, estimate_windows
from models.estimation.learned import WEIGHTS, load_network, read_windows
from models.estimation.patches import luma, read_patches, saturated
from models.types import Estimated
from models.weights import update_metrics

Pixels = npt.NDArray[Any]
GREEN, COLOUR = "Noise, green channel", "RGB"
CLEAN_SETS = ("CBSD68", "Set14", "Set5")
DIP_NINE_HERE = ("F16_GT", "baboon", "lenna", "pepper")
# Mean absolute errors on all nine pictures, measured once with the same protocol (green channel):
# skimage wavelet, Immerkaer, patch PCA, smallest eigenvalue of 7x7 patches.
PUBLISHED_NINE = {
    "5": "1.70 1.85 2.21 1.05",
    "15": "0.95 0.88 1.06 0.41",
    "25": "0.65 0.62 0.78 0.34",
    "25 clipped": "0.86 0.71 0.66 0.82",
    "50": "0.42 0.35 0.62 0.81",
    "50 clipped": "4.11 4.04 3.84 4.95",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: errors of one quantity at one level."""

    quantity: str
    level: str
    pictures: int
    errors: dict[str, float]
    mean: float
    sure: float
    error_if_sure: float | None


def read_sets(data: Path, every: int) -> list[tuple[str, Pixels]]:
    """Return (name, RGB uint8) of every `every`th picture of the clean sets, and of F16."""
    paths = [p for s in CLEAN_SETS for p in sorted((data / "test" / s).glob("*")) if p.suffix in (".png", ".bmp")]
    extra = data / "test/deep_image_prior_data/denoising/F16_GT.png"
    chosen = [p for i, p in enumerate(paths) if i % every == 0 or p.stem in DIP_NINE_HERE] + [extra]
    found = [(path.stem, cv2.imread(str(path), cv2.IMREAD_COLOR)) for path in chosen]
    return [(name, np.ascontiguousarray(image[:, :, ::-1])) for name, image in found if image is not None]


def immerkaer_sigma(plane: Pixels) -> float:
    """Return the noise sigma after Immerkaer (CVIU 64(2), 1996)."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float64)
    response = cv2.filter2D(plane.astype(np.float64), cv2.CV_64F, kernel)[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) * np.abs(response).mean() / 6)


def read_all(image: Pixels) -> dict[str, dict[str, Estimated]]:
    """Return the estimates of a picture by each way of estimating: classical, network, final."""
    windows = read_patches(image)
    learned = asdict_shallow(read_windows(windows.varied, network=load_network()))
    final = estimate_windows(windows, jpeg_table_quality=None)
    planes, level = luma(windows.varied) * 255, final["noise_sigma"].value or 0.0
    quality = final["jpeg_quality"].value or 100.0
    classical = {
        "noise_sigma": estimate_noise(np.ascontiguousarray(windows.flat[..., 1]) * 255, ~saturated(windows.flat)),
        "blur_sigma_px": estimate_blur(planes, noise_sigma=level, jpeg_quality=quality),
        "jpeg_quality": estimate_jpeg(planes).quality,
        "effective_scale": estimate_scale(planes, noise_sigma=level),
    }
    return {"classical": classical, "network": learned, "final": final}


def asdict_shallow(record: Any) -> dict[str, Estimated]:
    """Return the fields of a record of estimates by name."""
    return {name: getattr(record, name) for name in asdict(record)}


def summarize(quantity: str, level: str, truth: float, readings: list[dict[str, dict[str, Estimated]]]) -> Row:
    """Return mean absolute errors over the readings of one quantity."""
    errors = {}
    for way in readings[0]:
        known = [r[way][quantity].value for r in readings]
        errors[way] = float(np.mean([abs(value - truth) for value in known if value is not None] or [np.nan]))
    final = [r["final"][quantity] for r in readings]
    sure = [abs(f.value - truth) for f in final if f.value is not None and f.confidence >= 0.5]
    return Row(
        quantity,
        level,
        len(readings),
        errors,
        float(np.mean([f.value for f in final if f.value is not None] or [np.nan])),
        len(sure) / len(final),
        float(np.mean(sure)) if sure else None,
    )


def noisy(image: Pixels, sigma: float, *, seed: int, clip: bool) -> Pixels:
    """Return the picture with white noise: float32 unclipped, or uint8."""
    unit = image.astype(np.float32) / 255
    result = unit + np.random.default_rng(seed).normal(0, sigma / 255, image.shape).astype(np.float32)
    return np.round(result.clip(0, 1) * 255).astype(np.uint8) if clip else result


def green_channel_rows(pictures: list[tuple[str, Pixels]]) -> Iterator[Row]:
    """Yield the noise errors on the green channel, beside the classical baselines."""
    for sigma in (5, 15, 25, 50):
        for clip in (False, True):
            readings = []
            for seed, (_, image) in enumerate(pictures):
                plane = noisy(image[:, :, 1], sigma, seed=seed, clip=clip)
                full = plane.astype(np.float32) if clip else plane * 255
                eigen = smallest_eigenvalue_sigma(full[None], np.ones_like(full[None], bool))
                read = read_all(plane)
                others = {"skimage": float(estimate_sigma(full)), "immerkaer": immerkaer_sigma(full), "eigen": eigen}
                extra = {n: {"noise_sigma": Estimated(value=v, confidence=1.0)} for n, v in others.items()}
                readings.append(extra | {way: {"noise_sigma": found["noise_sigma"]} for way, found in read.items()})
            yield summarize("noise_sigma", f"{sigma}{' clipped' if clip else ''}", sigma, readings)


def rgb_rows(pictures: list[tuple[str, Pixels]]) -> Iterator[Row]:
    """Yield the errors on RGB pictures for noise, blur, JPEG and reduced resolution."""

    def soften(image: Pixels, level: float, seed: int) -> Pixels:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), level))

    def shrink(image: Pixels, level: float, seed: int) -> Pixels:
        size = (round(image.shape[1] * level), round(image.shape[0] * level))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_CUBIC))

    def compress(image: Pixels, level: float, seed: int) -> Pixels:
        return encode_decode(image, JpegPass(quality=int(level)))

    def compress_off_grid(image: Pixels, level: float, seed: int) -> Pixels:
        return encode_decode(image, JpegPass(quality=int(level), offset_y=3, offset_x=5))

    def compress_then_noise(image: Pixels, level: float, seed: int) -> Pixels:
        return noisy(compress(image, level, seed), 2.0, seed=seed, clip=True)

    def disturb(image: Pixels, level: float, seed: int) -> Pixels:
        return noisy(image, level, seed=seed, clip=True)

    def soften_then_noise(image: Pixels, level: float, seed: int) -> Pixels:
        return noisy(soften(image, level, seed), 5.0, seed=seed, clip=True)

    def soften_then_compress(image: Pixels, level: float, seed: int) -> Pixels:
        return compress(soften(image, level, seed), 40, seed)

    grid: list[tuple[str, str, Callable[[Pixels, float, int], Pixels], tuple[float, ...]]] = [
        ("noise_sigma", "RGB clipped", disturb, (5, 15, 25, 50)),
        ("blur_sigma_px", "", soften, (0.5, 1, 1.5, 2, 3)),
        ("blur_sigma_px", "then noise 5", soften_then_noise, (1, 2, 3)),
        ("blur_sigma_px", "then JPEG 40", soften_then_compress, (1, 2, 3)),
        ("jpeg_quality", "", compress, (10, 20, 30, 40, 60, 80, 90, 95)),
        ("jpeg_quality", "off grid", compress_off_grid, (10, 40, 80)),
        ("jpeg_quality", "then noise 2", compress_then_noise, (10, 40, 80)),
        ("effective_scale", "", shrink, (0.33, 0.5, 0.75)),
    ]
    for quantity, name, degrade, levels in grid:
        for level in levels:
            readings = [read_all(degrade(image, level, seed)) for seed, (_, image) in enumerate(pictures)]
            yield summarize(quantity, f"{level:g} {name}".strip(), level, readings)


def print_rows(title: str, rows: list[Row]) -> None:
    """Print a table of rows as Markdown."""
    ways = list(rows[0].errors)
    print(f"\n### {title} ({rows[0].pictures} pictures): mean absolute error")
    print("| quantity | level | " + " | ".join(ways) + " | mean of final | sure | error if sure |")
    print("|---" * (len(ways) + 5) + "|")
    for row in rows:
        cells = " | ".join(f"{row.errors[way]:.2f}" for way in ways)
        sure = "" if row.error_if_sure is None else f"{row.error_if_sure:.2f}"
        print(f"| {row.quantity} | {row.level} | {cells} | {row.mean:.2f} | {row.sure:.2f} | {sure} |", flush=True)


def clean_report(pictures: list[tuple[str, Pixels]]) -> dict[str, Any]:
    """Print and return the distribution of what is reported for the clean pictures, alone and where it is sure."""
    none = Estimated(value=0.0, confidence=1.0)
    found, began = [], time.perf_counter()
    for _, image in pictures:
        found.append(estimate_degradation(image, scratch_mask=None, scratch_coverage=none, jpeg_table_quality=None))
    seconds = (time.perf_counter() - began) / len(pictures)
    print(f"\n### Clean pictures ({len(pictures)}), {seconds:.3f} s each: sure = confidence >= 0.5")
    print("| quantity | median | 95th percentile | worst | sure | worst if sure | pictures, worst first |")
    print("|---|---|---|---|---|---|---|")
    report: dict[str, Any] = {"seconds": seconds}
    names = ("noise_sigma", "blur_sigma_px", "jpeg_quality", "effective_scale", "fading", "colour_cast")
    for quantity in names:
        sign = -1 if quantity in ("jpeg_quality", "effective_scale") else 1
        values = [(getattr(f, quantity), name) for f, (name, _) in zip(found, pictures, strict=True)]
        badness = sorted(((sign * e.value, e.confidence, n) for e, n in values if e.value is not None), reverse=True)
        level = np.array([b[0] for b in badness])
        sure = [b for b in badness if b[1] >= 0.5]
        line = [sign * float(np.median(level)), sign * float(np.percentile(level, 95)), sign * badness[0][0]]
        shown = ", ".join(f"{n} {sign * v:.2f} ({c:.2f})" for v, c, n in badness[:5])
        worst = f"{sign * sure[0][0]:.2f} {sure[0][2]}" if sure else ""
        cells = " | ".join(f"{v:.2f}" for v in line)
        print(f"| {quantity} | {cells} | {len(sure) / len(values):.2f} | {worst} | {shown} |")
        report[quantity] = {"median": line[0], "percentile_95": line[1], "worst": line[2], "worst_if_sure": worst}
    return report


def card_figures(tables: dict[str, list[Row]]) -> dict[str, dict[str, float]]:
    """Return {table: {"quantity level": mean absolute error of what the router is given}} for the card."""
    return {
        f"estimation, {title} (mean absolute error)": {
            f"{row.quantity} {row.level}": round(row.errors["final"], 3) for row in rows
        }
        for title, rows in tables.items()
    }


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("LACUNA_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--every", type=int, default=1, help="use every Nth picture of the grid (clean ones: all)")
    parser.add_argument("--clean-only", action="store_true")
    parser.add_argument("--noise-only", action="store_true", help="of the grid, only noise on the green channel")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--card", action="store_true", help="write the errors on the card of the estimator")
    arguments = parser.parse_args()
    if arguments.card and (arguments.every > 1 or arguments.clean_only or arguments.noise_only):
        parser.error("--card: got a part of the grid, expected all of it; leave --every and the --...-only out")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    everything = read_sets(arguments.data, 1)
    result: dict[str, Any] = {"clean": clean_report([p for p in everything if p[0] != "F16_GT"])}
    if not arguments.clean_only:
        pictures = read_sets(arguments.data, arguments.every)
        few = [picture for picture in pictures if picture[0] in DIP_NINE_HERE]
        tables = {
            "Noise, green channel, pictures of the Deep Image Prior table": list(green_channel_rows(few)),
            GREEN: list(green_channel_rows(pictures)),
            COLOUR: [] if arguments.noise_only else list(rgb_rows(pictures)),
        }
        for title, rows in tables.items():
            if not rows:
                continue
            print_rows(title, rows)
        print("\nAll nine pictures of that table, measured once: skimage, Immerkaer, patch PCA, smallest eigenvalue")
        for level, errors in PUBLISHED_NINE.items():
            print(f"  sigma {level}: {errors}")
        result |= {title: [asdict(row) for row in rows] for title, rows in tables.items()}
        if arguments.card:
            update_metrics(WEIGHTS, card_figures({title: tables[title] for title in (GREEN, COLOUR)}))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
