"""The catalogue: three Parquet tables, one immutable file per shard, committed by an exclusive create.

<root>/<table>/run_id=…/collection=…/<shard_id>-<content sha256, 16 digits>.parquet. The images file is created last
and is the commit: steps and metrics files without it do not count. Files of an older content of a shard move to
superseded/. `storage.catalogue_state` says what is current in it and amends it.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import math
import re
import tempfile
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from storage.catalogue_schema import IMAGES, METRICS, PARTITIONS, SCHEMA_VERSION, STEPS, TABLES
from storage.errors import CatalogueError
from storage.locations import Entry, Location

__all__ = ["IMAGES", "METRICS", "SCHEMA_VERSION", "STEPS", "commit_shard", "connect", "export_csv", "query"]
__all__ += ["ShardKey", "committed_shards", "contents", "damaged", "partition_value", "retire_shard"]
__all__ += ["retire_shards"]

Rows = Sequence[Mapping[str, Any]]
ShardKey = tuple[str, str, str]
"""(run id, collection, shard id)."""
_READING = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
# What a wrong query raises before any row is read.
_WRONG_SQL = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)
_PARTITION_VALUE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
_FILE = re.compile(r"run_id=([^/]+)/collection=([^/]+)/([^/]+)-([0-9a-f]{1,16})\.parquet$")


def partition_value(text: str) -> str:
    """Return `text` as a valid run id or collection: ASCII letters, digits, dot, dash and underscore.

    Of a text without any of these letters and digits a hash remains, so that two of them stay apart.
    """
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:128]
    return kept or f"unnamed-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def commit_shard(
    root: Location,
    *,
    run_id: str,
    collection: str,
    shard_id: str,
    content_sha256: str,
    images: Rows,
    steps: Rows = (),
    metrics: Rows = (),
) -> bool:
    """Commit the rows of one shard and return True; False when this content of the shard is committed already.

    Rows are mappings by column name; shard_id and shard_content_sha256 are filled in where not given, missing columns
    become null.
    Raises CatalogueError for unknown columns, NaN, or a null where a value is required. Safe to repeat after a crash.
    """
    place = _place(run_id=run_id, collection=collection, shard_id=shard_id, content_sha256=content_sha256)
    shard = {"shard_id": shard_id, "shard_content_sha256": content_sha256}
    encoded = {
        "metrics": _encode("metrics", metrics),
        "steps": _encode("steps", steps),
        "images": _encode("images", [{**shard, **row} for row in images]),
    }
    before = contents(root, (run_id, collection, shard_id))
    created = False
    if place not in before:
        for table, data in encoded.items():  # images last
            target = root.join(table, place)
            if table == "images":
                created = target.create_exclusive(data)
            else:
                target.write_bytes_atomic(data)
    elif place != before[-1]:  # killed before that one moved away, and the content went back since: this is the newest
        root.join("images", place).write_bytes_atomic(root.join("images", place).read_bytes())
    # Only what was there before: of two runs that commit at once, neither takes away what the other just wrote.
    _supersede(root, [other for other in before if other != place], shard=(run_id, collection, shard_id), keep=place)
    return created


def contents(root: Location, shard: ShardKey) -> list[str]:
    """Return the places of the committed files of a shard, the current one last; more than one after a crash only."""
    found = [(entry.modified, entry.path.removeprefix("images/")) for entry in _files_of(root, "images", shard)]
    return [place for _, place in sorted(found)]


def retire_shards(root: Location, *, run_id: str, collection: str, keep: Collection[str]) -> int:
    """Move the files of shards that the source no longer has to superseded/; return how many shards.

    `keep` holds every shard id of the source as it is now. Needed when files were added or removed between two runs
    under one run id.
    """
    gone: dict[str, list[str]] = {}
    for table in ("images", "steps", "metrics"):
        for path in root.list(f"{table}/run_id={run_id}/collection={collection}"):
            match = _FILE.search(path)
            if match and match.group(3) not in keep:
                gone.setdefault(match.group(3), []).append(path)
    for path in (path for paths in gone.values() for path in paths):
        _move(root, path)
    return len(gone)


def retire_shard(root: Location, shard: ShardKey, *, keep: str | None = None) -> None:
    """Move all files of one shard, but that at the place `keep`, to superseded/; nothing happens without any."""
    _supersede(root, [place for place in contents(root, shard) if place != keep], shard=shard, keep=keep)


@contextmanager
def connect(root: Location, *, tables: Collection[str] = tuple(TABLES)) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB connection with the views images, steps and metrics (or `tables`) over the committed shards.

    Times are in UTC. Columns that files of an older schema do not have are null. Raises CatalogueError when there is no
    catalogue, and when a file of it turns out to be damaged, then or by a query inside the block.
    """
    places = [found[-1] for found in committed_shards(root).values()]
    if not places:
        raise CatalogueError(
            f"There is no catalogue at {root}; expected an images folder with Parquet files. Restore something first."
        )
    config = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    damage = None
    with closing(duckdb.connect(config=config)) as connection:
        wanted = [f"{table}/{place}" for table in tables for place in places]
        folder = root.local_path if root.is_local else _fetched(root, wanted, reader=connection)
        connection.execute("SET TimeZone = 'UTC'")  # of all that is shown and of days in queries; else this machine's
        try:
            for table in tables:
                _create_view(connection, table, [folder / table / place for place in places])
            yield connection
        except _WRONG_SQL:
            raise
        except duckdb.Error:
            damage = _damage(root, wanted, folder=folder)
            if damage is None:
                raise
    if damage is not None:
        del connection  # held by an error that the workflow engine keeps, it would be called a leak at the end
        raise damage


