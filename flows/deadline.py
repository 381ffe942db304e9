"""A time window: when a run begins no further shard, and what of its work is then left for the next run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import TypeVar

ItemT = TypeVar("ItemT")


def parse_stop(text: str, *, now: datetime | None = None) -> datetime:
    """Return the moment that `text` names: HH:MM is the next such time of this machine's clock, else ISO 8601.

    Raises ValueError for anything else. The moment carries its offset from UTC.
    """
    now = now or _now()
    try:
        if len(text) <= 5 and ":" in text:
            time = datetime.strptime(text, "%H:%M").time()
            today = datetime.combine(now.date(), time).astimezone()
            return today if today > now else datetime.combine(now.date() + timedelta(days=1), time).astimezone()
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise ValueError(
            f"stop at: got {text!r}, expected a time of day such as 06:00, or a date and time such as 2026-11-22T06:00"
        ) from None


def _now() -> datetime:
    return datetime.now().astimezone()


class Window:
    """Hands out work until the time has come; `over` says whether some was held back."""

    def __init__(self, stop_at: datetime | None) -> None:
        self.stop_at = stop_at
        self.over = False

    def open(self, items: Iterable[ItemT]) -> Iterator[ItemT]:
        """Yield the items while there is time; each is asked for when there is room for it."""
        for item in items:
            if self.stop_at is not None and _now() >= self.stop_at:
                self.over = True
                return
            yield item
