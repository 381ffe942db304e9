"""Example-based filling: learned from photographs, learned from the picture, and both ("online learning").

    python -m benchmarks.example_based --data DIR [--offline 68] [--online 7] [--crop-px 256] [--ratios 0.4 0.6 0.8]
    ... --write-card          puts the figures of all whole pictures on the weight's card

Damage: exactly int(ratio * columns) values lost in each row of each channel, channels independently; grey pictures have
one mask. PSNR in dB over all values of the picture in 8 bits, known ones as they were (what the published Euclidean
norm converts to). Pictures: the first of CBSD68 (colour) and BSD68 (grey), never trained on; for online learning their
middle square of --crop-px. An epoch shows each pixel 64 times, as all overlapping 8 x 8 patches do; after the epochs
of each row the optimizer begins anew. `hidden`: a fifth of the known pixels is hidden from the network and supervised;
`shown`: nothing is, as the author did. `last`: only the three convolutions after the last merge learn. `internal`: the
same network knowing nothing of photographs, as many epochs.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.cards import write
from models.degradations.pixel_loss import RowLoss
from models.example_based.blind_spot import BlindSpotSettings, fill_with_blind_spots
from models.example_based.networks import OnSmoothFill
from models.example_based.smooth_start import smooth_fill
from models.methods.example_based import NETWORK, ONLINE, WEIGHTS
from models.training.recipes import get_recipe
from models.weights import load_weights

RATIOS = (0.4, 0.6, 0.8)
EPOCHS = (0, 1, 3, 5)
VIEWS_PER_EPOCH = 64
ALL_PICTURES = 68
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
    """Mean PSNR in dB over `pictures` and mean seconds a picture of one way to fill.

    epochs None: until it stops itself. crop_px None: whole pictures.
    """

    kind: Kind
    ratio: float
    way: str
    epochs: int | None
    pictures: int
    psnr_db: float
    seconds: float
    crop_px: int | None = None


def cases(data: Path, *, kind: Kind, ratio: float, count: int, crop_px: int | None = None) -> Iterator[Case]:
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
        yield Case(clean=clean, lost=lost)


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


def fill_online(
    case: Case, *, settings: BlindSpotSettings, network: nn.Module | None, seed: int = 0
) -> tuple[Tensor, nn.Module]:
    """Return the picture filled after the settings' steps of learning from it, and what has learned."""
    planes = three_planes(case)
    learned = fill_with_blind_spots(planes.clean, planes.lost, settings=settings, seed=seed, network=network)
    return learned.image[:, : case.clean.shape[1]], learned.network


def steps_of(epochs: int, *, settings: BlindSpotSettings, pixels: int) -> int:
    """Return how many batches show each pixel 64 times an epoch."""
    return math.ceil(epochs * VIEWS_PER_EPOCH * pixels / (settings.batch * settings.crop_px**2))


def offline_rows(data: Path, *, count: int, network: nn.Module) -> Iterator[Row]:
    """Yield what the smooth fill and the network make of whole pictures, without learning from them."""
    ways = {
        "smooth fill": fill_smoothly,
        "external": lambda case: fill_online(case, settings=replace(ONLINE, steps=0), network=network)[0],
    }
    for kind, ratio in itertools.product(("colour", "grey"), RATIOS):
        for way, fill in ways.items():
            found, started = [], time.perf_counter()
            for case in cases(data, kind=kind, ratio=ratio, count=count):
                found.append(psnr_db(fill(case), case))
            yield _row(kind, ratio, way=way, epochs=0, found=found, seconds=time.perf_counter() - started)


def online_rows(data: Path, *, count: int, crop_px: int, network: nn.Module, ratios: Sequence[float]) -> Iterator[Row]:
    """Yield what learning from the picture adds, epoch by epoch, on colour pictures."""
    plain = replace(ONLINE, keep="last", patience=10**6, validate_every=10**6)
    nothing = replace(plain, learning_rate=BlindSpotSettings().learning_rate)
    ways: dict[str, tuple[BlindSpotSettings, nn.Module | None]] = {
        "online, hidden, all": (plain, network),
        "online, hidden, last": (replace(plain, trained="last"), network),
        "online, shown, all": (replace(plain, hidden_share=0.0), network),
        "online, shown, last": (replace(plain, hidden_share=0.0, trained="last"), network),
        "internal, hidden": (nothing, None),
        "internal, shown": (replace(nothing, hidden_share=0.0), None),
    }
    for ratio in ratios:
        pictures = list(cases(data, kind="colour", ratio=ratio, count=count, crop_px=crop_px))
        for way, (settings, start) in ways.items():
            yield from _epoch_by_epoch(pictures, way=way, ratio=ratio, settings=settings, start=start)
        found, began = [], time.perf_counter()
        for case in pictures:
            found.append(psnr_db(fill_online(case, settings=ONLINE, network=network)[0], case))
        seconds, name = time.perf_counter() - began, "example-online (stops itself)"
        yield _row("colour", ratio, way=name, epochs=None, found=found, seconds=seconds, crop_px=crop_px)


