"""Degraded sets, measured cells and the leaderboard: same bytes twice, only what is new is computed, clear errors."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli import app
from storage.benchmark_cells import CellStore
from storage.benchmark_pictures import as_floats, decode_mask, decode_picture, encode_mask, encode_picture
from storage.benchmark_sets import BenchmarkSetError, read_manifest, tar_bytes, write_manifest
from storage.errors import IngestError
from storage.locations import Location
from tasks.benchmarking.cases import cases_of, list_set, load_case
from tasks.benchmarking.clean_pictures import list_clean, read_clean
from tasks.benchmarking.generating import SetOptions, SetPart, checked_options, make_part, set_jobs
from tasks.benchmarking.leaderboard import write_leaderboard
from tasks.benchmarking.scoring import (
    ScoreOptions,
    ScorePart,
    checked_methods,
    metric_names,
    only_kept,
    score_jobs,
    score_part,
)
from tasks.benchmarking.whole_program import restore_routed
from tasks.device import runner
from tests.flows.conftest import smooth_picture, write_picture

RUNNER = CliRunner()
DATA = Path(os.environ.get("LACUNA_DATA", Path(__file__).parents[3] / "shared" / "data"))
RECIPES = ("awgn/25", "pixels/50", "jpeg/10", "bicubic/x2")


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    folder = tmp_path / "clean"
    write_picture(folder / "one.png", smooth_picture(1))
    write_picture(folder / "deep" / "two.png", smooth_picture(2, grey=True))
    write_picture(folder / "three.png", smooth_picture(3), bits=16)
    return folder


def make_set(source: str | Path, root: Path | str, **options: object) -> list[SetPart]:
    """Make a set without the engine, as its flow does."""
    chosen = checked_options(SetOptions(**{"recipes": RECIPES, "seeds": (0,), **options}))  # type: ignore[arg-type]
    location = Location(root)
    jobs = set_jobs(list_clean(str(source)), options=chosen, destination=location.uri)
    parts = [make_part(job) for job in jobs]
    write_manifest(location, [row for part in parts for row in part.rows])
    return parts


def measure(target: Path | str, root: Path, *, methods: tuple[str, ...]) -> tuple[list[ScorePart], CellStore]:
    """Measure a set without the engine, as its flow does."""
    cases, description = cases_of(str(target), data=str(DATA), seeds=(0,), limit=None)
    store = CellStore(Location(root).join(description["suite"]))
    chosen = checked_methods(methods, cases, kept=store.methods())
    kept = only_kept(chosen, asked=methods)
    options = ScoreOptions(methods=chosen, kept=kept, device="cpu", precision="float32")
    parts = [score_part(job) for job in score_jobs(cases, options=options, destination=store.root.uri)]
    rows = [row for part in parts for row in part.rows]
    store.write_tables(description={**description, "methods": list(chosen)}, metrics=rows, names=metric_names())
    return parts, store


def tree(root: Path, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Return {relative path: sha256} of every file below a folder."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    found = {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    return {name: value for name, value in found.items() if not any(part in name for part in without)}


@pytest.mark.parametrize("layout", ["png", "webdataset"])
def test_the_same_set_twice_has_the_same_bytes(clean: Path, tmp_path: Path, layout: str) -> None:
    for name in ("a", "b"):
        parts = make_set(clean, tmp_path / name, format=layout)
        assert not any(part.kept or part.failures for part in parts)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    again = make_set(clean, tmp_path / "a", format=layout)
    assert all(part.kept for part in again)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_new_recipe_makes_its_own_pictures_alone(clean: Path, tmp_path: Path) -> None:
    make_set(clean, tmp_path / "set", recipes=("jpeg/10",))
    parts = make_set(clean, tmp_path / "set", recipes=("jpeg/10", "awgn/25"))
    assert [(part.recipe, part.kept) for part in parts] == [("jpeg/10", True), ("awgn/25", False)]


def test_a_damaged_file_is_made_again(clean: Path, tmp_path: Path) -> None:
    make_set(clean, tmp_path / "set")
    before = tree(tmp_path / "set")
    (tmp_path / "set" / "degraded" / "jpeg" / "10" / "seed-0" / "one.png").write_bytes(b"cut")
    (tmp_path / "set" / "manifest.parquet").unlink()
    make_set(clean, tmp_path / "set")
    assert tree(tmp_path / "set") == before


def test_the_manifest_says_what_is_there(clean: Path, tmp_path: Path) -> None:
    make_set(clean, tmp_path / "set", seeds=(0, 7))
    rows = read_manifest(Location(tmp_path / "set"))
    assert len(rows) == 3 * len(RECIPES) * 2
    by_recipe = {row["recipe"]: row for row in rows}
    assert {recipe: row["exact"] for recipe, row in by_recipe.items()} == {
        "awgn/25": False,
        "pixels/50": True,
        "jpeg/10": True,
        "bicubic/x2": True,
    }
    assert by_recipe["bicubic/x2"]["scale"] == 2
    assert by_recipe["jpeg/10"]["mask_path"] is None
    assert json.loads(by_recipe["jpeg/10"]["provenance"])["recipe"] == "jpeg/10"
    assert json.loads(by_recipe["bicubic/x2"]["protocol"])["border"] == 2
    for row in rows:
        for kind in ("clean", "degraded"):
            data = (tmp_path / "set" / row[f"{kind}_path"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == row[f"{kind}_sha256"]
    assert len({row["draw_seed"] for row in rows}) == len(rows)


@pytest.mark.parametrize("layout", ["png", "webdataset"])
def test_pixels_come_back_exactly(clean: Path, tmp_path: Path, layout: str) -> None:
    make_set(clean, tmp_path / "set", format=layout)
    refs = list_set(Location(tmp_path / "set"), name="set", limit=None)
    cases = {(ref.level, ref.image_id): load_case(ref) for ref in refs}
    assert len(cases) == 3 * len(RECIPES)
    noisy = cases["awgn/25", "one"]
    assert noisy.degraded.min() < 0
    assert noisy.degraded.max() > 1
    holes = cases["pixels/50", "one"]
    assert holes.mask is not None
    assert 0.4 < holes.mask.mean() < 0.6
    assert cases["awgn/25", "deep/two"].reference.ndim == 2
    assert cases["bicubic/x2", "one"].scale == 2
    assert len(np.unique(cases["jpeg/10", "three"].reference)) > 256  # 16 bits are kept


def test_adding_a_method_computes_its_cells_alone(clean: Path, tmp_path: Path) -> None:
    make_set(clean, tmp_path / "set", recipes=("awgn/25", "pixels/50"))
    first, store = measure(tmp_path / "set", tmp_path / "out", methods=("nlm",))
    assert sum(part.computed for part in first) == 6 * 2
    second, store = measure(tmp_path / "set", tmp_path / "out", methods=("telea",))
    assert sum(part.computed for part in second) == 3  # the other recipe has no mask
    description, rows, timings = store.read_tables()
    assert description["methods"] == ["input", "nlm", "telea"]
    assert len(rows) == len(timings) == 6 * 2 + 3
    assert all(row["seconds"] >= 0 for row in timings)
    assert "seconds" not in rows[0]


def test_tables_repeat_to_the_byte_and_in_any_order_of_methods(clean: Path, tmp_path: Path) -> None:
    make_set(clean, tmp_path / "set", recipes=("pixels/50", "jpeg/10"))
    measure(tmp_path / "set", tmp_path / "a", methods=("nlm", "telea"))
    measure(tmp_path / "set", tmp_path / "b", methods=("telea",))
    measure(tmp_path / "set", tmp_path / "b", methods=("nlm",))
    for name in ("a", "b"):
        write_leaderboard(Location(tmp_path / name))
    timed = ("timings", "leaderboard.html")
    assert tree(tmp_path / "a", without=timed) == tree(tmp_path / "b", without=timed)
    before = tree(tmp_path / "a")
    measure(tmp_path / "set", tmp_path / "a", methods=("nlm", "telea"))
    write_leaderboard(Location(tmp_path / "a"))
    assert tree(tmp_path / "a") == before


def test_a_cut_cell_is_measured_again(clean: Path, tmp_path: Path) -> None:
    make_set(clean, tmp_path / "set", recipes=("jpeg/10",))
    _, store = measure(tmp_path / "set", tmp_path / "out", methods=())
    before = tree(tmp_path / "out", without=("timings",))
    cell = next((tmp_path / "out" / "set" / "cells").rglob("*.json"))
    cell.write_bytes(cell.read_bytes()[:20])
    parts, store = measure(tmp_path / "set", tmp_path / "out", methods=())
    assert sum(part.computed for part in parts) == 1
    assert tree(tmp_path / "out", without=("timings",)) == before
    assert store.methods() == ["input"]


def test_the_leaderboard_in_four_formats(clean: Path, tmp_path: Path) -> None:
    make_set(clean, tmp_path / "set & <b>", recipes=("jpeg/10", "pixels/50"))
    measure(tmp_path / "set & <b>", tmp_path / "out", methods=("nlm", "telea"))
    written = write_leaderboard(Location(tmp_path / "out"))
    assert len(written.files) == 7
    html = (tmp_path / "out" / "leaderboard.html").read_text()
    assert "<b>" not in html.split("<tbody>")[0].split("<h2>")[1]
    assert html.count("data:image/png;base64,") == 2 + 2 + 3
    assert "<svg" in html
    assert "http" not in html.split("</style>")[1]
    markdown = (tmp_path / "out" / "leaderboard.md").read_text()
    assert "| oracle | router |" in markdown
    assert "RGB, border 0, clipped" in markdown
    csv = (tmp_path / "out" / "leaderboard.csv").read_text().splitlines()
    assert csv[0].startswith("suite,dataset,level,kind,method,title,n,mean,median,worst_5_percent")
    latex = (tmp_path / "out" / "leaderboard.tex").read_text()
    assert r"\toprule" in latex
    assert r"set \& " in latex
    oracle = [row for row in written.boards[0].rows if row.method == "oracle"]
    assert all(row.regret == 0 for row in oracle)


def test_a_store_serves_as_source_and_destination(clean: Path) -> None:
    source, target = Location("memory://bench/clean"), "memory://bench/set"
    for path in sorted(clean.rglob("*.png")):
        source.join(str(path.relative_to(clean))).write_bytes_atomic(path.read_bytes())
    make_set(source.uri, target, recipes=("jpeg/10",))
    assert all(part.kept for part in make_set(source.uri, target, recipes=("jpeg/10",)))
    refs = list_set(Location(target), name="set", limit=None)
    assert load_case(refs[0]).reference.shape[0] == 96


def test_pictures_of_scikit_image() -> None:
    names = [picture.image_id for picture in list_clean("skimage")]
    assert {"astronaut", "camera", "coffee"} <= set(names)


def test_png_says_whether_it_is_exact() -> None:
    eight = as_floats(np.arange(256, dtype=np.uint8).reshape(16, 16))
    sixteen = as_floats(np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16))
    for pixels in (eight, sixteen):
        data, exact = encode_picture(pixels)
        assert exact
        assert np.array_equal(as_floats(decode_picture(data, name="x")), pixels)
    data, exact = encode_picture(eight * 1.5 - 0.2)
    assert not exact
    assert decode_picture(data, name="x").dtype == np.uint8
    mask = np.eye(9, dtype=bool)
    assert np.array_equal(decode_mask(encode_mask(mask), name="m"), mask)


def test_tar_headers_say_nothing_of_when_and_where() -> None:
    first = tar_bytes({"b": b"2", "a": b"1"})
    assert first == tar_bytes({"a": b"1", "b": b"2"})


def test_unknown_recipe_gets_the_nearest_name(clean: Path, tmp_path: Path) -> None:
    arguments = ["--source", str(clean), "--recipes", "awng/25", "--destination", str(tmp_path / "set")]
    result = RUNNER.invoke(app, ["benchmark", "generate", *arguments])
    assert result.exit_code == 2
    assert "awgn" in result.stderr
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["denoise-grey"], "denoise-gray"),
        (["denoise-gray", "--methods", "denoiz"], "'denoise'"),
        (["denoise-gray", "--data", "/nowhere/at/all"], "/nowhere/at/all"),
        (["denoise-gray", "--seeds", "zero"], "--seeds: got 'zero'"),
        (["scratch-detection", "--data", "/nowhere/at/all"], "/nowhere/at/all"),
        (["scratch-detection", "--data", "s3://bucket/sets"], "expected a local folder"),
        (["scratch-detection", "--data", "/nowhere", "--methods", "tophat"], "'top-hat'"),
    ],
)
def test_wrong_usage_is_explained(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], said: str
) -> None:
    monkeypatch.delenv("LACUNA_DATA", raising=False)
    result = RUNNER.invoke(app, ["benchmark", "run", *arguments, "--destination", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_a_folder_named_like_a_suite_does_not_hide_the_suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sr").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LACUNA_DATA", raising=False)
    result = RUNNER.invoke(app, ["benchmark", "run", "sr", "--destination", "."])
    assert "LACUNA_DATA" in result.stderr  # asked of suites alone


def test_without_data_the_option_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LACUNA_DATA", raising=False)
    result = RUNNER.invoke(app, ["benchmark", "run", "sr", "--destination", str(tmp_path)])
    assert result.exit_code == 2
    assert "LACUNA_DATA" in result.stderr


def test_unreadable_and_missing_manifests_are_explained(clean: Path, tmp_path: Path) -> None:
    make_set(clean, tmp_path / "set", recipes=("jpeg/10",))
    (tmp_path / "set" / "manifest.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(BenchmarkSetError, match=r"cannot be read as Parquet.*generate the set again"):
        read_manifest(Location(tmp_path / "set"))
    with pytest.raises(BenchmarkSetError, match=r"There is no .*manifest\.parquet"):
        read_manifest(Location(tmp_path / "clean"))
    with pytest.raises(BenchmarkSetError, match="There is no result"):
        write_leaderboard(Location(tmp_path / "set"))
    pq.write_table(pa.table({"image_id": ["a"]}), tmp_path / "set" / "manifest.parquet")
    with pytest.raises(BenchmarkSetError, match="lacks the columns recipe"):
        read_manifest(Location(tmp_path / "set"))


def test_a_missing_reference_is_a_failure_of_its_case(clean: Path, tmp_path: Path) -> None:
    make_set(clean, tmp_path / "set", recipes=("jpeg/10",))
    (tmp_path / "set" / "clean" / "one.png").unlink()
    parts, _ = measure(tmp_path / "set", tmp_path / "out", methods=())
    (failure,) = (failure for part in parts for failure in part.failures)
    assert "clean/one.png" in failure[2]
    for path in (tmp_path / "set" / "clean").rglob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match="no case that can be measured"):
        measure(tmp_path / "set", tmp_path / "out", methods=())


def test_changed_pixels_are_noticed(clean: Path, tmp_path: Path) -> None:
    make_set(clean, tmp_path / "set", recipes=("awgn/25",))
    write_picture(tmp_path / "set" / "clean" / "one.png", smooth_picture(9))
    refs = {ref.image_id: ref for ref in list_set(Location(tmp_path / "set"), name="set", limit=None)}
    with pytest.raises(BenchmarkSetError, match="not those of the manifest"):
        load_case(refs["one"])


def test_pictures_too_small_and_corrupt_are_failures_of_their_own(clean: Path, tmp_path: Path) -> None:
    data, _ = encode_picture(np.zeros((3, 3), np.float32))
    (clean / "tiny.png").write_bytes(data)
    (clean / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    parts = make_set(clean, tmp_path / "set", recipes=("bicubic/x4",))
    failures = {path: text for part in parts for path, _, text in part.failures}
    assert set(failures) == {"tiny.png", "corrupt.png"}
    assert "at least" in failures["tiny.png"]
    assert len(read_manifest(Location(tmp_path / "set"))) == 3


def test_a_method_that_fits_nowhere_is_refused(clean: Path, tmp_path: Path) -> None:
    make_set(clean, tmp_path / "set", recipes=("jpeg/10",))
    with pytest.raises(ValueError, match="telea fills holes and needs a mask"):
        measure(tmp_path / "set", tmp_path / "out", methods=("telea",))


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(IngestError, match="holds no pictures"):
        list_clean(str(tmp_path / "empty"))


def test_suites_and_recipes_are_listed() -> None:
    suites = json.loads(RUNNER.invoke(app, ["benchmark", "suites", "--json"]).stdout)
    assert {"sr", "inpaint-50", "scratch-detection"} <= {suite["id"] for suite in suites}
    recipes = json.loads(RUNNER.invoke(app, ["benchmark", "recipes", "--json"]).stdout)
    assert {"awgn/25", "rl-restore/moderate"} <= {recipe["id"] for recipe in recipes}
    assert "bicubic" in RUNNER.invoke(app, ["benchmark", "recipes"]).stdout


def test_the_whole_command(prefect_server: None, clean: Path, tmp_path: Path) -> None:
    place, out = tmp_path / "set", tmp_path / "out"
    (clean / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    command = ["benchmark", "generate", "--source", str(clean), "--recipes", "pixels/50,jpeg/10", "--json"]
    made = RUNNER.invoke(app, [*command, "--destination", str(place), "--seeds", "0,1"])
    assert made.exit_code == 1, made.output  # one picture is corrupt
    assert json.loads(made.stdout)["samples"] == 12
    command = ["benchmark", "run", str(place), "--destination", str(out), "--device", "cpu", "--json"]
    measured = RUNNER.invoke(app, [*command, "--methods", "telea"])
    assert measured.exit_code == 0, measured.output
    assert json.loads(measured.stdout)["computed"] == 12 + 6
    again = json.loads(RUNNER.invoke(app, command).stdout)
    assert (again["computed"], again["cells"]) == (0, 18)
    shown = RUNNER.invoke(app, ["benchmark", "leaderboard", str(out), "--json"])
    assert shown.exit_code == 0, shown.output
    assert {row["method"] for row in json.loads(shown.stdout)["rows"]} >= {"input", "telea", "oracle", "random"}


def test_lacuna_as_a_method_does_what_the_flow_does(prefect_server: None, tmp_path: Path) -> None:
    (astronaut,) = (read_clean(picture) for picture in list_clean("skimage") if picture.image_id == "astronaut")
    scratched = as_floats(decode_picture(astronaut, name="astronaut"))[:256, :256].copy()
    for rows, columns, value in ((slice(5, 250), slice(100, 103), 1), (slice(30, 33), slice(10, 240), 0)):
        scratched[rows, columns] = value
    Location(tmp_path / "in" / "scratched.png").write_bytes_atomic(encode_picture(scratched)[0])
    write_picture(tmp_path / "in" / "noisy.png", smooth_picture(1), noise_sigma=25)
    write_picture(tmp_path / "in" / "clean.png", smooth_picture(3))
    command = ["restore", str(tmp_path / "in"), str(tmp_path / "out"), "--device", "cpu", "--no-report", "--json"]
    assert RUNNER.invoke(app, command).exit_code == 0
    chosen = runner("cpu", "auto", 512)
    changed = []
    for path in sorted((tmp_path / "in").iterdir()):
        before = as_floats(decode_picture(path.read_bytes(), name=path.name))
        expected = as_floats(decode_picture((tmp_path / "out" / "images" / path.name).read_bytes(), name=path.name))
        found = restore_routed(before, chosen=chosen)
        assert np.array_equal(found, expected), path.name
        changed += [] if np.array_equal(found, before) else [path.stem]
    assert "noisy" in changed
