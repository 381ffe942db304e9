"""What holds for the fits of methods that learn from the picture itself, whoever started them.

A limit on iterations, and who is told of them, hold inside one `with` block of one thread. They are no environment
variables, which could be left set while an archive is restored: the limit changes results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

FitListener = Callable[[int, int, bool], None]
"""Called with the iteration (from 1), how many there are at most, and whether it was the fit's last."""

_LIMIT: ContextVar[int | None] = ContextVar("iteration_limit", default=None)
_LISTENER: ContextVar[FitListener | None] = ContextVar("fit_listener", default=None)
# Often enough for a bar that moves, seldom enough to cost nothing.
_TOLD_EVERY = 10


@contextmanager
def limited_iterations(iterations: int) -> Iterator[None]:
    """Within the block, every fit of this thread ends after at most `iterations` steps; the inner of two blocks counts.

    Raises ValueError for less than one.
    """
    if iterations < 1:
        raise ValueError(f"limited_iterations: got {iterations}, expected at least 1")
    token = _LIMIT.set(iterations)
    try:
        yield
    finally:
        _LIMIT.reset(token)


def iteration_limit() -> int | None:
    """Return the limit that holds here; None = each method's own budget."""
    return _LIMIT.get()


@contextmanager
def fits_told_to(listener: FitListener) -> Iterator[None]:
    """Within the block, tell `listener` of every fit of this thread: its first and last iteration, and some between."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def tell_of_fit(iteration: int, iterations: int, *, last: bool) -> None:
    """Tell who listens here, if anybody does and it is time to."""
    listener = _LISTENER.get()
    if listener is not None and (last or iteration == 1 or iteration % _TOLD_EVERY == 0):
        listener(iteration, iterations, last)
