"""What Deep Image Prior makes of a large hole, by five networks, and of a noisy picture with a flash beside it.

    python -m benchmarks.deep_prior_pictures hole --out docs/pictures/deep-prior-hole.webp [--device cuda]
    python -m benchmarks.deep_prior_pictures flash --out docs/pictures/deep-prior-flash.webp

Both from a picture of scikit-image: the hole hides what no pixel around it tells; the picture without flash has been
made of it by a warm light from one side and noise of σ 25. Settings are the published ones, all iterations.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from benchmarks.computing import add_computing, prepare
from models.deep_prior.restoring import denoise, inpaint
from models.deep_prior.settings import (
    FLASH,
    INPAINT_LIBRARY_DEPTH_2,
    INPAINT_LIBRARY_DEPTH_4,
    INPAINT_LIBRARY_DEPTH_6,
    INPAINT_LIBRARY_RESNET,
    INPAINT_LIBRARY_UNET,
)
from models.device import quick_products

SIDE = 256
LABEL_PX = 18
NETWORKS = {
    "depth 6": INPAINT_LIBRARY_DEPTH_6,
    "depth 4": INPAINT_LIBRARY_DEPTH_4,
    "depth 2": INPAINT_LIBRARY_DEPTH_2,
    "ResNet": INPAINT_LIBRARY_RESNET,
    "U-net": INPAINT_LIBRARY_UNET,
}


def scene() -> Tensor:
    """Return (1, 3, 256, 256): the middle of a cup of coffee on a wooden table."""
    picture = Image.fromarray(skimage.data.coffee()).resize((SIDE * 3 // 2, SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture, dtype=np.float32)[:, SIDE // 4 : SIDE // 4 + SIDE] / 255.0
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]


def hole(*, device: str) -> dict[str, Tensor]:
    """Return the picture with its hole, and what each network fills it with."""
    clean, missing = scene(), torch.zeros(1, 1, SIDE, SIDE)
    missing[:, :, 150:215, 60:190] = 1.0
    shown = {"with its hole": clean * (1 - missing) + missing}
    for name, preset in NETWORKS.items():
        shown[name] = inpaint(clean.to(device), missing.to(device), preset=preset, seed=0).image.cpu()
        print(name, flush=True)
    return shown


def flash(*, device: str) -> dict[str, Tensor]:
    """Return the picture with flash, the one without, and the latter denoised from the former."""
    clean = scene()
    light = torch.linspace(1.0, 0.45, SIDE).view(1, 1, 1, SIDE) * torch.tensor([0.95, 0.7, 0.45]).view(1, 3, 1, 1)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    dark = (clean * light + 25 / 255 * noise).clamp(0, 1)
    found = denoise(dark.to(device), preset=FLASH, seed=0, source=clean.to(device)).image.cpu()
    return {"flash": clean, "no flash, noise 25": dark, "denoised": found, "without the noise": clean * light}


def side_by_side(pictures: dict[str, Tensor], *, columns: int) -> Image.Image:
    """Return the pictures in rows, each under its name."""
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (SIDE + 4), rows * (SIDE + LABEL_PX + 4)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (name, picture) in enumerate(pictures.items()):
        left, top = index % columns * (SIDE + 4), index // columns * (SIDE + LABEL_PX + 4)
        pixels = picture[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().byte().numpy()
        draw.text((left + 2, top + 3), name, fill="black")
        sheet.paste(Image.fromarray(pixels), (left, top + LABEL_PX))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("hole", "flash"))
    parser.add_argument("--out", type=Path, required=True)
    add_computing(parser)
    given = parser.parse_args()
    device = prepare(parser, given)
    with quick_products(device):
        pictures = hole(device=device) if given.what == "hole" else flash(device=device)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    side_by_side(pictures, columns=3 if given.what == "hole" else 4).save(given.out, quality=72)


if __name__ == "__main__":
    main()
