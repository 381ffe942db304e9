"""The per-image boundary: the one place where any error of any kind becomes a row, so that the other images go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from storage.faults import is_transient
from storage.room import out_of_room
from tasks.jobs import Failure

ResultT = TypeVar("ResultT")
_LONGEST_TEXT = 2000


def attempt(work: Callable[[], ResultT], *, stage: str) -> tuple[ResultT | None, Failure | None]:
    """Return (what `work` returned, None), or (None, the failure) when it raised.

    Transient faults and full disks are raised again: they concern the store, not the image.
    """
    try:
        return work(), None
    except Exception as error:
        if is_transient(error) or out_of_room(error):
            raise
        return None, failure_of(error, stage=stage)


def failure_of(error: BaseException, *, stage: str) -> Failure:
    """Return the record of an error: its own kind where it has one, else the name of its class."""
    kind = getattr(error, "kind", None)
    text = getattr(error, "text", None) or str(error) or type(error).__name__
    return Failure(
        stage=stage,
        error_kind=kind if isinstance(kind, str) else type(error).__name__,
        error_text=f"{stage}: {text}"[:_LONGEST_TEXT],
    )
