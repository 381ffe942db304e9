"""Does online learning improve the offline model? Xinglu Wang's table and curve, on pictures of ours.

    python -m benchmarks.online_learning --data DIR --out FILE [--pictures 7] [--crop-px 128] [--ratios 0.6]
                                         [--epochs 0 1 3 5] [--networks narrow wide] [--device cuda]
    python -m benchmarks.online_learning --out FILE --show [--plot FILE.svg]

Damage and PSNR as in `benchmarks.example_based`, colour, the middle square of --crop-px of the first pictures of
CBSD68. An epoch shows each pixel 64 times, as all overlapping 8 x 8 patches do; after the epochs of each row the
optimizer begins anew. `hidden`: a fifth of the known pixels is hidden from the network and supervised; `shown`: nothing
is, as the author did. `last`: only the three convolutions after the last merge learn (his train False), `all`: every
layer (True). `nothing`: the same network knowing nothing of photographs. Every picture's lines are added to FILE when
they are done, and what FILE has already is left out. --show prints the tables, and with --plot draws the means.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from benchmarks.computing import add_computing, prepare
from benchmarks.example_based import NETWORKS, Case, cases, learn_online, load_network, psnr_db
from flows.line_chart import lines_svg
from models.example_based.blind_spot import BlindSpotSettings
from models.methods.example_based import ONLINE

EPOCHS = (0, 1, 3, 5)
VIEWS_PER_EPOCH = 64
STARTS = ("photographs", "nothing")
SEEN = ("hidden", "shown")
Trained = Literal["all", "last"]


def steps_of(epochs: int, *, settings: BlindSpotSettings, pixels: int) -> int:
    """Return how many batches show each pixel 64 times an epoch."""
    return math.ceil(epochs * VIEWS_PER_EPOCH * pixels / (settings.batch * settings.crop_px**2))


def settings_of(*, network: str, start: str, seen: str, trained: Trained) -> BlindSpotSettings:
    """Return how it is learned: without stopping, so that every row has its epochs."""
    rate = ONLINE.learning_rate if start == "photographs" else BlindSpotSettings().learning_rate
    return replace(
        ONLINE,
        network=NETWORKS[network],
        keep="last",
        patience=10**6,
        validate_every=10**6,
        learning_rate=rate,
        trained=trained,
        hidden_share=ONLINE.hidden_share if seen == "hidden" else 0.0,
    )


def learned(
    case: Case, *, settings: BlindSpotSettings, start: nn.Module | None, epochs: Sequence[int]
) -> list[tuple[int, float, float]]:
    """Return (epochs, PSNR in dB, seconds until then) for every number of epochs, one after the other."""
    network, done, seconds, found = start, 0, 0.0, []
    for wanted in epochs:
        steps = steps_of(wanted - done, settings=settings, pixels=case.clean[0, 0].numel())
        began = time.perf_counter()
        filled, network = learn_online(case, settings=replace(settings, steps=steps), network=network, seed=wanted)
        seconds, done = seconds + time.perf_counter() - began, wanted
        found.append((wanted, round(psnr_db(filled, case), 2), round(seconds, 1)))
    return found


def measure(given: argparse.Namespace, *, device: str) -> None:
    """Add a line to the file for every way and picture that it does not have."""
    epochs = sorted(set(given.epochs))
    done = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    shipped = {name: load_network(name) for name in given.networks}
    ways = itertools.product(given.ratios, given.networks, given.starts, given.seen, given.trained)
    for ratio, network, start, seen, trained in ways:
        if start == "nothing" and trained == "last":  # whose other layers would stay random
            continue
        settings = settings_of(network=network, start=start, seen=seen, trained=trained)
        pictures = cases(
            given.data, kind="colour", ratio=ratio, count=given.pictures, crop_px=given.crop_px, device=device
        )
        for index, case in enumerate(pictures):
            key = {
                "ratio": ratio,
                "network": network,
                "start": start,
                "seen": seen,
                "trained": trained,
                "crop_px": given.crop_px,
                "picture": index,
            }
            if any(key.items() <= line.items() and [row[0] for row in line["rows"]] == epochs for line in done):
                continue
            first = shipped[network] if start == "photographs" else None
            line = {**key, "device": device, "rows": learned(case, settings=settings, start=first, epochs=epochs)}
            with given.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)


def show(out: Path, *, plot: Path | None) -> None:
    """Print a table per ratio: rows epochs x network x what learns, columns pictures; draw the means over epochs."""
    found: dict[float, dict[tuple[str, ...], list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for text in out.read_text().splitlines():
        line = json.loads(text)
        found[line["ratio"]][tuple(line[name] for name in ("network", "start", "seen", "trained"))].append(line)
    curves = {}
    for ratio, ways in sorted(found.items()):
        count = max(len(lines) for lines in ways.values())
        print(f"\n{ratio:.0%} lost, PSNR in dB\n")
        columns = [*(f"picture {n + 1}" for n in range(count)), "mean", "seconds a picture"]
        print("| epochs | network | learns from | what is known is | learning | " + " | ".join(columns) + " |")
        print("|---" * (5 + len(columns)) + "|")
        for way, lines in ways.items():
            points = []
            lines.sort(key=lambda line: line["picture"])
            for rows in zip(*(line["rows"] for line in lines), strict=True):
                values = [row[1] for row in rows]
                mean, seconds = sum(values) / len(values), sum(row[2] for row in rows) / len(rows)
                cells = [*(f"{value:.2f}" for value in values), f"{mean:.2f}", f"{seconds:.1f}"]
                print(f"| {rows[0][0]} | " + " | ".join([*way, *cells]) + " |")
                points.append((float(rows[0][0]), mean))
            curves[f"{ratio:.0%} {' '.join(way)}"] = points
    if plot is not None:
        title = "PSNR against epochs of learning from the picture"
        plot.write_text(lines_svg(curves, title=title, across="epochs", up="PSNR, dB"), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=7)
    parser.add_argument("--crop-px", type=int, default=128)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.6])
    parser.add_argument("--epochs", type=int, nargs="+", default=EPOCHS)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["narrow", "wide"])
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=["photographs"])
    parser.add_argument("--seen", nargs="+", choices=SEEN, default=SEEN)
    parser.add_argument("--trained", nargs="+", choices=("all", "last"), default=("all", "last"))
    add_computing(parser)
    parser.add_argument("--show", action="store_true", help="print the tables of FILE, measure nothing")
    parser.add_argument("--plot", type=Path, help="with --show: draw the means of the tables")
    given = parser.parse_args()
    if not given.show:
        if given.data is None:
            parser.error("--data: got none, expected the folder with test/CBSD68")
        measure(given, device=prepare(parser, given))
    show(given.out, plot=given.plot)


if __name__ == "__main__":
    main()
