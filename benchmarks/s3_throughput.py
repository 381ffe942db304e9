"""Small pictures from S3 to S3 against the same from disk to disk, in turns, in one process.

    . "$(deployments/s3/server.sh env)"; python -m benchmarks.s3_throughput [--images 300] [--side 192] [--turns 2]

Prints images/s of both, the ratio by wall and by CPU time, and what was asked of the server: how often each source
object was read, and which requests were made per picture. Needs `make s3`, or AWS_ENDPOINT_URL and credentials of a
store that may be written to; it makes a bucket of its own and removes it.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.overhead import build_pictures

TARGET_RATIO = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Wall seconds of each turn; ratios are the median over turns of disk / S3 time, so 1 = S3 costs nothing.

    cpu_ratio: the same of this process's CPU time, whatever else the machine is busy with. requests_per_image: by
    operation, over the S3 turns. reads_per_object: how many source objects were read how often in one turn.
    """

    images: int
    disk_seconds: tuple[float, ...]
    s3_seconds: tuple[float, ...]
    disk_images_per_second: float
    s3_images_per_second: float
    ratio: float
    cpu_ratio: float
    requests_per_image: dict[str, float]
    reads_per_object: dict[int, int]


class RequestLog:
    """Counts the requests of every S3 client of this process from its making on."""

    def __init__(self) -> None:
        import s3fs

        self.operations: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()
        call = s3fs.S3FileSystem._call_s3

        async def counted(client: Any, method: str, *args: Any, **kwargs: Any) -> Any:
            self.operations[method] += 1
            if method == "get_object":
                self.reads[kwargs.get("Key", "")] += 1
            return await call(client, method, *args, **kwargs)

        s3fs.S3FileSystem._call_s3 = counted


def measure(folder: Path, *, bucket: str, count: int, side: int, turns: int) -> Throughput:
    """Restore `count` pictures per turn both ways, each turn from and to places of its own."""
    import s3fs

    from flows.restore_archive import restore_archive
    from tasks.jobs import RestoreOptions

    store = s3fs.S3FileSystem(use_listings_cache=False)
    pictures = build_pictures(folder / "pictures", count=count, side=side)
    warm = build_pictures(folder / "warm", count=4, side=side)
    store.put(str(warm) + "/", f"{bucket}/warm/", recursive=True)
    for place in (str(warm), f"s3://{bucket}/warm"):
        restore_archive(place, f"{place}-out", RestoreOptions())
    log, seconds, cpu = RequestLog(), {"disk": [], "s3": []}, {"disk": [], "s3": []}
    for turn in range(turns):
        places = {"disk": folder / f"in-{turn}", "s3": f"s3://{bucket}/in-{turn}"}
        shutil.copytree(pictures, places["disk"])
        store.put(str(pictures) + "/", f"{bucket}/in-{turn}/", recursive=True)
        log.operations.clear(), log.reads.clear()
        # Every other turn begins with the other one, so that a drift of the machine cancels out.
        for name in ("disk", "s3") if turn % 2 == 0 else ("s3", "disk"):
            destination = str(places[name]).replace("in-", "out-")
            started, cpu_started = time.perf_counter(), time.process_time()
            summary = restore_archive(str(places[name]), destination, RestoreOptions())
            seconds[name].append(round(time.perf_counter() - started, 2))
            cpu[name].append(time.process_time() - cpu_started)
            if summary.images != count or summary.failed:
                raise RuntimeError(f"{name}: {summary.images} images, {summary.failed} failed; expected {count} and 0")
    sources = Counter(times for key, times in log.reads.items() if key.startswith("in-"))
    return Throughput(
        images=count,
        disk_seconds=tuple(seconds["disk"]),
        s3_seconds=tuple(seconds["s3"]),
        disk_images_per_second=round(count / statistics.median(seconds["disk"]), 2),
        s3_images_per_second=round(count / statistics.median(seconds["s3"]), 2),
        ratio=_median_ratio(seconds),
        cpu_ratio=_median_ratio(cpu),
        requests_per_image={name: round(number / count, 3) for name, number in log.operations.most_common()},
        reads_per_object=dict(sorted(sources.items())),
    )


def _median_ratio(values: dict[str, list[float]]) -> float:
    return round(statistics.median(disk / s3 for disk, s3 in zip(values["disk"], values["s3"], strict=True)), 3)


def main() -> None:
    """Print the result as JSON; exit code 1 when the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--side", type=int, default=192, help="pictures are at most this many pixels wide and high")
    parser.add_argument("--turns", type=int, default=2)
    given = parser.parse_args()
    if "AWS_ENDPOINT_URL" not in os.environ:
        parser.error("AWS_ENDPOINT_URL is not set; start a server by `make s3` and source the file it names")
    with tempfile.TemporaryDirectory(prefix="lacuna-s3-throughput-") as temporary:
        folder = Path(temporary)
        os.environ["LACUNA_HOME"] = str(folder / "home")
        import flows.prefect_settings  # noqa: F401, I001 - before prefect
        import s3fs

        bucket, store = f"lacuna-benchmark-{secrets.token_hex(4)}", s3fs.S3FileSystem(use_listings_cache=False)
        store.mkdir(bucket)
        try:
            found = measure(folder, bucket=bucket, count=given.images, side=given.side, turns=given.turns)
        finally:
            store.rm(bucket, recursive=True)
    print(json.dumps({**asdict(found), "target_ratio": TARGET_RATIO}))
    raise SystemExit(found.ratio < TARGET_RATIO)


if __name__ == "__main__":
    main()