def damaged(file: Location, error: Exception) -> CatalogueError:
    """Return the error that names a file of a catalogue that cannot be read, and says what to do about it."""
    why = " ".join(str(error).strip().partition("\n")[0].replace(f"'{file.key}'", "").split())
    return CatalogueError(
        f"{file} is damaged or gone ({why}). Run again; if that does not help, move the files of this name out of "
        "images/, steps/ and metrics/ of the catalogue and restore again: their pictures are then restored anew."
    )


def query(root: Location, sql: str) -> pa.Table:
    """Return the result of `sql` over the views images, steps and metrics; raises CatalogueError."""
    try:
        with connect(root) as connection:
            kinds = {statement.type for statement in connection.extract_statements(sql)}
            if kinds and kinds <= _READING:
                return connection.sql(sql).to_arrow_table()
    except duckdb.Error as error:
        raise CatalogueError(_explain(sql, error)) from error
    raise CatalogueError(f"The query returns no table: {sql}. Expected a SELECT over images, steps or metrics.")


def export_csv(
    root: Location, target: Location, *, sql: str = "SELECT * FROM images ORDER BY relative_path, page_index"
) -> int:
    """Write the result of `sql` as CSV with a header, UTF-8; lists become JSON-like text. Returns the rows written."""
    result = query(root, sql)
    for index, field in enumerate(result.schema):
        if pa.types.is_nested(field.type):
            texts = [None if value is None else str(value) for value in result.column(index).to_pylist()]
            result = result.set_column(index, field.name, pa.array(texts, pa.string()))
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(result, buffer)
    target.write_bytes_atomic(buffer.getvalue())
    return int(result.num_rows)


def _create_view(connection: duckdb.DuckDBPyConnection, table: str, files: Sequence[Path]) -> None:
    names = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    hive = "hive_partitioning = true, hive_types = {'run_id': VARCHAR, 'collection': VARCHAR}, union_by_name = true"
    connection.register(f"no_{table}", TABLES[table].empty_table())
    connection.execute(
        f"CREATE VIEW {table} AS SELECT * FROM read_parquet([{names}], {hive}) "
        f"UNION ALL BY NAME SELECT * FROM no_{table}"
    )


def _damage(root: Location, paths: Sequence[str], *, folder: Path) -> CatalogueError | None:
    """Return the error of the first of the files, fetched into `folder`, that cannot be read by itself; else None."""
    with closing(duckdb.connect()) as connection:
        for path in paths:
            try:
                connection.read_parquet(str(folder / path)).to_arrow_table()
            except duckdb.Error as error:
                return damaged(root.join(path), error)
    return None


