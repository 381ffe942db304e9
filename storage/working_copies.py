"""Content-addressed local copies of decoded pages, and of arrays derived from them, as memory-mappable .npy files, and
of the bytes of files that are far away.

A cache only: whatever is missing is made again from the source. Files appear whole, by rename, and never change.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from models.types import ImageRecord
from storage.codecs import iter_pages
from storage.colour import conversion, map_strips, strips, working_max
from storage.errors import IngestError, StorageError
from storage.formats.page import DecodedPage
from storage.limits import IngestLimits
from storage.sources import Source

# Part of every name: raise it whenever decoding or the conversion to sRGB changes a single value.
_VERSION = 1


class WorkingCopies:
    """The working copies below the local folder `root`; safe to share between threads and processes."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()

    def path(self, key: str) -> Path:
        """Return the file of `key`; raises StorageError for a key that would lead out of the folder."""
        pure = PurePosixPath(key)
        if not key or pure.is_absolute() or ".." in pure.parts:
            raise StorageError(f"{key!r} is no key of a working copy; expected a relative path without '..'.")
        return self.root / pure

    def exists(self, key: str) -> bool:
        return self.path(key).is_file()

    def load(self, record: ImageRecord) -> npt.NDArray[Any]:
        """Return the read-only memory-mapped page (H, W) or (H, W, 3), uint8 or uint16, sRGB, upright.

        Raises FileNotFoundError when the copy is gone: `ensure` makes it again.
        """
        return self.load_array(record.working_copy)

    def load_array(self, key: str) -> npt.NDArray[Any]:
        """Return the read-only memory-mapped array saved under `key`."""
        array: npt.NDArray[Any] = np.load(self.path(key), mmap_mode="r", allow_pickle=False)
        return array

    def save_array(self, key: str, array: npt.NDArray[Any]) -> str:
        """Save `array` under `key` (".npy" is added if missing), replacing what is there; return the full key."""
        key = key if key.endswith(".npy") else f"{key}.npy"
        with _replacing(self.path(key)) as file:
            np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        return key

    def save_file(self, data: bytes | Path, *, sha256: str) -> None:
        """Keep the bytes of a source or an output until its shard is done, so that they cross the network once.

        A favour: where there is no room for them, they are not kept.
        """
        with suppress(OSError), _replacing(self.path(file_key(sha256))) as file:
            if isinstance(data, bytes):
                file.write(data)
            else:
                with data.open("rb") as kept:
                    shutil.copyfileobj(kept, file)

    def file(self, sha256: str) -> bytes | None:
        """Return the kept bytes of a file; None when they were not kept, are gone, or were damaged by a full disk."""
        try:
            data = self.path(file_key(sha256)).read_bytes()
        except FileNotFoundError:  # also in this moment, by another shard with the same picture
            return None
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def save_note(self, key: str, data: bytes) -> None:
        """Keep a few bytes under `key`, replacing what is there. A favour: without room for them, they are not kept."""
        with suppress(OSError), _replacing(self.path(key)) as file:
            file.write(data)

    def note(self, key: str) -> bytes | None:
        """Return what was kept under `key`, None when there is nothing."""
        try:
            return self.path(key).read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, key: str) -> None:
        """Remove one copy; nothing happens when it is gone already or, where files in use are locked, still read."""
        with suppress(FileNotFoundError, PermissionError):
            self.path(key).unlink()

    def save_page(self, page: DecodedPage, *, sha256: str) -> str:
        """Convert `page` to sRGB strip by strip and save it; return its key. Does nothing when it is there already."""
        key = page_key(sha256, page.page_index)
        if self.exists(key):
            return key
        how = conversion(page.icc, grey=page.channels == 1)
        kind = np.dtype(np.uint8 if working_max(page.sample_max) == 255 else np.uint16)
        header = {"descr": kind.str, "fortran_order": False, "shape": page.array.shape}
        with _replacing(self.path(key)) as file:
            np.lib.format.write_array_header_1_0(file, header)
            slices = strips(page.height, page.width)
            # plain writes: dirty pages of a memory map would count as this process's memory
            for part in map_strips(lambda rows: how.to_working(page.array[rows], page.sample_max), slices):
                file.write(np.ascontiguousarray(part).data)
        return key

    def ensure(self, record: ImageRecord, source: Source, *, limits: IngestLimits | None = None) -> npt.NDArray[Any]:
        """Return the page as `load` does, decoding it from `source` again if the copy is gone.

        Raises IngestError of kind changed when the source no longer holds the bytes that were ingested.
        """
        try:
            return self.load(record)
        except (FileNotFoundError, ValueError, EOFError):  # gone, or damaged by a full disk
            self.delete(record.working_copy)
        member = source.member(record.relative_path)
        found = source.sha256(member)
        if found != record.source_sha256:
            raise IngestError(
                "changed",
                f"{record.relative_path} changed while it was processed (sha256 {found[:12]}…, ingested as "
                f"{record.source_sha256[:12]}…). Run again to process the new version.",
            )
        for page in iter_pages(source.local_path(member) or source.read(member), limits or source.limits):
            if page.page_index == record.page_index:
                self.save_page(page, sha256=record.source_sha256)
                break
        return self.load(record)


def page_key(sha256: str, page_index: int) -> str:
    """Return the key of a page's working copy: by content, so that duplicates share it."""
    return f"{sha256[:2]}/{sha256}-p{page_index}-v{_VERSION}.npy"


def file_key(sha256: str) -> str:
    """Return the key of a file's kept bytes."""
    return f"{sha256[:2]}/{sha256}.file"


class _replacing:  # noqa: N801 - used like a function, as contextlib's own classes are
    """Open a temporary file for writing that takes the place of `path` when the block ends without an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(f".{secrets.token_hex(8)}.part")

    def __enter__(self) -> BinaryIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.temporary.open("wb")
        return self.file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.file.close()
            if kind is None:
                os.replace(self.temporary, self.path)
        finally:
            self.temporary.unlink(missing_ok=True)
