"""Members of .zip and .tar files, read in place."""

from __future__ import annotations

import gzip
import lzma
import stat
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from storage.errors import IngestError
from storage.limits import IngestLimits
from storage.locations import Location
from storage.room import room_at
from storage.sources import Source, SourceMember, printable, refused

_BLOCK = 1 << 22
# Small members of any ratio are harmless: a flat 200 kB scan may well pack 1000 to 1.
_RATIO_FLOOR_BYTES = 1_000_000
# What a store reads ahead: little beside headers and members that are jumped between, much of a stream.
_RANDOM_BLOCK = 1 << 16
_SEQUENTIAL_BLOCK = 1 << 23


class ZipSource(Source):
    """A .zip file; encrypted members, links, unsafe names and compression bombs are refused before reading."""

    def __init__(self, location: Location, limits: IngestLimits) -> None:
        super().__init__(location.uri, limits)
        self.location = location
        self._etag = _etag(location)
        self._file = _open(location, block_bytes=_RANDOM_BLOCK)
        try:
            self._zip = zipfile.ZipFile(self._file)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            self._file.close()
            raise _corrupt_archive(self.uri, error) from error
        self._names: dict[str, zipfile.ZipInfo] = {}

    def _scan(self) -> Iterator[SourceMember]:
        total = 0
        infos = self._zip.infolist()
        self._check_member_count(len(infos))
        for info in infos:
            if info.is_dir():
                continue
            uri = f"{self.uri}!/{info.filename}"
            member = self._judge(info.filename, uri=uri, size=info.file_size, etag=self._etag)
            if member is None:
                continue
            total += info.file_size
            self._names[member.relative_path] = info
            yield member if member.error_kind else self._inspect(member, info, total)

    def _inspect(self, member: SourceMember, info: zipfile.ZipInfo, total: int) -> SourceMember:
        mode = info.external_attr >> 16
        ratio = info.file_size / max(info.compress_size, 1)
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            return refused(
                member, "link", f"{member.relative_path!r} is a link or a special file; expected a plain file."
            )
        if info.flag_bits & 0x1:
            return refused(member, "encrypted", f"{member.relative_path!r} is encrypted; unpack the archive first.")
        if info.file_size > _RATIO_FLOOR_BYTES and ratio > self.limits.max_compression_ratio:
            limit = self.limits.max_compression_ratio
            text = f"{info.file_size:,} bytes packed {ratio:.0f} to 1; at most {limit:.0f} to 1 is allowed."
            return refused(member, "compression_ratio", text)
        if total > self.limits.max_total_bytes:
            text = f"The archive unpacks to more than {self.limits.max_total_bytes:,} bytes (max_total_bytes)."
            return refused(member, "too_large", text)
        return member

    def _blocks(self, member: SourceMember) -> Iterator[bytes]:
        try:
            with self._zip.open(self._names[member.relative_path]) as file:
                yield from iter(lambda: file.read(_BLOCK), b"")
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
            raise _corrupt_member(member, error) from error
        except OSError as error:
            if error.errno is not None:  # of the disk or the network; bz2 raises one without
                raise
            raise _corrupt_member(member, error) from error

    def close(self) -> None:
        self._zip.close()
        self._file.close()


