"""An object of a store as a file for reading, whose faults are those of this package."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from storage.faults import explained


class ObjectFile(io.RawIOBase):
    """A file of fsspec opened for reading: same bytes, but what its client raises is explained."""

    def __init__(self, file: BinaryIO, uri: str) -> None:
        super().__init__()
        self._file = file
        self._uri = uri

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes, all that are left for -1."""
        with explained(self._uri):
            return self._file.read(-1 if size is None else size)

    def readall(self) -> bytes:
        return self.read(-1)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()
