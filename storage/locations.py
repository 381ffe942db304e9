"""Where bytes lie: local paths and object-store URLs behind one small, frozen type.

This is the only module that knows URL schemes. Objects are written whole: a local file through a temporary name and a
rename, an object in a store by one put, since a stream closed by an exception would publish a truncated object.
"""

from __future__ import annotations

import builtins
import errno
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import fsspec

from storage.errors import OutputError
from storage.faults import explained, response_code
from storage.objects import ObjectFile, Upload, asked, give_up, listed, unfinished
from storage.patience import UNKNOWN_BYTES
from storage.room import room_at

# What a file system says that has no hard links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
# A listing cached by one client hides what another worker wrote since.
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "use_listings_cache": False,
        # The task waits and tries again; few attempts here keep the product of the layers small.
        "config_kwargs": {
            "retries": {"total_max_attempts": 2, "mode": "standard"},
            "connect_timeout": 3,
            "read_timeout": 30,
        },
    }
}
_OPTIONS["s3a"] = _OPTIONS["s3"]
# The client asks botocore, which asks the server, again on faults; and the task retries what still fails. These two
# and the two above make four requests at most before the task waits and tries again.
_CLIENT_ATTEMPTS = 2
_FETCHED_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """One object below a location: `path` relative to it with forward slashes, size in bytes, time in seconds.

    etag: what the store says identifies the content; None where it says nothing.
    """

    path: str
    size: int
    modified: float
    etag: str | None = None


