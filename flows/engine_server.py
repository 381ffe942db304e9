"""`python -m flows.engine_server DESCRIPTOR`: serve the workflow engine to the command that started this process.

DESCRIPTOR is a listening socket; standard input is a pipe from that command, and when it ends, however, so does this.
"""

from __future__ import annotations

import flows.prefect_settings  # noqa: F401 - it must come before prefect

# isort: split
import os
import signal
import socket
import sys
import threading
from types import FrameType

import uvicorn


def main() -> None:
    """Serve until standard input ends."""
    listening = socket.socket(fileno=int(sys.argv[1]))
    from prefect.server.api.server import create_app

    # As of a run's own: no user interface, none of the services that schedule.
    app = create_app(ephemeral=True, final=True)
    # A Ctrl-C in a terminal reaches this process too; the command, which it is for, still has to be served to its end.
    server = _Served(uvicorn.Config(app, lifespan="on", log_level="error"))
    threading.Thread(target=_end_with_the_command, args=(server,), daemon=True).start()
    server.run(sockets=[listening])


class _Served(uvicorn.Server):
    """A server that a Ctrl-C does not end."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGINT:
            super().handle_exit(sig, frame)


def _end_with_the_command(server: uvicorn.Server) -> None:
    # Of descriptor 0 itself: a lock of sys.stdin held here would abort the interpreter at its end.
    while os.read(0, 1024):
        pass
    server.should_exit = True


if __name__ == "__main__":
    main()
