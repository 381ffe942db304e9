"""Where Lacuna keeps what can be made again: working copies, the engine's database, cached results, previews."""

from __future__ import annotations

import os
from pathlib import Path


def lacuna_home() -> Path:
    """Return the folder: LACUNA_HOME, or the user's cache folder. It may be deleted whenever nothing runs.

    Raises FileNotFoundError when neither is known.
    """
    given = os.environ.get("LACUNA_HOME")
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        if given:
            return Path(given).expanduser().absolute()
        return (Path(cache) if cache else Path.home() / ".cache") / "lacuna"
    except RuntimeError as error:
        raise FileNotFoundError(
            f"No home folder is known for this user{f' to read {given!r} by' if given else ''}: "
            "set LACUNA_HOME to a folder that can be written, with its whole path."
        ) from error
