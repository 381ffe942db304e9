"""News of a run in progress for whoever watches in the same process; nobody has to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[str, int, str], None]

_listeners: list[Listener] = []
_lock = threading.Lock()


def announce(event: str, count: int, *, shard: str = "") -> None:
    """Tell the listeners that `count` files of a shard reached `event`: "found" (to be done), a stage, or "done"."""
    with _lock:
        for listener in _listeners:
            listener(event, count, shard)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener(event, count, shard)` for every announcement until the block ends; calls never overlap."""
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)
