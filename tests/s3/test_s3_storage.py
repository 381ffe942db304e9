"""Sources and outputs on a real S3 server: what is listed, what is fetched, and that nothing partial is ever seen."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawn_pictures import drawn, png
from real_server import Requests, Server

from models.types import ImageRecord
from storage.archives import open_source
from storage.errors import AccessRefusedError, IngestError, ObjectChangedError, StoreUnavailableError
from storage.faults import is_transient
from storage.ingest import ingest_member
from storage.limits import IngestLimits
from storage.locations import Location
from storage.outputs import copy_untouched, verify_output, write_mask, write_output
from storage.working_copies import WorkingCopies

pytestmark = pytest.mark.s3
LIMITS = IngestLimits()
FILES = {"b/two.JPG": b"two", "a.png": b"one", "ö ü.jp2": b"four", "b/a+b %20#&=[x]*.png": b"five", "z.png": b"\0"}


def _put(filesystem: Any, place: str, files: dict[str, bytes]) -> None:
    filesystem.pipe({f"{place}/{name}": data for name, data in files.items()})


def test_prefix_holds_its_pictures_sorted_and_nothing_of_its_neighbours(filesystem: Any, place: str) -> None:
    _put(filesystem, place + "/in", {**FILES, "notes.txt": b"x", ".hidden/a.png": b"x", "b/": b""})
    _put(filesystem, place, {"in2/other.png": b"x", "in.png": b"x"})
    source = open_source(place + "/in/", limits=LIMITS)
    members = list(source.members())
    assert [member.relative_path for member in members] == sorted(FILES)
    assert {member.relative_path: source.read(member) for member in members} == FILES
    assert source.sha256(source.member("a.png")) == hashlib.sha256(b"one").hexdigest()


def test_listing_asks_once_per_thousand_keys_and_reading_once_per_object(
    filesystem: Any, place: str, requests: Requests
) -> None:
    _put(filesystem, place, {f"{index:04d}.png": b"x" * 10 for index in range(1100)})
    requests.made.clear()
    source = open_source(place, limits=LIMITS)
    members = list(source.members())
    assert len(members) == 1100
    assert requests.count("list_objects_v2") <= 2 + 1, "one more to see that there is something"
    assert requests.count("head_object") <= 1
    requests.made.clear()
    for member in members[:20]:
        source.read(member)
    assert [operation for operation, _, _ in requests.made] == ["get_object"] * 20


def test_entries_carry_the_etag_of_the_listing(filesystem: Any, place: str, requests: Requests) -> None:
    _put(filesystem, place, {"a.png": b"one"})
    requests.made.clear()
    (entry,) = Location(place).entries()
    assert entry.etag == hashlib.md5(b"one").hexdigest()
    assert requests.fetched == 0


def test_a_key_written_by_another_client_is_seen_at_once(filesystem: Any, place: str) -> None:
    _put(filesystem, place, {"a.png": b"x"})
    assert Location(place).list() == ["a.png"]
    _put(filesystem, place, {"b.png": b"x"})
    assert Location(place).list() == ["a.png", "b.png"]
    assert Location(place).join("b.png").exists()


def _packed(kind: str, members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tar.gz" else "w") as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_of_a_packed_object_are_read_by_ranges(
    filesystem: Any, place: str, requests: Requests, kind: str
) -> None:
    members = {f"{index:02d}.jpg": os.urandom(400_000) for index in range(20)}
    _put(filesystem, place, {f"scans.{kind}": _packed(kind, members)})
    requests.made.clear()
    source = open_source(f"{place}/scans.{kind}", limits=LIMITS)
    assert [member.relative_path for member in source.members()] == sorted(members)
    # A tar has a header before each member, so its list costs one small range for each.
    assert requests.fetched < (200_000 if kind == "zip" else 20 * 70_000)
    requests.made.clear()
    for name in ("03.jpg", "17.jpg"):
        assert source.read(source.member(name)) == members[name]
    assert 800_000 <= requests.fetched < 800_000 + 4 * 70_000, "of 8 MB"
    source.close()


def test_tar_gz_is_fetched_once_for_all_members(filesystem: Any, place: str, requests: Requests) -> None:
    members = {f"{index:02d}.jpg": os.urandom(100_000) for index in range(20)}
    data = _packed("tar.gz", members)
    _put(filesystem, place, {"scans.tar.gz": data})
    requests.made.clear()
    source = open_source(f"{place}/scans.tar.gz", limits=LIMITS)
    assert {member.relative_path: source.read(member) for member in source.members()} == members
    assert requests.fetched <= len(data) + 100_000
    source.close()


def test_an_object_replaced_while_it_is_read_is_read_again(filesystem: Any, place: str) -> None:
    versions = [bytes([number]) * 40_000_000 for number in (1, 2)]
    _put(filesystem, place, {"big.tif": versions[0]})
    source = open_source(place, limits=LIMITS)
    member = source.member("big.tif")
    stream = source.stream(member)
    next(stream)
    _put(filesystem, place, {"big.tif": versions[1]})
    with pytest.raises(ObjectChangedError, match=r"big\.tif was replaced"):
        list(stream)

    replaced: list[bool] = []
    blocks = source._blocks

    def replaced_once(which: Any) -> Any:
        for block in blocks(which):
            yield block
            if not replaced:
                replaced.append(True)
                _put(filesystem, place, {"big.tif": versions[0]})

    source._blocks = replaced_once  # type: ignore[method-assign]
    assert source.read(member) == versions[0]


def test_a_small_object_that_grew_since_the_listing_is_read_whole(filesystem: Any, place: str) -> None:
    _put(filesystem, place, {"a.png": b"short"})
    source = open_source(place, limits=LIMITS)
    member = source.member("a.png")
    _put(filesystem, place, {"a.png": b"much longer than before"})
    assert source.read(member) == b"much longer than before"
    filesystem.rm(f"{place}/a.png")
    with pytest.raises(IngestError) as caught:
        source.read(member)
    assert caught.value.kind == "missing"


Ingested = tuple[ImageRecord, bytes, WorkingCopies]


@pytest.fixture
def ingested(filesystem: Any, place: str, tmp_path: Path) -> Callable[[bytes], Ingested]:
    """Put one picture into the store and ingest it from there."""

    def ingest(data: bytes) -> Ingested:
        _put(filesystem, place, {"in/b/a.png": data})
        source = open_source(place + "/in", limits=LIMITS)
        copies = WorkingCopies(tmp_path / "copies")
        (record,), quarantined = ingest_member(source, source.member("b/a.png"), copies=copies, limits=LIMITS)
        assert not quarantined
        return record, data, copies

    return ingest


def test_outputs_copies_and_masks_are_what_was_recorded(ingested: Callable[[bytes], Ingested], place: str) -> None:
    record, data, copies = ingested(png(1, bits=16))
    out = Location(place + "/out")
    uri, sha256 = write_output([(record, copies.load(record) // 2)], source=data, destination=out)
    assert uri == f"{place}/out/b/a.png"
    assert verify_output(uri, sha256)
    assert not verify_output(uri, "0" * 64)
    assert not verify_output(uri + "x", sha256)
    uri, sha256 = copy_untouched(record, source=data, destination=out.join("copy"))
    assert Location(uri).read_bytes() == data
    assert sha256 == record.source_sha256
    uri, sha256 = write_mask(drawn(1)[..., 0] > 100, record=record, destination=out)
    assert verify_output(uri, sha256)
    assert out.list() == ["b/a.png", "copy/b/a.png", "masks/b/a.png.png"]


def test_nothing_is_seen_of_a_write_that_failed(filesystem: Any, place: str) -> None:
    target = Location(place).join("a.tif")

    def fail_after(count: int) -> None:
        with target.writing() as temporary:
            temporary.write_bytes(b"x" * count)
            raise RuntimeError("the disk is on fire")

    for count in (1000, 12_000_000):
        with pytest.raises(RuntimeError, match="on fire"):
            fail_after(count)
        assert not target.exists()
    target.write_bytes_atomic(b"old")
    with pytest.raises(RuntimeError, match="on fire"):
        fail_after(12_000_000)
    assert target.read_bytes() == b"old"


_UPLOAD = """
import sys
from storage.locations import Location
with Location(sys.argv[1]).writing() as temporary:
    with temporary.open("wb") as file:
        file.truncate(400_000_000)
    print("uploading", flush=True)
