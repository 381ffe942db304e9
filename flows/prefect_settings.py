"""Settings of Prefect for a run that nothing was prepared for; import this before `prefect`.

Whatever the user has set stays: with PREFECT_API_URL the run reports to that server, and a worker brings its own.
"""

from __future__ import annotations

import os
from pathlib import Path

from flows.home import lacuna_home

# Names the user sets when Prefect's state should live where they say.
_OWN_PLACE = ("PREFECT_HOME", "PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")
_QUIET_AND_PRIVATE = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The embedded server's first start makes a database; 20 s, the default limit, is too short on a busy machine.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
    # Stopping the embedded server cancels its loops, which it would log as some 150 lines of errors.
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_LEVEL": "ERROR",
}

# Names that `apply` has set in this process, since the user had not.
_set_here: set[str] = set()


def has_own_place() -> bool:
    """Whether the user says where Prefect's state or server is, which `apply` does not count as."""
    given = {name: os.environ[name] for name in _OWN_PLACE if name in os.environ}
    return bool(given) and given != {"PREFECT_HOME": str(prefect_home())}


def prefect_home() -> Path:
    """Return the folder of Prefect's state where the user has not said another."""
    return lacuna_home() / "prefect"


def apply() -> None:
    """Set what the user has not set; calling it again changes nothing. Raises OSError when the home cannot be made."""
    if not has_own_place():
        home = prefect_home()
        # Prefect makes this folder but none above it, and then waits for a database that can never be opened.
        home.mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = str(home)
    for name, value in _QUIET_AND_PRIVATE.items():
        if name not in os.environ:
            os.environ[name] = value
            _set_here.add(name)


def quieten() -> None:
    """Let the engine say nothing of failures, which it prints with a traceback each, unless the user has set a level.

    For commands that tell every failure themselves; before Prefect is imported.
    """
    if "PREFECT_LOGGING_LEVEL" in _set_here:
        os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"


apply()
