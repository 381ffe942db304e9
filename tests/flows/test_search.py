"""`lacuna search`: every combination is trained once, ranked, and gone on with."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from flows.cli import app
from flows.line_chart import lines_svg
from models.training import recipes
from models.training.corruption import BlindJpeg
from models.training.recipes import get_recipe
from models.training.search import candidates, parse_grid
from tests.flows.test_train import photographs, tiny_recipe  # noqa: F401 - fixtures

RUNNER = CliRunner()


def test_a_grid_is_every_combination_of_its_values() -> None:
    grid = parse_grid(["schedule.peak_lr=0.001,5e-4", "patches.batch=2", "widths=8x16,4x8"])
    found = candidates(get_recipe("denoise"), grid)
    assert [candidate.label for candidate in found][:2] == [
        "schedule.peak_lr=0.001 patches.batch=2 widths=8x16",
        "schedule.peak_lr=0.001 patches.batch=2 widths=4x8",
    ]
    assert len(found) == 4
    last = found[-1].recipe
    assert (last.schedule.peak_lr, last.patches.batch, last.widths) == (5e-4, 2, (4, 8))
    assert last.schedule.steps == get_recipe("denoise").schedule.steps
    networks = candidates(get_recipe("example-external"), {"example_network": ["single", "deep_denoise"]})
    assert [candidate.recipe.example_network for candidate in networks] == ["single", "deep_denoise"]
    assert [candidate.label for candidate in candidates(get_recipe("denoise"), {})] == ["as it is"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("peak_lr", "expected NAME=VALUE"),
        ("schedule.peak_lr=", "expected NAME=VALUE"),
        ("schedule.peek_lr=1", "did you mean 'peak_lr'"),
        ("schedule.peak_lr=fast", "expected a float"),
        ("widths=8x", "expected a row of numbers"),
        ("patches=3", "name one of its fields"),
        ("seed.x=3", "has no fields"),
        ("loss=squared", "expected one of charbonnier, log-error"),
    ],
)
def test_a_wrong_grid_is_one_sentence(given: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        candidates(get_recipe("denoise"), parse_grid([given]))
    with pytest.raises(ValueError, match="twice"):
        parse_grid(["seed=1", "seed=2"])


def test_a_search_ranks_its_candidates_and_goes_on(
    photographs: Path,  # noqa: F811
    tiny_recipe: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    out = tmp_path / "search"
    base = ["search", tiny_recipe, "--data", str(photographs), "--out", str(out), "--device", "cpu", "--json"]
    base += ["--try", "schedule.peak_lr=0.001,0.003", "--try", "patches.batch=2,0"]
    stopped = RUNNER.invoke(app, [*base, "--minutes", "0"])
    first = json.loads(stopped.stdout)
    assert first["unfinished"] == 2
    finished = RUNNER.invoke(app, base)
    found = json.loads(finished.stdout)
    # A batch of nothing cannot be trained: its row says so, the others are ranked all the same.
    assert finished.exit_code == 1
    assert found["unfinished"] == 0
    scores = [row["validation_psnr_db"] for row in found["rows"]]
    assert scores[:2] == sorted(scores[:2], reverse=True)
    assert scores[2:] == [None, None]
    assert all(row["error"] for row in found["rows"][2:])
    table = pq.read_table(found["results"]).to_pylist()
    assert [row["candidate"] for row in table] == [row["candidate"] for row in found["rows"]]
    assert Path(found["plot"]).read_text().count("<polyline") == 4
    logs = {path: path.stat().st_mtime_ns for path in out.rglob("log.jsonl")}
    again = json.loads(RUNNER.invoke(app, base).stdout)
    assert again["rows"][:2] == found["rows"][:2]
    done = [path for path in logs if "batch=2" in str(path)]
    assert len(done) == 2
    assert all(path.stat().st_mtime_ns == logs[path] for path in done)


def test_a_search_takes_nothing_from_another_one(
    photographs: Path,  # noqa: F811
    tiny_recipe: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (denoise,) = recipes.RECIPES
    deblock = replace(denoise, id="deblock", corruption=BlindJpeg(), seed=1)
    monkeypatch.setattr(recipes, "RECIPES", (denoise, deblock))

    def run(recipe: str, data: Path) -> Result:
        base = ["search", recipe, "--data", str(data), "--out", str(tmp_path / "search"), "--device", "cpu", "--json"]
        return RUNNER.invoke(app, [*base, "--steps", "2", "--try", "schedule.peak_lr=0.001"])

    losses = {name: json.loads(run(name, photographs).stdout)["rows"][0]["loss"] for name in ("denoise", "deblock")}
    assert losses["denoise"] != losses["deblock"]
    shutil.copytree(photographs, tmp_path / "others")
    refused = run("denoise", tmp_path / "others")
    assert refused.exit_code == 2, refused.output
    assert "was trained with another --data" in " ".join(refused.stderr.split())


def test_a_chart_names_every_line() -> None:
    text = lines_svg({"a <b>": [(0, 1), (5, 2)], "none": []}, title="t", across="epochs", up="dB")
    assert text.count("<polyline") == 2
    assert text.count("<circle") == 2
    assert "a &lt;b&gt;" in text
