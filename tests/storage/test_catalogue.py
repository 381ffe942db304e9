"""The catalogue: one commit per shard, readable by everyone, honest about what was not measured."""

from __future__ import annotations

import json
import math
import traceback
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.types import (
    DegradationEstimate,
    Estimated,
    Gain,
    ImageRecord,
    MetricRecord,
    OutputRecord,
    Plan,
    QuarantineRecord,
    ScratchReport,
    Step,
    StepOutcome,
    from_json,
)  # fmt: skip
from storage.catalogue import (
    IMAGES,
    METRICS,
    SCHEMA_VERSION,
    STEPS,
    commit_shard,
    connect,
    export_csv,
    partition_value,
    query,
    retire_shards,
)  # fmt: skip
from storage.catalogue_rows import image_row, metric_row, quarantine_row, step_row
from storage.errors import CatalogueError
from storage.locations import Location

GOLDEN = Path(__file__).with_name("catalogue_schema.json")
A, B = "a" * 64, "b" * 64
PLACE = {"run_id": "20261121", "collection": "glass-plates"}

RECORD = ImageRecord(
    image_id=A, relative_path="a/b.tif", source_uri="file:///in/a/b.tif", source_sha256=A, source_bytes=99,
    format="tiff", page_index=0, page_count=1, width=64, height=48, channels=3, bits_per_sample=16,
    has_alpha=False, compression="lzw", orientation=1,
    icc_name="Adobe RGB", icc_sha256=B, dpi_x=600.0, dpi_y=600.0, has_exif=True, has_iptc=False,
    has_xmp=True, jpeg_table_quality=None, duplicate_of=None, working_copy="aa/x.npy",
)  # fmt: skip
OUTCOME = StepOutcome(
    image_id=A, step_index=0, method_id="denoise", strength=1.0, reason="noisy", weights_sha256=B, device="cpu",
    precision="bf16", seconds=0.5, changed_fraction=1.0, accepted=True, note="",
)  # fmt: skip


def _row(name: str = "1", **more: Any) -> dict[str, Any]:
    fixed = {
        "image_id": name,
        "relative_path": f"{name}.jpg",
        "source_uri": "x",
        "code_version": "0",
        "status": "restored",
    }
    return {**fixed, **more}


def _metric(name: str = "1") -> dict[str, Any]:
    return {"image_id": name, "stage": "before", "metric": "psnr_db", "value": 30.5, "higher_is_better": True}


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    return Location(tmp_path / "cat" if request.param == "local" else f"memory://cat-{tmp_path.name}")


def test_schemas_match_the_golden_file() -> None:
    """Adding a column is a decision: raise SCHEMA_VERSION and rewrite the golden file."""
    found = {
        "schema_version": SCHEMA_VERSION,
        "tables": {
            name: [[field.name, str(field.type), field.nullable] for field in schema]
            for name, schema in {"images": IMAGES, "steps": STEPS, "metrics": METRICS}.items()
        },
    }
    assert found == json.loads(GOLDEN.read_text())
    for schema in (IMAGES, STEPS, METRICS):
        assert schema.metadata[b"lacuna.schema_version"] == SCHEMA_VERSION.encode()
        assert all(field.metadata[b"definition"] for field in schema)


def test_committing_twice_leaves_one(root: Location) -> None:
    arguments: dict[str, Any] = {
        **PLACE,
        "shard_id": "s1",
        "content_sha256": A,
        "images": [_row()],
        "metrics": [_metric()],
    }
    assert commit_shard(root, **arguments)
    assert not commit_shard(root, **arguments)
    assert query(root, "SELECT count(*) AS n FROM images").to_pylist() == [{"n": 1}]
    row = query(root, "SELECT * FROM images").to_pylist()[0]
    assert (row["run_id"], row["collection"], row["shard_id"]) == ("20261121", "glass-plates", "s1")
    assert row["noise_sigma"] is None


def test_newer_content_supersedes_and_gone_shards_retire(root: Location) -> None:
    commit_shard(root, **PLACE, shard_id="s1", content_sha256=A, images=[_row()], metrics=[_metric()])
    commit_shard(root, **PLACE, shard_id="s2", content_sha256=A, images=[_row("2")])
    commit_shard(root, **PLACE, shard_id="s1", content_sha256=B, images=[_row("3")])
    ids = "SELECT image_id FROM images ORDER BY ALL"
    assert query(root, ids)["image_id"].to_pylist() == ["2", "3"]
    assert query(root, "SELECT * FROM metrics").num_rows == 0
    assert len(root.list("superseded")) == 3
    assert retire_shards(root, **PLACE, keep={"s1"}) == 1
    assert query(root, ids)["image_id"].to_pylist() == ["3"]
    assert commit_shard(root, **PLACE, shard_id="s1", content_sha256=A, images=[_row()]), "going back is a commit"


