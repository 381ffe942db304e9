"""What a second worker process brings: the same pictures by two Dask workers of one thread, and by one of them.

    python -m benchmarks.dask_scaling          prints JSON; exit code 1 below the target

Needs two idle cores, and some twenty minutes. A cluster is up and has loaded its networks before the clock starts, and
gone before the other's turn; they take turns on copies of the same pictures, so that a drift of the machine cancels
out. Restoring small noisy pictures is compute-bound. Without the report, which the flow writes alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TARGET_RATIO = 1.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Wall seconds of the whole flow in each turn, and the median over turns of one worker / two workers.

    shard_seconds: of one worker, start and end of the flow included.
    """

    pictures: int
    shards: int
    one_worker_seconds: tuple[float, ...]
    two_workers_seconds: tuple[float, ...]
    ratio: float
    best_ratio: float
    worst_ratio: float
    shard_seconds: float
    target_ratio: float = TARGET_RATIO


def restore(source: Path, destination: Path, *, cluster: Any, shard_images: int) -> tuple[float, int]:
    """Restore a folder by the workers of a cluster; return the wall seconds and how many shards it was."""
    from flows.dask_settings import DaskSettings
    from flows.restore_archive import restore_archive
    from storage.catalogue import query
    from storage.locations import Location
    from tasks.jobs import RestoreOptions

    options = RestoreOptions(device="cpu", precision="float32", shard_images=shard_images, write_report=False)
    started = time.perf_counter()
    summary = restore_archive(
        str(source), str(destination), options, DaskSettings(address=cluster.scheduler_address, threads=1)
    )
    seconds = time.perf_counter() - started
    if summary.failed or summary.quarantined:
        raise RuntimeError(f"{summary.failed + summary.quarantined} pictures were lost: {summary.failures[:3]}")
    found = query(Location(summary.catalogue_uri), "SELECT count(DISTINCT shard_id) AS shards FROM images")
    return seconds, int(found.to_pylist()[0]["shards"])


def measure(folder: Path, *, pictures: int, side: int, shard_images: int, turns: int) -> Scaling:
    """Time both clusters in turns, each time from and into a new folder."""
    from benchmarks.overhead import build_pictures
    from flows.dask_pool import local_cluster
    from flows.dask_settings import DaskSettings

    source = build_pictures(folder / "pictures", count=pictures, side=side)
    warm = build_pictures(folder / "warm", count=8, side=side)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    shards = 0
    for turn in range(turns):
        for workers in (1, 2) if turn % 2 == 0 else (2, 1):
            # Another place is another archive: nothing of an earlier turn is in the cache for it.
            name = f"{workers}-{turn}"
            taken, destination = folder / f"taken-{name}", folder / f"out-{name}"
            shutil.copytree(source, taken)
            with local_cluster(DaskSettings(workers=workers, threads=1), device="cpu") as cluster:
                restore(warm, folder / f"warm-{name}", cluster=cluster, shard_images=2)
                found, shards = restore(taken, destination, cluster=cluster, shard_images=shard_images)
            seconds[workers].append(found)
            shutil.rmtree(taken)
            shutil.rmtree(destination)
    ratios = [first / second for first, second in zip(seconds[1], seconds[2], strict=True)]
    return Scaling(
        pictures=pictures,
        shards=shards,
        one_worker_seconds=tuple(round(value, 1) for value in seconds[1]),
        two_workers_seconds=tuple(round(value, 1) for value in seconds[2]),
        ratio=round(statistics.median(ratios), 3),
        best_ratio=round(max(ratios), 3),
        worst_ratio=round(min(ratios), 3),
        shard_seconds=round(statistics.median(seconds[1]) / max(1, shards), 1),
    )


def main() -> None:
    """Print the result as JSON; exit code 1 when the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=480)
    parser.add_argument("--side", type=int, default=384, help="pictures are at most this many pixels wide and high")
    parser.add_argument("--shard-images", type=int, default=32, help="about so many pictures are one shard")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lacuna-scaling-") as temporary:
        os.environ["LACUNA_HOME"] = str(Path(temporary, "home"))
        import flows.prefect_settings  # noqa: F401 - before prefect

        found = measure(
            Path(temporary),
            pictures=given.pictures,
            side=given.side,
            shard_images=given.shard_images,
            turns=given.turns,
        )
    print(json.dumps(asdict(found)))
    raise SystemExit(found.ratio < TARGET_RATIO)


if __name__ == "__main__":
    main()
