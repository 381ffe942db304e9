"""The catalogue on a real S3 server: committed once, read by DuckDB, pandas and Polars as it is."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import duckdb
import pandas
import polars
import pytest
from real_server import Requests, Server

from storage.catalogue import commit_shard, export_csv, query, retire_shards
from storage.errors import CatalogueError
from storage.locations import Location

pytestmark = pytest.mark.s3
RUN = {"run_id": "nightly-1", "collection": "scans"}


def _row(path: str, **more: Any) -> Mapping[str, Any]:
    required = {"image_id": path, "relative_path": path, "source_uri": f"s3://in/{path}", "status": "restored"}
    return {**required, "code_version": "1", "finished_at": pandas.Timestamp.now("UTC").to_pydatetime(), **more}


def _commit(root: Location, shard_id: str, *, content: str, paths: list[str]) -> bool:
    rows = [_row(path, width=64) for path in paths]
    return commit_shard(root, **RUN, shard_id=shard_id, content_sha256=content * 64, images=rows)


@pytest.fixture
def root(place: str) -> Location:
    root = Location(place).join("catalogue")
    assert _commit(root, "s1", content="a", paths=["a.png", "b.png"])
    assert _commit(root, "s2", content="b", paths=["c.png"])
    return root


def test_duckdb_reads_it(root: Location) -> None:
    rows = query(root, "SELECT relative_path, run_id, width FROM images ORDER BY 1").to_pylist()
    assert rows == [{"relative_path": f"{name}.png", "run_id": "nightly-1", "width": 64} for name in "abc"]
    assert query(root, "SELECT count(*) AS n FROM steps").to_pylist() == [{"n": 0}]
    target = root.join("export.csv")
    assert export_csv(root, target) == 3
    assert len(target.read_bytes().splitlines()) == 4


def test_a_query_asks_once_per_file(root: Location, requests: Requests) -> None:
    requests.made.clear()
    assert query(root, "SELECT count(*) AS n FROM images").to_pylist() == [{"n": 3}]
    assert requests.count("get_object") == 6, "two shards of three tables"
    assert len(requests.made) <= 6 + 4


def test_plain_duckdb_reads_it_by_its_prefix(root: Location) -> None:
    with duckdb.connect() as connection:
        connection.register_filesystem(root.filesystem)
        files = f"read_parquet('{root.uri}/images/**/*.parquet', hive_partitioning = true)"
        found = connection.sql(f"SELECT relative_path, run_id FROM {files} ORDER BY 1").fetchall()
    assert found == [(f"{name}.png", "nightly-1") for name in "abc"]


def test_pandas_and_polars_read_it_by_its_prefix(root: Location, server: Server) -> None:
    seen = pandas.read_parquet(f"{root.uri}/images", storage_options={"use_listings_cache": False})
    assert sorted(seen["relative_path"]) == ["a.png", "b.png", "c.png"]
    assert set(seen["run_id"].astype(str)) == {"nightly-1"}
    settings = {"aws_endpoint_url": server.settings["AWS_ENDPOINT_URL"], "aws_allow_http": "true"}
    found = polars.scan_parquet(f"{root.uri}/images/", storage_options=settings, hive_partitioning=True).collect()
    assert sorted(found["relative_path"]) == ["a.png", "b.png", "c.png"]


def test_a_shard_is_committed_once_and_a_new_content_supersedes_it(root: Location) -> None:
    assert not _commit(root, "s1", content="a", paths=["a.png", "b.png"])
    assert _commit(root, "s1", content="c", paths=["a.png", "changed.png"])
    names = query(root, "SELECT relative_path FROM images ORDER BY 1").column(0).to_pylist()
    assert names == ["a.png", "c.png", "changed.png"]
    assert retire_shards(root, **RUN, keep={"s1"}) == 1
    assert query(root, "SELECT count(*) AS n FROM images").to_pylist() == [{"n": 2}]


def test_of_runs_that_commit_the_same_shard_at_once_one_leaves_its_rows(place: str) -> None:
    root = Location(place).join("catalogue")
    gate, created = threading.Barrier(6), []

    def commit() -> None:
        gate.wait()
        created.append(_commit(root, "s1", content="a", paths=["a.png", "b.png"]))

    threads = [threading.Thread(target=commit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert created.count(True) == 1
    assert len(root.list("images")) == 1
    assert query(root, "SELECT count(*) AS n FROM images").to_pylist() == [{"n": 2}]


def test_no_catalogue_says_so(place: str) -> None:
    with pytest.raises(CatalogueError, match="no catalogue at s3://"):
        query(Location(place).join("catalogue"), "SELECT 1")
