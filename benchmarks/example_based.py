"""Example-based filling by the networks that learned from photographs, on whole pictures.

    python -m benchmarks.example_based --data DIR [--pictures 68] [--networks wide narrow] [--write-cards]
                                       [--device cuda]

Damage: exactly int(ratio * columns) values lost in each row of each channel, channels independently; grey pictures have
one mask. PSNR in dB over all values of the picture in 8 bits, known ones as they were (what the published Euclidean
norm converts to). Pictures: the first of CBSD68 (colour) and BSD68 (grey), never trained on. What learning from the
picture adds: `benchmarks.online_learning`.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.computing import add_computing, prepare
from models.degradations.pixel_loss import RowLoss
from models.example_based.blind_spot import BlindSpotSettings, fill_with_blind_spots
from models.example_based.networks import OnSmoothFill
from models.example_based.smooth_start import smooth_fill
from models.methods.example_based import NARROW, ONLINE, WEIGHTS, WIDE
from models.training.recipes import get_recipe
from models.weights import load_weights, update_metrics

RATIOS = (0.4, 0.6, 0.8)
ALL_PICTURES = 68
NETWORKS = {"wide": WIDE, "narrow": NARROW}
# Of three pictures of the author's, whose originals are not published: 40 and 60 % in colour, 80 % in grey.
PUBLISHED = {("colour", 0.4): 36.3, ("colour", 0.6): 27.9, ("grey", 0.8): 20.7}
Kind = Literal["grey", "colour"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A clean picture (1, C, H, W) in [0, 1] and what of it is lost (1, C, H, W), 1 = lost."""

    clean: Tensor
    lost: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Mean PSNR in dB over `pictures` and mean seconds a picture of one way to fill."""

    kind: Kind
    ratio: float
    way: str
    pictures: int
    psnr_db: float
    seconds: float


def cases(
    data: Path, *, kind: Kind, ratio: float, count: int, crop_px: int | None = None, device: str = "cpu"
) -> Iterator[Case]:
    """Yield the first `count` pictures, damaged from a seed. Raises FileNotFoundError when there are none."""
    folder = data / "test" / ("CBSD68" if kind == "colour" else "BSD68")
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))[:count]
    if not paths:
        raise FileNotFoundError(f"{folder}: got no pictures, expected CBSD68 and BSD68 below DATA/test")
    for index, path in enumerate(paths):
        read = cv2.imread(str(path), cv2.IMREAD_COLOR if kind == "colour" else cv2.IMREAD_GRAYSCALE)
        if read is None:
            raise ValueError(f"{path}: cannot be read; expected a PNG or JPEG")
        pixels = np.atleast_3d(read)[:, :, ::-1]
        if crop_px is not None:
            if min(pixels.shape[:2]) < crop_px:
                raise ValueError(f"{path}: got {pixels.shape[1]} x {pixels.shape[0]} px, expected at least {crop_px}")
            top, left = ((size - crop_px) // 2 for size in pixels.shape[:2])
            pixels = pixels[top : top + crop_px, left : left + crop_px]
        clean = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float().div(255)[None]
        lost = RowLoss(ratio=(ratio,), seed=index).masks((clean.shape[1], clean.shape[2], clean.shape[3])).float()
        yield Case(clean=clean.to(device), lost=lost.to(device))


def psnr_db(filled: Tensor, case: Case) -> float:
    """Return the PSNR over all values, the lost ones rounded to 8 bits."""
    rounded = filled.clamp(0, 1).mul(255).round().div(255)
    values = torch.where(case.lost > 0, rounded, case.clean)
    return -10.0 * math.log10(max(float((values - case.clean).square().mean()), 1e-10))


def three_planes(case: Case) -> Case:
    """Return a case as the network takes it: grey as three equal planes."""
    return Case(clean=case.clean.expand(-1, 3, -1, -1), lost=case.lost.expand(-1, 3, -1, -1))


@torch.no_grad()
def fill_smoothly(case: Case) -> Tensor:
    """Return the smooth fill that the network corrects."""
    values = (case.clean * (1 - case.lost)).flatten(0, 1)[:, None]
    return smooth_fill(values, case.lost.flatten(0, 1)[:, None]).view(case.clean.shape)


def fill_online(case: Case, *, settings: BlindSpotSettings, network: nn.Module | None, seed: int = 0) -> Tensor:
    """Return the picture filled after the settings' steps of learning from it."""
    return learn_online(case, settings=settings, network=network, seed=seed)[0]


