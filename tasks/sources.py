"""Sources this process has open: an archive is listed, and a .tar.gz unpacked, once per run and not once per stage."""

from __future__ import annotations

import threading

from storage.archives import open_source
from storage.errors import IngestError
from storage.limits import IngestLimits
from storage.sources import Source, SourceMember

_opened: dict[tuple[str, IngestLimits], Source] = {}
_lock = threading.Lock()


def reopen_source(uri: str, *, limits: IngestLimits) -> Source:
    """Open and list the source as it is now; what an earlier run of this process had open is closed.

    Raises IngestError when it is missing or unusable.
    """
    close_source(uri, limits=limits)
    return shared_source(uri, limits=limits)


def listed_members(uri: str, *, limits: IngestLimits) -> list[SourceMember]:
    """Return all members of the source as it is now; raises IngestError when it is missing, unusable or empty."""
    members = list(reopen_source(uri, limits=limits).members())
    if not members:
        raise IngestError(
            "empty",
            f"{uri} holds no pictures; expected JPEG, PNG, TIFF, WebP or JPEG 2000 files, in folders or not.",
        )
    return members


def shared_source(uri: str, *, limits: IngestLimits) -> Source:
    """Return the source, opened and listed at the first call; threads share it, and only the run closes it."""
    with _lock:
        if (uri, limits) not in _opened:
            source = open_source(uri, limits=limits)
            try:
                for _ in source.members():
                    pass
            except BaseException:
                source.close()
                raise
            _opened[uri, limits] = source
        return _opened[uri, limits]


def close_source(uri: str, *, limits: IngestLimits) -> None:
    """Close the source if this process has it open."""
    with _lock:
        source = _opened.pop((uri, limits), None)
    if source is not None:
        source.close()


def forget_source(uri: str) -> None:
    """Open and list the source anew next time; whoever still reads it keeps it, and the last one closes it."""
    with _lock:
        for key in [key for key in _opened if key[0] == uri]:
            del _opened[key]