def _epoch_by_epoch(
    pictures: Sequence[Case], *, way: str, ratio: float, settings: BlindSpotSettings, start: nn.Module | None
) -> Iterator[Row]:
    networks: list[nn.Module | None] = [start] * len(pictures)
    seconds, done = 0.0, 0
    for epochs in EPOCHS:
        now = replace(
            settings, steps=steps_of(epochs - done, settings=settings, pixels=pictures[0].clean[0, 0].numel())
        )
        found, began = [], time.perf_counter()
        for index, case in enumerate(pictures):
            filled, networks[index] = fill_online(case, settings=now, network=networks[index], seed=epochs)
            found.append(psnr_db(filled, case))
        seconds, done = seconds + time.perf_counter() - began, epochs
        yield _row(
            "colour", ratio, way=way, epochs=epochs, found=found, seconds=seconds, crop_px=pictures[0].clean.shape[3]
        )


def _row(
    kind: Kind,
    ratio: float,
    *,
    way: str,
    epochs: int | None,
    found: Sequence[float],
    seconds: float,
    crop_px: int | None = None,
) -> Row:
    return Row(
        kind=kind,
        ratio=ratio,
        way=way,
        epochs=epochs,
        pictures=len(found),
        psnr_db=round(sum(found) / len(found), 2),
        seconds=round(seconds / len(found), 2),
        crop_px=crop_px,
    )


def load_network() -> OnSmoothFill:
    """Return the shipped network."""
    network = get_recipe(WEIGHTS).network()
    network.load_state_dict(load_weights(WEIGHTS))
    if not isinstance(network, OnSmoothFill):
        raise TypeError(f"{WEIGHTS}: got a {type(network).__name__}, expected {NETWORK} on a smooth fill")
    return network.eval()


def _whole_pictures(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the network as it is on whole pictures; those of online learning are of crops."""
    return [row for row in rows if row.way == "external" and row.crop_px is None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--offline", type=int, default=ALL_PICTURES, help="pictures without learning from them; 0 leaves it out"
    )
    parser.add_argument("--online", type=int, default=7, help="pictures to learn from; 0 leaves it out")
    parser.add_argument(
        "--write-card", action="store_true", help="put the figures without learning on the weight's card"
    )
    parser.add_argument("--crop-px", type=int, default=256, help="side of the pictures to learn from")
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS, help="of online learning")
    given = parser.parse_args()
    if given.write_card and given.offline < ALL_PICTURES:
        parser.error(
            f"--write-card: got --offline {given.offline}, expected {ALL_PICTURES}, since cards are of whole sets"
        )
    network, rows = load_network(), list[Row]()
    offline = offline_rows(given.data, count=given.offline, network=network) if given.offline else iter(())
    online = (
        online_rows(given.data, count=given.online, crop_px=given.crop_px, network=network, ratios=given.ratios)
        if given.online
        else iter(())
    )
    print("| kind | lost | way | epochs | pictures | PSNR, dB | seconds a picture |\n|---|---|---|---|---|---|---|")
    for row in itertools.chain(offline, online):
        rows.append(row)
        epochs = "until it stops" if row.epochs is None else row.epochs
        line = (row.kind, f"{row.ratio:.0%}", row.way, epochs, row.pictures, row.psnr_db, row.seconds)
        print(f"| {' | '.join(str(cell) for cell in line)} |", flush=True)
    if given.write_card:
        reached = {f"{row.kind} {row.ratio * 100:.0f} %": row.psnr_db for row in _whole_pictures(rows)}
        write(WEIGHTS, {"example-based (PSNR dB)": reached})
    missed = [
        f"{row.kind} {row.ratio:.0%}: {row.psnr_db} dB, published for one picture {level} dB"
        for row in _whole_pictures(rows)
        if (level := PUBLISHED.get((row.kind, row.ratio))) is not None and row.psnr_db < level
    ]
    raise SystemExit("; ".join(missed) if missed else 0)


if __name__ == "__main__":
    main()
