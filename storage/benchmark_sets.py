"""A degraded set on disk or in a store: pictures as files or WebDataset shards, and a Parquet manifest over them.

<root>/manifest.parquet                      one row per image x recipe x seed; written last, so it means "complete"
<root>/clean, degraded, masks/….png          format png
<root>/shards/<recipe>/set-000000.tar        format webdataset: clean.png, degraded.png, mask.png, json per sample
<root>/parts/<key>.json                      rows of one finished unit of work, from which a broken run goes on

The rule for what does not fit a PNG: a degraded picture whose values 16 bits cannot hold (unclipped noise) is stored
clipped and rounded to 8 bits, for looking, with `exact` false. Its real values are made again from the clean picture,
the recipe and `draw_seed`, and must then have the sha256 `pixels_sha256`.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import StorageError
from storage.locations import Location

MANIFEST = "manifest.parquet"
SCHEMA_VERSION = "1"
Row = Mapping[str, Any]


def _field(name: str, kind: pa.DataType, definition: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"definition": definition})


SCHEMA = pa.schema(
    [
        _field("image_id", pa.string(), "path of the clean picture in its source, without its ending"),
        _field("recipe", pa.string(), "id of the degradation recipe"),
        _field("seed", pa.int64(), "the seed asked for"),
        _field("draw_seed", pa.int64(), "the seed given to the recipe: from recipe, image_id and seed"),
        _field("task", pa.string(), "what a method has to do: the recipe's task"),
        _field("scale", pa.int32(), "how many times larger the clean picture is than the degraded one"),
        _field("width", pa.int32(), "of the clean picture, px"),
        _field("height", pa.int32(), "of the clean picture, px"),
        _field("channels", pa.int32(), "1 or 3"),
        _field("source_sha256", pa.string(), "of the file that the clean picture was read from"),
        _field("clean_path", pa.string(), "below the set, or shard!/member"),
        _field("clean_sha256", pa.string(), "of the stored file"),
        _field("degraded_path", pa.string(), "below the set, or shard!/member"),
        _field("degraded_sha256", pa.string(), "of the stored file"),
        _field("exact", pa.bool_(), "whether the stored degraded file holds exactly the recipe's values"),
        _field("pixels_sha256", pa.string(), "over shape and float32 values of the degraded picture"),
        _field("mask_path", pa.string(), "255 = missing; null = nothing is missing", nullable=True),
        _field("mask_sha256", pa.string(), "of the stored file", nullable=True),
        _field("provenance", pa.string(), "what the recipe drew, as JSON"),
        _field("protocol", pa.string(), "how a result is to be measured, as JSON"),
    ],
    metadata={"lacuna_benchmark_set": SCHEMA_VERSION},
)


class BenchmarkSetError(StorageError):
    """A degraded set that is not there, cannot be read, or does not hold what its manifest says."""


def parquet_bytes(rows: Sequence[Row], schema: pa.Schema) -> bytes:
    """Return rows as a Parquet file; the same rows give the same bytes. BenchmarkSetError when one does not fit."""
    try:
        table = pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise BenchmarkSetError(f"A row does not fit its table ({error}).") from error
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def write_manifest(root: Location, rows: Sequence[Row]) -> str:
    """Write the manifest, sorted, and return its URI."""
    ordered = sorted(rows, key=lambda row: (row["recipe"], row["seed"], row["image_id"]))
    target = root.join(MANIFEST)
    data = parquet_bytes(ordered, SCHEMA)
    if not target.exists() or target.read_bytes() != data:
        target.write_bytes_atomic(data)
    return target.uri


def read_manifest(root: Location) -> list[dict[str, Any]]:
    """Return the rows of a set's manifest; BenchmarkSetError when it is missing, damaged or not of this kind."""
    place = root.join(MANIFEST)
    try:
        data = place.read_bytes()
    except FileNotFoundError:
        raise BenchmarkSetError(
            f"There is no {place}; expected a degraded set. Make one with `lacuna benchmark generate`, or name a suite "
            "of `lacuna benchmark suites`."
        ) from None
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowInvalid, pa.ArrowException, OSError) as error:
        raise BenchmarkSetError(
            f"{place} cannot be read as Parquet ({error}). Delete it and generate the set again: what is whole is kept."
        ) from error
    missing = [name for name in SCHEMA.names if name not in table.schema.names]
    if missing or table.num_rows == 0:
        what = f"lacks the columns {', '.join(missing)}" if missing else "has no rows"
        raise BenchmarkSetError(f"{place} {what}; expected the manifest of a degraded set. Generate it again.")
    rows: list[dict[str, Any]] = table.select(SCHEMA.names).to_pylist()
    return rows


def read_member(uri: str) -> bytes:
    """Return the bytes of a file, or of a tar member when `uri` is shard!/member; BenchmarkSetError when missing."""
    place, _, member = uri.partition("!/")
    try:
        return _tar_members(place)[member] if member else Location(place).read_bytes()
    except (FileNotFoundError, KeyError):
        raise BenchmarkSetError(f"There is no {uri}; the set is incomplete. Generate it again.") from None
    except tarfile.TarError as error:
        raise BenchmarkSetError(
            f"{place} is no whole tar file ({error}). Delete it and generate the set again."
        ) from error


@lru_cache(maxsize=2)
def _tar_members(uri: str) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(Location(uri).read_bytes()), mode="r:") as archive:
        return {
            info.name: file.read()
            for info in archive
            if info.isreg() and (file := archive.extractfile(info)) is not None
        }


def write_tar(place: Location, files: Mapping[str, bytes]) -> None:
    """Write a tar of the files; what was read of an earlier one in its place is forgotten."""
    place.write_bytes_atomic(tar_bytes(files))
    _tar_members.cache_clear()


def tar_bytes(files: Mapping[str, bytes]) -> bytes:
    """Return a tar of the files, sorted, with headers that say nothing of when, where and by whom."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(files[name]), 0, 0o644
            archive.addfile(info, io.BytesIO(files[name]))
    return sink.getvalue()


def read_part(root: Location, key: str) -> list[dict[str, Any]] | None:
    """Return the rows of a finished unit of work, or None when it is not finished or its note is damaged."""
    try:
        rows: list[dict[str, Any]] = json.loads(root.join("parts", f"{key}.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return rows


def write_part(root: Location, key: str, rows: Sequence[Row]) -> None:
    """Note that a unit of work is finished: its files are all there."""
    data = json.dumps(list(rows), ensure_ascii=False, sort_keys=True, indent=1).encode()
    root.join("parts", f"{key}.json").write_bytes_atomic(data)
