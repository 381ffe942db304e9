"""The clean pictures that a benchmark is made of: those of a folder, archive or store, or scikit-image's own."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from storage.archives import open_source
from storage.errors import IngestError
from storage.limits import IngestLimits
from storage.locations import Location
from tasks.sources import shared_source

SKIMAGE = "skimage"
# Photographs and scans in scikit-image's wheel; the wheel holds more, but they are drawings, stacks or test patterns.
SKIMAGE_NAMES = ("astronaut", "brick", "camera", "cat", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "page")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".tiff", ".tif")
_LIMITS = IngestLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanPicture:
    """One clean picture: its id (path without ending) and where its bytes are. `path` is that of a source's member."""

    image_id: str
    source: str
    path: str


def list_clean(source: str, *, limit: int | None = None) -> list[CleanPicture]:
    """Return the pictures of `source` (folder, zip, tar, URL, or "skimage"); IngestError when there are none.

    Two pictures that differ in their ending alone keep it in their ids. Members that cannot be read stay in the list.
    """
    if source == SKIMAGE:
        return _bundled()[:limit]
    opened = open_source(source, limits=_LIMITS)
    try:
        members = [
            member.relative_path
            for member in opened.members()
            if member.error_kind in (None, "unsupported_format", "decode_failed", "truncated")
        ]
    finally:
        opened.close()
    if not members:
        raise IngestError("missing", f"{source} holds no pictures; expected PNG, JPEG, TIFF, WebP, JPEG 2000 or BMP.")
    stems = Counter(str(PurePosixPath(path).with_suffix("")) for path in members)
    pictures = []
    for path in members:
        stem = str(PurePosixPath(path).with_suffix(""))
        pictures.append(CleanPicture(image_id=stem if stems[stem] == 1 else path, source=source, path=path))
    return sorted(pictures, key=lambda picture: picture.image_id)[:limit]


def _bundled() -> list[CleanPicture]:
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    found = [
        CleanPicture(image_id=path.stem, source=SKIMAGE, path=str(path))
        for path in sorted(folder.iterdir())
        if path.stem in SKIMAGE_NAMES and path.suffix in _SUFFIXES
    ]
    if not found:
        raise IngestError("missing", f"scikit-image brings no pictures in {folder}; name a folder of your own.")
    return found


def read_clean(picture: CleanPicture) -> bytes:
    """Return the bytes of one picture; raises IngestError when it cannot be read."""
    if picture.source == SKIMAGE:
        return Path(picture.path).read_bytes()
    opened = shared_source(picture.source, limits=_LIMITS)
    member = opened.member(picture.path)
    if member.error_kind == "unsupported_format" and picture.path.lower().endswith(".bmp"):
        # The restoring flow refuses BMP, which no archive keeps; the standard sets are full of it.
        return Location(member.source_uri).read_bytes()
    return opened.read(member)
