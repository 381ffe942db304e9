"""News of a run in progress for whoever watches in the same process; nobody has to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FitNews:
    """How far a fit has come that learns from one picture, or from one tile of it.

    what: the file, or how many that are fitted together. fit: which one of its fits this is, from 1; a large picture
    has one for each tile, colour and grey apart. last: whether it has ended, which a rule may say before `iterations`.
    """

    what: str
    fit: int
    iteration: int
    iterations: int
    last: bool = False


Listener = Callable[[str, int, str], None]
FitListener = Callable[[FitNews], None]

_listeners: list[Listener] = []
_fit_listeners: list[FitListener] = []
_lock = threading.Lock()


def announce(event: str, count: int, *, shard: str = "") -> None:
    """Tell the listeners that `count` files of a shard reached `event`: "found" (to be done), a stage, or "done"."""
    with _lock:
        for listener in _listeners:
            listener(event, count, shard)


def announce_fit(news: FitNews) -> None:
    """Tell who listens to fits how far one has come."""
    with _lock:
        for listener in _fit_listeners:
            listener(news)


@contextmanager
def listening(listener: Listener, *, fits: FitListener | None = None) -> Iterator[None]:
    """Call `listener(event, count, shard)` for every announcement until the block ends; calls never overlap.

    fits: called with the news of fits that are computed in this process, in the same way.
    """
    with _lock:
        _listeners.append(listener)
        if fits is not None:
            _fit_listeners.append(fits)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)
            if fits is not None:
                _fit_listeners.remove(fits)
