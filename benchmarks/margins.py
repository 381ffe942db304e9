"""What a plain margin around a picture costs the blind methods: `python -m benchmarks.margins [--pictures 8]`.

Pictures of CBSD68 (256 x 256 of each) with a fault, and then a clean margin of one colour around them, as of a mounted
print. Printed is the mean PSNR (RGB, of the picture without its margin) of what each method makes of it: of the 8-bit
page, as the flow runs it, and, under "network", of the page as its network alone sees it, clipped.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.routing_cost import Picture, pictures
from models.degradations.jpeg import JpegCompression, JpegPass
from models.degradations.noise import GaussianNoise
from models.degradations.operator import Degradation
from models.metrics.fidelity import psnr_db
from models.run import Runner, RunSettings

SIDE, COUNT = 256, 68
MARGINS: dict[str, tuple[int, float]] = {
    "none": (0, 0.0),
    "white, 24 px": (24, 1.0),
    "white, 96 px": (96, 1.0),
    "black, 60 px": (60, 0.0),
}


def faults(seed: int) -> dict[str, Degradation]:
    """Return the faults by name."""
    found: dict[str, Degradation] = {}
    for sigma in (15.0, 25.0, 50.0):
        found[f"noise, σ {sigma:.0f}"] = GaussianNoise(sigma=(sigma,), achromatic=(False,), clip=True, seed=seed)
    for quality in (10, 30):
        found[f"JPEG {quality}"] = JpegCompression(passes=((JpegPass(quality=quality, subsampling="420"),),))
    return found


def planes(picture: Picture) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None] / 255.0


def inside(runner: Runner, method: str, image: Tensor, *, margin: tuple[int, float], network: bool) -> Tensor:
    """Return what `method` makes of `image` (1, 3, H, W) with a margin (px, value) around it, without that margin."""
    px, value = margin
    page = functional.pad(image, (px,) * 4, value=value)[0]
    if network:
        restored = runner.restore_planes(method, page).clamp(0, 1)
    else:
        seen = page.mul(255).round().byte().movedim(0, -1).numpy()
        restored = planes(runner.apply(method, [seen])[0])[0]
    return restored[:, px : px + image.shape[-2], px : px + image.shape[-1]][None]


def mean_psnr_db(images: Sequence[Tensor], references: Sequence[Tensor]) -> float:
    pairs = zip(images, references, strict=True)
    return mean(psnr_db(*(picture[0].movedim(0, -1).numpy() for picture in pair)) for pair in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.margins", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LACUNA_DATA", "../shared/data")))
    parser.add_argument("--pictures", type=int, default=8)
    arguments = parser.parse_args()
    every = list(pictures(arguments.data / "test" / "CBSD68", side=SIDE, count=COUNT))
    clean = [planes(picture) for picture in every[:: max(1, COUNT // arguments.pictures)][: arguments.pictures]]
    runner = Runner(RunSettings(device="cpu", precision="float32"))
    print(f"{'':<36}{'as it is':>10}" + "".join(f"{name:>14}" for name in MARGINS))
    for name in faults(0):
        damaged = [faults(seed)[name].apply(image) for seed, image in enumerate(clean)]
        before = mean_psnr_db(damaged, clean)
        for method in ("denoise", "all-in-one") if name.startswith("noise") else ("deblock",):
            for title, network in ((method, False), (f"{method}, network", True)):
                cells = [
                    mean_psnr_db(
                        [inside(runner, method, image, margin=margin, network=network) for image in damaged], clean
                    )
                    for margin in MARGINS.values()
                ]
                row = f"{name + ', ' + title:<36}{before:>10.2f}" + "".join(f"{cell:>14.2f}" for cell in cells)
                print(row, flush=True)


if __name__ == "__main__":
    main()
