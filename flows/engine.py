"""The workflow engine's server of one command, started at its first moment: it loads while the command does.

Prefect would start the same server, but only once the flow is called, and the command would wait for it. A user's own
server or settings of Prefect are left to Prefect.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flows import prefect_settings

# Files by which Prefect lets a server be named, below the working directory.
_SETTINGS_FILES = ("prefect.toml", ".env")
# What the server does after the last request takes less; it holds nothing that a kill could spoil.
_STOP_SECONDS = 5.0
# Its socket closes a moment before it has ended.
_LAST_MOMENT_SECONDS = 1.0


@dataclass(slots=True)
class _Server:
    """The process, and a file of what it says, which is read only if it ends too early."""

    process: subprocess.Popen[bytes]
    said: IO[bytes]


_started: _Server | None = None


def start_engine() -> None:
    """Start the server in the background and name it in PREFECT_API_URL; does nothing where one is named already.

    Returns at once: the socket listens from the first moment, and a request waits in it until the server is up.
    Raises OSError when the home cannot be made.
    """
    global _started
    if "prefect" in sys.modules:  # which has read its settings, and would not see the address
        return
    if prefect_settings.has_own_place() or _named_in_files(Path.cwd(), home=prefect_settings.prefect_home()):
        return
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        command = [sys.executable, "-m", "flows.engine_server", str(listening.fileno())]
        said = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the server writes
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said, pass_fds=[listening.fileno()])
        _started = _Server(process, said)
        # Only the server holds the socket from here on, so that requests fail, not wait, if it dies.
        address = listening.getsockname()
    os.environ["PREFECT_API_URL"] = f"http://{address[0]}:{address[1]}/api"
    # Handlers run in reverse order, so Prefect, imported later, sends its last events before.
    atexit.register(_stop, process)


def why_engine_ended() -> str | None:
    """Return what to tell the user when the server that was started is no more; None while it runs, or without one."""
    if _started is None:
        return None
    try:
        code = _started.process.wait(_LAST_MOMENT_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    _started.said.seek(0)
    lines = _started.said.read().decode(errors="replace").strip().splitlines()
    errors = [line.strip() for line in lines if "Error: " in line] or lines or ["nothing"]
    database = prefect_settings.prefect_home() / "prefect.db"
    return (
        f"The workflow engine's server ended with code {code} and said: {errors[-1].rstrip('.')}. "
        f"Run again; if that does not help, delete {database}, which holds no results."
    )


def _named_in_files(folder: Path, *, home: Path) -> bool:
    """Whether a settings file of the user's could name a server."""
    if (home / "profiles.toml").exists() or any((folder / name).exists() for name in _SETTINGS_FILES):
        return True
    try:
        return "prefect" in tomllib.loads((folder / "pyproject.toml").read_text()).get("tool", {})
    except (OSError, ValueError):
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # also while it is still loading, when it would not notice the end of its input
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
