"""Clean originals to measure against, where there are any: found by name, decoded as the archive itself is."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from models.types import ImageRecord
from storage.codecs import iter_pages
from storage.colour import conversion, strips, working_max
from storage.limits import IngestLimits
from storage.locations import Location


@lru_cache(maxsize=4)
def list_reference(uri: str, sha256: str | None) -> dict[str, str]:
    """Return {name: relative path} of a reference folder, each path under its full name and without its suffix.

    `sha256` keys the cache: a folder that changed is listed anew.
    """
    paths = Location(uri).list()
    return {str(PurePosixPath(path).with_suffix("")): path for path in paths} | {path: path for path in paths}


def reference_fingerprint(uri: str | None) -> str | None:
    """Return a sha256 over names, sizes and times below a reference folder; None without one.

    Raises FileNotFoundError when the folder is not there.
    """
    if uri is None:
        return None
    location = Location(uri)
    if not location.is_directory():
        raise FileNotFoundError(f"reference: there is no folder {uri}; expected clean originals under the same names")
    lines = (f"{entry.path}\0{entry.size}\0{entry.modified}" for entry in location.entries())
    return hashlib.sha256("\n".join(lines).encode("utf-8", "backslashreplace")).hexdigest()


def find_reference(
    record: ImageRecord, *, uri: str | None, sha256: str | None, limits: IngestLimits, scale: int = 1
) -> npt.NDArray[Any] | None:
    """Return the clean original of an image in its working form; None when there is none of its shape times `scale`."""
    if uri is None:
        return None
    known, path = list_reference(uri, sha256), record.relative_path
    # cat.jpg is looked for as cat.jpg and cat.jpg.png, then as cat.png or cat with any other suffix.
    found = known.get(path) or known.get(str(PurePosixPath(path).with_suffix("")))
    if found is None:
        return None
    clean = working_page(Location(uri).join(found), page_index=record.page_index, limits=limits)
    size = (record.height * scale, record.width * scale)
    return clean if clean is not None and clean.shape == (size if record.channels == 1 else (*size, 3)) else None


def working_page(file: Location | bytes, *, page_index: int, limits: IngestLimits) -> npt.NDArray[Any] | None:
    """Return one page of a picture file, or of its bytes, as ingest would give it: upright, sRGB, integers.

    None without that page.
    """
    if isinstance(file, bytes):
        data: bytes | Path = file
    else:
        data = file.local_path if file.is_local else file.read_bytes()
    for page in iter_pages(data, limits):
        if page.page_index == page_index:
            how = conversion(page.icc, grey=page.channels == 1)
            kind = np.uint8 if working_max(page.sample_max) == 255 else np.uint16
            pixels = np.empty(page.array.shape, kind)
            for rows in strips(page.height, page.width):
                pixels[rows] = how.to_working(page.array[rows], page.sample_max)
            return pixels
    return None
