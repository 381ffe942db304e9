"""Small pictures for the report: before and after at screen size, the damage mask, and the most changed region at 1:1.

Made where the pixels are (in the restoring process), kept in a folder, and read again when the report is written, so
that no pixels travel through the orchestrator.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyvips
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[Any]  # (H, W) or (H, W, 3), uint8 or uint16, sRGB, upright
MASK_COLOUR = (226, 52, 84)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewSettings:
    """Sizes in pixels and JPEG qualities; over 88 without chroma subsampling.

    `long_side` ≤ 1000 keeps a report of dozens of pictures openable.
    """

    long_side: int = 1000
    crop_side: int = 320
    quality: int = 85
    crop_quality: int = 92


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The encoded pictures of one image: JPEG, the mask as a transparent PNG. None = there is no such picture.

    width, height: of the shown picture; source_width, source_height: of the image itself. crop_x, crop_y: left top
    corner of the crop in the source. crop_zoom: its pixels are repeated this often each way (1 = pixel for pixel).
    """

    before: bytes
    after: bytes | None
    mask: bytes | None
    crop_before: bytes | None
    crop_after: bytes | None
    width: int
    height: int
    source_width: int
    source_height: int
    crop_x: int | None
    crop_y: int | None
    crop_zoom: int


class PreviewProvider(Protocol):
    """Where the report finds the pictures of an image."""

    def get(self, image_id: str) -> Preview | None:
        """Return the preview of `image_id`, or None when none was made."""
        ...


DEFAULT_PREVIEW = PreviewSettings()


def make_preview(
    before: Pixels,
    after: Pixels | None = None,
    *,
    mask: Pixels | None = None,
    settings: PreviewSettings = DEFAULT_PREVIEW,
) -> Preview:
    """Return the preview of an image and its restoration; `after` None or equal = left untouched, one picture.

    `after` may be larger (super-resolution): it is shown at the size of `before`. mask: (H, W), anything but 0 is
    damage. Raises ValueError for another kind of array.
    """
    first = _to_vips(before, name="before")
    scale = min(1.0, settings.long_side / max(first.width, first.height))
    width, height = max(1, round(first.width * scale)), max(1, round(first.height * scale))
    second = None if after is None or _equal(before, after) else _to_vips(after, name="after")
    crop_before = crop_after = corner = None
    zoom = _crop_zoom(max(first.width, first.height), settings)
    if second is not None:
        aligned = second if second.width == first.width else _resize(second, first.width, first.height)
        side = settings.crop_side // zoom
        corner = _most_changed_corner(first, aligned, side=side)
        crop_before = _encode(_crop(first, corner, side).zoom(zoom, zoom), settings.crop_quality)
        crop_after = _encode(_crop(aligned, corner, side).zoom(zoom, zoom), settings.crop_quality)
    return Preview(
        before=_encode(_resize(first, width, height), settings.quality),
        after=None if second is None else _encode(_resize(second, width, height), settings.quality),
        mask=None if mask is None else _encode_mask(mask, width, height),
        crop_before=crop_before,
        crop_after=crop_after,
        width=width,
        height=height,
        source_width=first.width,
        source_height=first.height,
        crop_x=None if corner is None else corner[0],
        crop_y=None if corner is None else corner[1],
        crop_zoom=zoom,
    )


def _crop_zoom(long_side: int, settings: PreviewSettings) -> int:
    """Return how often to repeat pixels: a picture the screen shows whole tells nothing more at 1:1."""
    return 1 if long_side > 0.8 * settings.long_side else 2


def _equal(before: Pixels, after: Pixels) -> bool:
    # By strips: comparing 100 megapixels at once would take a third of a gigabyte.
    if before.shape != after.shape or before.dtype != after.dtype:
        return False
    return all(np.array_equal(before[y : y + 256], after[y : y + 256]) for y in range(0, before.shape[0], 256))


def _to_vips(pixels: Pixels, *, name: str) -> Any:
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise ValueError(
            f"make_preview: {name} must be a uint8 or uint16 picture (H, W) or (H, W, 3), got {pixels.dtype} "
            f"{pixels.shape}; quantize floats first"
        )
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels))
    if pixels.dtype == np.uint16:
        image = (image >> 8).cast("uchar")
    return image.copy(interpretation="b-w" if image.bands == 1 else "srgb")


def _resize(image: Any, width: int, height: int) -> Any:
    if (image.width, image.height) == (width, height):
        return image
    return image.thumbnail_image(width, height=height, size="force")


def _encode(image: Any, quality: int) -> bytes:
    # JPEG takes a tenth of WebP's time at the same size, and the report must not slow the restoration down.
    return bytes(image.jpegsave_buffer(Q=quality, optimize_coding=True, subsample_mode="off" if quality > 88 else "on"))


