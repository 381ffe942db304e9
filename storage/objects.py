"""Objects of a store: one as a file for reading, and the listing page by page, with the faults of this package."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO

from storage.errors import StoreUnavailableError
from storage.faults import explained, response_code
from storage.patience import OBJECT_SECONDS, STORE_SECONDS, Verdict, patience


@contextmanager
def asked(uri: str, *, size: int = 0, writing: bool = False) -> Iterator[float]:
    """Count one request about `uri`, explain its faults, and yield how many seconds it may take.

    size: bytes that come or go. The seconds are for all tries of the store's client together; whoever asks gives them
    to the client, which then gives up. The StoreUnavailableError says what patience is left.
    """
    kept = patience()
    since, allowed = kept.clock(), kept.allowed_seconds(size)
    try:
        with explained(uri):
            yield allowed
    except StoreUnavailableError as error:
        verdict = kept.failed(uri, writing=writing, since=since, size=size)
        text = str(error) if kept.clock() - since < allowed else _too_slow(uri, allowed)
        told = _told(text, uri, verdict, limit=kept.budgets.store_seconds, writing=writing)
        raise StoreUnavailableError(told, patience=verdict.left) from error.__cause__
    except Exception as error:
        if isinstance(error, FileNotFoundError) or response_code(error):  # it does not please, but the store serves
            kept.answered(uri, writing=writing)
        raise
    kept.answered(uri, writing=writing)


def _too_slow(uri: str, allowed: float) -> str:
    return (
        f"The store did not serve {uri} within {allowed:.0f} s; check the endpoint (AWS_ENDPOINT_URL) and the network, "
        f"allow large objects more by {OBJECT_SECONDS}, then run again."
    )


def _told(text: str, uri: str, verdict: Verdict, *, limit: float, writing: bool) -> str:
    seconds = f"{verdict.seconds:.0f} s"
    if verdict.left == "none for the store":
        what = "taken" if writing else "given"
        return f"The store has {what} nothing for {seconds} ({STORE_SECONDS} allows {limit:.0f}). Last: {text}"
    if verdict.left == "none for the object":
        budgets = f"{OBJECT_SECONDS}, {STORE_SECONDS}"
        return f"{uri} was asked for again and again for {seconds} and is given up ({budgets}). Last: {text}"
    return text


class ObjectFile(io.RawIOBase):
    """A file of fsspec opened for reading: same bytes, but what its client raises is explained."""

    def __init__(self, file: BinaryIO, uri: str) -> None:
        super().__init__()
        self._file = file
        self._uri = uri
        cache: Any = getattr(file, "cache", None)
        if hasattr(cache, "fetcher"):  # what is read from memory is no answer of the store
            cache.fetcher = _counting(cache.fetcher, uri)

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


def _counting(fetch: Callable[[int, int], bytes], uri: str) -> Callable[[int, int], bytes]:
    def fetched(start: int, end: int) -> bytes:
        with asked(uri, size=end - start):
            return fetch(start, end)

    return fetched


def listed(filesystem: Any, key: str, uri: str, *, starting: str = "") -> Iterator[dict[str, Any]]:
    """Yield what the listing says of every object below `key` (bucket/prefix), in the order of their UTF-8 bytes.

    starting: only those whose path below `key` starts so. Keeps one page of 1,000 in memory, where s3fs would keep a
    dictionary for every key. Nothing for a missing bucket.
    """
    bucket, prefix, _ = filesystem.split_path(key)
    wanted = {**filesystem.req_kw, "Bucket": bucket, "Prefix": (f"{prefix.rstrip('/')}/" if prefix else "") + starting}
    while True:
        try:
            with asked(uri) as seconds:
                page = filesystem.call_s3("list_objects_v2", **wanted, timeout=seconds)
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
            with asked(uri) as seconds:
                page = filesystem.call_s3("list_multipart_uploads", **wanted, timeout=seconds)
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
    with suppress(FileNotFoundError), asked(uri, writing=True) as seconds:
        filesystem.call_s3("abort_multipart_upload", Bucket=bucket, Key=name, UploadId=upload_id, timeout=seconds)
