"""Decoding at full depth, and headers checked before pixels."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from small_files import (
    LIMITS,
    XMP,
    exif_block,
    jpeg_bytes,
    jpeg_segment,
    picture,
    png_bytes,
    png_chunk,
    tiff_file,
)  # fmt: skip

from storage.codecs import decode
from storage.errors import IngestError
from storage.formats import jp2, jpeg, png, webp
from storage.formats.jpeg_quality import ijg_table, table_quality
from storage.formats.page import to_vips, upright
from storage.limits import IngestLimits


@pytest.mark.parametrize("grey", [True, False])
@pytest.mark.parametrize("bits", [8, 16])
def test_lossless_formats_decode_exactly(tmp_path: Path, bits: int, grey: bool) -> None:
    array = picture(bits, grey=grey)
    files: list[bytes | Path] = [
        png_bytes(array),
        imagecodecs.jpeg2k_encode(array, codecformat="jp2", reversible=True),
        imagecodecs.jpeg2k_encode(array, codecformat="j2k", reversible=True),
        tiff_file(tmp_path / "a.tif", array),
    ]
    if bits == 8:
        files.append(to_vips(array).webpsave_buffer(lossless=True, keep="none"))
    for data in files:
        (page,) = decode(data, limits=LIMITS)
        expected = np.repeat(array[..., None], 3, 2) if page.format == "webp" and grey else array
        np.testing.assert_array_equal(page.array, expected)
        assert page.bits == bits


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "lzw", "predictor": True},
        {"compression": "adobe_deflate"},
        {"compression": "packbits"},
        {"tile": (16, 32), "compression": "lzw"},
        {"bigtiff": True},
        {"byteorder": ">", "rowsperstrip": 7},
    ],
)
def test_tiff_layouts_decode_exactly(tmp_path: Path, options: dict[str, Any]) -> None:
    array = picture(16)
    (page,) = decode(tiff_file(tmp_path / "a.tif", array, **options), limits=LIMITS)
    np.testing.assert_array_equal(page.array, array)


def test_tiff_planar_inverted_bilevel_and_palette(tmp_path: Path) -> None:
    array, grey = picture(16), picture(8, grey=True)
    planar = tiff_file(tmp_path / "p.tif", np.moveaxis(array, -1, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(decode(planar, limits=LIMITS)[0].array, array)
    inverted = tiff_file(tmp_path / "i.tif", 255 - grey, photometric="miniswhite")
    np.testing.assert_array_equal(decode(inverted, limits=LIMITS)[0].array, grey)
    (bilevel,) = decode(tiff_file(tmp_path / "b.tif", grey > 128), limits=LIMITS)
    assert (bilevel.bits, bilevel.sample_max) == (1, 1)
    np.testing.assert_array_equal(bilevel.array, grey > 128)
    colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    palette = tiff_file(tmp_path / "c.tif", grey, photometric="palette", colormap=colours * 257)
    np.testing.assert_array_equal(decode(palette, limits=LIMITS)[0].array, colours.T[grey])
    palette = tiff_file(tmp_path / "d.tif", grey, photometric="palette", colormap=colours * 256)
    np.testing.assert_array_equal(decode(palette, limits=LIMITS)[0].array, colours.T[grey])


def test_multi_page_tiff_keeps_every_page_and_leaves_out_its_thumbnail(tmp_path: Path) -> None:
    array = picture(16)
    with tifffile.TiffWriter(tmp_path / "m.tif") as file:
        for top in (0, 8, 16):
            file.write(array[top:], photometric="rgb", metadata=None)
        file.write(array[::2, ::2], photometric="rgb", metadata=None, subfiletype=1)
    pages = decode(tmp_path / "m.tif", limits=LIMITS)
    assert [(page.page_index, page.page_count, page.height) for page in pages] == [(0, 3, 48), (1, 3, 40), (2, 3, 32)]


def test_png_low_depth_palette_and_alpha() -> None:
    grey = picture(4, grey=True)
    (low,) = decode(png_bytes(grey * 17, bitdepth=4), limits=LIMITS)
    assert (low.bits, low.sample_max) == (4, 15)
    np.testing.assert_array_equal(low.array, grey)
    array, alpha = picture(16), picture(16, grey=True)
    (page,) = decode(png_bytes(array, alpha=alpha), limits=LIMITS)
    np.testing.assert_array_equal(page.alpha, alpha)
    (palette,) = decode(png_bytes(picture(8), palette=True), limits=LIMITS)
    assert (palette.channels, palette.bits) == (3, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_to_the_pixels(tmp_path: Path, orientation: int) -> None:
    array = picture(8)
    exif = exif_block(orientation=orientation, order="<>"[orientation % 2])
    expected = upright(array, orientation)
    assert expected.shape == ((64, 48, 3) if orientation > 4 else (48, 64, 3))
    (page,) = decode(png_bytes(array, extra=png_chunk(b"eXIf", exif)), limits=LIMITS)
    np.testing.assert_array_equal(page.array, expected)
    assert page.orientation == orientation
    tags = [(274, 3, 1, orientation, False)]
    (page,) = decode(tiff_file(tmp_path / "o.tif", array, extratags=tags), limits=LIMITS)
    np.testing.assert_array_equal(page.array, expected)
    segment = jpeg_segment(0xE1, b"Exif\0\0" + exif)
    (turned,) = decode(jpeg_bytes(array, segments=segment), limits=LIMITS)
    (plain,) = decode(jpeg_bytes(array), limits=LIMITS)
    np.testing.assert_array_equal(turned.array, upright(plain.array, orientation))


def test_upright_orientation_six_turns_clockwise() -> None:
    array = np.array([[1, 2], [3, 4]], dtype=np.uint8)
    np.testing.assert_array_equal(upright(array, 6), [[3, 1], [4, 2]])
    np.testing.assert_array_equal(upright(array, 8), [[2, 4], [1, 3]])


@pytest.mark.parametrize("quality", [1, 2, 10, 49, 50, 51, 75, 85, 92, 95, 99, 100])
def test_jpeg_quality_is_exact_for_ijg_tables(quality: int) -> None:
    (page,) = decode(jpeg_bytes(picture(8), quality=quality), limits=LIMITS)
    assert (page.jpeg_quality, page.jpeg_quality_confidence) == (quality, 1.0)


def test_jpeg_quality_of_foreign_tables() -> None:
    assert all(table_quality(ijg_table(quality)) == (quality, 1.0) for quality in range(1, 101))
    near = ijg_table(80).copy()
    near[3:9] += 1
    quality, confidence = table_quality(near)
    assert quality is not None
    assert abs(quality - 80) <= 3
    assert 0.3 < confidence < 1
    assert table_quality(np.r_[np.full(32, 1), np.full(32, 200)]) == (None, 0.0)


def test_metadata_are_found(adobe_rgb: bytes) -> None:
    icc = jpeg_segment(0xE2, b"ICC_PROFILE\0\2\2" + adobe_rgb[100:])
    icc += jpeg_segment(0xE2, b"ICC_PROFILE\0\1\2" + adobe_rgb[:100])
    segments = icc + jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    segments += jpeg_segment(0xED, b"Photoshop 3.0\0" + b"8BIM data") + jpeg_segment(0xE1, b"Exif\0\0" + exif_block())
    (page,) = decode(jpeg_bytes(picture(8), segments=segments), limits=LIMITS)
    assert (page.icc, page.xmp, page.exif) == (adobe_rgb, XMP, exif_block())
    assert page.iptc == b"Photoshop 3.0\0" + b"8BIM data"


def _files(tmp_path: Path) -> dict[str, bytes]:
    array = picture(8)
    files = {
        "a.jpg": jpeg_bytes(array),
        "progressive.jpg": jpeg_bytes(array, interlace=True),
        "a.png": png_bytes(array),
        "a.webp": bytes(to_vips(array).webpsave_buffer(Q=80)),
        "a.jp2": bytes(imagecodecs.jpeg2k_encode(array, codecformat="jp2", reversible=True)),
        "a.j2k": bytes(imagecodecs.jpeg2k_encode(array, codecformat="j2k", reversible=True)),
    }
    layouts: dict[str, dict[str, Any]] = {
        "none": {}, "lzw": {"compression": "lzw", "rowsperstrip": 8}, "jpeg": {"compression": "jpeg"},
        "tiled": {"tile": (16, 16), "compression": "adobe_deflate"}, "big": {"bigtiff": True},
    }  # fmt: skip
    for name, options in layouts.items():
        files[f"{name}.tif"] = tiff_file(tmp_path / f"{name}.tif", array, **options).read_bytes()
    return files


def test_truncated_files_of_every_format_are_errors(tmp_path: Path) -> None:
    for name, data in _files(tmp_path).items():
        for length in (0, 5, 30, len(data) // 3, len(data) // 2, len(data) * 9 // 10, len(data) - 3):
            with pytest.raises(IngestError) as caught:
                decode(data[:length], limits=LIMITS)
            assert caught.value.kind == "truncated", f"{name} cut at {length}: {caught.value}"


def test_damaged_files_raise_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for data in _files(tmp_path).values():
        for _ in range(12):
            damaged = bytearray(data)
            for _ in range(rng.integers(1, 8)):
                damaged[rng.integers(0, min(len(data), 400))] = rng.integers(0, 256)
            with suppress(IngestError):
                decode(bytes(damaged), limits=LIMITS)


def test_jpeg_with_bytes_between_segments_is_no_error() -> None:
    data = jpeg_bytes(picture(8))
    assert decode(data[:-2] + b"\0\0\0" + data[-2:] + b"trailing", limits=LIMITS)


def test_jpeg_cut_and_closed_with_an_end_marker_is_an_error() -> None:
    data = jpeg_bytes(picture(8, height=256, width=256))
    with pytest.raises(IngestError, match="decode_failed"):
        decode(data[: len(data) // 2] + b"\xff\xd9", limits=LIMITS)


def test_headers_are_checked_before_decoding(tmp_path: Path) -> None:
    small = IngestLimits(max_pixels=1000)
    for name, data in _files(tmp_path).items():
        with pytest.raises(IngestError, match="too_many_pixels"):
            decode(data, limits=small)
        assert name
    bomb = bytearray(png_bytes(picture(8)))
    bomb[16:24] = struct.pack(">II", 100_000, 100_000)
    with pytest.raises(IngestError, match="too_many_pixels"):
        decode(bytes(bomb), limits=LIMITS)


def test_page_count_is_limited(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "m.tif") as file:
        for _ in range(4):
            file.write(picture(8), photometric="rgb", metadata=None)
    with pytest.raises(IngestError, match="too_many_pages"):
        decode(tmp_path / "m.tif", limits=IngestLimits(max_pages=3))


def test_unsupported_pictures_say_so(tmp_path: Path) -> None:
    four = np.dstack([picture(8), picture(8, grey=True)])
    cmyk = to_vips(four).copy(interpretation="cmyk").jpegsave_buffer()
    cases: list[tuple[bytes | Path, str]] = [
        (cmyk, "unsupported_colour"),
        (tiff_file(tmp_path / "c.tif", four, photometric="separated"), "unsupported_colour"),
        (tiff_file(tmp_path / "f.tif", picture(8).astype(np.float32)), "unsupported_colour"),
        (tiff_file(tmp_path / "u.tif", picture(8).astype(np.uint32)), "unsupported_depth"),
        (png_bytes(picture(8), extra=png_chunk(b"acTL", struct.pack(">II", 2, 0))), "unsupported_animation"),
        (b"%PDF-1.7 and more", "not_an_image"),
        (b"<html>404 not found</html>", "not_an_image"),
    ]
    for data, kind in cases:
        with pytest.raises(IngestError) as caught:
            decode(data, limits=LIMITS)
        assert caught.value.kind == kind


def test_encoders_are_complete_files() -> None:
    """Each encoder's result decodes again, with and without alpha."""
    array, alpha = picture(8), picture(8, grey=True)
    sources = {
        png: png_bytes(array, alpha=alpha),
        webp: bytes(to_vips(array, alpha).webpsave_buffer(lossless=True)),
        jpeg: jpeg_bytes(array),
        jp2: bytes(imagecodecs.jpeg2k_encode(np.dstack([array, alpha]), codecformat="jp2", reversible=True)),
    }
    for module, data in sources.items():
        page = module.decode(data, LIMITS)
        again = module.decode(module.encode(page, page.array, data), LIMITS)
        assert (again.alpha is None) == (page.alpha is None)
        assert again.array.shape == page.array.shape
