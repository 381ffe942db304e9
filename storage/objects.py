"""Objects of a store: one as a file for reading, and the listing page by page, with the faults of this package."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
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


def listed(filesystem: Any, key: str, uri: str, *, starting: str = "") -> Iterator[dict[str, Any]]:
    """Yield what the listing says of every object below `key` (bucket/prefix), in the order of their UTF-8 bytes.

    starting: only those whose path below `key` starts so. Keeps one page of 1,000 in memory, where s3fs would keep a
    dictionary for every key. Nothing for a missing bucket.
    """
    bucket, prefix, _ = filesystem.split_path(key)
    wanted = {**filesystem.req_kw, "Bucket": bucket, "Prefix": (f"{prefix.rstrip('/')}/" if prefix else "") + starting}
    while True:
        try:
            with explained(uri):
                page = filesystem.call_s3("list_objects_v2", **wanted)
        except FileNotFoundError:
            return
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):  # what consoles make to show an empty folder
                yield {**item, "name": f"{bucket}/{item['Key']}", "size": item["Size"], "type": "file"}
        if not page.get("IsTruncated"):
            return
        wanted["ContinuationToken"] = page["NextContinuationToken"]


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload in parts that is under way or was left behind: `path` below the place asked about."""

    path: str
    upload_id: str
    started: datetime


def unfinished(filesystem: Any, key: str, uri: str) -> Iterator[Upload]:
    """Yield the unfinished uploads below `key` (bucket/prefix); nothing for a missing bucket."""
    bucket, prefix, _ = filesystem.split_path(key)
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""
    wanted = {"Bucket": bucket, "Prefix": prefix}
    while True:
        try:
            with explained(uri):
                page = filesystem.call_s3("list_multipart_uploads", **wanted)
        except FileNotFoundError:
            return
        for item in page.get("Uploads", ()):
            if item["Key"].startswith(prefix):
                yield Upload(item["Key"].removeprefix(prefix), item["UploadId"], item["Initiated"])
        if not page.get("IsTruncated"):
            return
        wanted |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def give_up(filesystem: Any, key: str, uri: str, *, upload_id: str) -> None:
    """Abort one unfinished upload to `key` (bucket/key); nothing happens when it is gone already."""
    bucket, name, _ = filesystem.split_path(key)
    with suppress(FileNotFoundError), explained(uri):
        filesystem.call_s3("abort_multipart_upload", Bucket=bucket, Key=name, UploadId=upload_id)
