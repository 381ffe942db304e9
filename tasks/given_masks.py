"""Masks of damage that come with an archive: drawn by a person, or made from a scanner's infrared channel.

A picture that has one is filled where it is white and nowhere else; it is not searched.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from models.types import ImageRecord
from storage.catalogue_state import GIVEN
from storage.errors import IngestError, MaskError
from storage.limits import IngestLimits
from storage.locations import Location
from storage.outputs import mask_path, within
from storage.shards import Shard
from tasks.reference import working_page

Mask = npt.NDArray[np.bool_]
# (path below the folder, what its listing says of its content).
Listed = tuple[str, str]
# Such masks by the name of the picture that they may belong to.
MaskListing = Mapping[str, Sequence[Listed]]

# The masks that a run writes are named so, and may be corrected and given to the next one.
_OF_A_PAGE = re.compile(r"\.page\d+$")
# What is drawn has soft edges; what is grey in more of its pixels than these is a picture.
_GREYS, _MOST_GREY = (0.1, 0.9), 0.1


def check_masks(uri: str | None, *, source: str, destination: str | None = None) -> None:
    """Raise ValueError for a folder of masks that is part of the source or the results.

    FileNotFoundError where there is none.
    """
    if uri is None:
        return
    folder = Location(uri)
    if not folder.is_directory():
        raise FileNotFoundError(f"masks: there is no folder {uri}; expected masks of damage under the pictures' names")
    if destination is not None and within(folder, Location(destination)):
        raise ValueError(
            f"masks: {uri} lies inside the destination {destination}, where a run writes the masks that it used and "
            "would replace yours; copy them to a folder of their own"
        )
    if within(folder, Location(source)):
        raise ValueError(
            f"masks: {uri} lies inside the source {source}, so that masks would be restored as pictures; move them out"
        )


def list_masks(uri: str | None) -> MaskListing:
    """Return the files of a folder of masks by the name of the picture they may belong to; {} without a folder.

    That is cat.jpg for cat.jpg.png and cat.jpg.page2.png, and cat for cat.png.
    """
    found: dict[str, list[Listed]] = {}
    for entry in [] if uri is None else Location(uri).entries():
        version = entry.etag or f"{entry.size}-{entry.modified}"
        name = _OF_A_PAGE.sub("", str(PurePosixPath(entry.path).with_suffix("")))
        found.setdefault(name, []).append((entry.path, version))
    return found


def masks_of(path: str, listed: MaskListing) -> tuple[Listed, ...]:
    """Return the masks that belong to the picture file `path`, sorted, each once."""
    shortened = mask_path(path, page=None).removeprefix("masks/").removesuffix(".png")
    names = {path, str(PurePosixPath(path).with_suffix("")), shortened}
    return tuple(sorted({mask for name in names for mask in listed.get(name, ())}))


def masks_of_shard(shard: Shard, listed: MaskListing) -> tuple[tuple[str, str, str], ...]:
    """Return the masks of all members of a shard, as `ShardJob.masks` has them."""
    paths = (member.relative_path for member in shard.members)
    return tuple((path, *mask) for path in paths for mask in masks_of(path, listed))


def given_as(masks: Sequence[Listed]) -> str:
    """Return what the catalogue says instead of a detector where these masks were given: another when they change."""
    text = json.dumps(list(masks)).encode("utf-8", "backslashreplace")
    return GIVEN + hashlib.sha256(text).hexdigest()[:12]


def given_mask(record: ImageRecord, *, uri: str | None, masks: Sequence[Listed], limits: IngestLimits) -> Mask | None:
    """Return the mask (H, W) bool that was given for an image, True = damaged; None when there is none.

    masks: of its file. Looked for first under the name that a run gives its masks, then under the picture's own with
    another suffix. Raises MaskError for a file that is no mask of this picture.
    """
    path = _path_for(record, [path for path, _ in masks])
    if uri is None or path is None:
        return None
    place = Location(uri).join(path)
    try:
        pixels = working_page(place, page_index=0, limits=limits)
    except IngestError as error:
        raise MaskError(f"{place} cannot be read: {error.text}; expected a picture, white where damaged") from error
    if pixels is None:
        raise MaskError(f"{place} holds no picture; expected one, white where damaged")
    return _as_mask(pixels, record, name=str(place))


def _path_for(record: ImageRecord, paths: Sequence[str]) -> str | None:
    """Return the mask of one page; MaskError when masks were given for its file and none of them is of any page."""
    if record.page_count == 1:
        own = _own_name(record, page=None)
        paged = [path for path in paths if _OF_A_PAGE.search(str(PurePosixPath(path).with_suffix("")))]
        other = next((path for path in paths if path not in paged), None)
        if paged and own not in paths and other is None:
            raise MaskError(f"{paged[0]} is of a page, and {record.relative_path} has only one; name it {own}")
        return own if own in paths else other
    of_pages = [_own_name(record, page=page) for page in range(record.page_count)]
    if paths and not set(paths) & set(of_pages):
        raise MaskError(
            f"{paths[0]} says not of which of the {record.page_count} pages of {record.relative_path} it is; name it "
            f"{of_pages[0]} for the first, {of_pages[1]} for the second"
        )
    own = of_pages[record.page_index]
    return own if own in paths else None


def _own_name(record: ImageRecord, *, page: int | None) -> str:
    return mask_path(record.relative_path, page=page).removeprefix("masks/")


def _as_mask(pixels: npt.NDArray[Any], record: ImageRecord, *, name: str) -> Mask:
    if pixels.shape[:2] != (record.height, record.width):
        height, width = pixels.shape[:2]
        raise MaskError(
            f"{name} is {width} x {height} px, expected {record.width} x {record.height} as {record.relative_path} "
            "is when upright; draw it anew at that size"
        )
    levels, white = pixels if pixels.ndim == 2 else pixels.max(axis=2), int(np.iinfo(pixels.dtype).max)
    darkest, lightest = (int(share * white) for share in _GREYS)
    grey = float(np.mean((levels > darkest) & (levels < lightest)))
    if grey > _MOST_GREY:
        raise MaskError(f"{name} is grey in {grey:.0%} of its pixels, expected a mask: white where damaged, else black")
    mask = np.asarray(levels > white // 2)
    if mask.all():
        raise MaskError(f"{name} is white all over, expected something of the picture to be left to fill it from")
    return mask