def test_a_crash_between_the_files_is_no_commit_and_is_repaired(root: Location) -> None:
    commit_shard(root, **PLACE, shard_id="s1", content_sha256=A, images=[_row()])
    commit_shard(root, **PLACE, shard_id="s2", content_sha256=A, images=[_row("2")], metrics=[_metric("2")])
    images = next(path for path in root.list("images") if "s2" in path)
    saved = root.join(images).read_bytes()
    root.join(images).delete()  # as if killed before the last step
    assert query(root, "SELECT * FROM metrics").num_rows == 0
    assert commit_shard(root, **PLACE, shard_id="s2", content_sha256=A, images=[_row("2")], metrics=[_metric("2")])
    assert query(root, "SELECT * FROM metrics").num_rows == 1
    for table in ("images", "steps", "metrics"):  # killed after the commit, before the older content moved away
        older = root.join(table, images.removeprefix("images/").replace("s2-aaaa", "s2-cccc"))
        older.write_bytes_atomic(saved)
    commit_shard(root, **PLACE, shard_id="s2", content_sha256=A, images=[_row("2")])
    assert query(root, "SELECT image_id FROM images ORDER BY ALL")["image_id"].to_pylist() == ["1", "2"]


@pytest.mark.parametrize(("table", "left"), [("images", 500), ("steps", 0), ("metrics", 9)])
def test_a_damaged_file_is_named_and_can_be_moved_away(root: Location, table: str, left: int) -> None:
    shards: list[dict[str, Any]] = [
        {**PLACE, "shard_id": f"s{name}", "content_sha256": A, "images": [_row(name)], "metrics": [_metric(name)]}
        for name in ("1", "2")
    ]
    for shard in shards:
        commit_shard(root, **shard)
    file = root.join(next(path for path in root.list(table) if "s2" in path))
    file.write_bytes_atomic(file.read_bytes()[:left])
    with pytest.raises(CatalogueError, match="damaged or gone") as caught:
        query(root, "SELECT * FROM images")
    assert str(file) in str(caught.value)
    held = [value for frame, _ in traceback.walk_tb(caught.value.__traceback__) for value in frame.f_locals.values()]
    assert not any(isinstance(value, duckdb.DuckDBPyConnection) for value in held), "which would be called a leak"
    for path in [path for path in root.list() if file.name in path]:
        root.join(path).delete()
    assert query(root, "SELECT image_id FROM images")["image_id"].to_pylist() == ["1"]
    assert commit_shard(root, **shards[1]), "restored anew"
    assert query(root, "SELECT * FROM metrics").num_rows == 2


def test_damage_that_only_reading_finds_is_named_too(root: Location) -> None:
    commit_shard(root, **PLACE, shard_id="s1", content_sha256=A, images=[_row()])
    file = root.join(root.list("images")[0])
    file.write_bytes_atomic(b"PAR1" + b"\xff" * 40 + file.read_bytes()[44:])
    with pytest.raises(CatalogueError, match="is damaged or gone"):
        query(root, "SELECT * FROM images")
    with pytest.raises(CatalogueError, match="is damaged or gone"), connect(root, tables=("images",)) as connection:
        connection.sql("SELECT * FROM images").to_arrow_table()


def test_wrong_rows_are_refused(root: Location) -> None:
    cases = {
        "Did you mean 'noise_sigma'": _row(noise_sigm=1.0),
        "use None": _row(noise_sigma=math.nan),
        "is missing": {**_row(), "status": None},
        "does not fit": _row(width="wide"),
    }
    for message, row in cases.items():
        with pytest.raises(CatalogueError, match=message):
            commit_shard(root, **PLACE, shard_id="s1", content_sha256=A, images=[row])
    assert root.list() == [], "nothing is written before everything was checked"
    with pytest.raises(CatalogueError, match="glass-plates-1"):
        commit_shard(root, run_id="r", collection="glass plates/1", shard_id="s", content_sha256=A, images=[_row()])
    assert partition_value("Glass plates/1926!") == "Glass-plates-1926"
    assert partition_value("写真").startswith("unnamed-")
    assert partition_value("写真") != partition_value("図書")
    assert partition_value(partition_value("写真")) == partition_value("写真")


def test_queries_explain_themselves(root: Location, tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="no catalogue"):
        query(root, "SELECT 1")
    commit_shard(root, **PLACE, shard_id="s1", content_sha256=A, images=[_row(weights_sha256s=[A, B])])
    with pytest.raises(CatalogueError, match="noise_sigma"):
        query(root, "SELECT nois FROM images")
    with pytest.raises(CatalogueError, match="no table"):
        query(root, "SET threads = 1")
    target = Location(tmp_path / "out" / "images.csv")
    assert export_csv(root, target) == 1
    frame = pd.read_csv(target.local_path)
    assert frame["image_id"].tolist() == [1]
    assert B in frame["weights_sha256s"][0]


