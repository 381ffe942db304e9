"""Ctrl-C during a run: the first ends it in good order within seconds, a second one at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import typer

from flows.commands.console import EXIT_INTERRUPTED
from models.interruption import allow_work, interrupt_work, work_interrupted

_FIRST = "stopping: what is finished is kept, the picture in work is given up; Ctrl-C again ends it at once"
_SAID = "stopped by Ctrl-C; what was finished is kept, and the same command goes on with the rest"


class ended_by_interrupt:  # noqa: N801 - used like a function, as contextlib's own classes are
    """Let SIGINT end the work of every thread, not of the main one alone, and the command with exit code 130.

    Stages are computed in threads that no signal reaches, and the engine waits for them: a mark of the process is what
    they look at. Where SIGINT is ignored, as in a background job of a shell, it stays so.
    """

    def __enter__(self) -> None:
        allow_work()
        self._previous: Any = None
        # Handlers belong to the main thread; called from another one, the mark is set by whoever ends the flow.
        if threading.current_thread() is threading.main_thread():
            found = signal.getsignal(signal.SIGINT)
            if callable(found):
                self._previous = found
                signal.signal(signal.SIGINT, self._hear)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        if isinstance(error, KeyboardInterrupt) or work_interrupted():
            allow_work()
            typer.secho(f"lacuna: {_SAID}", fg=typer.colors.RED, err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if work_interrupted():
            # Files are written whole or not at all, so nothing is spoiled; waiting for threads would be no end at once.
            os._exit(EXIT_INTERRUPTED)
        interrupt_work()
        typer.secho(f"lacuna: {_FIRST}", err=True)
        self._previous(number, frame)
