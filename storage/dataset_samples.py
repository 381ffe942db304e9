"""Samples of a data set as references, in input order: pictures of a folder, or samples of WebDataset tar shards.

Nothing is read but listings and tar headers. A sample that is known to be bad carries its error and becomes a row.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from storage.dataset_listing import Found, files_of
from storage.errors import IngestError
from storage.limits import IngestLimits
from storage.locations import Location
from storage.sources import IMAGE_SUFFIXES, UNSUPPORTED_SUFFIXES, is_ignored, printable, reason_unsafe

# Between the headers of large members little is read in vain, of small members all comes in few requests.
_HEADER_BLOCK = 1 << 20
# The rule of WebDataset: the key ends at the first dot of the name.
_MEMBER = re.compile(r"^((?:.*/|)[^./]+)[.]([^/]+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One member of a tar shard: the extension it has beside the key, and where its bytes lie."""

    extension: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample: where its picture lies and what it will be called. `index` counts from 0 over the whole input.

    key: unique within its tar or folder, its last part without dots. stem: path without extension that is unique over
    the whole input. extension: of the picture, without its dot, "" when unknown. uri: the file, or the tar when
    `offset` (bytes) is given. size: bytes, 0 when unknown. version: what identifies the content. carried: members that
    go through unchanged. error_kind, error_text: set when it must not or cannot be read.
    """

    index: int
    key: str
    stem: str
    extension: str
    uri: str
    source: str
    size: int
    version: str
    offset: int | None = None
    carried: tuple[Part, ...] = ()
    error_kind: str | None = None
    error_text: str | None = None


def kind_of(source: str) -> str:
    """Return what a source is: images, tar or parquet. Of a folder or prefix, the first file that tells decides.

    Raises IngestError (missing, empty).
    """
    name = source.rstrip("/").lower()
    if name.endswith((".parquet", ".pq")):
        return "parquet"
    for found in files_of(source):
        suffix = PurePosixPath(found.path).suffix.lower()
        if is_ignored(found.path):
            continue
        if suffix == ".tar":
            return "tar"
        if suffix in IMAGE_SUFFIXES | UNSUPPORTED_SUFFIXES:
            return "images"
    raise IngestError(
        "empty", f"{source} holds no data set; expected pictures, .tar shards, or the name of a .parquet file."
    )


def folder_samples(source: str, *, limits: IngestLimits) -> Iterator[Sample]:
    """Yield a sample per picture file below a folder or prefix, or named by a pattern."""
    keys, index = _Keys(), 0
    for found in files_of(source):
        path = PurePosixPath(found.path)
        if is_ignored(found.path) or path.suffix.lower() not in IMAGE_SUFFIXES | UNSUPPORTED_SUFFIXES:
            continue
        sample = Sample(
            index=index,
            key=printable(keys.key(found.path)),
            stem=printable(found.path.removesuffix(path.suffix)),
            extension=printable(path.suffix[1:]),
            uri=printable(found.uri),
            source=printable(found.uri),
            size=found.size,
            version=found.version,
        )
        yield _judged(sample, found, limits=limits)
        index += 1


def tar_samples(source: str, *, limits: IngestLimits, member: str | None = None) -> Iterator[Sample]:
    """Yield the samples of tar shards, grouped as WebDataset does: neighbours of one key are one sample.

    member: extension of the picture; None = the one that is a picture. Raises IngestError when there is no shard.
    """
    index = 0
    for found in files_of(source):
        if not found.path.lower().endswith(".tar") or is_ignored(found.path):
            continue
        for sample in _Shard(found, limits=limits, member=member).samples():
            yield replace(sample, index=index)
            index += 1


def escaped_key(name: str) -> str:
    """Return a name as part of a sample's key, which ends at the first dot of a member; no two names become one."""
    return name.replace("%", "%25").replace(".", "%2E")


class _Keys:
    """Keys of files: paths without suffix, dots of the name as %2E; of several files of one stem, the later ones with
    %suffix. All paths with one stem and a dot lie together in their order, so few stems have to be remembered."""

    def __init__(self) -> None:
        self._stems: list[str] = []

    def key(self, path: str) -> str:
        """Return the key of the next file."""
        self._stems = [stem for stem in self._stems if path.startswith(f"{stem}.")]
        stem, _, suffix = path.rpartition(".")
        twice = stem in self._stems
        if not twice:
            self._stems.append(stem)
        folder, slash, name = stem.rpartition("/")
        return folder + slash + escaped_key(name) + (f"%{suffix}" if twice else "")


def _judged(sample: Sample, found: Found, *, limits: IngestLimits) -> Sample:
    """Return the sample, refused when its file must not be read."""
    name, suffix = sample.source, PurePosixPath(found.path).suffix.lower()
    if printable(found.path) != found.path:
        return refused(sample, "unsafe_name", f"The name {name} is not valid Unicode; rename it to process it.")
    if reason := reason_unsafe(found.path):
        return refused(sample, "unsafe_path", f"The path {found.path!r} {reason}; expected a plain relative path.")
    if found.refusal is not None:
        return refused(sample, "link", f"{name}: {found.refusal}.")
    if suffix in UNSUPPORTED_SUFFIXES:
        text = f"{suffix} files are not supported; expected JPEG, PNG, TIFF, WebP or JPEG 2000. Convert it first."
        return refused(sample, "unsupported_format", text)
    return _sized(sample, limits=limits)


