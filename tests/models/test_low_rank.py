"""Factors beside frozen weights: they alone learn, are shipped alone, and are refused beside other weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from models import weights
from models.degradations.grain import FilmGrain
from models.degradations.rendering import from_batch, to_batch
from models.low_rank import freeze_beside_low_rank, frozen_and_factors, merged
from models.run import Runner
from models.run import RunSettings as RunnerSettings
from models.training.checkpoints import CHECKPOINT
from models.training.export import export
from models.training.loop import Schedule
from models.training.photographs import PatchSettings
from models.training.recipes import Recipe, get_recipe
from models.training.run import RunSettings, run_recipe
from models.weights import WeightCard, WeightsError, load_card, load_weights, save_weights

BLANK = WeightCard(
    id="denoise", sha256="", network="", parameters=0, data=[], licence="", command="", steps=0, seed=0, commit=""
)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recipe]:
    """A small `degrain`, the small weights of `denoise` it is beside in a folder of shipped ones, and photographs."""
    small = replace(
        get_recipe("degrain"),
        widths=(4, 8),
        blocks=1,
        rank=2,
        patches=PatchSettings(side=16, batch=2),
        schedule=Schedule(steps=3, warmup_steps=1),
    )
    torch.manual_seed(4)
    monkeypatch.setattr("models.weights.WEIGHTS_FOLDER", tmp_path / "shipped")
    monkeypatch.setattr("models.training.export.get_recipe", lambda recipe_id: small)
    plain = replace(small, rank=None).network().state_dict()
    save_weights(plain, card=BLANK, folder=tmp_path / "shipped")
    (tmp_path / "own").mkdir()
    for index in range(6):
        picture = np.random.default_rng(index).integers(0, 256, (40, 44, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "own" / f"{index}.png"), picture)
    yield small
    # The card in this folder must not be remembered.
    weights.weights_sha256.cache_clear()


def trained(recipe: Recipe, folder: Path) -> Path:
    begin = folder / "shipped" / "denoise.safetensors"
    run_recipe(recipe, RunSettings(data=[folder / "own"], out=folder / "run", start_from=begin, device="cpu"))
    return folder / "run"


def test_factors_alone_learn_and_are_shipped_and_come_back_merged(recipe: Recipe, tmp_path: Path) -> None:
    run = trained(recipe, tmp_path)
    before = load_weights("denoise")
    network = recipe.network()
    network.load_state_dict(torch.load(run / CHECKPOINT, weights_only=True)["network"])
    frozen, _ = frozen_and_factors(network.state_dict())
    assert all(torch.equal(frozen[name], value) for name, value in before.items())

    card = export("degrain", checkpoint=run, folder=tmp_path / "shipped")
    assert card.parameters < sum(value.numel() for value in before.values())
    assert (card.beside, card.beside_sha256) == ("denoise", load_card("denoise").sha256)
    assert "with factors of rank 2" in card.network
    plain = replace(recipe, rank=None).network()
    plain.load_state_dict(load_weights("degrain"))
    assert not torch.equal(plain.state_dict()["head.weight"], before["head.weight"])
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(plain(picture), network(picture), atol=1e-3)
        assert not torch.allclose(plain(picture), picture, atol=1e-3)
    with pytest.raises(ValueError, match="it has factors, not weights"):
        export("degrain", checkpoint=run, folder=tmp_path / "shipped", share=0.5)


def test_factors_are_refused_beside_other_weights(recipe: Recipe, tmp_path: Path) -> None:
    run = trained(recipe, tmp_path)
    export("degrain", checkpoint=run, folder=tmp_path / "shipped")
    other = {name: value + 1 for name, value in load_weights("denoise").items()}
    save_weights(other, card=BLANK, folder=tmp_path / "shipped")
    with pytest.raises(WeightsError, match="beside which it was trained; train it again"):
        load_weights("degrain")
    with pytest.raises(ValueError, match="beside other weights than 'denoise' has"):
        export("degrain", checkpoint=run, folder=tmp_path / "shipped")


def test_a_run_of_factors_goes_on_as_if_it_had_not_been_stopped(recipe: Recipe, tmp_path: Path) -> None:
    whole = torch.load(trained(recipe, tmp_path) / CHECKPOINT, weights_only=True)["network"]
    photographs, out, begin = [tmp_path / "own"], tmp_path / "parts", tmp_path / "shipped" / "denoise.safetensors"
    run_recipe(recipe, RunSettings(data=photographs, out=out, start_from=begin, device="cpu", minutes=1e-9))
    assert torch.load(out / CHECKPOINT, weights_only=True)["step"] < recipe.schedule.steps
    run_recipe(recipe, RunSettings(data=photographs, out=out, device="cpu"))
    parts = torch.load(out / CHECKPOINT, weights_only=True)["network"]
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    # Another one may begin with what this one has learned.
    again = RunSettings(data=photographs, out=tmp_path / "again", start_from=out, device="cpu", minutes=1e-9)
    run_recipe(recipe, again)
    with pytest.raises(ValueError, match="beside which it learns factors"):
        run_recipe(recipe, RunSettings(data=photographs, out=tmp_path / "nothing", device="cpu"))


def test_factors_that_do_not_fit_and_recipes_without_a_beginning_are_refused(recipe: Recipe) -> None:
    base = {"head.weight": torch.zeros(4, 3, 3, 3)}
    fitting = {"head.up": torch.ones(4, 2), "head.down": torch.ones(2, 27)}
    assert torch.equal(merged(base, fitting)["head.weight"], torch.full((4, 3, 3, 3), 2.0))
    for wrong in ({"tail.up": torch.ones(4, 2)}, {"head.down": torch.ones(2, 27)}, {"head.up": torch.ones(4, 2)}):
        with pytest.raises(ValueError, match="expected factors of a layer of these weights"):
            merged(base, wrong)
    with pytest.raises(ValueError, match="nothing to start from"):
        replace(recipe, start_from=None)
    with pytest.raises(ValueError, match="got 0, expected 1 or more"):
        freeze_beside_low_rank(replace(recipe, rank=None).network(), rank=0)


def test_what_is_shipped_takes_grain_away_that_denoise_leaves() -> None:
    clean = np.ascontiguousarray(data.astronaut()[:192, 128:320])
    grain = FilmGrain(sigma=(12.0,), size_px=(0.8,), achromatic=(False,), floor=0.3, seed=3)
    grainy = np.rint(from_batch(grain.apply(to_batch(clean / np.float32(255)))) * 255).astype(np.uint8)
    runner = Runner(RunnerSettings(device="cpu"))
    before, *after = (
        float(np.square(picture.astype(float) - clean).mean())
        for picture in (grainy, *(runner.apply(method, [grainy])[0] for method in ("denoise", "degrain")))
    )
    assert after[1] < 0.5 * after[0]
    assert after[1] < 0.4 * before
