"""What every source of pictures is: a sorted list of members, judged by their names, and the bytes of each.

Sources are opened for reading only. Nothing is ever unpacked under the name a member claims, so a hostile name can
harm nothing; a member that is known to be bad carries its error and becomes a quarantine row.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from storage.errors import IngestError, ObjectChangedError
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
_SKIPPED_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
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
