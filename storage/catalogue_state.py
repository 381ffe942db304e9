"""What is current in a catalogue, by source file, and how rows of a committed shard are noted or taken out.

A file of the catalogue is never edited: it is committed anew with other rows, and the older one moves to superseded/.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.catalogue import ShardKey, commit_shard, committed_shards, connect, contents, damaged, retire_shard
from storage.catalogue_schema import TABLES
from storage.locations import Location

PRESENT, SOURCE_MISSING = "present", "source_missing"
# How the name of a detector begins where masks came with a picture, and it was not searched.
GIVEN = "given-"
_DISTINGUISHING = (
    "relative_path",
    "page_index",
    "image_id",
    "source_sha256",
    "source_etag",
    "source_state",
    "status",
    "duplicate_of",
)
_FILES = """
SELECT run_id, shard_id, relative_path, max(finished_at) AS finished_at, any_value(source_bytes) AS source_bytes,
       any_value(source_sha256) AS source_sha256, any_value(source_etag) AS source_etag,
       any_value(source_state) AS source_state, any_value(source_uri) AS source_uri,
       any_value(duplicate_of) AS duplicate_of,
       any_value(error_kind) FILTER (WHERE status IN ('failed', 'quarantined')) AS error_kind,
       any_value(scratch_detector) FILTER (WHERE starts_with(scratch_detector, $given)) AS given,
       bool_or(status IN ('failed', 'quarantined')) AS unsuccessful, bool_or(output_sha256 IS NOT NULL) AS has_output
FROM images WHERE collection = $collection GROUP BY run_id, shard_id, relative_path
"""

# Of several rows of one file the last one says what its output was made from.
_OUTPUTS = """
SELECT relative_path, collection, source_uri, source_state FROM images WHERE output_sha256 IS NOT NULL
QUALIFY row_number() OVER (
    PARTITION BY collection, relative_path ORDER BY finished_at DESC NULLS LAST, run_id DESC
) = 1
ORDER BY ALL
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFile:
    """What the catalogue says of one source file, all its pages together.

    unsuccessful: it was quarantined or a page of it failed, with `error_kind`. duplicate_of: as in the catalogue.
    given: which masks came with it, None = it was searched.
    """

    shard: ShardKey
    source_uri: str
    source_bytes: int | None
    source_sha256: str | None
    source_etag: str | None
    source_state: str | None
    error_kind: str | None
    unsuccessful: bool
    has_output: bool
    duplicate_of: str | None
    finished_at: datetime | None
    given: str | None = None

    @property
    def missing(self) -> bool:
        return self.source_state == SOURCE_MISSING


@dataclass(slots=True, kw_only=True)
class CatalogueState:
    """The current rows of one collection, by relative path of the source file.

    stale: rows that a newer row of the same file made obsolete, as the relative paths in each shard: what a killed run,
    or a whole run with other settings, left behind; none for a shard of which an older file is still there.
    """

    files: dict[str, KnownFile] = field(default_factory=dict)
    stale: dict[ShardKey, set[str]] = field(default_factory=dict)


def load_state(root: Location, *, collection: str) -> CatalogueState:
    """Return what is current in a collection: of several rows of one source file those that were finished last.

    Nothing for a catalogue or collection that is not there.
    """
    state = CatalogueState()
    shards = committed_shards(root, collection=collection)
    if not shards:
        return state
    state.stale = {shard: set() for shard, places in shards.items() if len(places) > 1}
    with connect(root, tables=("images",)) as connection:
        found = connection.sql(_FILES, params={"collection": collection, "given": GIVEN}).to_arrow_table()
    for batch in found.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            shard = (row.pop("run_id"), collection, row.pop("shard_id"))
            path = row.pop("relative_path")
            _take(state, path, KnownFile(shard=shard, **row))
    return state


def output_of_another(
    root: Location, *, collection: str, source: str, paths: Collection[str], moved: bool
) -> tuple[str, str, str] | None:
    """Return (path, collection, source URI) of an output of another source that is in the way of a run; None without.

    source: URI of the run's. paths: what it restores, relative paths. Of another collection only those outputs are in
    the way; one source under two names of collections replaces its own. Of `collection` itself all are whose files are
    not known to be gone, since it is the listing of one source; none if it may have `moved`.
    """
    names = {name for _, name, _ in committed_shards(root)}
    if not (names - {collection} if moved else names):
        return None
    with connect(root, tables=("images",)) as connection:
        rows = connection.sql(_OUTPUTS).to_arrow_table()
    beside = None
    for batch in rows.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            path, name, uri = row["relative_path"], row["collection"], row["source_uri"]
            # A tar may call its members ./name, which their addresses keep.
            same = uri in (f"{source}/{path}", f"{source}!/{path}", f"{source}!/./{path}")
            if same or (name == collection and moved):
                continue
            if path in paths:
                return path, name, uri
            if name == collection and row["source_state"] != SOURCE_MISSING:
                beside = beside or (path, name, uri)
    return beside


def _take(state: CatalogueState, path: str, known: KnownFile) -> None:
    other = state.files.setdefault(path, known)
    if other is known:
        return
    newer, older = (known, other) if _age(known) > _age(other) else (other, known)
    state.files[path] = newer
    state.stale.setdefault(older.shard, set()).add(path)


def _age(known: KnownFile) -> tuple[float, ShardKey]:
    return (0.0 if known.finished_at is None else known.finished_at.timestamp(), known.shard)


def amend_shard(
    root: Location,
    shard: ShardKey,
    *,
    drop: Collection[str] = (),
    notes: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Commit a shard anew without the rows of the source files `drop`, and with `notes` in the images rows of others.

    notes: columns by relative path. All other rows and values stay as they are. A shard without rows left is retired.
    Safe to repeat, and to be done by two runs at once; nothing happens when the shard is gone.
    """
    notes = notes or {}
    places = contents(root, shard)
    if not places:
        return
    try:
        rows = {table: _rows(root, table, places[-1]) for table in TABLES}
    except FileNotFoundError:  # another run amended it meanwhile
        return
    kept = {table: [row for row in found if row["relative_path"] not in drop] for table, found in rows.items()}
    if not kept["images"]:
        retire_shard(root, shard)
        return
    kept["images"] = [{**row, **notes.get(row["relative_path"], {})} for row in kept["images"]]
    if kept == rows:
        retire_shard(root, shard, keep=places[-1])
        return
    run_id, collection, shard_id = shard
    digest = _digest(kept["images"])
    commit_shard(root, run_id=run_id, collection=collection, shard_id=shard_id, content_sha256=digest, **kept)


def _rows(root: Location, table: str, place: str) -> list[dict[str, Any]]:
    file = root.join(table, place)
    data = io.BytesIO(file.read_bytes())
    try:
        found = pq.read_table(data).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise damaged(file, error) from error
    return [{name: value for name, value in row.items() if name in TABLES[table].names} for row in found]


def _digest(rows: list[dict[str, Any]]) -> str:
    """Return what an amended file is filed under; never the digest of a file that was committed by a run."""
    lines = [[row["shard_content_sha256"], *(row.get(name) for name in _DISTINGUISHING)] for row in rows]
    return hashlib.sha256(json.dumps(["amended", lines]).encode("utf-8", "backslashreplace")).hexdigest()
