"""Where bytes lie: local paths and object-store URLs behind one small, frozen type.

This is the only module that knows URL schemes. Objects are written whole: a local file through a temporary name and a
rename, an object in a store by one put, since a stream closed by an exception would publish a truncated object.
"""

from __future__ import annotations

import builtins
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import fsspec

from storage.errors import OutputError

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
# A listing cached by one client hides what another worker wrote since.
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "use_listings_cache": False,
        # The task retries; two standard attempts here keep the product of both layers small.
        "config_kwargs": {
            "retries": {"max_attempts": 2, "mode": "standard"},
            "connect_timeout": 5,
            "read_timeout": 60,
        },
    }
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One object below a location: `path` relative to it with forward slashes, size in bytes, time in seconds."""

    path: str
    size: int
    modified: float


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
        return fsspec.filesystem(self.scheme, **_OPTIONS.get(self.scheme, {}))

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
        return bool(os.path.lexists(self.local_path) if self.is_local else self.filesystem.exists(self.key))

    def is_directory(self) -> bool:
        return bool(self.local_path.is_dir() if self.is_local else self.filesystem.isdir(self.key))

    def size(self) -> int:
        return int(self.filesystem.size(self.key))

    def read_bytes(self) -> bytes:
        """Return the whole object; raises FileNotFoundError when there is none."""
        if self.is_local:
            return self.local_path.read_bytes()
        return cast(bytes, self.filesystem.cat_file(self.key))

    def open_read(self) -> BinaryIO:
        """Open for reading with random access; the caller closes it."""
        if self.is_local:
            return self.local_path.open("rb")
        return cast(BinaryIO, self.filesystem.open(self.key, "rb"))

    def write_bytes_atomic(self, data: bytes) -> None:
        """Replace the object by `data`: afterwards a reader sees the old bytes or the new ones, never a part."""
        if not self.is_local:
            self.filesystem.pipe_file(self.key, data)
            return
        temporary = self._temporary()
        try:
            _write_synced(temporary, data)
            os.replace(temporary, self.local_path)
        finally:
            temporary.unlink(missing_ok=True)

    def create_exclusive(self, data: bytes) -> bool:
        """Create the object whole and return True; return False, changing nothing, when it exists already."""
        if not self.is_local:
            return self._create_object(data)
        temporary = self._temporary()
        try:
            _write_synced(temporary, data)
            # link fails when the name is taken, and makes the finished file appear in one step.
            os.link(temporary, self.local_path)
            return True
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)

    def _create_object(self, data: bytes) -> bool:
        try:
            self.filesystem.pipe_file(self.key, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            response = getattr(error.__cause__, "response", None) or {}
            if response.get("Error", {}).get("Code") in {"PreconditionFailed", "ConditionalRequestConflict"}:
                return False
            raise
        return True

    def put_file(self, local: str | os.PathLike[str]) -> None:
        """Put a copy of the finished local file here in one atomic step."""
        if not self.is_local:
            self.filesystem.put_file(os.fspath(local), self.key)
            return
        with self.writing() as temporary:
            shutil.copyfile(local, temporary)

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Yield a temporary local file to fill; it becomes this object, whole, when the block ends without an error."""
        folder = None if self.is_local else Path(tempfile.mkdtemp(prefix="lacuna-"))
        temporary = self._temporary() if folder is None else folder / self.name
        try:
            yield temporary
            if folder is not None:
                self.filesystem.put_file(str(temporary), self.key)
                return
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, self.local_path)
        finally:
            temporary.unlink(missing_ok=True)
            if folder is not None:
                folder.rmdir()

    def delete(self) -> None:
        """Remove the object; nothing happens when there is none."""
        try:
            if self.is_local:
                self.local_path.unlink()
            else:
                self.filesystem.rm_file(self.key)
        except FileNotFoundError:
            return

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every object below `prefix`, sorted by path; nothing when the folder does not exist."""
        base = self.join(prefix) if prefix else self
        root = self.key.rstrip("/")
        found = base.filesystem.find(base.key, detail=True) if base.is_local or base.exists() else {}
        for key in sorted(found):
            info = found[key]
            if info.get("type") == "file" and key.rstrip("/") != root:
                yield Entry(key[len(root) :].lstrip("/"), int(info.get("size") or 0), _modified(info))

    def list(self, prefix: str = "") -> builtins.list[str]:
        """Return the sorted relative paths of every object below `prefix`."""
        return [entry.path for entry in self.entries(prefix)]

    def _temporary(self) -> Path:
        self.local_path.parent.mkdir(parents=True, exist_ok=True)
        return self.local_path.parent / f".{secrets.token_hex(8)}.part"


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as target:
        target.write(data)
        target.flush()
        os.fsync(target.fileno())


def _modified(info: dict[str, Any]) -> float:
    value = info.get("mtime") or info.get("LastModified") or info.get("created") or 0.0
    return float(value.timestamp()) if hasattr(value, "timestamp") else float(value)
