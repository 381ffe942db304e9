"""Measured cells: one per method x case, filed under a hash of everything the numbers depend on.

<root>/cells/ab/<key>.json      the numbers; written last, so it means "done". Repeats to the byte.
<root>/timings/ab/<key>.json    seconds, which never repeat and are therefore kept apart
<root>/crops/<name>.png         what the examples show
<root>/metrics.parquet, timings.parquet, cases.json    the tables of all cells of the cases asked for last
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from storage.benchmark_sets import BenchmarkSetError, parquet_bytes
from storage.locations import Location

_WHERE = [
    pa.field("suite", pa.string(), nullable=False),
    pa.field("dataset", pa.string(), nullable=False),
    pa.field("level", pa.string(), nullable=False),
    pa.field("seed", pa.int64(), nullable=False),
    pa.field("image_id", pa.string(), nullable=False),
    pa.field("method", pa.string(), nullable=False),
    pa.field("key", pa.string(), nullable=False),
    pa.field("megapixels", pa.float64(), nullable=False),
]
_TIMINGS = pa.schema([*_WHERE, pa.field("seconds", pa.float64()), pa.field("device", pa.string())])


class CellStore:
    """The cells below one folder or prefix."""

    def __init__(self, root: Location) -> None:
        self.root = root

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a cell, or None when it is not there or damaged."""
        return _read_json(self._place("cells", key))

    def timing(self, key: str) -> dict[str, Any] | None:
        """Return the timing of a cell, or None."""
        return _read_json(self._place("timings", key))

    def put(self, key: str, cell: Mapping[str, Any], *, timing: Mapping[str, Any]) -> None:
        """Keep a cell; its timing first, since the cell is what says that both are there."""
        self._place("timings", key).write_bytes_atomic(_json(timing))
        self._place("cells", key).write_bytes_atomic(_json(cell))

    def methods(self) -> list[str]:
        """Return the methods measured so far; none before the first run."""
        return [str(name) for name in self._described().get("methods", [])]

    def check_is_of(self, uri: str) -> None:
        """Raise BenchmarkSetError when the tables here are of another set than `uri`, "" = of a suite.

        Sets of one name share a folder, and the later one's tables would take the place of the earlier one's.
        """
        known = self._described().get("set", uri)
        if known != uri:
            raise BenchmarkSetError(
                f"{self.root} has the results of {known or 'the suite of this name'}, got {uri or 'the suite'}; give "
                f"another --destination, or rename the set. If it was only moved: remove {self.root.join('cases.json')}"
            )

    def _described(self) -> dict[str, Any]:
        return _read_json(self.root.join("cases.json")) or {}

    def put_crop(self, name: str, data: bytes) -> None:
        """Keep one example picture."""
        place = self.root.join("crops", f"{name}.png")
        if not place.exists() or place.read_bytes() != data:
            place.write_bytes_atomic(data)

    def crop(self, name: str) -> bytes | None:
        """Return one example picture, or None."""
        try:
            return self.root.join("crops", f"{name}.png").read_bytes()
        except FileNotFoundError:
            return None

    def write_tables(
        self, *, description: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], names: Sequence[str]
    ) -> None:
        """Write the tables over cells, in the order given; `names` are the metrics, each a nullable column."""
        columns = [*_WHERE, pa.field("protocol", pa.string()), pa.field("precision", pa.string())]
        columns += [pa.field("weights_sha256", pa.string()), *(pa.field(name, pa.float64()) for name in names)]
        timed = [{**row, **(self.timing(str(row["key"])) or {})} for row in metrics]
        self.root.join("timings.parquet").write_bytes_atomic(parquet_bytes(timed, _TIMINGS))
        self.root.join("metrics.parquet").write_bytes_atomic(parquet_bytes(metrics, pa.schema(columns)))
        self.root.join("cases.json").write_bytes_atomic(_json(description))

    def read_tables(self) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
        """Return (description, metric rows, timing rows); BenchmarkSetError when they are missing or damaged."""
        description = _read_json(self.root.join("cases.json"))
        if description is None:
            raise BenchmarkSetError(
                f"There is no result in {self.root}; expected cases.json and metrics.parquet of `lacuna benchmark run`."
            )
        return description, self._rows("metrics.parquet"), self._rows("timings.parquet")

    def _rows(self, name: str) -> list[dict[str, Any]]:
        import io

        import pyarrow.parquet as pq

        place = self.root.join(name)
        try:
            rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(place.read_bytes())).to_pylist()
        except (FileNotFoundError, pa.ArrowException, OSError) as error:
            raise BenchmarkSetError(
                f"{place} cannot be read ({error}). Run the same `lacuna benchmark run` again: cells are kept."
            ) from error
        return rows

    def _place(self, kind: str, key: str) -> Location:
        return self.root.join(kind, key[:2], f"{key}.json")


def result_folders(root: Location) -> list[str]:
    """Return the names of the results below `root`, sorted: folders with a cases.json."""
    found = [path for path in root.list() if path.count("/") == 1 and path.endswith("/cases.json")]
    return sorted(path.partition("/")[0] for path in found)


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1) + "\n").encode()


def _read_json(place: Location) -> dict[str, Any] | None:
    try:
        found = json.loads(place.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
