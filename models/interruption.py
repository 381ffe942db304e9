"""A mark of this process that what it computes is to end: a signal reaches the main thread alone, work runs in others.

What takes long looks at it: fits after each iteration, the runner before each batch of tiles, stages at their start.
"""

from __future__ import annotations

import threading

_INTERRUPTED = threading.Event()


def interrupt_work() -> None:
    """Let the work of every thread end where it next looks; it stays so until allowed."""
    _INTERRUPTED.set()


def allow_work() -> None:
    """Let work begin again after `interrupt_work`; whoever starts a run says so first."""
    _INTERRUPTED.clear()


def work_interrupted() -> bool:
    """Whether work is to end."""
    return _INTERRUPTED.is_set()
