"""Sources: sorted members, hostile archives refused, and everything that is wrong ends as a row."""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from small_files import LIMITS, jpeg_bytes, picture, png_bytes

from storage.archives import open_source
from storage.errors import IngestError, OutputError
from storage.faults import is_transient
from storage.ingest import ingest_member
from storage.limits import IngestLimits
from storage.locations import Location
from storage.sources import Source
from storage.working_copies import WorkingCopies

FILES = {"b/two.JPG": b"two", "a.png": b"one", "b/three.tif": b"three", "ö ü.jp2": b"four"}
NOISE = ["notes.txt", "Thumbs.db", ".hidden.jpg", "__MACOSX/a.png", "b/scan.xml", ".git/x.png", "lost+found/c.png"]


def _fill(folder: Path) -> Path:
    for name, data in [*FILES.items(), *((name, b"x") for name in NOISE)]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def _pack(folder: Path, target: Path) -> Path:
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, path.relative_to(folder))
    else:
        with tarfile.open(target, "w:gz" if target.name.endswith("gz") else "w", format=tarfile.GNU_FORMAT) as file:
            file.add(folder, ".")
    return target


def _errors(source: Source) -> dict[str, str | None]:
    return {member.relative_path: member.error_kind for member in source.members()}


@pytest.mark.parametrize("kind", ["directory", "a.zip", "a.tar", "a.tar.gz", "a.tgz"])
@pytest.mark.parametrize("remote", [False, True])
def test_members_are_the_pictures_sorted(tmp_path: Path, kind: str, remote: bool) -> None:
    folder = _fill(tmp_path / "in")
    place = folder if kind == "directory" else _pack(folder, tmp_path / kind)
    uri = str(place)
    if remote:
        uri = f"memory://{tmp_path.name}-{kind}/{place.name}"
        fsspec.filesystem("memory").put(str(place), uri, recursive=place.is_dir())
    source = open_source(uri, limits=LIMITS)
    members = list(source.members())
    assert [member.relative_path for member in members] == sorted(FILES)
    assert {member.relative_path: source.read(member) for member in members} == FILES
    assert all(member.size == len(FILES[member.relative_path]) for member in members)
    expected = 4 if kind == "directory" and not remote else len(NOISE)  # hidden folders are not even walked
    assert source.skipped_count == expected
    with pytest.raises(IngestError, match="missing"):
        source.member("nothing.jpg")
    source.close()


def test_unusable_sources_say_why(tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"PK\3\4 but no more")
    (tmp_path / "bad.tar.gz").write_bytes(b"no gzip at all")
    (tmp_path / "a.jpg").write_bytes(b"x")
    kinds = {
        "bad.zip": "corrupt_archive",
        "bad.tar.gz": "corrupt_archive",
        "a.jpg": "unsupported_format",
        "no": "missing",
    }
    for name, kind in kinds.items():
        with pytest.raises(IngestError) as caught:
            list(open_source(str(tmp_path / name), limits=LIMITS).members())
        assert caught.value.kind == kind


