"""Room on this machine's disks: found missing before a run, and said in one sentence when it runs out in the middle."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import NoRoomError

# Of a disk with less than this nothing good can be expected: a page, its mask and the rows want to be written.
LEAST_BYTES = 32 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# What libraries say that write files themselves and keep no errno.
_SAID = ("no space left on device", "disk quota exceeded", "database or disk is full")


def out_of_room(error: BaseException) -> bool:
    """Whether a disk is full or a quota used up; looks through the causes of the error."""
    link: BaseException | None = error
    for _ in range(10):
        if link is None:
            return False
        if isinstance(link, NoRoomError) or (isinstance(link, OSError) and link.errno in _FULL):
            return True
        if any(words in str(link).lower() for words in _SAID):
            return True
        link = link.__cause__
    return False


@contextmanager
def room_at(path: Path, *, setting: str | None = None) -> Iterator[None]:
    """Turn what is raised when there is no room left at `path` into a NoRoomError of one sentence.

    setting: the variable of the environment that says where `path` is, named as the way to another place.
    """
    try:
        yield
    except NoRoomError:
        raise
    except Exception as error:
        if out_of_room(error):
            raise NoRoomError(_sentence(path, setting=setting)) from error
        raise


def check_room(folder: Path, *, least: int = LEAST_BYTES) -> None:
    """Raise NoRoomError unless `least` bytes are free where `folder` is, or will be."""
    if _free(folder) < least:
        raise NoRoomError(_sentence(folder, least=least))


def _sentence(path: Path, *, least: int | None = None, setting: str | None = None) -> str:
    by = "" if setting is None else f" by {setting}"
    wanted = "" if least is None else f", at least {least / 1e6:.0f} MB are needed"
    return (
        f"There is no room left for {path}: {_free(path) / 1e6:.1f} MB are free there{wanted}. "
        f"Make room or choose another place{by}, then run again: what is whole is kept."
    )


def _free(path: Path) -> int:
    place = path.absolute()
    while not os.path.lexists(place):
        place = place.parent
    return shutil.disk_usage(place).free
