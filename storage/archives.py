"""Archives as sources: a directory, .zip, .tar, .tar.gz, or the same behind an fsspec URL."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from storage.errors import UNAVAILABLE, IngestError, StoreUnavailableError
from storage.faults import is_transient
from storage.limits import IngestLimits
from storage.locations import Location
from storage.packed import TarSource, ZipSource
from storage.sources import Source, SourceMember, is_ignored, printable, refused

ZIP_SUFFIX, TAR_SUFFIXES = ".zip", (".tar", ".tar.gz", ".tgz")
_BLOCK = 1 << 22
# Up to here an object of a store is read by one request, without asking for its size first.
_ONE_REQUEST = 1 << 25


def _unreadable(error: OSError) -> None:
    """Raise for a folder that cannot be listed: taken for empty, its pictures would count as gone from the source."""
    if isinstance(error, FileNotFoundError):  # removed meanwhile
        return
    if is_transient(error):
        raise error
    raise IngestError(
        "unreadable_folder",
        f"The folder {printable(str(error.filename))} cannot be listed ({error.strerror}), and what is in it must not "
        "count as gone; make it readable, or take it out of the source.",
    ) from error


class DirectorySource(Source):
    """A directory on this machine, walked without following links out of it."""

    def __init__(self, root: Path, limits: IngestLimits) -> None:
        super().__init__(Location(root).uri, limits)
        self.root = root.resolve()

    def _scan(self) -> Iterator[SourceMember]:
        count = 0
        for folder, folders, names in os.walk(self.root, followlinks=False, onerror=_unreadable):
            folders[:] = sorted(name for name in folders if not is_ignored(name))
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for name in [*names, *links]:
                count += 1
                self._check_member_count(count)
                examined = self._examine(Path(folder) / name, is_folder=name in links)
                if examined is not None:
                    yield examined

    def _examine(self, path: Path, *, is_folder: bool) -> SourceMember | None:
        relative = path.relative_to(self.root).as_posix()
        status = path.lstat()
        link = stat.S_ISLNK(status.st_mode)
        inside = not link or self._points_inside(path)
        if is_folder:
            if inside:  # what it points at is walked under its own name
                return None
            member = SourceMember(
                relative_path=printable(relative), source_uri=printable(f"{self.uri}/{relative}"), size=0
            )
            return refused(member, "link", f"{relative!r} links to a folder outside the source; it was not followed.")
        size = path.stat().st_size if link and inside and path.exists() else status.st_size
        judged = self._judge(relative, uri=f"{self.uri}/{relative}", size=size)
        if judged is None or judged.error_kind:
            return judged
        member = judged
        if not inside or (link and not path.exists()):
            return refused(member, "link", f"{relative!r} links outside the source or to nothing; it was not followed.")
        if not stat.S_ISREG(path.stat().st_mode):
            return refused(member, "not_a_file", f"{relative!r} is a device, pipe or socket; expected a regular file.")
        return member

    def _points_inside(self, link: Path) -> bool:
        try:
            return link.resolve().is_relative_to(self.root)
        except (OSError, RuntimeError):  # in a circle
            return False

    def local_path(self, member: SourceMember) -> Path | None:
        return self.root / member.relative_path if member.error_kind is None else None

    def _blocks(self, member: SourceMember) -> Iterator[bytes]:
        try:
            with (self.root / member.relative_path).open("rb") as file:
                yield from iter(lambda: file.read(_BLOCK), b"")
        except FileNotFoundError:
            raise IngestError("missing", f"{member.relative_path} vanished since the source was listed.") from None
        except PermissionError:
            raise IngestError("unreadable", f"{member.relative_path} may not be read; check its permissions.") from None


class RemoteDirectorySource(Source):
    """Every object below an fsspec prefix, for example s3://bucket/prefix."""

    def __init__(self, location: Location, limits: IngestLimits) -> None:
        super().__init__(location.uri, limits)
        self.location = location

    def _scan(self) -> Iterator[SourceMember]:
        for count, entry in enumerate(self.location.entries(), start=1):
            self._check_member_count(count)
            member = self._judge(entry.path, uri=f"{self.uri}/{entry.path}", size=entry.size, etag=entry.etag)
            if member is not None:
                yield member

    def _blocks(self, member: SourceMember) -> Iterator[bytes]:
        try:
            location = self.location.join(member.relative_path)
            if 0 < member.size <= _ONE_REQUEST:
                start = location.read_start(member.size + 1)
                if len(start) <= member.size:
                    yield start
                    return
            # It is large, or has grown since it was listed.
            with location.open_read() as file:
                yield from iter(lambda: file.read(_BLOCK), b"")
        except FileNotFoundError:
            raise IngestError("missing", f"{member.relative_path} vanished since the source was listed.") from None
        except PermissionError:
            raise IngestError("unreadable", f"{member.source_uri} may not be read; check the access rights.") from None
        except StoreUnavailableError as error:
            if error.patience != "none for the object":
                raise
            # Not raised from that error, whose kind is waited for: this one object is to blame, the others go on.
            raise IngestError(UNAVAILABLE, f"{error} The next run asks for it again.") from None


def open_source(source: str, *, limits: IngestLimits) -> Source:
    """Open a directory, .zip, .tar, .tar.gz/.tgz or an fsspec URL of one; raises IngestError for anything else."""
    location = Location(source)
    name = location.name.lower()
    if name.endswith(ZIP_SUFFIX) and not location.is_directory():
        return ZipSource(location, limits)
    if name.endswith(TAR_SUFFIXES) and not location.is_directory():
        return TarSource(location, limits)
    if location.is_local and location.is_directory():
        return DirectorySource(location.local_path, limits)
    if location.is_local and location.exists():
        raise IngestError(
            "unsupported_format", f"{source} is a file; expected a directory, .zip, .tar, .tar.gz or s3:// URL."
        )
    if not location.is_local and location.exists():
        return RemoteDirectorySource(location, limits)
    raise IngestError("missing", f"There is no {source}; expected a directory, .zip, .tar, .tar.gz or s3:// URL.")
