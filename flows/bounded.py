"""Keeping a bounded number of task runs in flight, however many shards an archive has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from prefect.futures import PrefectFuture, as_completed

ItemT = TypeVar("ItemT")


def submit_bounded(
    submit: Callable[[ItemT], PrefectFuture[Any]],
    items: Iterable[ItemT],
    *,
    limit: int | Callable[[], int],
    ended: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[ItemT, PrefectFuture[Any]]]:
    """Submit every item, at most `limit` at a time, and yield (item, finished future) as they end, in that order.

    limit: a function where it may change; it is asked before every submission. ended: asked before every item is
    taken; once it says so, none is, and those in flight come to their end.
    """
    if isinstance(limit, int) and limit < 1:
        raise ValueError(f"limit: got {limit}, expected at least 1")
    flying: dict[PrefectFuture[Any], ItemT] = {}
    waiting = iter(items)
    while True:
        if len(flying) >= (limit if isinstance(limit, int) else limit()):
            first = next(as_completed(list(flying)))
            yield flying.pop(first), first
        if ended():
            break
        try:
            item = next(waiting)  # only now: whoever gives the items may decide late that there are no more
        except StopIteration:
            break
        flying[submit(item)] = item
    for future in as_completed(list(flying)):
        yield flying[future], future