@dataclass(frozen=True, slots=True, init=False)
class Location:
    """A file, folder or object: a local path or an fsspec URL (s3://bucket/key, memory://…).

    `uri` is absolute: file:///… for local paths. Credentials and endpoints come from the environment of the object
    store's own client (for S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL).
    """

    uri: str

    def __init__(self, uri: str | os.PathLike[str] | Location) -> None:
        text = uri.uri if isinstance(uri, Location) else os.fspath(uri)
        if not text:
            raise OutputError("A location is empty; expected a path or a URL such as s3://bucket/prefix.")
        match = _SCHEME.match(text)
        if match is None or match.group(1).lower() == "file":
            path = text if match is None else text[match.end() :]
            text = "file://" + os.path.abspath(os.path.expanduser(path))
        object.__setattr__(self, "uri", text.rstrip("/") if not text.endswith("://") else text)

    def __str__(self) -> str:
        return self.uri

    @property
    def scheme(self) -> str:
        return self.uri.split("://", 1)[0].lower()

    @property
    def is_local(self) -> bool:
        return self.scheme == "file"

    @property
    def local_path(self) -> Path:
        """The path on this machine; raises OutputError for an object store."""
        if not self.is_local:
            raise OutputError(f"{self.uri} is not on this machine; expected a local path here.")
        return Path(self.uri[len("file://") :])

    @property
    def name(self) -> str:
        return self.uri.rsplit("/", 1)[-1]

    @property
    def filesystem(self) -> Any:
        """The fsspec filesystem; made in the process that uses it, since clients do not survive a fork."""
        with explained(self.uri):
            filesystem = fsspec.filesystem(self.scheme, **_OPTIONS.get(self.scheme, {}))
        if self.scheme in _OPTIONS:
            filesystem.retries = _CLIENT_ATTEMPTS  # no argument of its class
        return filesystem

    @property
    def key(self) -> str:
        """The path as the filesystem knows it, without the scheme."""
        return str(self.local_path) if self.is_local else str(self.filesystem._strip_protocol(self.uri))

    def join(self, *parts: str) -> Location:
        """Return the location below this one; raises OutputError for a part that would lead out of it."""
        relative = "/".join(part.strip("/") if index else part for index, part in enumerate(parts) if part)
        if not relative:
            return self
        pure = PurePosixPath(relative)
        if pure.is_absolute() or ".." in pure.parts or "\\" in relative or "\0" in relative:
            raise OutputError(f"{relative!r} leads out of {self.uri}; expected a relative path without '..'.")
        return Location(f"{self.uri.rstrip('/')}/{pure}")

    def exists(self) -> bool:
        """Whether there is an object or a folder here; raises PermissionError or StoreUnavailableError otherwise."""
        if self.is_local:
            return os.path.lexists(self.local_path)
        return self._info() is not None

    def is_directory(self) -> bool:
        if self.is_local:
            return self.local_path.is_dir()
        return (self._info() or {}).get("type") == "directory"

    def size(self) -> int:
        with self._asked() as limit:
            return int(self.filesystem.size(self.key, **limit))

    def read_bytes(self) -> bytes:
        """Return the whole object; raises FileNotFoundError when there is none."""
        if self.is_local:
            return self.local_path.read_bytes()
        # As a range from 0, since the client asks for the size before any other reading.
        with self._asked(size=UNKNOWN_BYTES) as limit:
            try:
                return cast(bytes, self.filesystem.cat_file(self.key, start=0, **limit))
            except OSError as error:
                if response_code(error) in ("InvalidRange", "416"):  # of an empty object there is none
                    return b""
                raise

    def read_start(self, count: int) -> bytes:
        """Return the first `count` ≥ 1 bytes, fewer when the object has fewer, of one version of it, in one request."""
        if self.is_local:
            with self.local_path.open("rb") as file:
                return file.read(count)
        with self._asked(size=count) as limit:
            return cast(bytes, self.filesystem.cat_file(self.key, start=0, end=count, **limit))

    def fetch(self, paths: Sequence[str], folder: str | os.PathLike[str]) -> None:
        """Copy objects below this location, none empty, into a local folder under the same paths, many at once."""
        for start in range(0, len(paths), _FETCHED_AT_ONCE):
            wanted = paths[start : start + _FETCHED_AT_ONCE]
            keys = [self.join(path).key for path in wanted]
            # As ranges from 0, since the client asks for the size before any other reading.
            with self._asked(size=UNKNOWN_BYTES) as limit:
                found = self.filesystem.cat_ranges(keys, 0, None, on_error="raise", **limit)
            for path, data in zip(wanted, found, strict=True):
                target = Path(folder, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)

    def open_read(self, *, block_bytes: int = 1 << 23) -> BinaryIO:
        """Open one version of the object for reading with random access; the caller closes it.

        block_bytes: how much more than is asked for a store is read at once. Reading raises ObjectChangedError once the
        object is replaced.
        """
        if self.is_local:
            return self.local_path.open("rb")
        with asked(self.uri):  # it only asks for the head, of which the client's own time-outs are enough
            file = self.filesystem.open(self.key, "rb", block_size=block_bytes)
        return cast(BinaryIO, ObjectFile(file, self.uri))

    def _info(self) -> dict[str, Any] | None:
        # Not `exists` of the filesystem, which calls a bucket it could not ask about missing.
        with self._asked() as limit:
            try:
                return cast(dict[str, Any], self.filesystem.info(self.key, **limit))
            except FileNotFoundError:
                return None

    @contextmanager
    def _asked(self, *, size: int = 0, writing: bool = False) -> Iterator[dict[str, float]]:
        """Count one request for `size` bytes; yields what tells the client how long all its tries may take."""
        with asked(self.uri, size=size, writing=writing) as seconds:
            yield {"timeout": seconds} if self.scheme in _OPTIONS else {}

    def write_bytes_atomic(self, data: bytes) -> None:
        """Replace the object by `data`: afterwards a reader sees the old bytes or the new ones, never a part."""
        if not self.is_local:
            with self._asked(size=len(data), writing=True) as limit:
                self.filesystem.pipe_file(self.key, data, **limit)
            return
        with self._temporary() as temporary:
            _write_synced(temporary, data)
            os.replace(temporary, self.local_path)

    def create_exclusive(self, data: bytes) -> bool:
        """Create the object whole and return True; return False, changing nothing, when it exists already."""
        if not self.is_local:
            return self._create_object(data)
        with self._temporary() as temporary:
            _write_synced(temporary, data)
            try:
                # link fails when the name is taken, and makes the finished file appear in one step.
                os.link(temporary, self.local_path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                # exFAT and some mounts: whole, as a rename is, though of two at once the last one stays.
                if self.local_path.exists():
                    return False
                os.replace(temporary, self.local_path)
        return True

    def _create_object(self, data: bytes) -> bool:
        with self._asked(size=len(data), writing=True) as limit:
            try:
                self.filesystem.pipe_file(self.key, data, mode="create", **limit)
            except FileExistsError:
                return False
            except OSError as error:
                if response_code(error) == "PreconditionFailed":
                    return False
                raise
        return True

    def put_file(self, local: str | os.PathLike[str]) -> None:
        """Put a copy of the finished local file here in one atomic step."""
        if not self.is_local:
            with self._asked(size=os.path.getsize(local), writing=True) as limit:
                self.filesystem.put_file(os.fspath(local), self.key, **limit)
            return
        with self.writing() as temporary:
            shutil.copyfile(local, temporary)

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Yield a temporary local file to fill; it becomes this object, whole, when the block ends without an error."""
        if not self.is_local:
            with tempfile.TemporaryDirectory(prefix="lacuna-") as folder:
                with room_at(Path(folder)):
                    yield Path(folder, self.name)
                self.put_file(Path(folder, self.name))
            return
        with self._temporary() as temporary:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, self.local_path)

    def delete(self) -> None:
        """Remove the object; nothing happens when there is none."""
        try:
            if self.is_local:
                self.local_path.unlink()
            else:
                with self._asked(writing=True) as limit:
                    self.filesystem.rm_file(self.key, **limit)
        except FileNotFoundError:
            return

    def etag(self) -> str | None:
        """Return what the store says identifies the content of the object here; None where it says nothing."""
        found = None if self.is_local else (self._info() or {}).get("ETag")
        return str(found).strip('"') if found else None

    def entries(self, prefix: str = "", *, starting: str = "") -> Iterator[Entry]:
        """Yield every object below `prefix`, sorted by path; nothing when the folder does not exist.

        starting: only those whose name in that folder starts so; a store is asked for no others.
        """
        base = self.join(prefix) if prefix else self
        root = self.key.rstrip("/")
        for info in base._found(starting):
            key = info["name"]
            if info.get("type") == "file" and key.rstrip("/") != root:
                etag = str(info["ETag"]).strip('"') if info.get("ETag") else None
                yield Entry(key[len(root) :].lstrip("/"), int(info.get("size") or 0), _modified(info), etag)

    def _found(self, starting: str = "") -> Iterator[dict[str, Any]]:
        if self.scheme in _OPTIONS:
            yield from listed(self.filesystem, self.key, self.uri, starting=starting)
            return
        with explained(self.uri):
            found = self.filesystem.find(self.key, detail=True) if self.is_local or self.exists() else {}
        begin = f"{self.key.rstrip('/')}/{starting}"
        yield from (found[key] for key in sorted(found) if not starting or key.startswith(begin))

    def unfinished_uploads(self) -> Iterator[Upload]:
        """Yield the uploads below this place that were begun and neither finished nor given up; none on a disk."""
        if self.scheme in _OPTIONS:
            yield from unfinished(self.filesystem, self.key, self.uri)

    def abort_upload(self, path: str, *, upload_id: str) -> None:
        """Give up an upload to `path` below this place; nothing happens when it is gone already."""
        give_up(self.filesystem, self.join(path).key, self.uri, upload_id=upload_id)

    def list(self, prefix: str = "") -> builtins.list[str]:
        """Return the sorted relative paths of every object below `prefix`."""
        return [entry.path for entry in self.entries(prefix)]

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """Yield a name beside this file to write to, which is gone afterwards.

        Raises NoRoomError when the disk is full, OutputError where a file is in the way of a folder or the reverse.
        """
        temporary = self.local_path.parent / f".{secrets.token_hex(8)}.part"
        with room_at(self.local_path):
            try:
                self.local_path.parent.mkdir(parents=True, exist_ok=True)
                yield temporary
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                blocked = self._in_the_way()
                if blocked is None:
                    raise
                raise blocked from error
            finally:
                with suppress(NotADirectoryError):
                    temporary.unlink(missing_ok=True)

    def _in_the_way(self) -> OutputError | None:
        files = [place for place in self.local_path.parents if os.path.lexists(place) and not place.is_dir()]
        if files:
            said = f"{files[0]} is a file, where a folder is needed to write {self}"
        elif self.local_path.is_dir():
            said = f"{self.local_path} is a folder, where a file is needed"
        else:
            return None
        return OutputError(f"{said}; move it away and try again, or choose another destination.")


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as target:
        target.write(data)
        target.flush()
        os.fsync(target.fileno())


def _modified(info: dict[str, Any]) -> float:
    value = info.get("mtime") or info.get("LastModified") or info.get("created") or 0.0
    return float(value.timestamp()) if hasattr(value, "timestamp") else float(value)
