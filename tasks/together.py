"""Several pictures of a stage at once, in threads: decoding, filters and encoding leave the interpreter free."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

# Pictures in work at once hold at most so many pixels; a larger one is alone. It bounds the memory, not the speed.
PIXELS_TOGETHER = 32_000_000
_THREADS = min(8, os.cpu_count() or 1)


def limit_threads(count: int) -> None:
    """Use at most `count` threads for each call of this process from now on."""
    global _THREADS
    _THREADS = min(8, count)


def each_together(
    work: Callable[[ItemT], ResultT], items: Sequence[ItemT], *, pixels: Callable[[ItemT], int]
) -> list[ResultT]:
    """Return `work(item)` of every item, in order; an error of one is raised when those beside it have ended."""
    if len(items) < 2 or _THREADS < 2:
        return [work(item) for item in items]
    results: list[ResultT] = []
    with ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="pictures") as pool:
        for group in _groups(items, pixels=pixels):
            results += pool.map(work, group)
    return results


def _groups(items: Sequence[ItemT], *, pixels: Callable[[ItemT], int]) -> Iterator[list[ItemT]]:
    group: list[ItemT] = []
    total = 0
    for item in items:
        size = pixels(item)
        if group and total + size > PIXELS_TOGETHER:
            yield group
            group, total = [], 0
        group.append(item)
        total += size
    if group:
        yield group
