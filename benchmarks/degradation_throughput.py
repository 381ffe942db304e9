"""`python -m benchmarks.degradation_throughput [--images N] [--size PX] [--varying] [--only TEXT]`: cost of recipes.

Every recipe degrades N different pictures of PX x PX in colour in one process with one thread. Projected minutes are
for 1,000 pictures by two such processes on two cores; reading and writing files is not counted.
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np
import numpy.typing as npt
import torch

from models.degradations.recipes import get_recipe, recipe_ids

_PROJECTED_IMAGES = 1000
_PROJECTED_CORES = 2


def pictures(count: int, *, size: int) -> list[npt.NDArray[np.uint8]]:
    """Return `count` seeded pictures (size, size, 3) with the spectrum of photographs: noise of every scale."""
    made = []
    for index in range(count):
        rng = np.random.default_rng(index)
        total = np.zeros((size, size, 3), np.float32)
        for cells in (4, 8, 16, 32, 64, 128):
            coarse = rng.standard_normal((cells, cells, 3), dtype=np.float32)
            total += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC) * np.float32(4 / cells)
        made.append((255 / (1 + np.exp(-2 * total))).astype(np.uint8))
    return made


def images_per_second(recipe_id: str, images: list[npt.NDArray[np.uint8]]) -> float:
    """Return how many pictures a second one process degrades, after one that warms the caches."""
    recipe = get_recipe(recipe_id)
    recipe.apply(images[0], seed=len(images))
    start = time.perf_counter()
    for seed, image in enumerate(images):
        recipe.apply(image, seed=seed)
    return len(images) / (time.perf_counter() - start)


def main() -> None:
    """Print one line per recipe and the slowest one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--varying", action="store_true", help="the spatially varying versions as well")
    parser.add_argument("--only", default="", help="recipes whose id contains this text")
    options = parser.parse_args()
    if options.images < 1 or options.size < 128:
        parser.error(f"expected --images >= 1 and --size >= 128, got {options.images} and {options.size}")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    names = [name for name in recipe_ids() if options.only in name]
    if options.varying:
        names += [f"varying:{name}" for name in names if name != "clean"]
    if not names:
        parser.error(f"no recipe contains {options.only!r}; known: {', '.join(recipe_ids())}")
    images = pictures(options.images, size=options.size)
    print(f"{options.images} pictures of {options.size} x {options.size} in colour, one process, one thread")
    print(f"{'recipe':38s} {'images/s':>9s} {'minutes for 1,000 on 2 cores':>30s}")
    total = 0.0
    for name in names:
        rate = images_per_second(name, images)
        minutes = _PROJECTED_IMAGES / (rate * _PROJECTED_CORES) / 60
        total += minutes
        print(f"{name:38s} {rate:9.1f} {minutes:30.2f}", flush=True)
    print(f"all {len(names)} recipes: {total:.1f} minutes")


if __name__ == "__main__":
    main()
