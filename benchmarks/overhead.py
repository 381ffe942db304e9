"""What the workflow costs: wall time of the flow over a bare loop of the same work, and peak memory on a large scan.

    python -m benchmarks.overhead              200 pictures, flow and loop in turns, prints the ratio
    python -m benchmarks.overhead --large      one 100-megapixel TIFF through the flow, prints the peak memory

The loop decodes, detects, estimates, routes, restores and encodes one picture after the other with the same networks,
and does nothing else: no shards, no cache keys, no checks, no metrics, no catalogue, no report. Both run in one process
with everything loaded and the server of the workflow engine up, so the ratio is that of the work, not of the start.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

TARGET_RATIO = 1.15
TARGET_PEAK_GB = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """Wall seconds of each turn, and the median over turns of flow / loop.

    cpu_ratio: the same of this process's CPU time: what the flow does more, whatever else the machine is busy with.
    """

    images: int
    loop_seconds: tuple[float, ...]
    flow_seconds: tuple[float, ...]
    ratio: float
    cpu_ratio: float


def build_pictures(folder: Path, *, count: int, side: int) -> Path:
    """Write `count` different pictures, one in four clean and the others noisy or compressed, from a seed."""
    import numpy as np
    import pyvips
    import skimage.data

    from storage.formats.page import to_vips

    sources = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()]
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        picture = sources[index % 4]
        top, left = (int(rng.integers(0, max(1, size - side))) for size in picture.shape[:2])
        crop = np.asarray(picture[top : top + side, left : left + side], np.float64)
        sigma = (0.0, 15.0, 25.0, 0.0)[index // 4 % 4]
        noisy = np.clip(np.rint(crop + rng.normal(0.0, sigma, crop.shape)), 0, 255).astype(np.uint8)
        image: pyvips.Image = to_vips(np.ascontiguousarray(noisy))
        target = folder / f"{index % 10}" / f"{index:04d}"
        target.parent.mkdir(exist_ok=True)
        if index // 4 % 4 == 3:
            image.jpegsave(str(target.with_suffix(".jpg")), Q=20)
        else:
            image.pngsave(str(target.with_suffix(".png")))
    return folder


def bare_loop(source: Path, destination: Path) -> None:
    """Do the flow's work on a folder, picture by picture, with nothing around it."""
    from storage.archives import open_source
    from storage.ingest import ingest_member
    from storage.limits import IngestLimits
    from storage.locations import Location
    from storage.outputs import copy_untouched, write_output
    from storage.working_copies import WorkingCopies

    limits = IngestLimits()
    archive, copies, target = open_source(str(source), limits=limits), WorkingCopies(destination), Location(destination)
    for member in list(archive.members()):
        (record, *_), _ = ingest_member(archive, member, copies=copies, limits=limits)
        pixels, path = copies.load(record), archive.local_path(member) or archive.read(member)
        restored = restore_alone(pixels, table_quality=record.jpeg_table_quality)
        if restored is not pixels:
            write_output([(record, restored)], source=path, destination=target)
        else:
            copy_untouched(record, source=path, destination=target)


def restore_alone(pixels: npt.NDArray[Any], *, table_quality: float | None) -> npt.NDArray[Any]:
    """Return one picture through detector, estimator and the methods of its plan; itself when the plan is empty."""
    from models.routing.assess import assess
    from models.run import RunSettings
    from tasks.device import detector, runner

    defaults = RunSettings()
    chosen = runner(defaults.device, defaults.precision, defaults.tile)
    found = assess(pixels, detector=detector(chosen.device), runner=chosen, jpeg_table_quality=table_quality)
    for step in found.plan.steps:
        (pixels,) = chosen.apply(
            step.method_id, [pixels], masks=[found.mask], estimates=[found.estimate], strengths=[step.strength]
        )
    return pixels


def whole_flow(source: Path, destination: Path) -> None:
    """Restore a folder by the flow, as the command does, report included."""
    from flows.restore_archive import restore_archive

    summary = restore_archive(str(source), str(destination))
    if summary.failed or summary.quarantined:
        raise RuntimeError(f"the flow lost {summary.failed + summary.quarantined} pictures: {summary.failures[:3]}")


