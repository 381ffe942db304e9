"""Where Lacuna keeps what can be made again: working copies, the engine's database, cached results, previews."""

from __future__ import annotations

import os
from pathlib import Path


def lacuna_home() -> Path:
    """Return the folder: LACUNA_HOME, or the user's cache folder. It may be deleted whenever nothing runs."""
    given = os.environ.get("LACUNA_HOME")
    if given:
        return Path(given).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "lacuna"