def test_duckdb_polars_and_pandas_read_it_as_it_is(tmp_path: Path) -> None:
    root = Location(tmp_path)
    for run in ("r1", "r2"):
        row = _row(noise_sigma=2.5)
        commit_shard(
            root, run_id=run, collection="c", shard_id="s", content_sha256=A, images=[row], metrics=[_metric()]
        )
    files = f"{tmp_path}/images/**/*.parquet"
    assert duckdb.sql(f"SELECT run_id, noise_sigma FROM '{files}' ORDER BY 1").fetchall() == [("r1", 2.5), ("r2", 2.5)]
    frame = pl.read_parquet(files, hive_partitioning=True).sort("run_id")
    assert frame.select("run_id", "collection", "blur_sigma_px").rows() == [("r1", "c", None), ("r2", "c", None)]
    table = pd.read_parquet(tmp_path / "images")
    assert sorted(table["run_id"].astype(str)) == ["r1", "r2"]
    with connect(root) as connection:
        assert connection.execute("SELECT count(*) FROM images JOIN metrics USING (image_id, run_id)").fetchall() == [
            (2,)
        ]


def test_rows_of_records_fit_the_schema(root: Location) -> None:
    known = {name: Estimated(value=1.0, confidence=0.5) for name in DegradationEstimate.__dataclass_fields__}
    estimate = DegradationEstimate(**{**known, "fading": Estimated(value=None, confidence=0.0)})
    scratches = ScratchReport(
        coverage=0.1, components=3, confidence=0.9, threshold=0.5, mask="m", mask_sha256=B, detector="unet-1"
    )
    gain = Gain(treatment=("denoise",), gain_db=3.0, uncertainty_db=0.5)
    step = Step(method_id="denoise", strength=1.0, reason="noisy")
    plan = Plan(steps=(step,), reason="noisy", policy="v1", alternatives=(gain,))
    output = OutputRecord(
        image_id=A, relative_path="a/b.tif", status="restored", output_uri="file:///out/a/b.tif", output_sha256=B,
        mask_uri=None, error_kind=None, error_text=None, seconds=1.5,
    )  # fmt: skip
    bad = QuarantineRecord(
        relative_path="c.jpg", source_uri="file:///in/c.jpg", source_bytes=None, source_sha256=None,
        error_kind="truncated",        error_text="…",
    )  # fmt: skip
    full = image_row(
        RECORD, output=output, code_version="0.1", scratches=scratches, estimate=estimate, plan=plan, steps=[OUTCOME]
    )
    metric = MetricRecord(image_id=A, stage="after", metric="psnr_db", value=31.0, higher_is_better=True)
    rows = [full, quarantine_row(bad, code_version="0.1"), image_row(RECORD, output=output, code_version="0.1")]
    steps, metrics = [step_row(OUTCOME, relative_path="a/b.tif")], [metric_row(metric)]
    commit_shard(root, **PLACE, shard_id="s1", content_sha256=A, images=rows, steps=steps, metrics=metrics)
    found = query(root, "SELECT * FROM images WHERE noise_sigma IS NOT NULL").to_pylist()[0]
    assert (found["noise_sigma_confidence"], found["fading"], found["weights_sha256s"]) == (0.5, None, [B])
    assert json.loads(found["plan_json"])[0]["method_id"] == "denoise"
    assert from_json(Gain, json.loads(found["plan_alternatives_json"])[0]) == gain
    assert query(root, "SELECT error_kind FROM images WHERE status = 'quarantined'").num_rows == 1
    assert query(root, "SELECT method_id FROM steps")["method_id"].to_pylist() == ["denoise"]


_VALUES = {
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
    "list<item: string>": st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=3),
    "timestamp[us, tz=UTC]": st.none(),
}
_FILLED = {"shard_id", "shard_content_sha256"}


def _any_row(schema: pa.Schema) -> st.SearchStrategy[dict[str, Any]]:
    columns = {}
    for field in schema:
        if field.name not in _FILLED:
            values = _VALUES[str(field.type)]
            columns[field.name] = st.none() | values if field.nullable else values
    return st.fixed_dictionaries(columns)


@settings(max_examples=5, deadline=None)
@given(images=st.lists(_any_row(IMAGES), min_size=1, max_size=3), metrics=st.lists(_any_row(METRICS), max_size=3))
def test_any_row_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, images: Any, metrics: Any) -> None:
    root = Location(tmp_path_factory.mktemp("catalogue"))
    commit_shard(root, **PLACE, shard_id="s", content_sha256=A, images=images, metrics=metrics)
    with connect(root) as connection:
        for table, rows in (("images", images), ("metrics", metrics)):
            columns = ", ".join(f'"{name}"' for name in (rows[0] if rows else {"image_id": None}))
            assert connection.sql(f"SELECT {columns} FROM {table}").to_arrow_table().to_pylist() == rows
