"""The per-image boundary: the one place where any error of any kind becomes a row, so that the other images go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from storage.faults import is_transient
from storage.room import out_of_room
from tasks.jobs import Failure

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
_LONGEST_TEXT = 2000
_TRIES = 3


def attempt(
    work: Callable[[], ResultT], *, stage: str, again: Callable[[], bool] = lambda: True
) -> tuple[ResultT | None, Failure | None]:
    """Return (what `work` returned, None), or (None, the failure) when it raised.

    Transient faults and full disks are raised again: they concern the store, not the image. Where threads of the
    interpreter got into each other's way (`_met_another_thread`), the work is done again if it can be (`again`).
    """
    tries = 0
    while True:
        tries += 1
        try:
            return work(), None
        except Exception as error:
            if is_transient(error) or out_of_room(error):
                raise
            if tries == _TRIES or not _met_another_thread(error) or not again():
                return None, failure_of(error, stage=stage)


def _met_another_thread(error: Exception) -> bool:
    """Whether two threads parsed source at once, as some imports do, in an early Python 3.11.

    It counted the depth of both together (python/cpython issue 106905): nothing is wrong with the picture.
    """
    return isinstance(error, SystemError) and "recursion depth mismatch" in str(error)


def attempt_together(
    work: Callable[[Sequence[ItemT]], object],
    items: Sequence[ItemT],
    *,
    stage: str,
    still: Callable[[ItemT], bool] = lambda item: True,
) -> list[tuple[ItemT, Failure]]:
    """Do the work of all items at once and, if one spoils that, each one's alone; return the items that failed.

    `still` says whether an item's work is yet to be done when the work of all has failed half-way.
    """
    # What is done for one of them already must not be done twice.
    _, failure = attempt(partial(work, items), stage=stage, again=lambda: all(still(item) for item in items))
    if failure is None:
        return []
    if len(items) == 1:
        return [(items[0], failure)]
    alone = [
        (item, attempt(partial(work, [item]), stage=stage, again=partial(still, item))[1])
        for item in items
        if still(item)
    ]
    return [(item, found) for item, found in alone if found is not None]


def failure_of(error: BaseException, *, stage: str) -> Failure:
    """Return the record of an error: its own kind where it has one, else the name of its class."""
    kind = getattr(error, "kind", None)
    text = getattr(error, "text", None) or str(error) or type(error).__name__
    return Failure(
        stage=stage,
        error_kind=kind if isinstance(kind, str) else type(error).__name__,
        error_text=f"{stage}: {text}"[:_LONGEST_TEXT],
    )