"""


def test_nothing_is_seen_of_an_upload_whose_process_was_killed(filesystem: Any, place: str, bucket: str) -> None:
    target = Location(place).join("large.tif")
    command = [sys.executable, "-c", _UPLOAD, target.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"uploading\n"
        deadline = time.monotonic() + 30
        while not filesystem.list_multipart_uploads(bucket) and time.monotonic() < deadline:
            assert not target.exists()
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert filesystem.list_multipart_uploads(bucket), "the upload was under way"
    assert not target.exists()
    assert Location(place).list() == []
    filesystem.clear_multipart_uploads(bucket)


def test_of_many_who_create_a_key_exclusively_one_wins(place: str) -> None:
    target = Location(place).join("commit.parquet")
    gate, results = threading.Barrier(8), {}

    def race(number: int) -> None:
        gate.wait()
        results[number] = target.create_exclusive(b"%d" % number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for number, won in results.items() if won]
    assert len(winners) == 1
    assert target.read_bytes() == b"%d" % winners[0]
    assert not target.create_exclusive(b""), "nor by an empty one"


def test_the_second_user_is_refused(server: Server, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    Location(place).join("a.png").write_bytes_atomic(b"x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.stranger["AWS_ACCESS_KEY_ID"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.stranger["AWS_SECRET_ACCESS_KEY"])
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        target = Location(place).join("a.png")
        for work in (target.read_bytes, target.exists, Location(place).list, lambda: target.write_bytes_atomic(b"y")):
            with pytest.raises(AccessRefusedError) as caught:
                work()
            assert not is_transient(caught.value)
            assert all(secret not in str(caught.value) for secret in server.secrets)
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_server_that_is_gone_for_a_while_is_no_broken_archive(filesystem: Any, place: str, server: Server) -> None:
    members = {f"{index:02d}.jpg": os.urandom(200_000) for index in range(6)}
    for kind in ("zip", "tar"):
        _put(filesystem, place, {f"scans.{kind}": _packed(kind, members)})
    _put(filesystem, place, {"in/a.png": b"one"})
    sources = {kind: open_source(f"{place}/scans.{kind}", limits=LIMITS) for kind in ("zip", "tar")}
    list(sources["zip"].members())
    folder = open_source(f"{place}/in", limits=LIMITS)
    list(folder.members())
    server.control("gateway-stop")
    try:
        attempts = {
            "open": lambda: open_source(f"{place}/scans.zip", limits=LIMITS),
            "zip": lambda: sources["zip"].read(sources["zip"].member("05.jpg")),
            "tar": lambda: list(sources["tar"].members()),
            "folder": lambda: folder.read(folder.member("a.png")),
            "write": lambda: Location(place).join("x").write_bytes_atomic(b"x"),
        }
        for what, attempt in attempts.items():
            started = time.monotonic()
            with pytest.raises(StoreUnavailableError) as caught:
                attempt()
            assert is_transient(caught.value), what
            assert time.monotonic() - started < 30, what
    finally:
        server.control("gateway-start")
    assert folder.read(folder.member("a.png")) == b"one"
    assert sources["zip"].read(sources["zip"].member("05.jpg")) == members["05.jpg"]
    assert [member.error_kind for member in sources["tar"].members()] == [None] * 6
