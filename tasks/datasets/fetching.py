"""Brings the samples of a part of a shard onto this machine: pictures and what is carried through with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from storage.codecs import sniff
from storage.dataset_encoding import FORMAT_EXTENSIONS
from storage.dataset_samples import Part, Sample
from storage.errors import UNAVAILABLE, IngestError
from storage.faults import is_transient
from storage.limits import IngestLimits
from storage.locations import Location
from storage.sources import IMAGE_SUFFIXES
from tasks.boundary import attempt, failure_of
from tasks.jobs import Failure

# Waiting for a store is not computing: more at once than there are cores.
_AT_ONCE = 16
_READ_AHEAD = 1 << 23
_PAUSES = (1.0, 3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """One sample on this machine: name of its picture in the folder `in`, or why there is none."""

    index: int
    name: str | None = None
    failure: Failure | None = None


def fetch(samples: Sequence[Sample], folder: Path, *, limits: IngestLimits) -> list[Fetched]:
    """Write the pictures of samples to `folder`/in and what they carry to `folder`/carried; aligned with the samples.

    What cannot be read becomes a failure. A fault that passes by itself is waited for; samples that have it to the end
    fail as unavailable. Where all samples of a listed source have it, the store is down, and it is raised.
    """
    (folder / "in").mkdir(parents=True, exist_ok=True)
    results: dict[int, Fetched] = {}
    last: BaseException | None = None
    waiting = list(samples)
    for pause in (0.0, *_PAUSES):
        time.sleep(pause if waiting else 0.0)
        troubled: dict[int, BaseException] = {}
        for fetched, error in _round(waiting, folder, limits=limits):
            if error is not None:
                troubled[fetched.index], last = error, error
            results[fetched.index] = fetched
        waiting = [sample for sample in waiting if sample.index in troubled]
        if not waiting:
            break
    listed = all(sample.version for sample in samples)
    if last is not None and listed and len(waiting) == len(samples):
        raise last
    return [results[sample.index] for sample in samples]


def _round(
    samples: Sequence[Sample], folder: Path, *, limits: IngestLimits
) -> Iterator[tuple[Fetched, BaseException | None]]:
    """Try every sample once: each file of its own at once, the members of a tar one after the other."""
    single = [sample for sample in samples if sample.offset is None]
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch") as pool:
        yield from pool.map(lambda sample: _try(sample, folder, limits=limits, read=_whole), single)
    packed = [sample for sample in samples if sample.offset is not None]
    for uri, members in groupby(packed, key=lambda sample: sample.uri):
        with ExitStack() as stack:
            reader = _TarReader(uri, stack)
            yield from [_try(sample, folder, limits=limits, read=reader.read) for sample in members]


def _try(
    sample: Sample, folder: Path, *, limits: IngestLimits, read: Callable[[Sample, Part | None, IngestLimits], bytes]
) -> tuple[Fetched, BaseException | None]:
    try:
        name, failure = attempt(lambda: _write(sample, folder, limits=limits, read=read), stage="read")
        return Fetched(index=sample.index, name=name, failure=failure), None
    except Exception as error:
        if not is_transient(error):
            raise
        known = failure_of(error, stage="read")
        failure = Failure(stage="read", error_kind=UNAVAILABLE, error_text=known.error_text)
        return Fetched(index=sample.index, failure=failure), error


def _write(
    sample: Sample, folder: Path, *, limits: IngestLimits, read: Callable[[Sample, Part | None, IngestLimits], bytes]
) -> str:
    if sample.error_kind is not None:
        raise IngestError(sample.error_kind, sample.error_text or sample.error_kind)
    data = read(sample, None, limits)
    name = f"{sample.index:012d}{_suffix(sample, data)}"
    for part in sample.carried:
        target = carried_path(folder, sample, part)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(read(sample, part, limits))
    (folder / "in" / name).write_bytes(data)
    return name


def carried_path(folder: Path, sample: Sample, part: Part) -> Path:
    """Return where a carried member of a sample lies on this machine."""
    return folder / "carried" / f"{sample.index:012d}-{part.offset}"


def _suffix(sample: Sample, data: bytes) -> str:
    """Return the ending by which the stages take up the file; what is in it they find out themselves."""
    given = f".{sample.extension.lower()}"
    if given in IMAGE_SUFFIXES:
        return given
    return f".{FORMAT_EXTENSIONS[sniff(data[:12])]}"


def _whole(sample: Sample, part: Part | None, limits: IngestLimits) -> bytes:
    """Return the bytes of a file; raises IngestError when it is not there, may not be read or is too large."""
    try:
        location = Location(sample.uri)
        data = location.read_start(sample.size + 1) if sample.size else location.read_bytes()
    except FileNotFoundError:
        raise IngestError("missing", f"There is no {sample.source}; check the path.") from None
    except (PermissionError, IsADirectoryError) as error:
        raise IngestError("unreadable", f"{sample.source} may not be read ({error}); check the rights.") from error
    if sample.size and len(data) != sample.size:
        raise IngestError("changed", f"{sample.source} is not what was listed any more. Run again for the new version.")
    if len(data) > limits.max_file_bytes:
        raise IngestError("too_large", f"{sample.source} has more than {limits.max_file_bytes:,} bytes.")
    return data


class _TarReader:
    """Members of one tar, read in their order through one open file."""

    def __init__(self, uri: str, stack: ExitStack) -> None:
        self._uri = uri
        self._stack = stack
        self._file: BinaryIO | None = None

    def read(self, sample: Sample, part: Part | None, limits: IngestLimits) -> bytes:
        """Return the bytes of the sample's picture, or of a carried member; raises IngestError when it breaks off."""
        place = (sample.offset or 0, sample.size) if part is None else (part.offset, part.size)
        if self._file is None:
            self._file = self._stack.enter_context(Location(self._uri).open_read(block_bytes=_READ_AHEAD))
        self._file.seek(place[0])
        data = self._file.read(place[1])
        if len(data) < place[1]:
            raise IngestError("truncated", f"{sample.source} breaks off in its tar; fetch a whole copy of {self._uri}.")
        return data
