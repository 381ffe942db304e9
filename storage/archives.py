"""Archives as a sorted list of members: a directory, .zip, .tar, .tar.gz, or the same behind an fsspec URL.

Sources are opened for reading only. Nothing is ever unpacked under the name a member claims, so a hostile name can
harm nothing; a member that is known to be bad carries its error and becomes a quarantine row.
"""

from __future__ import annotations

import hashlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from storage.errors import UNAVAILABLE, IngestError, ObjectChangedError, StoreUnavailableError
from storage.limits import IngestLimits
from storage.locations import Location

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".btf", ".tf8", ".webp"}
    | {".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"}
)
# Pictures this program cannot restore: the curator should hear of them rather than miss them.
UNSUPPORTED_SUFFIXES = frozenset(
    {".gif", ".bmp", ".heic", ".heif", ".avif", ".jxl", ".psd", ".psb"}
    | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2"}
)
_SKIPPED_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"})
ZIP_SUFFIX, TAR_SUFFIXES = ".zip", (".tar", ".tar.gz", ".tgz")
_BLOCK = 1 << 22
# Up to here an object of a store is read by one request, without asking for its size first.
_ONE_REQUEST = 1 << 25
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceMember:
    """One picture file of a source, by its path in it with forward slashes.

    `size` in bytes once unpacked. `etag`: what a store says identifies the content, of the member's own object or of
    the archive it lies in, else None. `error_kind` and `error_text` are set when it must not or cannot be read.
    """

    relative_path: str
    source_uri: str
    size: int
    etag: str | None = None
    error_kind: str | None = None
    error_text: str | None = None


class Source(ABC):
    """A source opened for reading: sorted members, and the bytes of each."""

    def __init__(self, uri: str, limits: IngestLimits) -> None:
        self.uri = uri
        self.limits = limits
        #: Files passed over because they are no pictures (text, sidecars, thumbnails, dotfiles); known after members().
        self.skipped_count = 0
        self._members: dict[str, SourceMember] | None = None

    def members(self) -> Iterator[SourceMember]:
        """Yield the picture files sorted by relative path; raises IngestError when the source itself is unusable."""
        if self._members is None:
            self.skipped_count = 0
            found: dict[str, SourceMember] = {}
            for member in self._scan():
                twice = member.relative_path in found
                found[member.relative_path] = _twice(member) if twice else member
            self._members = dict(sorted(found.items()))
        yield from self._members.values()

    def member(self, relative_path: str) -> SourceMember:
        """Return the member of that path; raises IngestError of kind missing."""
        list(self.members() if self._members is None else ())
        try:
            return (self._members or {})[relative_path]
        except KeyError:
            raise IngestError("missing", f"{self.uri} holds no member {relative_path!r}; was it removed?") from None

    def read(self, member: SourceMember) -> bytes:
        """Return the bytes of `member`; raises IngestError when it is bad, larger than it said, or broken."""

        def joined() -> bytes:
            blocks = list(self.stream(member))
            return blocks[0] if len(blocks) == 1 else b"".join(blocks)

        return self._one_version(member, joined)

    def sha256(self, member: SourceMember) -> str:
        """Return the sha256 of the member's bytes, reading them as a stream."""

        def digested() -> str:
            digest = hashlib.sha256()
            for block in self.stream(member):
                digest.update(block)
            return digest.hexdigest()

        return self._one_version(member, digested)

    def stream(self, member: SourceMember) -> Iterator[bytes]:
        """Yield the member's bytes in blocks of 4 MB, at most `limits.max_file_bytes` of them."""
        if member.error_kind is not None:
            raise IngestError(member.error_kind, member.error_text or "This member was refused.")
        self.member(member.relative_path)
        total = 0
        for block in self._blocks(member):
            total += len(block)
            if total > self.limits.max_file_bytes:
                raise IngestError("too_large", f"{member.relative_path} holds more than it said and than is allowed.")
            yield block

    def local_path(self, member: SourceMember) -> Path | None:
        """Return the file on this machine that holds exactly this member, or None when there is none."""
        return None

    @property
    def is_remote(self) -> bool:
        """Whether every reading goes over a network, so that bytes once read are worth keeping for a while."""
        return not Location(self.uri).is_local

    def close(self) -> None:
        """Release what is held open; nothing for a source that opens each member anew."""
        return

    def _one_version(self, member: SourceMember, reading: Callable[[], ResultT]) -> ResultT:
        """Return what `reading` returns, once more if the object was replaced meanwhile; then IngestError changed."""
        try:
            return reading()
        except ObjectChangedError:
            pass
        try:
            return reading()
        except ObjectChangedError as error:
            text = f"{member.relative_path} was replaced while it was read. Run again for the new version."
            raise IngestError("changed", text) from error

    @abstractmethod
    def _scan(self) -> Iterator[SourceMember]: ...

    @abstractmethod
    def _blocks(self, member: SourceMember) -> Iterator[bytes]: ...

    def _judge(self, path: str, *, uri: str, size: int, etag: str | None = None) -> SourceMember | None:
        """Return the member for a file called `path`, or None, counted, when it is no picture."""
        path = path.removeprefix("./")
        suffix = PurePosixPath(path.replace("\\", "/")).suffix.lower()
        if is_ignored(path) or suffix not in IMAGE_SUFFIXES | UNSUPPORTED_SUFFIXES:
            self.skipped_count += 1
            return None
        member = SourceMember(relative_path=path, source_uri=uri, size=size, etag=etag)
        if printable(path) != path:
            text = f"The name {printable(path)} is not valid Unicode; rename it to process it."
            member = replace(member, relative_path=printable(path), source_uri=printable(uri))
            return refused(member, "unsafe_name", text)
        if unsafe_reason := reason_unsafe(path):
            text = f"The path {path!r} {unsafe_reason}; expected a relative path inside the archive. Not read."
            return refused(member, "unsafe_path", text)
        if suffix in UNSUPPORTED_SUFFIXES:
            text = f"{suffix} files are not supported; expected JPEG, PNG, TIFF, WebP or JPEG 2000. Convert it first."
            return refused(member, "unsupported_format", text)
        if size > self.limits.max_file_bytes:
            text = f"The file has {size:,} bytes; at most {self.limits.max_file_bytes:,} are allowed (max_file_bytes)."
            return refused(member, "too_large", text)
        return member

    def _check_member_count(self, count: int) -> None:
        if count > self.limits.max_members:
            raise IngestError(
                "too_many_members",
                f"{self.uri} holds more than {self.limits.max_members:,} files (max_members); split it.",
            )


