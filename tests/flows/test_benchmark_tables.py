"""What sets and tables of a benchmark must neither lose nor mix: pictures, results, methods, other sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.generate_benchmark import MeasuredSuite, run_benchmark
from models import registry
from models.benchmarking import baselines
from models.benchmarking.cost import cost_of
from models.benchmarking.scoring import models_named
from storage.benchmark_cells import CellStore
from storage.benchmark_pictures import encode_picture
from storage.benchmark_sets import BenchmarkSetError
from storage.locations import Location
from tasks.benchmarking.cases import list_set, load_case
from tasks.benchmarking.leaderboard import write_leaderboard
from tasks.benchmarking.scoring import ScoreOptions
from tests.flows.conftest import smooth_picture, write_picture
from tests.flows.test_generate_benchmark import clean, make_set, measure  # noqa: F401 - a fixture


def test_a_result_with_nan_fails_and_the_table_says_that_it_is_missing(
    clean: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = baselines.restore

    def breaking(method_id: str, degraded: Any, **given: Any) -> Any:
        hard = method_id == "nlm" and degraded.ndim == 2
        return np.full_like(degraded, np.nan) if hard else real(method_id, degraded, **given)

    monkeypatch.setattr(baselines, "restore", breaking)
    make_set(clean, tmp_path / "set", recipes=("jpeg/10",))
    parts, _ = measure(tmp_path / "set", tmp_path / "out", methods=("nlm",))
    (failure,) = (failure for part in parts for failure in part.failures)
    assert failure[0] == "set/jpeg/10/deep/two by nlm"
    assert "got NaN or infinity in 9216 of 9216 values" in failure[2]
    (board,) = write_leaderboard(Location(tmp_path / "out")).boards
    found = {row.method: (row.n, row.missing, row.note) for row in board.rows if row.kind == "measured"}
    assert found["input"][:2] == (3, 0)
    assert found["nlm"][:2] == (2, 1)
    assert found["nlm"][2].startswith("only 2 of 3 pictures")
    assert "nlm 2 of 3 (set, jpeg/10)" in (tmp_path / "out" / "leaderboard.tex").read_text()
    assert "only 2 of 3 pictures" in (tmp_path / "out" / "leaderboard.md").read_text()


def test_a_method_that_is_gone_keeps_its_row(
    clean: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_set(clean, tmp_path / "set", recipes=("jpeg/10",))
    measure(tmp_path / "set", tmp_path / "out", methods=("nlm",))
    monkeypatch.delitem(registry._METHODS_BY_ID, "nlm")
    cost_of.cache_clear()
    (board,) = write_leaderboard(Location(tmp_path / "out")).boards
    (row,) = (row for row in board.rows if row.method == "nlm")
    assert (row.n, row.title, row.parameters) == (3, "nlm", None)
    assert row.note.startswith("not registered here")


def test_what_nobody_asked_for_is_read_and_not_computed(
    prefect_server: None,
    clean: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    make_set(clean, tmp_path / "set", recipes=("jpeg/10",))

    def run(method: str, limit: int | None) -> MeasuredSuite:
        options = ScoreOptions(methods=(method,), device="cpu", precision="float32")
        return run_benchmark(str(tmp_path / "set"), str(tmp_path / "out"), options, limit=limit)

    assert run("nlm", 1).computed == 2
    added = run("unsharp", None)
    assert (added.computed, added.cells, added.unmeasured) == (2 + 3, 3 + 3 + 1, (("nlm", 2),))
    assert run("nlm", None).computed == 2


def test_the_table_names_the_model_of_niqe(prefect_server: None, tmp_path: Path) -> None:
    large = encode_picture(np.random.default_rng(0).random((200, 200, 3), np.float32))[0]
    Location(tmp_path / "clean" / "one.png").write_bytes_atomic(large)
    make_set(tmp_path / "clean", tmp_path / "set", recipes=("jpeg/10",))
    options = ScoreOptions(methods=(), device="cpu", precision="float32")
    run_benchmark(str(tmp_path / "set"), str(tmp_path / "out"), options)
    write_leaderboard(Location(tmp_path / "out"))
    for name in ("leaderboard.md", "leaderboard.html"):
        assert f"NIQE ({models_named()['niqe']})" in (tmp_path / "out" / name).read_text()


def test_sets_of_one_name_do_not_replace_each_other(
    prefect_server: None,
    clean: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    places = [tmp_path / "one" / "clean", tmp_path / "other" / "clean"]
    options = ScoreOptions(methods=(), device="cpu", precision="float32")
    for place in places:
        make_set(clean, place, recipes=("jpeg/10",))
    run_benchmark(str(places[0]), str(tmp_path / "out"), options)
    before = (tmp_path / "out" / "clean" / "cases.json").read_bytes()
    with pytest.raises(BenchmarkSetError, match=r"has the results of file://.*/one/clean, got file://.*/other/clean"):
        run_benchmark(str(places[1]), str(tmp_path / "out"), options)
    with pytest.raises(BenchmarkSetError, match=r"/one/clean, got the suite; give another --destination"):
        CellStore(Location(tmp_path / "out" / "clean")).check_is_of("")
    assert (tmp_path / "out" / "clean" / "cases.json").read_bytes() == before


def test_pictures_whose_names_differ_by_a_dot_are_all_in_the_shards(
    clean: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    for number, name in enumerate(("deep/a.b.png", "deep/a_b.png", "deep/a%2Eb.png")):
        write_picture(clean / name, smooth_picture(20 + number))
    assert not any(
        part.failures for part in make_set(clean, tmp_path / "set", recipes=("jpeg/10",), format="webdataset")
    )
    refs = list_set(Location(tmp_path / "set"), name="set", limit=None)
    assert len({load_case(ref).sha256 for ref in refs}) == 6


def test_a_shard_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_picture(tmp_path / "clean" / "one.png", smooth_picture(seed))
        make_set(tmp_path / "clean", tmp_path / "set", recipes=("jpeg/10",), format="webdataset")
        (ref,) = list_set(Location(tmp_path / "set"), name="set", limit=None)
        load_case(ref)
    assert all(
        part.kept for part in make_set(tmp_path / "clean", tmp_path / "set", recipes=("jpeg/10",), format="webdataset")
    )
