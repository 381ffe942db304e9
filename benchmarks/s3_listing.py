"""Memory and requests of listing a large prefix: a run's source is read page by page, and what is kept grows slowly.

    . "$(deployments/s3/server.sh env)"; python -m benchmarks.s3_listing [--keys 1000 10000 100000]

For each number of keys, a process of its own goes through the listing and keeps nothing, another one plans a run as the
flow does (every key cut into shards, nothing read): peak memory above what the process had before, requests, seconds.
Needs `make s3`, or AWS_ENDPOINT_URL and credentials of a store that may be written to; it makes a bucket of its own
(100,000 keys of 100 bytes take some minutes) and removes it. Exit code 1 when the listing's memory grows with the
number of keys, or the plan takes more than PLAN_KB_PER_KEY.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import subprocess
import sys
import time
from typing import Any

LISTING_MB = 16.0
PLAN_KB_PER_KEY = 4.0
_AT_ONCE = 1000


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def listing(prefix: str) -> int:
    """Go through every entry below `prefix`, keeping none; return how many there are."""
    from storage.locations import Location

    return sum(1 for _ in Location(prefix).entries())


def planning(prefix: str) -> int:
    """Cut every picture below `prefix` into shards, as a run does; return how many pictures there are."""
    from tasks.jobs import RestoreOptions
    from tasks.survey import survey

    return sum(len(shard.members) for shard in survey(prefix, RestoreOptions()))


def measure(work: str, prefix: str, *, warm: str) -> dict[str, float]:
    """Do one of the two in this process, after the same of the small prefix `warm`, which loads what is needed."""
    from aiobotocore.client import AioBaseClient

    todo = {"listing": listing, "planning": planning}[work]
    todo(warm)
    made, call = 0, AioBaseClient._make_api_call

    async def counted(self: Any, *args: Any) -> Any:
        nonlocal made
        made += 1
        return await call(self, *args)

    AioBaseClient._make_api_call = counted
    before, started = _peak_mb(), time.perf_counter()
    found = todo(prefix)
    seconds = time.perf_counter() - started
    return {
        "keys": found,
        "requests": made,
        "seconds": round(seconds, 2),
        "added_peak_mb": round(_peak_mb() - before, 1),
    }


def fill(store: Any, prefix: str, *, first: int, end: int) -> None:
    """Put keys number `first` to `end` below the prefix."""
    for begin in range(first, end, _AT_ONCE):
        some = range(begin, min(end, begin + _AT_ONCE))
        store.pipe({f"{prefix}/{number // 1000:04d}/scan {number:07d}.jpg": b"x" * 100 for number in some})


def main() -> None:
    """Print one JSON line for each number of keys."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--work", choices=["listing", "planning"], help=argparse.SUPPRESS)
    parser.add_argument("--prefix", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        print(json.dumps(measure(given.work, given.prefix[0], warm=given.prefix[1])))
        return
    if "AWS_ENDPOINT_URL" not in os.environ:
        parser.error("AWS_ENDPOINT_URL is not set; start a server by `make s3` and source the file it names")
    import s3fs

    store, bucket = s3fs.S3FileSystem(use_listings_cache=False), f"lacuna-benchmark-{secrets.token_hex(4)}"
    store.mkdir(bucket)
    failed, present = False, 0
    try:
        fill(store, f"{bucket}/warm", first=0, end=100)
        for keys in sorted(given.keys):
            fill(store, f"{bucket}/in", first=present, end=keys)
            present = max(present, keys)
            for work in ("listing", "planning"):
                arguments = ["--work", work, "--prefix", f"s3://{bucket}/in", f"s3://{bucket}/warm"]
                command = [sys.executable, "-m", "benchmarks.s3_listing", *arguments]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                failed |= found["keys"] != present
                failed |= found["added_peak_mb"] > (
                    LISTING_MB if work == "listing" else LISTING_MB + PLAN_KB_PER_KEY * present / 1024
                )
                print(json.dumps({"work": work, **found}), flush=True)
    finally:
        store.rm(bucket, recursive=True)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
