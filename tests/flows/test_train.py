"""`lacuna train`: trains, stops, goes on, keeps its curve, exports weights; the backlog knows what is next."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from flows.cli import app
from flows.training_plot import curve_svg
from models.training import backlog, recipes
from models.training.backlog import NEEDS, Need, Target, as_markdown, needs_to_train
from models.training.checkpoints import CHECKPOINT
from models.training.corruption import BlindJpeg, BlindNoise
from models.training.export import export
from models.training.first_weights import start_from
from models.training.loop import Schedule
from models.training.photographs import PatchSettings
from models.weights import WEIGHTS_FOLDER, WeightCard, save_weights, weight_names

RUNNER = CliRunner()
NAMES = ("denoise", "deblock")


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
    finished = json.loads(
        RUNNER.invoke(app, [*base, "--export", str(weights), "--validate-on", str(photographs)]).stdout
    )
    assert finished["steps_done"] == 6
    assert finished["validation_psnr_db"] > 0
    assert json.loads((weights / "denoise.json").read_text())["sha256"] == finished["exported"]
    curve = pq.read_table(out / "curve.parquet").to_pylist()
    assert [row["step"] for row in curve] == [6]
    assert curve[0]["validation_psnr_db"] == finished["validation_psnr_db"]
    assert dict(curve[0]["named_psnr_db"]) == finished["named_psnr_db"]
    assert list(finished["named_psnr_db"]) == [photographs.name]
    assert (out / "curve.svg").read_text().startswith("<svg")


def ship(recipe: recipes.Recipe, *, folder: Path) -> torch.Tensor:
    """Ship random weights of a recipe; return those of the first layer as they can be read again."""
    torch.manual_seed(5)
    state = recipe.network().state_dict()
    card = WeightCard(
        id=recipe.id, sha256="", network="", parameters=0, data=[], licence="", command="", steps=3, seed=0, commit=""
    )
    save_weights(state, card=card, folder=folder)
    return state["head.weight"].half().float()


def test_without_a_recipe_each_weight_of_the_backlog_is_trained_in_turn(
    photographs: Path, tiny_recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (denoise,) = recipes.RECIPES
    deblock = replace(denoise, id="deblock", corruption=BlindJpeg(), seed=1, start_from="denoise")
    monkeypatch.setattr(recipes, "RECIPES", (denoise, deblock))
    target = Target(metric="none", levels=(("of it", 99.0),), source="test")
    needs = [Need(weight=name, value="", targets=(target,), command="", recipe=name) for name in NAMES]
    monkeypatch.setattr(backlog, "NEEDS", tuple(needs))
    weights, out = tmp_path / "weights", tmp_path / "run"
    ship(denoise, folder=weights)
    for module in ("models.weights", "models.training.export"):
        monkeypatch.setattr(f"{module}.WEIGHTS_FOLDER", weights)
    base = ["train", "--data", str(photographs), "--out", str(out), "--device", "cpu", "--json"]
    found = []
    for _ in range(2):
        run = RUNNER.invoke(app, [*base, "--export", str(weights)])
        assert run.exit_code == 0, run.output
        assert "starts from the weights of" in run.stderr
        found.append(json.loads(run.stdout))
    # One goes on from its own weights; the other, which has none yet, from those that its recipe names.
    assert [(one["recipe"], one["start_from"]) for one in found] == [(n, "denoise.safetensors") for n in NAMES]
    assert [one["out"] for one in found] == [str(out / name) for name in NAMES]
    assert all(one["steps_done"] == 6 and one["exported"] for one in found)
    again = RUNNER.invoke(app, base)
    assert again.exit_code == 2
    assert "has a finished run" in " ".join(again.output.split())
    longer = json.loads(RUNNER.invoke(app, [*base, "--steps", "8"]).stdout)
    assert (longer["recipe"], longer["steps_done"]) == ("denoise", 8)


def test_a_named_recipe_begins_with_the_shipped_weights_it_names(
    photographs: Path, tiny_recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (denoise,) = recipes.RECIPES
    deblock = replace(denoise, id="deblock", corruption=BlindJpeg(), seed=1, start_from="denoise")
    monkeypatch.setattr(recipes, "RECIPES", (denoise, deblock))
    monkeypatch.setattr("models.weights.WEIGHTS_FOLDER", tmp_path / "weights")

    def run(out: str, *options: str) -> Result:
        base = ["train", "deblock", "--data", str(photographs), "--out", str(tmp_path / out), "--device", "cpu"]
        return RUNNER.invoke(app, [*base, "--json", "--steps", "1", "--peak-lr", "1e-6", *options])

    missing = run("a")
    assert missing.exit_code == 2
    assert "weights of 'denoise', which are not shipped" in " ".join(missing.output.split())
    shipped = ship(denoise, folder=tmp_path / "weights")
    by_default, scratch = run("a"), run("b", "--start-from", "none")
    assert "starts from scratch" in scratch.stderr
    assert "goes on from the checkpoint" in run("b").stderr
    said = [json.loads(result.stdout)["start_from"] for result in (by_default, scratch)]
    assert said == ["denoise.safetensors", None]
    heads = [
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True)["network"]["head.weight"] for name in ("a", "b")
    ]
    assert torch.allclose(heads[0], shipped, atol=1e-4)
    assert not torch.allclose(heads[1], shipped, atol=1e-2)
    for name, command in (("a", "--start-from <denoise.safetensors>"), ("b", "--start-from none")):
        assert command in export("deblock", checkpoint=tmp_path / name, folder=tmp_path / name).command


def test_weights_of_another_network_are_refused_in_one_sentence() -> None:
    network = recipes.get_recipe("denoise").network()
    for strange in ({"layer": torch.zeros(1)}, {"head.weight": torch.zeros(1, 1, 1, 1)}):
        with pytest.raises(ValueError, match="got weights of another network"):
            start_from(network, strange)


def test_wrong_use_is_one_sentence_and_exit_code_2(photographs: Path, tmp_path: Path) -> None:
    unknown = RUNNER.invoke(app, ["train", "denoize", "--data", str(photographs), "--out", str(tmp_path / "run")])
    assert unknown.exit_code == 2
    assert "did you mean 'denoise'" in unknown.output
    empty = tmp_path / "empty"
    empty.mkdir()
    none = RUNNER.invoke(app, ["train", "denoise", "--data", str(empty), "--out", str(tmp_path / "run")])
    assert none.exit_code == 2
    assert "found none" in none.output


def test_a_training_that_diverges_says_so_in_one_sentence(
    photographs: Path, tiny_recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.training.loop.pixel_loss", lambda kind, output, *_, **__: output.mean() * torch.nan)
    out = tmp_path / "run"
    base = ["train", tiny_recipe, "--data", str(photographs), "--out", str(out), "--device", "cpu"]
    diverged = RUNNER.invoke(app, [*base, "--export", str(tmp_path / "weights")])
    assert diverged.exit_code == 2
    assert "got a loss of nan at step 1, expected a finite number" in " ".join(diverged.stderr.split())
    assert "Traceback" not in diverged.stderr.split("lacuna: ")[-1]
    assert not (out / CHECKPOINT).exists()
    assert not (tmp_path / "weights").exists()


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
    assert needs_to_train((met,)) == []
    assert needs_to_train((met, need("denoise", 60.0, None), missed, absent)) == [missed, absent]


def test_the_backlog_has_every_weight_and_says_what_it_costs() -> None:
    assert set(weight_names()) <= {need.weight for need in NEEDS}
    rows = [line.split(" | ") for line in as_markdown().splitlines() if line.startswith("| `")]
    budgets = {row[0].strip("| `"): row[5] for row in rows}
    assert budgets["denoise"] == "24,000 steps in the recipe; 20,000 steps: an hour of a busy core"
    assert budgets["estimator"] == "time not measured"
    for need in NEEDS:  # every command names things that are there
        for path in re.findall(r"models/weights/\S+\.safetensors", need.command):
            assert (WEIGHTS_FOLDER / Path(path).name).is_file()


def test_the_backlog_in_the_repository_is_what_the_cards_say() -> None:
    assert (WEIGHTS_FOLDER / "BACKLOG.md").read_text() == as_markdown()