def learn_online(
    case: Case, *, settings: BlindSpotSettings, network: nn.Module | None, seed: int = 0
) -> tuple[Tensor, nn.Module]:
    """Return the picture filled after the settings' steps of learning from it, and what has learned."""
    planes = three_planes(case)
    learned = fill_with_blind_spots(planes.clean, planes.lost, settings=settings, seed=seed, network=network)
    return learned.image[:, : case.clean.shape[1]], learned.network


def offline_rows(data: Path, *, count: int, ways: Mapping[str, Callable[[Case], Tensor]], device: str) -> Iterator[Row]:
    """Yield what each way makes of whole pictures, without learning from them."""
    for kind, ratio in itertools.product(("colour", "grey"), RATIOS):
        for way, fill in ways.items():
            found, started = [], time.perf_counter()
            for case in cases(data, kind=kind, ratio=ratio, count=count, device=device):
                found.append(psnr_db(fill(case), case))
            seconds = time.perf_counter() - started
            yield Row(
                kind=kind,
                ratio=ratio,
                way=way,
                pictures=len(found),
                psnr_db=round(sum(found) / len(found), 2),
                seconds=round(seconds / len(found), 2),
            )


def load_network(name: Literal["wide", "narrow"]) -> OnSmoothFill:
    """Return the shipped network."""
    weights = WEIGHTS[NETWORKS[name]]
    network = get_recipe(weights).network()
    network.load_state_dict(load_weights(weights))
    if not isinstance(network, OnSmoothFill):
        raise TypeError(f"{weights}: got a {type(network).__name__}, expected a network on a smooth fill")
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=ALL_PICTURES, help="of each kind")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["wide", "narrow"])
    parser.add_argument("--write-cards", action="store_true", help="put the figures on the weights' cards")
    add_computing(parser)
    given = parser.parse_args()
    if given.write_cards and given.pictures < ALL_PICTURES:
        parser.error(
            f"--write-cards: got --pictures {given.pictures}, expected {ALL_PICTURES}, since cards are of whole sets"
        )
    device = prepare(parser, given)
    ways: dict[str, Callable[[Case], Tensor]] = {"smooth fill": fill_smoothly}
    for name in given.networks:
        ways[name] = partial(fill_online, settings=replace(ONLINE, steps=0), network=load_network(name))
    rows = []
    print("| kind | lost | way | pictures | PSNR, dB | seconds a picture |\n|---|---|---|---|---|---|")
    for row in offline_rows(given.data, count=given.pictures, ways=ways, device=device):
        rows.append(row)
        line = (row.kind, f"{row.ratio:.0%}", row.way, row.pictures, row.psnr_db, row.seconds)
        print(f"| {' | '.join(str(cell) for cell in line)} |", flush=True)
    if given.write_cards:
        for name in given.networks:
            reached = {f"{row.kind} {row.ratio * 100:.0f} %": row.psnr_db for row in rows if row.way == name}
            update_metrics(WEIGHTS[NETWORKS[name]], {"example-based (PSNR dB)": reached})
    missed = [
        f"{row.kind} {row.ratio:.0%}: {row.psnr_db} dB, published for one picture {level} dB"
        for row in rows
        if row.way == "wide" and row.psnr_db < (level := PUBLISHED.get((row.kind, row.ratio), 0.0))
    ]
    raise SystemExit("; ".join(missed) if missed else 0)


if __name__ == "__main__":
    main()
