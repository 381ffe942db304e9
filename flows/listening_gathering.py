"""From events to runs: gather them until it is quiet, then ask for one run, and go on asking while nobody answers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 5.0, 300.0
# How long until a run is asked for again when another one is in the way.
_LATER_SECONDS = 15.0


class RunsError(RuntimeError):
    """No run could be asked for now; the text says in one sentence why. Trying again later may help."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the wish for a run: asked for, covered by one that waits already, or to be tried again later."""

    kind: Literal["asked", "covered", "later"]
    text: str


class Runs(Protocol):
    """Something that can be asked for runs."""

    async def ask(self, collections: tuple[str, ...], *, key: str) -> Answer:
        """Ask for a run of these collections, one only for equal keys; raises RunsError."""

    async def close(self) -> None:
        """End what it holds."""


class Gathering:
    """Collections something has come for. Due when quiet for so long, or so long after the first, in seconds."""

    def __init__(
        self, *, quiet_seconds: float, at_most_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._quiet, self._at_most, self._clock = quiet_seconds, at_most_seconds, clock
        self._first = self._last = 0.0
        self._waiting: dict[str, int] = {}
        self.revision = 0

    @property
    def waiting(self) -> tuple[str, ...]:
        """The collections, by name."""
        return tuple(sorted(self._waiting))

    def add(self, collections: Iterable[str]) -> None:
        """Take in that something has come for these collections now."""
        names = tuple(collections)
        if not names:
            return
        self._last = self._clock()
        if not self._waiting:
            self._first = self._last
        self.revision += 1
        self._waiting.update(dict.fromkeys(names, self.revision))

    def due_in(self) -> float | None:
        """Return the seconds until a run should be asked for, 0 for now, None while nothing waits."""
        if not self._waiting:
            return None
        return max(0.0, min(self._last + self._quiet, self._first + self._at_most) - self._clock())

    def settle(self, *, revision: int) -> None:
        """Forget what had come by that revision; what came since begins a wait of its own."""
        self._waiting = {name: added for name, added in self._waiting.items() if added > revision}
        self._first = self._last


class Starter:
    """Asks for a run when one is due. Events are kept until somebody has taken them over."""

    def __init__(
        self,
        gathering: Gathering,
        runs: Runs,
        *,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gathering, self._runs, self._say, self._clock = gathering, runs, say, clock
        self._instance = secrets.token_hex(8)
        self._not_before = 0.0
        self._pause = _FIRST_PAUSE_SECONDS
        self._said = ""
        self.asked = 0
        self.trouble: str | None = None

    async def step(self) -> None:
        """Ask for a run if one is due and the pause after a failure is over."""
        if self._gathering.due_in() == 0.0 and self._clock() >= self._not_before:
            await self._ask()

    async def finish(self) -> None:
        """Ask once more for what still waits, quiet or not, before the end."""
        if self._gathering.waiting:
            await self._ask()
        if self._gathering.waiting:
            names = ", ".join(self._gathering.waiting)
            self._say(f"ended before a run could be asked for of {names}; the next scheduled run takes what has come")
        await self._runs.close()

    async def _ask(self) -> None:
        names, revision = self._gathering.waiting, self._gathering.revision
        try:
            # The same events ask for the same run, should an answer be lost; later ones must not.
            answer = await self._runs.ask(names, key=f"lacuna-listen-{self._instance}-{revision}")
        except RunsError as error:
            self._fail(str(error))
            return
        self._recover()
        if answer.kind == "later":
            self._not_before = self._clock() + _LATER_SECONDS
            self._say_once(answer.text)
            return
        self._gathering.settle(revision=revision)
        self.asked += answer.kind == "asked"
        self._said = ""
        self._say(answer.text)

    def _fail(self, text: str) -> None:
        self._not_before = self._clock() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        self.trouble = text
        self._say_once(f"{text}; what has come is kept, and it is tried again and again")

    def _recover(self) -> None:
        self._not_before, self._pause, self.trouble = 0.0, _FIRST_PAUSE_SECONDS, None

    def _say_once(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._say(text)