def _encode_mask(mask: Pixels, width: int, height: int) -> bytes:
    """Return a transparent PNG (width, height) of the mask in one colour; thin scratches stay visible when shrunk."""
    image = pyvips.Image.new_from_array(np.ascontiguousarray(mask != 0).astype(np.uint8) * 255)
    shrink_x, shrink_y = image.width // width, image.height // height
    if shrink_x > 1 or shrink_y > 1:  # a line of one pixel would fade in an average, not in a maximum
        image = image.rank(max(1, shrink_x), max(1, shrink_y), max(1, shrink_x) * max(1, shrink_y) - 1)
    alpha = _resize(image.copy(interpretation="b-w"), width, height)
    colour = (alpha * 0 + list(MASK_COLOUR)).cast("uchar")
    coloured = colour.bandjoin(alpha).copy(interpretation="srgb")
    return bytes(coloured.pngsave_buffer(compression=6, filter="none"))


def _most_changed_corner(before: Any, after: Any, *, side: int) -> tuple[int, int]:
    """Return (x, y) of the window (side, side) with the largest mean absolute difference, searched on a coarse grid."""
    difference = (before.cast("float") - after.cast("float")).abs().bandmean()
    cell = max(1, round(max(difference.width, difference.height) / 256))
    coarse = difference.shrink(cell, cell).numpy()
    coarse = coarse.reshape(coarse.shape[0], coarse.shape[1])
    window = max(1, side // cell)
    rows, columns = min(window, coarse.shape[0]), min(window, coarse.shape[1])
    total = np.zeros((coarse.shape[0] + 1, coarse.shape[1] + 1))
    total[1:, 1:] = coarse.cumsum(0).cumsum(1)
    sums = total[rows:, columns:] - total[:-rows, columns:] - total[rows:, :-columns] + total[:-rows, :-columns]
    y, x = np.unravel_index(int(sums.argmax()), sums.shape)
    limit_x, limit_y = max(0, before.width - side), max(0, before.height - side)
    return min(int(x) * cell, limit_x), min(int(y) * cell, limit_y)


def _crop(image: Any, corner: tuple[int, int], side: int) -> Any:
    return image.crop(corner[0], corner[1], min(side, image.width - corner[0]), min(side, image.height - corner[1]))


_PICTURES = {"before": "jpg", "after": "jpg", "mask": "png", "crop_before": "jpg", "crop_after": "jpg"}
_ENDINGS = (*(f"{name}.{suffix}" for name, suffix in _PICTURES.items()), "json")


class PreviewFolder:
    """Previews kept as files in one folder; safe to write from several processes. Implements PreviewProvider."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, image_id: str, preview: Preview) -> None:
        """Keep `preview`; an earlier one of the same image is replaced. The description is written last."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, suffix in _PICTURES.items():
            data: bytes | None = getattr(preview, name)
            path = self._path(image_id, f"{name}.{suffix}")
            if data is None:
                path.unlink(missing_ok=True)
            else:
                _write_atomically(path, data)
        sizes = ("width", "height", "source_width", "source_height", "crop_x", "crop_y", "crop_zoom")
        description = {name: getattr(preview, name) for name in sizes}
        _write_atomically(self._path(image_id, "json"), json.dumps(description).encode())

    def get(self, image_id: str) -> Preview | None:
        """Return the kept preview of `image_id`, or None when there is none."""
        description = self._path(image_id, "json")
        if not description.exists():
            return None
        pictures: dict[str, Any] = {}
        for name, suffix in _PICTURES.items():
            path = self._path(image_id, f"{name}.{suffix}")
            pictures[name] = path.read_bytes() if path.exists() else None
        if pictures["before"] is None:
            return None
        return Preview(**pictures, **json.loads(description.read_text(encoding="utf-8")))

    def files(self, image_id: str) -> dict[str, bytes]:
        """Return the files kept of `image_id`, by what follows their common stem."""
        found = {ending: self._path(image_id, ending) for ending in _ENDINGS}
        return {ending: path.read_bytes() for ending, path in found.items() if path.exists()}

    def put_files(self, image_id: str, files: Mapping[str, bytes]) -> None:
        """Keep what `files` returned elsewhere; raises ValueError for anything else."""
        if unknown := sorted(set(files) - set(_ENDINGS)):
            raise ValueError(f"preview: got {', '.join(unknown)}, expected some of {', '.join(_ENDINGS)}")
        self.folder.mkdir(parents=True, exist_ok=True)
        for ending in _ENDINGS:  # the description last
            if ending in files:
                _write_atomically(self._path(image_id, ending), files[ending])

    @staticmethod
    def stem(image_id: str) -> str:
        """Return what the names of an image's files begin with: a digest, since the identity may come from anywhere."""
        return hashlib.sha256(image_id.encode("utf-8", "backslashreplace")).hexdigest()[:32]

    def _path(self, image_id: str, ending: str) -> Path:
        return self.folder / f"{self.stem(image_id)}.{ending}"


def _write_atomically(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".preview-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
