"""What a data set is made from: listings, tar samples, lists, doubtful names; its formats and options."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.dataset_encoding import encode
from storage.dataset_listing import base_of, files_of, walk
from storage.dataset_lists import list_shards, table_bytes, table_from
from storage.dataset_samples import folder_samples, kind_of, tar_samples
from storage.errors import IngestError, StoreUnavailableError
from storage.limits import IngestLimits
from storage.locations import Location
from tasks.datasets.fetching import fetch
from tasks.datasets.jobs import DatasetOptions, check_options
from tests.flows.conftest import smooth_picture, write_tar

LIMITS = IngestLimits()


def test_files_come_in_the_order_of_a_store(tmp_path: Path) -> None:
    names = ["a-b/1.png", "a.png", "a/1.png", "a/é.png", "a0.png", "Z.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [found.path for found in walk(Location(tmp_path))] == sorted(names, key=lambda name: name.encode())
    assert [found.path for found in files_of(f"{tmp_path}/a/*.png")] == ["1.png", "é.png"]
    assert [found.path for found in files_of(f"{tmp_path}/{{a,Z}}.png")] == ["a.png", "Z.png"]
    assert [found.path for found in files_of(f"{tmp_path}/a/{{1..1}}.png")] == ["1.png"]
    assert base_of("memory://b/x/train-{00..12}.tar") == "memory://b/x"
    assert base_of("data/*.tar") == "data"
    assert base_of("*.tar") == "."
    assert base_of("/*.tar") == "/"
    with pytest.raises(IngestError, match="check the numbers in braces"):
        list(files_of(f"{tmp_path}/a/{{1..2}}.png"))


def test_links_out_of_the_source_are_rows_not_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").touch()
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "in" / "old.bmp").touch()
    samples = list(folder_samples(str(tmp_path / "in"), limits=LIMITS))
    assert [sample.error_kind for sample in samples] == ["link", "unsupported_format"]


def test_samples_are_listed_as_they_are_asked_for(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {f"{number}.png": b"of any kind" for number in range(4)})
    (tmp_path / "1.tar").write_bytes(b"no tar at all" * 100)
    samples = tar_samples(str(tmp_path), limits=LIMITS)
    assert [sample.key for sample in islice(samples, 3)] == ["0", "1", "2"]
    assert [(sample.key, sample.error_kind) for sample in samples] == [("3", None), ("(end)", "corrupt_archive")]
    assert kind_of(str(tmp_path)) == "tar"


@pytest.mark.parametrize("left", [700, 1024, 5000])
def test_a_tar_that_breaks_off_ends_in_a_row(left: int, tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.png": b"x" * 600, "b.png": b"y" * 900, "c.png": b"z" * 3000})
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(whole[:left])
    assert [s.error_kind for s in tar_samples(str(tmp_path / "0.tar"), limits=LIMITS)][-1] == "corrupt_archive"
    damaged = bytearray(whole)
    damaged[1536:1600] = b"\xff" * 64
    (tmp_path / "0.tar").write_bytes(damaged)
    kinds = [sample.error_kind for sample in tar_samples(str(tmp_path / "0.tar"), limits=LIMITS)]
    assert kinds == [None, "corrupt_archive"]


def test_hostile_and_doubtful_tar_samples_are_refused(tmp_path: Path) -> None:
    files = {"../up.png": b"1", "two.png": b"1", "two.jpg": b"1", "big.png": b"1" * 50, "__meta__.png": b"1"}
    write_tar(tmp_path / "0.tar", {**files, "two.x": b"", "twice.png": b"1", "other.png": b"1"})
    with tarfile.open(tmp_path / "0.tar", "a") as archive:
        archive.addfile(tarfile.TarInfo("twice.png"))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    limits = replace(LIMITS, max_file_bytes=40)
    found = {sample.stem: sample.error_kind for sample in tar_samples(str(tmp_path / "0.tar"), limits=limits)}
    assert found["0/../up"] == "unsafe_path"
    assert found["0/big"] == "too_large"
    assert found["0/link"] == "not_a_file"
    assert found["0/twice"] == "duplicate_name"
    chosen = [s for s in tar_samples(str(tmp_path / "0.tar"), limits=LIMITS, member="jpg") if s.error_kind is None]
    assert [(sample.key, sample.extension) for sample in chosen] == [("two", "jpg")]
    assert [part.extension for part in chosen[0].carried] == ["png"]


def test_keys_never_meet(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "a.PNG", "a.png.jpg", "a%png.png", "a-1.png", "b.c.png", "b%2Ec.png"]
    for name in names:
        (tmp_path / name).touch()
    keys = [sample.key for sample in folder_samples(str(tmp_path), limits=LIMITS)]
    assert len(set(keys)) == len(names)
    assert not any("." in key for key in keys)


def test_a_list_is_cut_across_its_row_groups(tmp_path: Path) -> None:
    table = pa.table({"path": [f"{n}.png" for n in range(25)], "n": list(range(25))})
    pq.write_table(table, tmp_path / "list.parquet", row_group_size=7)
    cut = list(list_shards(str(tmp_path / "list.parquet"), column=None, size=10))
    assert [len(samples) for samples, _ in cut] == [10, 10, 5]
    assert [value for _, rest in cut for value in rest.column("n").to_pylist()] == list(range(25))
    assert [sample.index for samples, _ in cut for sample in samples] == list(range(25))
    assert table_from(table_bytes(cut[1][1])).equals(cut[1][1])
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(IngestError, match="cannot be read as Parquet"):
        list(list_shards(str(tmp_path / "broken.parquet"), column=None, size=10))
    with pytest.raises(ValueError, match="holds int64, expected text"):
        list(list_shards(str(tmp_path / "list.parquet"), column="n", size=10))


def test_one_store_out_of_order_is_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.datasets import fetching

    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"of any kind")
    samples = list(folder_samples(str(tmp_path), limits=LIMITS))
    whole, asked = fetching._whole, []

    def troubled(sample: Any, part: Any, limits: Any) -> bytes:
        asked.append(sample.key)
        if sample.key == "b":
            raise StoreUnavailableError("The store could not serve b.")
        return whole(sample, part, limits)

    monkeypatch.setattr(fetching, "_whole", troubled)
    monkeypatch.setattr(fetching, "_PAUSES", (0.0, 0.0))
    fetched = fetch(samples, tmp_path / "work", limits=LIMITS)
    assert fetched[0].name is not None
    assert fetched[1].failure is not None
    assert fetched[1].failure.error_kind == "unavailable"
    assert asked.count("b") == 3
    assert asked.count("a") == 1
    with pytest.raises(StoreUnavailableError):  # nothing of a listed source can be read: the store is down
        fetch(samples[1:], tmp_path / "work", limits=LIMITS)


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_formats_keep_the_pixels_and_are_the_same_twice(kind: str) -> None:
    import pyvips

    pixels = np.rint(smooth_picture(1) * 65535).astype(np.uint16)
    data = encode(pixels, format_name=kind, quality=None)
    assert data == encode(pixels, format_name=kind, quality=None)
    read = pyvips.Image.new_from_buffer(data, "").numpy()
    white = 65535 if kind == "png" else 255
    assert np.abs(read / white - pixels / 65535).mean() < (1e-9 if kind == "png" else 0.02)
    alpha = np.zeros(pixels.shape[:2], np.uint16)
    laid = pyvips.Image.new_from_buffer(encode(pixels, format_name=kind, quality=90, alpha=alpha), "").numpy()
    assert laid[..., 3].max() == 0 if kind != "jpeg" else laid.min() > 250


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layout": "zip"}, "--layout: got 'zip', expected one of tar, folder"),
        ({"shard_size": 0}, "--shard-size: got 0"),
        ({"format": "jpeg", "quality": 0}, "--quality: got 0, expected 1 to 100"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_options(DatasetOptions(**options))
