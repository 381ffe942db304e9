"""How long a run waits for a store that does not serve: for one object, and for the store as a whole.

Every request to a store is counted here, in the process that makes it. Reading and writing are told apart, since a full
store still reads. Two things hold a run up: a store that serves nobody, which comes back or is gone, and one object
that fails while its store serves others.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from storage.errors import PatienceLeft

OBJECT_SECONDS = "LACUNA_OBJECT_SECONDS"
STORE_SECONDS = "LACUNA_STORE_SECONDS"
# What the slowest network worth having brings; a large object may take as long as that, beside its seconds.
SLOWEST_BYTES_PER_SECOND = 1_000_000
# An object whose size is not known before it is read: catalogues, lists and settings.
UNKNOWN_BYTES = 64_000_000
# The longest pause between two tries of a task. More time between two faults was spent on other work.
LONGEST_PAUSE_SECONDS = 45.0
# After a run has given a store up, whoever asks later than this may hope anew.
_FORGOTTEN_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """object_seconds: for one object, beside a second per MB. store_seconds: for a store that serves nothing."""

    object_seconds: float = 300.0
    store_seconds: float = 900.0


def budgets_from_environment() -> Budgets:
    """Return the budgets of LACUNA_OBJECT_SECONDS and LACUNA_STORE_SECONDS; raises ValueError unless above zero."""
    given = Budgets()
    return Budgets(
        object_seconds=_seconds(OBJECT_SECONDS, given.object_seconds),
        store_seconds=_seconds(STORE_SECONDS, given.store_seconds),
    )


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: got {text!r}, expected a number of seconds above 0, such as {default:.0f}")
    return value


@dataclass(slots=True)
class _Outage:
    """Faults of one store, in reading or in writing, since it last answered."""

    seconds: float = 0.0
    last: float | None = None
    objects: set[str] = field(default_factory=set)
    budget_over_at: float | None = None
    given_up: bool = False


@dataclass(slots=True)
class _Line:
    """What is known of one store, in reading or in writing."""

    answered_at: float = -math.inf
    outage: _Outage = field(default_factory=_Outage)


@dataclass(slots=True)
class _Hold:
    """One object's faults while its store served others."""

    last: float
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """left: what patience is left. seconds: how long this object, or its store, has not served by now."""

    left: PatienceLeft
    seconds: float


class Patience:
    """The clocks of one process; safe for threads.

    A store's clock runs from its first fault until it answers anything, an error of the caller's included. Once it has
    run for `store_seconds`, nobody tries again what fails; and the store is given up when a second object has failed as
    well, or when what was begun after that fails. (One object alone may be to blame itself: the rest of the run goes
    on, and its next request tells.) An object's clock runs while its store serves others.
    """

    def __init__(self, budgets: Budgets, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.budgets = budgets
        self.clock = clock
        self._lines: dict[tuple[str, bool], _Line] = {}
        self._holds: dict[tuple[str, bool], _Hold] = {}
        self._lock = threading.Lock()
        self._hurry = threading.local()

    def allowed_seconds(self, size: int) -> float:
        """Return how long one request for `size` bytes may take, all tries of the store's client together."""
        most: float = getattr(self._hurry, "seconds", math.inf)
        return min(most, self.budgets.object_seconds + size / SLOWEST_BYTES_PER_SECOND)

    @contextmanager
    def hurried(self, seconds: float) -> Iterator[None]:
        """Let no request of this thread take longer than `seconds`: for a first look, while somebody waits."""
        self._hurry.seconds = seconds
        try:
            yield
        finally:
            self._hurry.seconds = math.inf

    def answered(self, uri: str, *, writing: bool) -> None:
        """Note that the store answered a request for `uri`."""
        with self._lock:
            line = self._line(uri, writing)
            line.answered_at = self.clock()
            line.outage = _Outage()
            self._holds.pop((uri, writing), None)

    def failed(self, uri: str, *, writing: bool, since: float, size: int = 0) -> Verdict:
        """Note that a request for `uri`, begun at `since` by the clock, ended now in a fault that may pass."""
        now = self.clock()
        with self._lock:
            line = self._line(uri, writing)
            held = self._hold(uri, line, writing=writing, since=since, now=now)
            self._lengthen(line, since=since, now=now)
            outage = line.outage
            outage.objects.add(uri)
            if outage.budget_over_at is None and outage.seconds >= self.budgets.store_seconds:
                outage.budget_over_at = now
            if outage.budget_over_at is not None:
                outage.given_up |= since >= outage.budget_over_at or len(outage.objects) > 1
                self._holds.pop((uri, writing), None)
                return Verdict("none for the store" if outage.given_up else "none for the object", outage.seconds)
            if held.seconds >= self.allowed_seconds(size):
                del self._holds[uri, writing]
                return Verdict("none for the object", held.seconds)
            return Verdict("some", max(held.seconds, outage.seconds))

    def _line(self, uri: str, writing: bool) -> _Line:
        return self._lines.setdefault((uri.split("://", 1)[0], writing), _Line())

    def _lengthen(self, line: _Line, *, since: float, now: float) -> None:
        outage = line.outage
        if outage.last is not None and outage.given_up and since - outage.last > _FORGOTTEN_SECONDS:
            outage = line.outage = _Outage()
        if outage.last is None:
            outage.seconds = now - max(since, line.answered_at)
        else:
            outage.seconds += _between(outage.last, since=since, now=now)
        outage.last = now

    def _hold(self, uri: str, line: _Line, *, writing: bool, since: float, now: float) -> _Hold:
        hold = self._holds.setdefault((uri, writing), _Hold(last=since))
        if line.answered_at >= hold.last:  # others were served meanwhile
            hold.seconds += _between(hold.last, since=since, now=now)
        hold.last = now
        return hold


def _between(last: float, *, since: float, now: float) -> float:
    """Return the seconds of a fault from `since` to `now`, and of the pause between it and one that ended at `last`."""
    return min(max(since - last, 0.0), LONGEST_PAUSE_SECONDS) + now - max(since, last)


_of_this_process: Patience | None = None
_making = threading.Lock()


def patience() -> Patience:
    """Return the clocks of this process, with the budgets of the environment; raises ValueError for wrong ones."""
    global _of_this_process
    with _making:
        if _of_this_process is None:
            _of_this_process = Patience(budgets_from_environment())
        return _of_this_process