class DirectorySource(Source):
    """A directory on this machine, walked without following links out of it."""

    def __init__(self, root: Path, limits: IngestLimits) -> None:
        super().__init__(Location(root).uri, limits)
        self.root = root.resolve()

    def _scan(self) -> Iterator[SourceMember]:
        count = 0
        for folder, folders, names in os.walk(self.root, followlinks=False):
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
        inside = not link or path.resolve().is_relative_to(self.root)
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
    from storage.packed import TarSource, ZipSource

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


def refused(member: SourceMember, kind: str, text: str) -> SourceMember:
    """Return `member` marked as one that must not be read."""
    return replace(member, error_kind=kind, error_text=text)


def printable(name: str) -> str:
    """Return `name` with bytes that are not valid Unicode escaped, so that it can be stored and shown."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_ignored(path: str) -> bool:
    """Whether a path is passed over without a word: thumbnails, system folders, dotfiles."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return any(part in _SKIPPED_FOLDERS or (part.startswith(".") and part not in {".", ".."}) for part in parts)


def reason_unsafe(path: str) -> str | None:
    """Return what makes a member's path dangerous to write, or None."""
    parts = path.split("/")
    if path.startswith("/") or (len(path) > 1 and path[1] == ":"):
        return "is absolute"
    if ".." in parts:
        return "leads out of the archive by '..'"
    if "\\" in path or any(ord(character) < 32 or ord(character) == 127 for character in path):
        return "holds a backslash or control characters"
    if any(part in {"", "."} for part in parts):
        return "holds empty parts"
    return None


def _twice(member: SourceMember) -> SourceMember:
    text = (
        f"The archive holds two members called {member.relative_path!r}; neither was read, since one hides the other."
    )
    return refused(member, "duplicate_name", text)
