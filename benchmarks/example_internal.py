"""`python -m benchmarks.example_internal PICTURE … [--steps 365] [--crop-px 128]`: what a picture alone teaches.

40 % of the values of every row lost (recipe rows/40, seed 0), the middle square of the picture in grey; PSNR in dB over
all pixels in 8 bits. `example-internal` hides known pixels and is supervised on them, `example-internal-faithful` sees
what it is supervised on, as published; both end after so many steps. Biharmonic interpolation beside them.
--device: cuda where there is one.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.computing import add_computing, prepare
from models.deep_prior.budget import limited_iterations
from models.degradations.recipes import get_recipe
from models.run import Runner, RunSettings
from models.training.photographs import read_rgb

METHODS = ("biharmonic", "example-internal", "example-internal-faithful")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--steps", type=int, default=365)
    parser.add_argument("--crop-px", type=int, default=128)
    add_computing(parser)
    given = parser.parse_args()
    runner = Runner(RunSettings(device=prepare(parser, given)))
    print("| picture | " + " | ".join(METHODS) + " |\n|---" + "|---" * len(METHODS) + "|")
    for path in given.pictures:
        grey = cv2.cvtColor(read_rgb(path), cv2.COLOR_RGB2GRAY)
        top, left = (max(0, (side - given.crop_px) // 2) for side in grey.shape)
        clean = np.repeat(grey[top : top + given.crop_px, left : left + given.crop_px, None], 3, axis=2)
        made = get_recipe("rows/40").apply(np.ascontiguousarray(clean), seed=0)
        if made.mask is None:
            raise RuntimeError("rows/40: got no mask, expected the pixels that were lost")
        missing = made.mask.reshape(clean.shape[0], clean.shape[1], -1)[:, :, 0] > 0
        damaged = np.ascontiguousarray(np.rint(made.image * 255).astype(np.uint8)[:, :, 0])
        cells = []
        for method_id in METHODS:
            began = time.perf_counter()
            with limited_iterations(given.steps):
                (found,) = runner.apply(method_id, [damaged], masks=[missing])
            error = np.mean((found.astype(float) - clean[:, :, 0]) ** 2)
            cells.append(f"{10 * np.log10(255**2 / error):.2f} ({time.perf_counter() - began:.0f} s)")
        print(f"| {path.stem} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
