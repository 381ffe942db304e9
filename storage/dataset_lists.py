"""A Parquet list of pictures: one column of paths or URLs, the others carried through, read a shard at a time."""

from __future__ import annotations

import difflib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.dataset_samples import Sample, refused
from storage.errors import IngestError, OutputError
from storage.locations import Location
from storage.sources import IMAGE_SUFFIXES, UNSUPPORTED_SUFFIXES

USUAL_COLUMNS = ("path", "url", "uri", "file", "filename", "file_name", "image", "image_path", "image_url")
_READ_AHEAD = 1 << 22


def list_shards(source: str, *, column: str | None, size: int) -> Iterator[tuple[list[Sample], pa.Table]]:
    """Yield (samples, table of the other columns) of `size` rows at a time, in the order of the file.

    column: of paths or URLs; None = the usual name that is there. Relative paths are below the list's own folder.
    Raises ValueError for the column, IngestError for a file that is no Parquet.
    """
    location = Location(source)
    with _opened(location) as file:
        column = chosen_column(file.schema_arrow, column)
        index = 0
        for table in _slices(file, size=size):
            values = table.column(column).to_pylist()
            yield (
                [_sample(value, location, index=index + row) for row, value in enumerate(values)],
                table.drop([column]),
            )
            index += len(values)


def chosen_column(schema: pa.Schema, column: str | None) -> str:
    """Return the column that holds the pictures; raises ValueError, naming the nearest."""
    texts = [field.name for field in schema if _is_text(field.type)]
    if column is None:
        found = [name for name in USUAL_COLUMNS if name in texts]
        if len(found) == 1:
            return found[0]
        what = f"several could be it: {', '.join(found)}" if found else f"text columns are {', '.join(texts) or 'none'}"
        raise ValueError(f"--column: name the column of paths or URLs; {what}")
    if column in texts:
        return column
    if column in schema.names:
        raise ValueError(f"--column: {column} holds {schema.field(column).type}, expected text: paths or URLs")
    near = difflib.get_close_matches(column, texts, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"--column: there is no {column!r}, expected one of {', '.join(texts) or 'none'}{hint}")


def table_bytes(table: pa.Table) -> bytes:
    """Return a table as an Arrow stream; the same rows and types give the same bytes."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue()


def table_from(data: bytes) -> pa.Table:
    """Return the table that `table_bytes` was given."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


def json_rows(table: pa.Table) -> list[bytes]:
    """Return every row as one JSON object, for loaders that read labels beside the picture; binary columns stay out."""
    kept = [field.name for field in table.schema if not _is_binary(field.type)]
    return [
        json.dumps(row, ensure_ascii=False, default=str, sort_keys=True).encode("utf-8", "replace")
        for row in table.select(kept).to_pylist()
    ]


@contextmanager
def _opened(location: Location) -> Iterator[pq.ParquetFile]:
    try:
        stream = location.open_read(block_bytes=_READ_AHEAD)
    except FileNotFoundError:
        raise IngestError("missing", f"There is no {location}; expected a .parquet file.") from None
    with stream:
        try:
            file = pq.ParquetFile(stream)
        except (pa.ArrowException, OSError) as error:
            text = f"{location} cannot be read as Parquet ({error}). Fetch it again, or name another file."
            raise IngestError("decode_failed", text) from error
        with file:
            yield file


def _slices(file: pq.ParquetFile, *, size: int) -> Iterator[pa.Table]:
    """Yield tables of exactly `size` rows, the last one smaller; batches of Arrow end with their row groups."""
    held: list[pa.Table] = []
    rows = 0
    for batch in file.iter_batches(batch_size=size):
        held.append(pa.Table.from_batches([batch]))
        rows += batch.num_rows
        if rows >= size:
            joined = pa.concat_tables(held)
            yield joined.slice(0, size).combine_chunks()
            held, rows = [joined.slice(size)], rows - size
    if rows:
        yield pa.concat_tables(held).combine_chunks()


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _sample(value: Any, listing: Location, *, index: int) -> Sample:
    name = f"{index:09d}"
    sample = Sample(index=index, key=name, stem=name, extension="", uri="", source=str(value or ""), size=0, version="")
    if not value:
        return refused(sample, "missing", f"Row {index} of {listing} names no picture; expected a path or URL.")
    try:
        place = _place(value, listing)
    except OutputError as error:
        return refused(sample, "unsafe_path", str(error))
    suffix = PurePosixPath(place.uri.partition("?")[0]).suffix
    known = suffix.lower() in IMAGE_SUFFIXES | UNSUPPORTED_SUFFIXES
    return Sample(
        index=index,
        key=name,
        stem=name,
        extension=suffix[1:] if known else "",
        uri=place.uri,
        source=place.uri,
        size=0,
        version="",
    )


def _place(value: str, listing: Location) -> Location:
    if "://" in value or value.startswith("/"):
        return Location(value)
    return Location(listing.uri.rpartition("/")[0]).join(value)