def test_zip_traversal_links_and_doubles_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        for name in ("../up.jpg", "/etc/abs.jpg", "a/../../x.png", "C:/win.jpg", "back\\slash.jpg", "good.jpg"):
            file.writestr(name, b"data")
        file.writestr(link, "/etc/passwd")
        file.writestr("twice.jpg", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("twice.jpg", b"2")
    source = open_source(str(tmp_path / "z.zip"), limits=LIMITS)
    errors = _errors(source)
    assert errors.pop("good.jpg") is None
    assert (errors.pop("link.jpg"), errors.pop("twice.jpg")) == ("link", "duplicate_name")
    assert set(errors.values()) == {"unsafe_path"}
    for name in errors:
        with pytest.raises(IngestError, match="unsafe_path"):
            source.read(source.member(name))


def test_tar_traversal_links_and_devices_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as file:
        for name, kind in [
            ("../up.jpg", tarfile.REGTYPE), ("/abs.jpg", tarfile.REGTYPE), ("soft.jpg", tarfile.SYMTYPE),
            ("hard.jpg", tarfile.LNKTYPE), ("fifo.jpg", tarfile.FIFOTYPE), ("dev.jpg", tarfile.CHRTYPE),
            ("good.jpg", tarfile.REGTYPE),
        ]:  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            info.size = 4 if kind == tarfile.REGTYPE else 0
            file.addfile(info, io.BytesIO(b"data"))
    errors = _errors(open_source(str(tmp_path / "t.tar"), limits=LIMITS))
    assert errors == {
        "../up.jpg": "unsafe_path", "/abs.jpg": "unsafe_path", "soft.jpg": "link", "hard.jpg": "link",
        "fifo.jpg": "not_a_file", "dev.jpg": "not_a_file", "good.jpg": None,
    }  # fmt: skip


def test_compression_bombs_and_large_members_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.png", b"\0" * 3_000_000)
        file.writestr("flat.png", b"\0" * 200_000)
        file.writestr("noise.png", os.urandom(60_000))
    source = open_source(str(tmp_path / "z.zip"), limits=IngestLimits(max_compression_ratio=100))
    assert _errors(source) == {"bomb.png": "compression_ratio", "flat.png": None, "noise.png": None}
    assert (
        _errors(open_source(str(tmp_path / "z.zip"), limits=IngestLimits(max_file_bytes=50_000)))["noise.png"]
        == "too_large"
    )
    with pytest.raises(IngestError, match="too_many_members"):
        list(open_source(str(tmp_path / "z.zip"), limits=IngestLimits(max_members=2)).members())
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz", compresslevel=1) as tar:
        info = tarfile.TarInfo("bomb.png")
        info.size = 17_000_000
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(IngestError, match="compression_ratio"):
        open_source(str(tmp_path / "t.tar.gz"), limits=IngestLimits(max_compression_ratio=100))


def test_encrypted_and_damaged_zip_members_are_rows(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_STORED) as file:
        file.writestr("a.jpg", b"A" * 400)
        file.writestr("b.jpg", b"B" * 400)
    data = bytearray((tmp_path / "z.zip").read_bytes())
    data[data.index(b"A" * 400) + 10] = 0  # the CRC no longer fits
    data[data.rindex(b"PK\1\2") + 8] |= 1  # says that b.jpg is encrypted
    (tmp_path / "z.zip").write_bytes(data)
    source = open_source(str(tmp_path / "z.zip"), limits=LIMITS)
    assert _errors(source) == {"a.jpg": None, "b.jpg": "encrypted"}
    with pytest.raises(IngestError, match="corrupt_archive"):
        source.read(source.member("a.jpg"))


@pytest.mark.parametrize("name", ["t.tar", "t.tar.gz"])
def test_a_cut_tar_keeps_what_is_whole(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    for index in range(4):
        (tmp_path / "in" / f"{index}.jpg").write_bytes(os.urandom(20_000))
    path = _pack(tmp_path / "in", tmp_path / name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 11 // 20])
    source = open_source(str(path), limits=LIMITS)
    errors = _errors(source)
    assert errors[name] == "corrupt_archive"
    assert len(source.read(source.member("0.jpg"))) == 20_000
    last = [member for member in source.members() if member.relative_path != name][-1]
    with pytest.raises(IngestError, match="truncated"):
        source.read(last)


def test_directory_links_pipes_and_strange_names(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.jpg").write_bytes(b"x")
    (root / "good.jpg").write_bytes(b"good")
    (root / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "dangling.jpg").symlink_to(root / "nothing.jpg")
    (root / "inside.jpg").symlink_to(root / "good.jpg")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "circle.jpg").symlink_to(root / "circle.jpg")
    (root / "old.gif").write_bytes(b"GIF89a")
    os.mkfifo(root / "pipe.jpg")
    Path(os.fsdecode(os.fsencode(root) + b"/bad\xff.jpg")).write_bytes(b"x")
    source = open_source(str(root), limits=LIMITS)
    assert _errors(source) == {
        "good.jpg": None, "inside.jpg": None, "out.jpg": "link", "dangling.jpg": "link", "folder": "link",
        "circle.jpg": "link",
        "old.gif": "unsupported_format", "pipe.jpg": "not_a_file", "bad\\xff.jpg": "unsafe_name",
    }  # fmt: skip
    assert source.read(source.member("inside.jpg")) == b"good"


def test_a_folder_that_cannot_be_listed_is_not_taken_for_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"x")
    real, code = os.scandir, errno.EACCES

    def refusing(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise OSError(code, os.strerror(code), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(IngestError, match="locked cannot be listed"):
        list(open_source(str(tmp_path), limits=LIMITS).members())
    code = errno.ESTALE
    with pytest.raises(OSError, match="tale") as caught:
        list(open_source(str(tmp_path), limits=LIMITS).members())
    assert is_transient(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_of_any_packing_is_one_error(tmp_path: Path, method: int) -> None:
    content = bytes(range(256)) * 50
    with zipfile.ZipFile(tmp_path / "z.zip", "w", compression=method) as file:
        file.writestr("a.jpg", content)
        file.writestr("b.jpg", content)
    data = bytearray((tmp_path / "z.zip").read_bytes())
    data[60:90] = b"\xff" * 30
    (tmp_path / "z.zip").write_bytes(data)
    source = open_source(str(tmp_path / "z.zip"), limits=LIMITS)
    with pytest.raises(IngestError, match="corrupt_archive"):
        source.read(source.member("a.jpg"))
    assert source.read(source.member("b.jpg")) == content


def test_where_there_are_no_hard_links_files_are_created_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    item = Location(tmp_path).join("a/b.bin")
    assert item.create_exclusive(b"1")
    assert not item.create_exclusive(b"2")
    assert item.read_bytes() == b"1"
    assert [entry.path for entry in Location(tmp_path).entries()] == ["a/b.bin"]


def test_bad_members_become_quarantine_rows_and_good_ones_records(tmp_path: Path, copies: WorkingCopies) -> None:
    root = tmp_path / "in"
    root.mkdir()
    data = jpeg_bytes(picture(8), quality=70)
    (root / "good.jpg").write_bytes(data)
    (root / "cut.jpg").write_bytes(data[:-200])
    (root / "page.html.png").write_bytes(b"<html>not found</html>")
    (root / "empty.tif").write_bytes(b"")
    source = open_source(str(root), limits=LIMITS)
    outcome = {m.relative_path: ingest_member(source, m, copies=copies, limits=LIMITS) for m in source.members()}
    kinds = {path: bad[0].error_kind for path, (_, bad) in outcome.items() if bad}
    assert kinds == {"cut.jpg": "truncated", "page.html.png": "not_an_image", "empty.tif": "truncated"}
    (record,) = outcome["good.jpg"][0]
    assert (record.width, record.height, record.channels, record.bits_per_sample) == (64, 48, 3, 8)
    assert (record.jpeg_table_quality, record.format, record.source_bytes) == (70, "jpeg", len(data))
    assert record.image_id == record.source_sha256


def test_working_copies_are_rebuilt_and_changes_noticed(tmp_path: Path, copies: WorkingCopies) -> None:
    root = tmp_path / "in"
    root.mkdir()
    (root / "a.png").write_bytes(png_bytes(picture(16)))
    source = open_source(str(root), limits=LIMITS)
    ((record,), _) = ingest_member(source, source.member("a.png"), copies=copies, limits=LIMITS)
    array = copies.load(record)
    np.testing.assert_array_equal(array, picture(16))
    assert isinstance(array, np.memmap)
    assert not array.flags.writeable
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:500])):
        damage(copies.path(record.working_copy))
        np.testing.assert_array_equal(copies.ensure(record, source), picture(16))
    copies.delete(record.working_copy)
    (root / "a.png").write_bytes(png_bytes(picture(8)))
    with pytest.raises(IngestError, match="changed"):
        copies.ensure(record, source)
    assert copies.save_array("derived/x", np.zeros((2, 2))) == "derived/x.npy"
    assert copies.load_array("derived/x.npy").shape == (2, 2)
    assert not [path for path in copies.root.rglob("*") if path.name.endswith(".part")]


@pytest.mark.parametrize("base", ["local", "memory"])
def test_locations_write_whole_objects(tmp_path: Path, base: str) -> None:
    root = Location(tmp_path / "x" if base == "local" else f"memory://loc-{tmp_path.name}/x")
    assert root.list() == []
    item = root.join("a/b", "c.bin")
    assert not item.exists()
    assert item.create_exclusive(b"1")
    assert not item.create_exclusive(b"2")
    assert item.read_bytes() == b"1"
    item.write_bytes_atomic(b"three")
    (tmp_path / "local.bin").write_bytes(b"put")
    root.join("d.bin").put_file(tmp_path / "local.bin")
    assert [(entry.path, entry.size) for entry in root.entries()] == [("a/b/c.bin", 5), ("d.bin", 3)]
    assert root.list("a") == ["a/b/c.bin"]
    with pytest.raises(ZeroDivisionError), item.writing() as path:
        path.write_bytes(b"half" * (1 // 0))
    assert item.read_bytes() == b"three"
    item.delete()
    item.delete()
    assert root.list() == ["d.bin"]
    for bad in ("../x", "/abs", "a/../../b", "a\\b"):
        with pytest.raises(OutputError, match="leads out"):
            root.join(bad)
