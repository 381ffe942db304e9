"""A picture that was enlarged is written in every format with its metadata, its alpha, and its size on paper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from small_files import LIMITS, exif_block, jpeg_bytes, jpeg_segment, picture, png_bytes, png_chunk, tiff_file

from models.types import ImageRecord
from storage.codecs import DecodedPage, decode
from storage.errors import OutputError
from storage.formats import exif as exif_fields
from storage.formats.page import enlarged_samples, to_vips
from storage.locations import Location
from storage.outputs import write_output
from storage.working_copies import WorkingCopies

Ingest = Callable[[Path], list[ImageRecord]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def _png(path: Path) -> None:
    density = png_chunk(b"pHYs", (11811).to_bytes(4, "big") * 2 + b"\1")
    extra = density + png_chunk(b"eXIf", exif_block(orientation=6))
    path.write_bytes(png_bytes(picture(16), alpha=picture(16, grey=True), extra=extra))


def _low_png(path: Path) -> None:
    path.write_bytes(png_bytes(picture(8, grey=True), bitdepth=2))


def _jpeg(path: Path) -> None:
    density = jpeg_segment(0xE0, b"JFIF\0\1\1\1" + (300).to_bytes(2, "big") * 2 + b"\0\0")
    exif = jpeg_segment(0xE1, b"Exif\0\0" + exif_block(orientation=6, order=">"))
    path.write_bytes(jpeg_bytes(picture(), segments=density + exif))


def _webp(path: Path) -> None:
    from storage.formats import webp

    plain = bytes(to_vips(picture(), picture(grey=True)).webpsave_buffer(lossless=True, keep="none"))
    page = webp.decode(plain, LIMITS)
    full = DecodedPage(
        array=page.array,
        alpha=page.alpha,
        sample_max=255,
        format="webp",
        compression=page.compression,
        bits=8,
        exif=exif_block(),
    )
    path.write_bytes(webp.encode(full, full.array, plain))


def _jp2(path: Path) -> None:
    path.write_bytes(imagecodecs.jpeg2k_encode(picture(16), codecformat="jp2", reversible=True))


def _tiff(path: Path) -> None:
    tiff_file(path, picture(16), compression="lzw", resolution=(300, 300), resolutionunit=2, rowsperstrip=16)


def _bilevel_tiff(path: Path) -> None:
    tiff_file(path, picture(8, grey=True) > 120, resolution=(300, 300), resolutionunit=2)


def _enlarged(copies: WorkingCopies, record: ImageRecord, scale: int) -> Any:
    """The working copy enlarged, with a patch of it changed."""
    array = np.array(enlarged_samples(np.array(copies.load(record)), scale=scale))
    array[16:48, 32:80] = array[16:48, 32:80] // 2
    return array


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.png", _png),
        ("low.png", _low_png),
        ("a.jpg", _jpeg),
        ("a.webp", _webp),
        ("a.jp2", _jp2),
        ("a.tif", _tiff),
        ("bilevel.tif", _bilevel_tiff),
    ],
)
def test_an_enlarged_picture_keeps_everything_but_its_size(
    folder: Path, ingest: Ingest, copies: WorkingCopies, name: str, write: Callable[[Path], None], scale: int
) -> None:
    write(folder / name)
    (record,) = ingest(folder / name)
    result = _enlarged(copies, record, scale)
    uri, _ = write_output([(record, result)], source=folder / name, destination=Location(folder.parent / "out"))
    (before,), (after,) = decode(folder / name, limits=LIMITS), decode(Location(uri).local_path, limits=LIMITS)
    assert after.array.shape == result.shape
    assert (after.height, after.width) == (before.height * scale, before.width * scale)
    assert (after.bits, after.format, after.icc, after.orientation) == (before.bits, before.format, before.icc, 1)
    if before.alpha is not None:
        assert after.alpha is not None
        assert after.alpha.shape == after.array.shape[:2]
        assert abs(float(after.alpha.mean()) - float(before.alpha.mean())) < 0.01 * before.sample_max
    if before.dpi is not None:
        assert after.dpi == pytest.approx([value * scale for value in before.dpi], rel=1e-3)
    if before.exif is not None:
        assert after.exif is not None
        assert exif_fields.dpi(after.exif) == (300 * scale, 300 * scale)
    if name != "a.jpg" and before.bits >= 8:
        np.testing.assert_array_equal(after.array, result)


def test_the_sizes_in_the_exif_block_follow_the_picture() -> None:
    turned = exif_fields.reset_orientation(exif_block(orientation=6), scale=4)
    assert (turned[110:114], turned[122:126]) == ((48 * 4).to_bytes(4, "little"), (64 * 4).to_bytes(4, "little"))


def test_one_enlarged_page_leaves_the_others_at_their_size(folder: Path, ingest: Ingest, copies: WorkingCopies) -> None:
    path = folder / "m.tif"
    with tifffile.TiffWriter(path) as file:
        for _ in range(2):
            file.write(picture(), photometric="rgb", metadata=None, resolution=(300, 300), resolutionunit=2)
    records = ingest(path)
    pages = [(records[0], _enlarged(copies, records[0], 2)), (records[1], None)]
    uri, _ = write_output(pages, source=path, destination=Location(folder.parent / "out"))
    after = decode(Location(uri).local_path, limits=LIMITS)
    assert [page.array.shape for page in after] == [(96, 128, 3), (48, 64, 3)]
    assert [page.dpi for page in after] == [(600, 600), (300, 300)]


def test_another_shape_is_refused(folder: Path, ingest: Ingest, copies: WorkingCopies) -> None:
    _tiff(folder / "a.tif")
    (record,) = ingest(folder / "a.tif")
    wrong = np.zeros((96, 127, 3), np.uint16)
    with pytest.raises(OutputError, match="whole multiple"):
        write_output([(record, wrong)], source=folder / "a.tif", destination=Location(folder.parent / "out"))
