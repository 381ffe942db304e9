"""A limit on the iterations of methods that learn from the picture itself, for trials and tests.

The limit changes results without being part of a method's identity, so it is no environment variable that could be left
set while an archive is restored: it holds inside one `with` block of one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_LIMIT: ContextVar[int | None] = ContextVar("iteration_limit", default=None)


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
