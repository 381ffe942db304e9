"""Files of a data set, one after the other in the order of their UTF-8 paths, at constant memory.

That order is a store's own. On a disk, what is held is the names of the folders on the way, never those of all files.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from storage.errors import IngestError
from storage.locations import Location

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"^(\d+)\.\.(\d+)$")
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One file: `path` below the listed place, with forward slashes, its `uri`, and its size in bytes.

    version: what identifies this content, as far as a listing can tell. refusal: why it must not be read, or None.
    """

    path: str
    uri: str
    size: int
    version: str
    refusal: str | None = None


def is_pattern(source: str) -> bool:
    """Whether a source names several places by wildcards (``*``, ``?``, ``[…]``) or braces (``{000..012}``, ``{a,b}``).

    A place that is there under that very name is no pattern.
    """
    return bool(_WILD.search(source) or _BRACES.search(source)) and not Location(source).exists()


def base_of(source: str) -> str:
    """Return the part of a pattern above its first wildcard or brace; a source that is no pattern as it is."""
    if not is_pattern(source):
        return source
    place = min(match.start() for match in (_WILD.search(source), _BRACES.search(source)) if match)
    scheme, _, rest = source[:place].rpartition("://")
    folder, slash, _ = rest.rpartition("/")
    return (f"{scheme}://" if scheme else "") + (folder or ("/" if slash else "." if not scheme else ""))


def files_of(source: str) -> Iterator[Found]:
    """Yield every file below a folder or prefix, the one file a source is, or those a pattern names.

    Sorted by path; those of ``{b,a}`` in the order of the braces. Raises IngestError of kind missing.
    """
    if not is_pattern(source):
        yield from _plain(Location(source), source)
        return
    base = Location(base_of(source))
    for pattern in _expanded(Location(source).uri):
        relative = pattern[len(base.uri.rstrip("/")) + 1 :]
        if _WILD.search(relative):
            yield from (found for found in walk(base) if _matches(found.path, relative))
            continue
        single = base.join(relative)
        if not single.exists():
            raise IngestError("missing", f"There is no {single}, which {source} names; check the numbers in braces.")
        yield _single(single, path=relative)


def walk(root: Location) -> Iterator[Found]:
    """Yield every file below `root` by path, links that lead nowhere or out of it as refused."""
    if root.is_local:
        yield from _walk_folder(root.local_path.resolve(), "", root=root)
        return
    for entry in root.entries():
        version = entry.etag or f"{entry.size}-{entry.modified}"
        yield Found(path=entry.path, uri=f"{root.uri}/{entry.path}", size=entry.size, version=version)


def version_of(location: Location) -> tuple[int, str]:
    """Return (size in bytes, what identifies this content) of one file; raises FileNotFoundError."""
    if location.is_local:
        status = location.local_path.stat()
        return status.st_size, f"{status.st_size}-{status.st_mtime_ns}"
    size = location.size()
    return size, location.etag() or str(size)


def _plain(location: Location, source: str) -> Iterator[Found]:
    if not location.exists():
        raise IngestError(
            "missing",
            f"There is no {source}; expected a folder or prefix of pictures or .tar shards, a pattern such as "
            "'data/{000..012}.tar', or a .parquet file.",
        )
    if location.is_directory():
        yield from walk(location)
    else:
        yield _single(location, path=location.name)


def _single(location: Location, *, path: str) -> Found:
    size, version = version_of(location)
    return Found(path=path, uri=location.uri, size=size, version=version)


def _walk_folder(folder: Path, prefix: str, *, root: Location) -> Iterator[Found]:
    with os.scandir(folder) as listed:
        # As "name/" folders sort among the files where their contents do in a listing of whole paths.
        found = sorted((os.fsencode(f"{e.name}/" if e.is_dir(follow_symlinks=False) else e.name), e) for e in listed)
    for name, entry in found:
        path = prefix + entry.name
        if name.endswith(b"/"):
            yield from _walk_folder(folder / entry.name, f"{path}/", root=root)
        else:
            yield _examined(entry, path, root=root)


def _examined(entry: os.DirEntry[str], path: str, *, root: Location) -> Found:
    uri, refusal = f"{root.uri}/{path}", None
    try:
        status = entry.stat()
    except OSError as error:
        return Found(path=path, uri=uri, size=0, version="", refusal=f"it cannot be read ({error.strerror})")
    if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root.local_path.resolve()):
        refusal = "it links outside the source and was not followed"
    elif not stat.S_ISREG(status.st_mode):
        refusal = "it is no regular file"
    return Found(
        path=path, uri=uri, size=status.st_size, version=f"{status.st_size}-{status.st_mtime_ns}", refusal=refusal
    )


def _expanded(pattern: str) -> Iterator[str]:
    """Yield what a shell makes of the braces in `pattern`, in their order."""
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    span = _RANGE.match(match.group(1))
    if span is None:
        choices: list[str] | Iterator[str] = match.group(1).split(",")
    else:
        first, last = span.groups()
        width = max(len(first), len(last)) if first.startswith("0") or len(first) == len(last) else 0
        choices = (str(number).zfill(width) for number in range(int(first), int(last) + 1))
    for choice in choices:
        yield from _expanded(pattern[: match.start()] + choice + pattern[match.end() :])


def _matches(path: str, pattern: str) -> bool:
    """Whether a path fits part by part, so that ``*`` does not reach over a slash."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
