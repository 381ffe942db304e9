"""Output shards of a data set: written whole, committed last, found again by what they were made of.

<root>/shards/000000.tar          layout tar: samples in input order, bytes that depend on nothing but the samples
<root>/images/…                   layout folder: files under the names of the input
<root>/samples/000000.parquet     one row per sample of the shard
<root>/commits/000000.json        written last: what the shard was made of, its files with sha256, its counts
<root>/dataset.json               what the data set is made from; another source does not mix into it
<root>/statistics.json            counts and means over all shards, after every run
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.types import from_json, to_json
from storage.errors import OutputError
from storage.locations import Location
from storage.outputs import file_sha256, verify_output

_COMMIT = re.compile(r"^commits/(\d{6,})\.json$")
_SETTINGS = "dataset.json"
STATISTICS = "statistics.json"
# Files of the layout folder are many and small: waiting for a store is not computing.
_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A finished shard: identity of what it was made of, (path, sha256) of its files, and its counts as JSON."""

    identity: str
    files: tuple[tuple[str, str], ...]
    outcome: dict[str, Any]


def shard_name(number: int) -> str:
    """Return the name of a shard's files, without folder and ending."""
    return f"{number:06d}"


def read_commit(root: Location, number: int) -> Commit | None:
    """Return the commit of a shard, or None when there is none or it is damaged."""
    try:
        return from_json(Commit, json.loads(root.join("commits", f"{shard_name(number)}.json").read_bytes()))
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None


def is_intact(root: Location, commit: Commit) -> bool:
    """Whether every file of a shard still exists with its sha256; all of it is read."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="verify") as pool:
        return all(pool.map(lambda file: verify_output(root.join(file[0]).uri, file[1]), commit.files))


def commit_files(
    root: Location, number: int, *, folder: Path, identity: str, outcome: Mapping[str, Any]
) -> tuple[tuple[str, str], ...]:
    """Put every file below the local `folder` under the same path below `root`, then the commit; return the files.

    Each file is put whole. Doing it again changes nothing.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = tuple((path.relative_to(folder).as_posix(), file_sha256(path)) for path in paths)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="put") as pool:
        for _ in pool.map(lambda path, file: root.join(file[0]).put_file(path), paths, files):
            pass
    before, tar = read_commit(root, number), f"shards/{shard_name(number)}.tar"
    if before is not None and tar in dict(before.files) and tar not in dict(files):
        root.join(tar).delete()  # no sample of it came through this time
    commit = Commit(identity=identity, files=files, outcome=dict(outcome))
    data = json.dumps(to_json(commit), ensure_ascii=False, sort_keys=True, indent=1).encode()
    root.join("commits", f"{shard_name(number)}.json").write_bytes_atomic(data)
    return files


def retire_after(root: Location, count: int) -> int:
    """Remove the rows, commits and tar shards numbered `count` or higher, left by a longer input; return how many.

    Files of the layout folder stay: they may be another shard's by now.
    """
    numbers = [int(match[1]) for path in root.list("commits") if (match := _COMMIT.match(path))]
    stale = sorted({number for number in numbers if number >= count})
    for number in stale:
        name = shard_name(number)
        for path in (f"commits/{name}.json", f"samples/{name}.parquet", f"shards/{name}.tar"):
            root.join(path).delete()
    return len(stale)


def begin_dataset(root: Location, settings: Mapping[str, Any]) -> None:
    """Note what the data set is made from; raises OutputError when another one is there already."""
    place = root.join(_SETTINGS)
    data = json.dumps(dict(settings), ensure_ascii=False, sort_keys=True, indent=1).encode()
    try:
        found = json.loads(place.read_bytes())
    except FileNotFoundError:
        place.write_bytes_atomic(data)
        return
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise OutputError(f"{place} is damaged; delete it and run again: what is whole is kept.")
    differing = [name for name in settings if found.get(name) != settings[name]]
    if differing:
        said = "; ".join(f"{name}: there {found.get(name)!r}, now {settings[name]!r}" for name in differing)
        raise OutputError(f"{root} holds another data set ({said}). Choose another destination, or the same settings.")


def write_statistics(root: Location, statistics: Mapping[str, Any]) -> str:
    """Write the statistics of a data set and return their URI."""
    place = root.join(STATISTICS)
    place.write_bytes_atomic(json.dumps(dict(statistics), ensure_ascii=False, indent=1).encode())
    return place.uri


class TarShard:
    """A tar under way on this machine, whose bytes depend on names and contents alone."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._tar: tarfile.TarFile | None = None

    def add(self, name: str, content: Path | bytes) -> None:
        """Append one member; headers say nothing of when, where and by whom."""
        if self._tar is None:
            self._tar = tarfile.open(self._path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by `close`
        info = tarfile.TarInfo(name)
        info.size = len(content) if isinstance(content, bytes) else content.stat().st_size
        info.mtime, info.mode = 0, 0o644
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
            self._tar.addfile(info, file)

    def close(self) -> None:
        """Finish the tar; without any member there is none."""
        if self._tar is not None:
            self._tar.close()
