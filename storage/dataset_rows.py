"""One row per sample of a data set: the Arrow schema with its definitions, and shards of rows as Parquet bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import OutputError

SCHEMA_VERSION = "1"
ESTIMATES = {
    "scratch_coverage": "share of pixels under scratches, cracks, dust or holes, 0 to 1",
    "noise_sigma": "standard deviation of the noise, 8-bit grey levels",
    "blur_sigma_px": "standard deviation of an equivalent Gaussian blur, px",
    "jpeg_quality": "IJG quality of the strongest JPEG compression seen, 100 = no trace",
    "effective_scale": "share of the pixel resolution that carries detail, 0 to 1",
    "fading": "lost share of the tonal range, 0 to 1",
    "colour_cast": "distance of the neutral axis from grey, CIELAB units",
}


def _field(name: str, kind: pa.DataType, definition: str, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"definition": definition})


_S, _I, _F = pa.string(), pa.int64(), pa.float64()
SCHEMA = pa.schema(
    [
        _field("index", _I, "place in the input, from 0", nullable=False),
        _field("key", _S, "name in its shard, without extension", nullable=False),
        _field("source", _S, "where the picture was read: a file, tar!/member or URL", nullable=False),
        _field("shard", _S, "number of its shard, six digits", nullable=False),
        _field("output", _S, "the result below the data set: a file, or shard!/member; null = none"),
        _field("members", pa.list_(pa.field("item", _S)), "extensions carried through with it, unchanged"),
        _field("status", _S, "untouched, restored, review or failed", nullable=False),
        _field("methods", pa.list_(pa.field("item", _S)), "methods whose results were kept, in order"),
        _field("plan", _S, "what was decided and why, one sentence"),
        *(
            field
            for name, definition in ESTIMATES.items()
            for field in (
                _field(name, _F, definition),
                _field(f"{name}_confidence", _F, f"how far {name} can be trusted, 0 to 1"),
            )
        ),
        _field("source_sha256", _S, "of the file read"),
        _field("output_sha256", _S, "of the file or member written"),
        _field("source_bytes", _I, "size of the file read"),
        _field("output_bytes", _I, "size of the file or member written"),
        _field("width", _I, "of the result, upright, px"),
        _field("height", _I, "of the result, upright, px"),
        _field("error_kind", _S, "short stable name of what went wrong"),
        _field("error_text", _S, "what went wrong, what was expected, what to do"),
    ],
    metadata={"lacuna_dataset": SCHEMA_VERSION},
)


def rows_bytes(rows: Sequence[Mapping[str, Any]], *, carried: pa.Table | None = None) -> bytes:
    """Return the rows of a shard as Parquet, with the carried columns; the same rows give the same bytes.

    carried: one row per sample, in order; a column called like one of ours becomes carried_<name>. Raises OutputError
    when the rows do not fit.
    """
    try:
        table = pa.Table.from_pylist([{name: row.get(name) for name in SCHEMA.names} for row in rows], schema=SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise OutputError(f"A row of the data set does not fit its table ({error}).") from error
    if carried is not None:
        if carried.num_rows != table.num_rows:
            raise OutputError(f"Got {carried.num_rows} carried rows, expected {table.num_rows}, one per sample.")
        for name, column in zip(carried.column_names, carried.columns, strict=True):
            table = table.append_column(_free_name(name, table.column_names), column)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _free_name(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name = f"carried_{name}"
    return name