class TarSource(Source):
    """A .tar file, or a .tar.gz that is unpacked once into an unnamed temporary file for random access."""

    def __init__(self, location: Location, limits: IngestLimits) -> None:
        super().__init__(location.uri, limits)
        self.location = location
        self._etag = _etag(location)
        self._lock = threading.Lock()
        self._cut_short: str | None = None
        packed = location.name.lower().endswith(("gz", "tgz"))
        self._file: IO[bytes] = _open(location, block_bytes=_SEQUENTIAL_BLOCK if packed else _RANDOM_BLOCK)
        if packed:
            self._file = self._unpack(self._file)
        self._places: dict[str, tuple[int, int]] = {}

    def _unpack(self, packed: IO[bytes]) -> IO[bytes]:
        with room_at(Path(tempfile.gettempdir()), setting="TMPDIR"):
            spool = tempfile.TemporaryFile(prefix="lacuna-tar-")  # noqa: SIM115 - it lives as long as the source
            try:
                self._fill(spool, packed)
                spool.seek(0)  # which writes the last of it
            except BaseException:
                spool.close()
                raise
        return spool

    def _fill(self, spool: IO[bytes], packed: IO[bytes]) -> None:
        total = 0
        packed_size = max(self.location.size(), 1)
        try:
            with packed, gzip.GzipFile(fileobj=packed) as unpacked:
                while block := unpacked.read1(1 << 18):  # read() would lose what precedes a cut
                    total += len(block)
                    ratio = total / packed_size
                    if total > 16 * _RATIO_FLOOR_BYTES and ratio > self.limits.max_compression_ratio:
                        raise IngestError(
                            "compression_ratio", f"{self.uri} unpacks to over {ratio:.0f} times its size."
                        )
                    if total > self.limits.max_total_bytes:
                        raise IngestError("too_large", f"{self.uri} unpacks to more than max_total_bytes.")
                    spool.write(block)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            if not total:
                raise _corrupt_archive(self.uri, error) from error
            self._cut_short = str(error)

    def _scan(self) -> Iterator[SourceMember]:
        try:
            archive = tarfile.open(fileobj=self._file, mode="r:")  # noqa: SIM115 - the file stays open with the source
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise _corrupt_archive(self.uri, error) from error
        total = count = 0
        while True:
            try:
                info = archive.next()
            except (tarfile.TarError, EOFError, OSError, ValueError) as error:
                self._cut_short = self._cut_short or str(error)
                break
            if info is None:
                break
            archive.members = []  # type: ignore[attr-defined] # tarfile keeps every header otherwise
            count += 1
            self._check_member_count(count)
            uri = f"{self.uri}!/{info.name}"
            member = None if info.isdir() else self._judge(info.name, uri=uri, size=info.size, etag=self._etag)
            if member is not None:
                total += info.size
                self._places[member.relative_path] = (info.offset_data, info.size)
                yield member if member.error_kind else self._inspect(member, info, total)
        if self._cut_short:
            yield self._broken_end()

    def _inspect(self, member: SourceMember, info: tarfile.TarInfo, total: int) -> SourceMember:
        if info.islnk() or info.issym():
            return refused(
                member, "link", f"{member.relative_path!r} is a link to {printable(info.linkname)!r}; not followed."
            )
        if not info.isreg() or info.issparse():
            return refused(
                member, "not_a_file", f"{member.relative_path!r} is a device, pipe or sparse file; not read."
            )
        if total > self.limits.max_total_bytes:
            text = f"The archive unpacks to more than {self.limits.max_total_bytes:,} bytes (max_total_bytes)."
            return refused(member, "too_large", text)
        return member

    def _broken_end(self) -> SourceMember:
        member = SourceMember(relative_path=self.location.name, source_uri=self.uri, size=0)
        text = f"The archive breaks off ({self._cut_short}); members after this point are lost. Fetch a whole copy."
        return refused(member, "corrupt_archive", text)

    def _blocks(self, member: SourceMember) -> Iterator[bytes]:
        offset, left = self._places[member.relative_path]
        while left:
            with self._lock:
                self._file.seek(offset)
                block = self._file.read(min(left, _BLOCK))
            if not block:
                raise IngestError(
                    "truncated", f"{member.relative_path} breaks off {left:,} bytes early in its archive."
                )
            offset += len(block)
            left -= len(block)
            yield block

    def close(self) -> None:
        self._file.close()


def _etag(location: Location) -> str | None:
    """Return the etag of an archive; asked for before it is opened, so that it never is newer than what is read."""
    try:
        return location.etag()
    except PermissionError:
        return None  # opening it will say so


def _open(location: Location, *, block_bytes: int) -> BinaryIO:
    try:
        return location.open_read(block_bytes=block_bytes)
    except FileNotFoundError:
        raise IngestError("missing", f"There is no {location}; expected an archive file.") from None
    except PermissionError:
        raise IngestError("unreadable", f"{location} may not be read; check its permissions.") from None


def _corrupt_archive(uri: str, error: Exception) -> IngestError:
    return IngestError(
        "corrupt_archive", f"{uri} cannot be opened ({error}); expected a whole archive. Fetch it again."
    )


def _corrupt_member(member: SourceMember, error: Exception) -> IngestError:
    text = f"{member.relative_path} cannot be unpacked ({error}); the archive is damaged there. Fetch it again."
    return IngestError("corrupt_archive", text)