def measure_overhead(folder: Path, *, count: int, side: int, turns: int) -> Overhead:
    """Time loop and flow in turns on the same pictures, each time from and into a new folder."""
    source = build_pictures(folder / "pictures", count=count, side=side)
    warm = build_pictures(folder / "warm", count=8, side=side)
    bare_loop(warm, folder / "warm-loop")
    whole_flow(warm, folder / "warm-flow")
    seconds: dict[str, list[float]] = {"loop": [], "flow": []}
    cpu: dict[str, list[float]] = {"loop": [], "flow": []}
    works: tuple[tuple[str, Callable[[Path, Path], None]], ...] = (("loop", bare_loop), ("flow", whole_flow))
    for turn in range(turns):
        # Every other turn begins with the other one, so that a drift of the machine cancels out.
        for name, work in works if turn % 2 == 0 else works[::-1]:
            destination, pictures = folder / f"{name}-{turn}", folder / f"pictures-{name}-{turn}"
            # Another place is another archive: nothing of an earlier turn is in the cache for it.
            shutil.copytree(source, pictures)
            started, cpu_started = time.perf_counter(), time.process_time()
            work(pictures, destination)
            seconds[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - cpu_started)
            shutil.rmtree(destination)
            shutil.rmtree(pictures)
    return Overhead(
        images=count,
        loop_seconds=tuple(round(value, 2) for value in seconds["loop"]),
        flow_seconds=tuple(round(value, 2) for value in seconds["flow"]),
        ratio=_median_ratio(seconds),
        cpu_ratio=_median_ratio(cpu),
    )


def _median_ratio(values: dict[str, list[float]]) -> float:
    ratios = [flow / loop for flow, loop in zip(values["flow"], values["loop"], strict=True)]
    return round(statistics.median(ratios), 3)


def measure_memory(folder: Path, *, megapixels: float) -> dict[str, float]:
    """Return the peak resident memory in GB of restoring one noisy RGB TIFF, and the seconds it took."""
    source = folder / "large"
    source.mkdir()
    write_large_scan(source / "scan.tif", megapixels=megapixels)
    started = time.perf_counter()
    whole_flow(source, folder / "out")
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"megapixels": megapixels, "peak_gb": round(peak, 2), "seconds": round(seconds, 1)}


def write_large_scan(path: Path, *, megapixels: float) -> None:
    """Write a noisy RGB TIFF strip by strip, so that building it does not count towards the peak."""
    import numpy as np
    import skimage.data
    import tifffile

    side = round((megapixels * 1e6) ** 0.5)
    tile = skimage.data.astronaut()
    row = np.concatenate([tile] * (side // 512 + 1), axis=1)[:, :side]

    def strips() -> object:
        rng = np.random.default_rng(0)
        for top in range(0, side, 512):
            rows = row[: min(512, side - top)]
            yield np.clip(rows + rng.normal(0, 15, rows.shape), 0, 255).astype(np.uint8)

    tifffile.imwrite(path, strips(), shape=(side, side, 3), dtype="uint8", rowsperstrip=512, photometric="rgb")


def main() -> None:
    """Print the result as JSON; exit code 1 when the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--side", type=int, default=384, help="pictures are at most this many pixels wide and high")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--large", action="store_true", help="measure peak memory instead")
    parser.add_argument("--megapixels", type=float, default=100.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lacuna-overhead-") as temporary:
        folder = Path(temporary)
        os.environ["LACUNA_HOME"] = str(folder / "home")
        import flows.prefect_settings  # noqa: F401 - before prefect

        if given.large:
            memory = measure_memory(folder, megapixels=given.megapixels)
            print(json.dumps({**memory, "target_gb": TARGET_PEAK_GB}))
            raise SystemExit(memory["peak_gb"] > TARGET_PEAK_GB)
        overhead = measure_overhead(folder, count=given.images, side=given.side, turns=given.turns)
    print(json.dumps({**asdict(overhead), "target_ratio": TARGET_RATIO}))
    raise SystemExit(overhead.ratio > TARGET_RATIO)


if __name__ == "__main__":
    main()
