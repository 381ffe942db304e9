"""Results keep everything of the original, and never land in the source."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
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

from models.types import ImageRecord
from storage.codecs import DecodedPage, decode
from storage.colour import conversion
from storage.errors import OutputError
from storage.formats.exif import orientation, reset_orientation
from storage.formats.page import to_vips
from storage.locations import Location
from storage.outputs import check_destination, copy_untouched, mask_path, verify_output, write_mask, write_output
from storage.working_copies import WorkingCopies

Ingest = Callable[[Path], list[ImageRecord]]
METADATA = ("icc", "iptc", "dpi", "bits", "format", "page_count")


def _restore(copies: WorkingCopies, record: ImageRecord) -> Any:
    """The working copy with a patch of it changed."""
    array = np.array(copies.load(record))
    array[4:12, 8:20] = array[4:12, 8:20] // 2
    return array


def _round_trip(path: Path, ingest: Ingest, copies: WorkingCopies) -> tuple[list[DecodedPage], list[DecodedPage]]:
    records = ingest(path)
    destination = Location(path.parent.parent / "out")
    pages = [(record, _restore(copies, record)) for record in records]
    uri, sha256 = write_output(pages, source=path, destination=destination)
    assert Path(Location(uri).local_path).name == path.name
    assert verify_output(uri, sha256)
    return decode(path, limits=LIMITS), decode(Location(uri).local_path, limits=LIMITS)


def _check_pixels(before: DecodedPage, after: DecodedPage) -> None:
    patch = np.zeros((before.height, before.width), dtype=bool)
    patch[4:12, 8:20] = True
    np.testing.assert_array_equal(after.array[~patch], before.array[~patch])
    assert (after.array[patch] != before.array[patch]).any()
    if before.alpha is not None:
        np.testing.assert_array_equal(after.alpha, before.alpha)
    for name in METADATA:
        assert getattr(after, name) == getattr(before, name), name
    assert after.orientation == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def _png_metadata(icc: bytes, orientation: int = 6) -> bytes:
    chunks = png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(icc))
    chunks += png_chunk(b"pHYs", struct.pack(">IIB", 23622, 23622, 1)) + png_chunk(b"tEXt", b"Title\0Roof")
    chunks += png_chunk(b"eXIf", exif_block(orientation=orientation))
    return chunks + png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)


def test_png_16_bit_keeps_everything(folder: Path, ingest: Ingest, copies: WorkingCopies, adobe_rgb: bytes) -> None:
    path = folder / "a.png"
    path.write_bytes(png_bytes(picture(16), alpha=picture(16, grey=True), extra=_png_metadata(adobe_rgb)))
    (before,), (after,) = _round_trip(path, ingest, copies)
    _check_pixels(before, after)
    assert after.icc == adobe_rgb
    assert after.dpi == pytest.approx((600, 600), abs=0.01)
    assert after.xmp == XMP.replace(b'="6"', b'="1"')
    assert after.exif is not None
    assert b"maker note" in after.exif
    assert b"tEXtTitle\0Roof" in (folder.parent / "out" / "a.png").read_bytes()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_low_depth_is_kept(folder: Path, ingest: Ingest, copies: WorkingCopies, bits: int) -> None:
    path = folder / "a.png"
    path.write_bytes(png_bytes(picture(bits, grey=True) * np.uint8(255 // (2**bits - 1)), bitdepth=bits))
    (before,), (after,) = _round_trip(path, ingest, copies)
    _check_pixels(before, after)


def test_jp2_16_bit_keeps_everything(folder: Path, ingest: Ingest, copies: WorkingCopies, adobe_rgb: bytes) -> None:
    data = bytes(imagecodecs.jpeg2k_encode(picture(16), codecformat="jp2", reversible=True))
    colour = struct.pack(">I4sBBB", len(adobe_rgb) + 11, b"colr", 2, 0, 0) + adobe_rgb
    resc = struct.pack(">I4sHHHHbb", 18, b"resc", 23622, 1, 23622, 1, 0, 0)
    res = struct.pack(">I4s", 26, b"res ") + resc
    ihdr = data[data.index(b"ihdr") - 4 :][:22]
    header = struct.pack(">I4s", 8 + 22 + len(colour) + 26, b"jp2h") + ihdr + colour + res
    xmp = struct.pack(">I4s", 24 + len(XMP), b"uuid") + bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + XMP
    path = folder / "a.jp2"
    path.write_bytes(data[:32] + header + xmp + data[data.index(b"jp2c") - 4 :])
    (before,), (after,) = _round_trip(path, ingest, copies)
    _check_pixels(before, after)
    assert (after.icc, after.xmp) == (adobe_rgb, XMP)
    assert after.dpi == pytest.approx((600, 600), abs=0.01)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw", "predictor": True, "rowsperstrip": 5},
        {"compression": "adobe_deflate", "tile": (16, 32)},
        {"compression": "packbits", "byteorder": ">"},
        {"bigtiff": True},
    ],
)
def test_tiff_16_bit_keeps_everything(
    folder: Path, ingest: Ingest, copies: WorkingCopies, adobe_rgb: bytes, options: dict[str, Any]
) -> None:
    tags = [(700, 1, len(XMP), XMP, False), (33723, 7, 12, b"iptc 4711 cd", False), (271, 2, 5, b"Leica", False)]
    path = folder / "a.tif"
    more = {"iccprofile": adobe_rgb, "resolution": (600, 600), "resolutionunit": 2, "description": "Roof", **options}
    tiff_file(path, picture(16), extratags=tags, software="Scanner", **more)
    (before,), (after,) = _round_trip(path, ingest, copies)
    _check_pixels(before, after)
    assert (after.icc, after.xmp, after.iptc, after.dpi) == (adobe_rgb, XMP, b"iptc 4711 cd", (600, 600))
    with tifffile.TiffFile(path) as old, tifffile.TiffFile(folder.parent / "out" / "a.tif") as new:
        assert (new.is_bigtiff, new.byteorder) == (old.is_bigtiff, old.byteorder)
        for code in (259, 270, 271, 282, 284, 296, 305, 317, 322):
            assert [tag.value for tag in [new.pages[0].tags.get(code)] if tag] == [
                tag.value for tag in [old.pages[0].tags.get(code)] if tag
            ], code


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_keeps_its_exif_directory(folder: Path, ingest: Ingest, copies: WorkingCopies, order: str) -> None:
    path = tiff_file(folder / "a.tif", picture(16), byteorder=order, extratags=[(34664, 4, 1, 0, False)])
    with tifffile.TiffFile(path, mode="r+") as file:
        start = file.filehandle.seek(0, 2)
        directory = struct.pack(order + "H", 2) + struct.pack(order + "HHIHH", 0x8827, 3, 1, 400, 0)
        directory += struct.pack(order + "HHII", 0x9003, 2, 20, start + 30) + struct.pack(order + "I", 0)
        file.filehandle.write(directory + b"1926:05:04 03:02:01\0")
        held = file.pages[0].tags[34664]  # tifffile writes no such pointer itself
        held.overwrite(start)
        file.filehandle.seek(held.offset)
        file.filehandle.write(struct.pack(order + "H", 34665))
    _round_trip(path, ingest, copies)
    with tifffile.TiffFile(folder.parent / "out" / "a.tif") as new:
        exif = new.pages[0].tags[34665].value
    assert (exif["ISOSpeedRatings"], exif["DateTimeOriginal"]) == (400, "1926:05:04 03:02:01")


def test_tiff_pages_thumbnail_alpha_and_polarity(folder: Path, ingest: Ingest, copies: WorkingCopies) -> None:
    array, grey = picture(16), picture(8, grey=True)
    path = folder / "m.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(array, photometric="rgb", metadata=None)
        file.write(array[::2, ::2], photometric="rgb", metadata=None, subfiletype=1)
        file.write(grey, photometric="miniswhite", metadata=None)
        alpha = np.dstack([array, array[..., 0]])
        file.write(alpha, photometric="rgb", metadata=None, extrasamples=["unassalpha"])
        file.write(grey > 99, photometric="minisblack", metadata=None)
    before, after = _round_trip(path, ingest, copies)
    assert len(before) == len(after) == 4
    for old, new in zip(before, after, strict=True):
        _check_pixels(old, new)
    with tifffile.TiffFile(folder.parent / "out" / "m.tif") as file:
        assert [int(page.subfiletype) for page in file.pages] == [0, 1, 0, 0, 0]
        assert int(file.pages[2].photometric) == 0
        assert (file.pages[1].asarray() != array[::2, ::2]).any()


def test_what_belongs_to_a_turned_page_turns_with_it(folder: Path, ingest: Ingest, copies: WorkingCopies) -> None:
    array, grey = picture(16), picture(8, grey=True)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"></x:xmpmeta>'
    turned = (274, 3, 1, 6, False)
    tags = [turned, (700, 1, len(xmp), xmp, False), (37724, 7, 6, b"layers", False)]
    path = folder / "m.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(array, photometric="rgb", metadata=None, extratags=tags)
        file.write(array[::2, ::2], photometric="rgb", metadata=None, subfiletype=1, extratags=[turned])
        file.write(grey > 99, photometric="minisblack", metadata=None, subfiletype=4, extratags=[turned])
        file.write(grey[::2] > 99, photometric="miniswhite", metadata=None, subfiletype=1)
    _round_trip(path, ingest, copies)
    with tifffile.TiffFile(folder.parent / "out" / "m.tif") as file:
        page, thumbnail, mask, bilevel = file.pages
        height, width = grey.shape
        assert (page.shape[:2], mask.shape) == ((width, height), (width, height))
        assert thumbnail.shape[:2] == (width // 2, height // 2)
        assert np.array_equal(mask.asarray(), np.rot90(grey > 99, -1))
        assert (int(bilevel.photometric), np.array_equal(bilevel.asarray(), grey[::2] > 99)) == (0, True)
        assert b'Orientation="1"' in page.tags[700].value
        assert 37724 not in page.tags, "Photoshop would show the layers instead"


@pytest.mark.parametrize("kind", [1, 3, 4, 9])
def test_orientation_of_any_integer_type_is_reset(kind: int) -> None:
    code = {1: "B", 3: "H", 4: "I", 9: "i"}[kind]
    value = struct.pack("<" + code, 6).ljust(4, b"\0")
    exif = b"II*\0\x08\0\0\0" + struct.pack("<HHHI", 1, 274, kind, 1) + value + b"\0\0\0\0"
    assert orientation(exif) == 6
    assert orientation(reset_orientation(exif)) == 1


def test_one_page_restored_leaves_the_others_alone(folder: Path, ingest: Ingest, copies: WorkingCopies) -> None:
    path = folder / "m.tif"
    with tifffile.TiffWriter(path) as file:
        for _ in range(3):
            file.write(picture(16), photometric="rgb", metadata=None, iccprofile=imagecodecs.cms_profile("adobergb"))
    records = ingest(path)
    assert [record.image_id.split("#")[1] for record in records] == ["0", "1", "2"]
    pages = [(record, _restore(copies, record) if record.page_index == 1 else None) for record in records]
    uri, _ = write_output(pages, source=path, destination=Location(folder.parent / "out"))
    after = decode(Location(uri).local_path, limits=LIMITS)
    changed = [not np.array_equal(page.array, picture(16)) for page in after]
    assert changed == [False, True, False]
    with pytest.raises(OutputError, match="3 page"):
        write_output(pages[:2], source=path, destination=Location(folder.parent / "out"))


def test_jpeg_keeps_its_segments(folder: Path, ingest: Ingest, copies: WorkingCopies, adobe_rgb: bytes) -> None:
    segments = jpeg_segment(0xE1, b"Exif\0\0" + exif_block(orientation=6, order=">"))
    segments += jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP) + jpeg_segment(0xFE, b"a comment")
    segments += jpeg_segment(0xED, b"Photoshop 3.0\0" + b"8BIM") + jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1" + adobe_rgb)
    path = folder / "a.jpg"
    path.write_bytes(jpeg_bytes(picture(8), quality=97, segments=segments, interlace=True))
    (before,), (after,) = _round_trip(path, ingest, copies)
    assert after.array.shape == before.array.shape == (64, 48, 3)
    assert (after.icc, after.iptc, after.orientation, after.jpeg_quality) == (adobe_rgb, before.iptc, 1, 97)
    assert after.compression == "jpeg-progressive"
    assert after.xmp == XMP.replace(b'="6"', b'="1"')
    data = (folder.parent / "out" / "a.jpg").read_bytes()
    assert b"a comment" in data
    frame = data.index(b"\xff\xc2")
    assert data[frame + 11] == 0x11, "4:4:4"
    assert after.exif is not None
    width, height = struct.unpack_from(">I", after.exif, 110)[0], struct.unpack_from(">I", after.exif, 122)[0]
    assert (width, height) == (48, 64)
    assert struct.unpack_from(">I", after.exif, 70) == (0,), "the thumbnail of the unrestored picture is gone"


def test_jpeg_without_change_loses_little(folder: Path, ingest: Ingest, copies: WorkingCopies) -> None:
    path = folder / "a.jpg"
    path.write_bytes(jpeg_bytes(picture(8), quality=60))
    (record,) = ingest(path)
    uri, _ = write_output(
        [(record, np.array(copies.load(record)))], source=path, destination=Location(folder.parent / "o")
    )
    (before,), (after,) = decode(path, limits=LIMITS), decode(Location(uri).local_path, limits=LIMITS)
    assert after.jpeg_quality == 95
    assert np.abs(after.array.astype(int) - before.array).mean() < 1.5


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_keeps_its_chunks(folder: Path, ingest: Ingest, copies: WorkingCopies, lossless: bool) -> None:
    from storage.formats import webp

    path = folder / "a.webp"
    plain = bytes(to_vips(picture(8), picture(8, grey=True)).webpsave_buffer(lossless=lossless, Q=80, keep="none"))
    page = webp.decode(plain, LIMITS)
    icc = bytes(imagecodecs.cms_profile("adobergb"))
    full = DecodedPage(
        array=page.array, alpha=page.alpha, sample_max=255, format="webp", compression=page.compression, bits=8,
        icc=icc,        exif=exif_block(), xmp=XMP,
    )  # fmt: skip
    path.write_bytes(webp.encode(full, full.array, plain))
    (before,), (after,) = _round_trip(path, ingest, copies)
    assert (before.icc, before.dpi) == (icc, (300, 300))
    assert (after.icc, after.dpi, after.compression) == (before.icc, before.dpi, before.compression)
    if lossless:
        _check_pixels(before, after)


@pytest.mark.parametrize("bits", [8, 16])
def test_colours_outside_srgb_survive_a_slight_change(bits: int, adobe_rgb: bytes) -> None:
    from storage.colour import merge

    white = 2**bits - 1
    source = np.zeros((8, 8, 3), dtype=np.uint8 if bits == 8 else np.uint16)
    source[...] = [0, white, round(0.1 * white)]  # AdobeRGB green, far outside sRGB
    how = conversion(adobe_rgb, grey=False)
    restored = how.to_working(source, white).copy()
    restored[2:4, 2:4, 2] += 2
    merged = merge(source.copy(), restored, how=how, sample_max=white)
    np.testing.assert_array_equal(merged[5:], source[5:])
    assert np.abs(merged.astype(int) - source).max() <= 0.05 * white


def test_srgb_profiles_are_left_alone_and_foreign_ones_convert(adobe_rgb: bytes) -> None:
    assert conversion(bytes(imagecodecs.cms_profile("srgb")), grey=False).profile is None
    assert conversion(b"garbage" * 40, grey=False).profile is None
    assert conversion(adobe_rgb, grey=True).profile is None, "an RGB profile does not fit a grey picture"
    gamma = bytes(imagecodecs.cms_profile("gray", gamma=1.8))
    how = conversion(gamma, grey=True)
    array = picture(16, grey=True)
    back = how.to_source(how.to_working(array, 65535), 65535)
    assert np.abs(back.astype(int) - array).max() < 130
    wide = conversion(adobe_rgb, grey=False)
    grey = np.full((2, 2, 3), 30000, np.uint16)
    assert np.ptp(wide.to_working(grey, 65535)) < 64, "neutral stays neutral"


def test_untouched_files_are_copied_byte_for_byte(folder: Path, ingest: Ingest) -> None:
    path = folder / "a.jpg"
    path.write_bytes(jpeg_bytes(picture(8)))
    (record,) = ingest(path)
    destination = Location(folder.parent / "out")
    uri, sha256 = copy_untouched(record, source=path, destination=destination)
    assert Location(uri).read_bytes() == path.read_bytes()
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(OutputError, match="changed"):
        copy_untouched(record, source=b"other", destination=destination)
    assert sorted(destination.list()) == ["a.jpg"], "no temporary file is left"


def test_outputs_inside_the_source_are_refused(folder: Path, ingest: Ingest, copies: WorkingCopies) -> None:
    path = folder / "a.jpg"
    path.write_bytes(jpeg_bytes(picture(8)))
    (record,) = ingest(path)
    (folder.parent / "alias").symlink_to(folder)
    for place in (folder, folder / "restored", folder.parent, folder.parent / "alias" / "x"):
        with pytest.raises(OutputError, match="source"):
            copy_untouched(record, source=path, destination=Location(place))
        with pytest.raises(OutputError, match="source"):
            write_output([(record, copies.load(record))], source=path, destination=Location(place))
    check_destination("s3://bucket/a", Location("s3://bucket/ab"))
    with pytest.raises(OutputError, match="inside"):
        check_destination("s3://bucket/a", Location("s3://bucket/a/out"))


def test_mask_and_shape_errors(folder: Path, ingest: Ingest, copies: WorkingCopies) -> None:
    path = folder / "a.png"
    path.write_bytes(png_bytes(picture(16)))
    (record,) = ingest(path)
    destination = Location("memory://outputs/run")
    mask = picture(8, grey=True) > 128
    uri, sha256 = write_mask(mask, record=record, destination=destination)
    assert uri == "memory://outputs/run/masks/a.png.png"
    assert verify_output(uri, sha256)
    np.testing.assert_array_equal(decode(Location(uri).read_bytes(), limits=LIMITS)[0].array, mask * 255)
    with pytest.raises(OutputError, match="shape"):
        write_mask(mask[1:], record=record, destination=destination)
    with pytest.raises(OutputError, match="uint16"):
        write_output([(record, picture(8))], source=path, destination=destination)
    uri, sha256 = write_output([(record, _restore(copies, record))], source=path.read_bytes(), destination=destination)
    assert verify_output(uri, sha256)
    assert not verify_output(uri + "x", sha256)


@pytest.mark.parametrize("name", ["x" * 248 + ".png", "日" * 83 + "a.png"])
def test_a_mask_of_a_long_name_has_a_shorter_one(tmp_path: Path, name: str) -> None:
    paths = [mask_path(f"a/{name}", page=page) for page in (None, 0, 1)]
    paths.append(mask_path(f"a/{name.removesuffix('.png')}.jpg", page=None))
    assert len(set(paths)) == 4
    for path in paths:
        Location(tmp_path).join(path).write_bytes_atomic(b"mask")
    assert mask_path("a/b.tif", page=None) == "masks/a/b.tif.png"
    assert mask_path("x" * 251, page=None) == f"masks/{'x' * 251}.png"


def test_what_is_in_the_way_of_an_output_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"of a picture that was called so")
    (tmp_path / "y.png").mkdir()
    for path in ("x.png/in.png", "x.png/deeper/in.png"):
        with pytest.raises(OutputError, match=r"/x.png is a file, where a folder is needed.* move it away"):
            Location(tmp_path).join(path).write_bytes_atomic(b"")
    with (
        pytest.raises(OutputError, match=r"/y.png is a folder, where a file is needed.* move it away"),
        Location(tmp_path).join("y.png").writing() as temporary,
    ):
        temporary.write_bytes(b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.png", "y.png"], "no temporary file is left"
