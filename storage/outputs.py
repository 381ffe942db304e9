"""Writes results outside the source: restored files with everything of the original kept, copies, and masks."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.types import ImageRecord
from storage.codecs import rewrite
from storage.colour import conversion, merge, working_max
from storage.errors import OutputError
from storage.formats.page import DecodedPage, Samples, enlarged_samples
from storage.formats.png import grey_png
from storage.limits import IngestLimits
from storage.locations import Location
from storage.room import check_room
from storage.working_copies import WorkingCopies

RestoredPage = tuple[ImageRecord, npt.NDArray[Any] | None]
_BLOCK = 1 << 22
PROBE = ".lacuna-"
# A quota that is used up still takes an empty file.
_PROBE_BYTES = 1 << 16
# The longest name of a file on any common file system.
_NAME_BYTES = 255
_OF_MASKS = re.compile(r"(\.page\d+)?\.png$")


def check_destination(source: str, destination: Location) -> None:
    """Raise OutputError when results would land inside the source, or the source lies inside the destination."""
    origin = Location(source)
    if within(destination, origin):
        raise OutputError(
            f"The destination {destination} lies inside the source {origin}; originals are never written to. "
            "Choose a folder or prefix outside it."
        )
    if within(origin, destination) and origin.is_directory():
        raise OutputError(
            f"The source {origin} lies inside the destination {destination}, where results could overwrite it. "
            "Choose a destination beside the source."
        )


def within(inner: Location, outer: Location) -> bool:
    """Whether a place is another one or lies below it, links on a disk followed."""
    if inner.scheme != outer.scheme:
        return False
    if inner.is_local:
        below, above = os.path.realpath(inner.local_path), os.path.realpath(outer.local_path)
    else:
        below, above = inner.uri, outer.uri
    return below == above or below.startswith(above.rstrip("/") + "/")


def check_writable(destination: str) -> None:
    """Raise OSError or StorageError when nothing can be written there: by writing an object and removing it.

    NoRoomError for a full disk.
    """
    place = Location(destination)
    if place.is_local:
        check_room(place.local_path)
    probe = place.join(f"{PROBE}{os.getpid()}-{time.time_ns()}")
    probe.write_bytes_atomic(bytes(_PROBE_BYTES))
    probe.delete()


def foreign_output(destination: Location, *, paths: Collection[str]) -> str | None:
    """Return a file that lay below `destination` before any run and has the name of an output of `paths`, or of a mask.

    paths: relative paths of source files. None: there is none. Every run leaves its settings in the catalogue before
    its outputs, so those of a killed one are never foreign. Costs a listing of both folders before the first run.
    """
    catalogue = destination.join("catalogue")
    if catalogue.exists():
        return None
    found = (f"images/{path}" for path in destination.join("images").list() if path in paths)
    masks = (f"masks/{path}" for path in destination.join("masks").list() if _OF_MASKS.sub("", path) in paths)
    taken = next(chain(found, masks), None)
    return None if catalogue.exists() else taken  # another first run may have begun meanwhile


def write_output(
    pages: Sequence[RestoredPage],
    *,
    source: bytes | Path,
    destination: Location,
    limits: IngestLimits | None = None,
    keep: WorkingCopies | None = None,
) -> tuple[str, str]:
    """Rewrite one source file with its restored pages below `destination`; return (uri, sha256 of the written file).

    pages: all pages of the file, each with its restored working array (type of its working copy; its shape, or height
    and width a whole number of times larger), or None to keep it. source: the file's bytes or path. Unchanged pixels
    keep the source's exact values (JPEG: up to one high-quality compression). A larger page has as many times the dots
    per inch. Written whole or not at all. keep: where the bytes of a file that goes far away stay for whoever reads it
    soon. Raises OutputError, or IngestError for a damaged source.
    """
    if not pages:
        raise OutputError("write_output got no pages; expected every page of one file.")
    first = pages[0][0]
    target = _target(first, destination)
    restored = {record.page_index: array for record, array in pages}
    if len(restored) != first.page_count or any(record.source_sha256 != first.source_sha256 for record, _ in pages):
        raise OutputError(
            f"{first.relative_path} has {first.page_count} page(s); got {len(pages)}, not all of this file."
        )

    largest = max([1, *(array.shape[0] // record.height for record, array in pages if array is not None)])

    def replace(page: DecodedPage) -> Samples:
        return _restored_page(page, restored[page.page_index], first.relative_path)

    with target.writing() as temporary:
        rewrite(source, temporary, replace=replace, limits=limits or IngestLimits(), largest_scale=largest)
        sha256 = file_sha256(temporary)
        if keep is not None and not target.is_local:
            keep.save_file(temporary, sha256=sha256)
    return target.uri, sha256


def copy_untouched(record: ImageRecord, *, source: bytes | Path, destination: Location) -> tuple[str, str]:
    """Copy a source file that needs nothing, byte for byte, below `destination`; return (uri, sha256).

    Raises OutputError when the bytes are no longer those that were ingested.
    """
    target = _target(record, destination)
    with target.writing() as temporary:
        digest = hashlib.sha256()
        with temporary.open("wb") as out:
            for block in _blocks(source):
                digest.update(block)
                out.write(block)
        if digest.hexdigest() != record.source_sha256:
            raise OutputError(f"{record.relative_path} changed while it was processed; run again for the new version.")
    return target.uri, record.source_sha256


def write_mask(mask: npt.NDArray[Any], *, record: ImageRecord, destination: Location) -> tuple[str, str]:
    """Write a damage mask (H, W), bool or {0, 1} or {0, 255}, at its `mask_path` (255 = damaged).

    Returns (uri, sha256). Raises OutputError for another shape than the picture's.
    """
    if mask.shape != (record.height, record.width):
        raise OutputError(f"The mask has shape {mask.shape}; expected {(record.height, record.width)} as the picture.")
    target = destination.join(
        mask_path(record.relative_path, page=record.page_index if record.page_count > 1 else None)
    )
    data = grey_png(np.where(np.asarray(mask) > 0, np.uint8(255), np.uint8(0)))
    target.write_bytes_atomic(data)
    return target.uri, hashlib.sha256(data).hexdigest()


def mask_path(relative_path: str, *, page: int | None) -> str:
    """Return where the mask of a picture lies below the destination: masks/<relative path>.png.

    page: of a file with several, whose masks add its number. A name that would be too long for a file system ends in a
    hash instead.
    """
    suffix = ".png" if page is None else f".page{page}.png"
    folder, slash, name = relative_path.rpartition("/")
    if len(name.encode()) + len(suffix) > _NAME_BYTES:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        begin = name.encode()[: _NAME_BYTES - len(suffix) - len(digest) - 1]
        name = f"{begin.decode(errors='ignore')}-{digest}"
    return f"masks/{folder}{slash}{name}{suffix}"


def verify_output(uri: str, sha256: str) -> bool:
    """Whether the object at `uri` exists and holds exactly the bytes recorded."""
    location = Location(uri)
    try:
        digest = hashlib.sha256()
        with location.open_read() as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        return digest.hexdigest() == sha256
    except FileNotFoundError:
        return False


def _restored_page(page: DecodedPage, restored: npt.NDArray[Any] | None, path: str) -> Samples:
    if restored is None:
        return page.array
    kind = np.uint8 if working_max(page.sample_max) == 255 else np.uint16
    scale = max(1, restored.shape[0] // page.height)
    shape = (page.height * scale, page.width * scale, *page.array.shape[2:])
    if restored.shape != shape or restored.dtype != kind:
        raise OutputError(
            f"{path} page {page.page_index}: the restored array is {restored.dtype} {restored.shape}; expected "
            f"{np.dtype(kind)} {page.array.shape}, as its working copy, or a whole multiple of its height and width."
        )
    how = conversion(page.icc, grey=page.channels == 1)
    return merge(enlarged_samples(page.array, scale=scale), restored, how=how, sample_max=page.sample_max)


def _target(record: ImageRecord, destination: Location) -> Location:
    root = record.source_uri.removesuffix(record.relative_path).removesuffix("!/").rstrip("/")
    if root and root != record.source_uri:
        check_destination(root, destination)
    return destination.join(record.relative_path)


def _blocks(source: bytes | Path) -> Any:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file of this machine."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