def _place(*, run_id: str, collection: str, shard_id: str, content_sha256: str) -> str:
    for name, value in (("run_id", run_id), ("collection", collection), ("shard_id", shard_id)):
        if not _PARTITION_VALUE.match(value):
            raise CatalogueError(
                f"{name} is {value!r}; expected letters, digits, dot, dash or underscore. "
                f"Try {partition_value(value)!r}."
            )
    if not re.fullmatch(r"[0-9a-f]{16,}", content_sha256):
        raise CatalogueError(f"content_sha256 is {content_sha256!r}; expected at least 16 hexadecimal digits.")
    return f"run_id={run_id}/collection={collection}/{shard_id}-{content_sha256[:16]}.parquet"


def _encode(table: str, rows: Rows) -> bytes:
    schema = TABLES[table]
    known = set(schema.names)
    for number, row in enumerate(rows):
        for name, value in row.items():
            if name not in known and name not in PARTITIONS:
                near = difflib.get_close_matches(name, sorted(known), 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise CatalogueError(
                    f"{table} row {number}: unknown column {name!r}.{hint} Columns: {', '.join(schema.names)}."
                )
            if isinstance(value, float) and not math.isfinite(value):
                raise CatalogueError(f"{table} row {number}: {name} is {value}; use None for what was not measured.")
        for field in schema:
            if not field.nullable and row.get(field.name) is None:
                raise CatalogueError(f"{table} row {number}: {field.name} is missing; every row needs it.")
    try:
        data = pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError) as error:
        raise CatalogueError(f"{table}: a value does not fit its column ({error}).") from error
    sink = io.BytesIO()
    pq.write_table(data, sink, compression="zstd")
    return sink.getvalue()


def _supersede(root: Location, places: Collection[str], *, shard: ShardKey, keep: str | None) -> None:
    """Move the files at `places` away, images first, so that no reader sees half a shard, then what belongs to none."""
    for place in places:
        _move(root, f"images/{place}")
    for table in ("steps", "metrics"):
        for entry in _files_of(root, table, shard):
            place = entry.path.removeprefix(f"{table}/")
            if place in places or (place != keep and not root.join("images", place).exists()):
                _move(root, entry.path)


def _move(root: Location, path: str) -> None:
    with suppress(FileNotFoundError):  # another worker moved it first
        root.join("superseded", path).write_bytes_atomic(root.join(path).read_bytes())
        root.join(path).delete()


def _files_of(root: Location, table: str, shard: ShardKey) -> list[Entry]:
    run_id, collection, shard_id = shard
    folder = f"{table}/run_id={run_id}/collection={collection}"
    found = root.entries(folder, starting=f"{shard_id}-")
    return [entry for entry in found if (match := _FILE.search(entry.path)) and match.group(3) == shard_id]


def committed_shards(root: Location, *, collection: str | None = None) -> dict[ShardKey, list[str]]:
    """Return {shard: places of its files, the current one last}, sorted; more than one only after a crash.

    collection: of this one only.
    """
    found: dict[ShardKey, list[tuple[float, str]]] = {}
    for entry in root.entries("images"):
        match = _FILE.search(entry.path)
        if match and collection in (None, match.group(2)):
            key = (match.group(1), match.group(2), match.group(3))
            found.setdefault(key, []).append((entry.modified, entry.path.removeprefix("images/")))
    return {key: [place for _, place in sorted(found[key])] for key in sorted(found)}


def _fetched(root: Location, paths: Sequence[str], *, reader: object) -> Path:
    """Return a local folder with files of a remote catalogue, which lives as long as `reader`.

    Each file is fetched whole, many at once: read in place, each would cost some eight requests one after the other.
    """
    folder = tempfile.TemporaryDirectory(prefix="lacuna-catalogue-")
    weakref.finalize(reader, folder.cleanup)
    root.fetch(paths, folder.name)
    return Path(folder.name)


def _explain(sql: str, error: Exception) -> str:
    text = str(error).strip()
    return (
        f"The query failed: {text}\nQuery: {sql}\nTables: images, steps, metrics; `DESCRIBE images` lists the columns."
    )
