"""`lacuna train`: trains, stops, goes on, keeps its curve, exports weights; the backlog knows what is next."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.training_plot import curve_svg
from models.training import recipes
from models.training.backlog import Need, Target, as_markdown, next_need
from models.training.corruption import BlindNoise
from models.training.loop import Schedule
from models.training.photographs import PatchSettings
from models.weights import WEIGHTS_FOLDER

RUNNER = CliRunner()


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(6):
        cv2.imwrite(str(folder / f"{index}.png"), rng.integers(0, 256, (48, 56, 3)).astype(np.uint8))
    return folder


@pytest.fixture
def tiny_recipe(monkeypatch: pytest.MonkeyPatch) -> str:
    recipe = recipes.Recipe(
        id="denoise",
        corruption=BlindNoise(),
        patches=PatchSettings(side=16, batch=2),
        schedule=Schedule(steps=6, warmup_steps=2),
        widths=(4, 8),
        blocks=1,
    )
    monkeypatch.setattr(recipes, "RECIPES", (recipe,))
    return recipe.id


def test_trains_goes_on_and_exports(photographs: Path, tiny_recipe: str, tmp_path: Path) -> None:
    out, weights = tmp_path / "run", tmp_path / "weights"
    weights.mkdir()
    base = ["train", tiny_recipe, "--data", str(photographs), "--out", str(out), "--device", "cpu", "--json"]
    stopped = RUNNER.invoke(app, [*base, "--minutes", "0", "--export", str(weights)])
    assert stopped.exit_code == 0, stopped.output
    first = json.loads(stopped.stdout)
    assert first["steps_done"] == 1
    assert first["exported"] is None
    assert not list(weights.iterdir())
    finished = json.loads(RUNNER.invoke(app, [*base, "--export", str(weights)]).stdout)
    assert finished["steps_done"] == 6
    assert finished["validation_psnr_db"] > 0
    assert json.loads((weights / "denoise.json").read_text())["sha256"] == finished["exported"]
    curve = pq.read_table(out / "curve.parquet").to_pylist()
    assert [row["step"] for row in curve] == [6]
    assert curve[0]["validation_psnr_db"] == finished["validation_psnr_db"]
    assert (out / "curve.svg").read_text().startswith("<svg")


def test_wrong_use_is_one_sentence_and_exit_code_2(photographs: Path, tmp_path: Path) -> None:
    unknown = RUNNER.invoke(app, ["train", "denoize", "--data", str(photographs), "--out", str(tmp_path / "run")])
    assert unknown.exit_code == 2
    assert "did you mean 'denoise'" in unknown.output
    empty = tmp_path / "empty"
    empty.mkdir()
    none = RUNNER.invoke(app, ["train", "denoise", "--data", str(empty), "--out", str(tmp_path / "run")])
    assert none.exit_code == 2
    assert "found none" in none.output


def test_a_curve_shows_loss_and_validation() -> None:
    rows = [{"step": 50 * n, "loss": 1.0 / n, "validation_psnr_db": 20.0 + n if n % 2 else None} for n in range(1, 9)]
    text = curve_svg(rows, title="a <b>")
    assert text.count("<polyline") == 2
    assert "a &lt;b&gt;" in text
    assert curve_svg([], title="nothing yet").count("<polyline") == 0


def test_the_next_weight_is_the_first_below_its_target() -> None:
    def need(weight: str, wanted: float, recipe: str | None) -> Need:
        target = Target(metric="denoise-color (PSNR dB)", levels=(("CBSD68 awgn/25", wanted),), source="test")
        return Need(weight=weight, value="", targets=(target,), command="", recipe=recipe)

    met, missed, absent = need("denoise", 20.0, "a"), need("denoise", 60.0, "b"), need("no_such_weight", 1.0, "c")
    assert next_need((met,)) is None
    assert (next_need((met, need("denoise", 60.0, None), missed, absent)) or met).recipe == "b"
    assert (next_need((met, absent)) or met).recipe == "c"


def test_the_backlog_in_the_repository_is_what_the_cards_say() -> None:
    assert (WEIGHTS_FOLDER / "BACKLOG.md").read_text() == as_markdown()