def _sized(sample: Sample, *, limits: IngestLimits) -> Sample:
    largest = max([sample.size, *(part.size for part in sample.carried)])
    if largest <= limits.max_file_bytes:
        return sample
    text = f"{sample.source} has {largest:,} bytes; at most {limits.max_file_bytes:,} are allowed (max_file_bytes)."
    return refused(sample, "too_large", text)


def refused(sample: Sample, kind: str, text: str) -> Sample:
    """Return `sample` marked as one that must not be read."""
    return replace(sample, error_kind=kind, error_text=text)


class _Shard:
    """The samples of one tar shard."""

    def __init__(self, found: Found, *, limits: IngestLimits, member: str | None) -> None:
        self.found = found
        self.limits = limits
        self.member = None if member is None else member.lower().removeprefix(".")
        self._stem = printable(found.path[: -len(".tar")])
        self._seen: set[str] = set()

    def samples(self) -> Iterator[Sample]:
        """Yield them in order, one more with an error where the shard breaks off."""
        key, members = "", list[tuple[str, Part]]()
        problem: list[str] = []
        for info in self._headers(problem.append):
            match = _MEMBER.match(info.name.removeprefix("./"))
            if match is None or info.isdir() or is_ignored(info.name) or match.group(1).startswith("__"):
                continue
            if match.group(1) != key and members:
                yield self._sample(key, members)
                members = []
            key = match.group(1)
            kind = "" if info.isreg() and not info.issparse() else info.name
            members.append((kind, Part(extension=match.group(2), offset=info.offset_data, size=info.size)))
        if members:
            yield self._sample(key, members)
        if problem:
            text = f"{self.found.uri} breaks off ({problem[0]}); samples after this point are lost. Fetch a whole copy."
            yield refused(self._bare("(end)", ()), "corrupt_archive", text)

    def _headers(self, broken: Callable[[str], None]) -> Iterator[tarfile.TarInfo]:
        if self.found.refusal is not None:
            broken(self.found.refusal)
            return
        with Location(self.found.uri).open_read(block_bytes=_HEADER_BLOCK) as file:
            try:
                archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - it holds nothing but the file
                while (info := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined] # tarfile keeps every header otherwise
                    yield info
            except (tarfile.TarError, EOFError, ValueError) as error:
                broken(str(error))
                return
            file.seek(archive.offset)
            if any(file.read(tarfile.BLOCKSIZE)):  # tarfile takes a damaged header for the end
                broken(f"no valid header at byte {archive.offset:,}")

    def _bare(self, key: str, carried: Iterable[Part]) -> Sample:
        return Sample(
            index=0,
            key=printable(key),
            stem=f"{self._stem}/{printable(key)}",
            extension="",
            uri=self.found.uri,
            source=f"{self.found.uri}!/{printable(key)}",
            size=0,
            version=self.found.version,
            carried=tuple(carried),
        )

    def _sample(self, key: str, members: list[tuple[str, Part]]) -> Sample:
        parts = [part for _, part in members]
        pictures = [part for part in parts if self._is_picture(part)]
        sample = self._bare(key, parts)
        names = ", ".join(part.extension for part in parts)
        reason = reason_unsafe(key)
        if key in self._seen:
            return refused(sample, "duplicate_name", f"{self.found.uri} holds two samples called {key!r}.")
        self._seen.add(key)
        if reason or printable(key) != key:
            reason = reason or "is not valid Unicode"
            return refused(sample, "unsafe_path", f"The key {printable(key)!r} {reason}; rename it.")
        if len({part.extension for part in parts}) < len(parts):
            return refused(sample, "duplicate_name", f"{sample.source} holds two members of one name ({names}).")
        if len(pictures) != 1:
            found = "no picture" if not pictures else f"{len(pictures)} pictures"
            hint = "expected one of JPEG, PNG, TIFF, WebP or JPEG 2000; name its extension by --member"
            return refused(sample, "no_picture", f"{sample.source} holds {found} among {names}; {hint}.")
        picture = pictures[0]
        if any(special for special, _ in members):
            return refused(sample, "not_a_file", f"{sample.source} holds a link or special file; not read.")
        sample = replace(
            sample,
            source=f"{sample.source}.{picture.extension}",
            extension=picture.extension,
            offset=picture.offset,
            size=picture.size,
            carried=tuple(part for part in parts if part is not picture),
        )
        return _sized(sample, limits=self.limits)

    def _is_picture(self, part: Part) -> bool:
        if self.member is not None:
            return part.extension.lower() == self.member
        return PurePosixPath(f"x.{part.extension}").suffix.lower() in IMAGE_SUFFIXES
