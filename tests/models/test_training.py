"""The training loop: a run killed and resumed ends where an uninterrupted one ends; batches depend on (seed, step)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.blocks import ResidualUNet
from models.training.checkpoints import CHECKPOINT, Origin, origin_of
from models.training.corruption import BlindJpeg, BlindNoise, Corruption, Example, Holes, LostPixels, MildBlur, Mixture
from models.training.example_sheet import save_examples
from models.training.export import export
from models.training.log import LOG, DivergedError, read_log
from models.training.loop import LoopSettings, Schedule, Shape, train
from models.training.photographs import PatchSettings, Photographs
from models.training.recipes import RECIPES, get_recipe
from models.training.run import RunSettings, run_recipe
from models.weights import WeightCard, WeightsError, load_card, load_weights, save_weights


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for index in range(4):
        cv2.imwrite(str(folder / f"{index}.png"), rng.integers(0, 256, (80, 90, 3)).astype(np.uint8))
    return Photographs.below([folder])


def small() -> ResidualUNet:
    torch.manual_seed(0)
    return ResidualUNet(widths=(4, 8), blocks=1)


def test_a_resumed_run_ends_with_the_same_weights(photographs: Photographs, tmp_path: Path) -> None:
    patches = PatchSettings(side=16, batch=2)

    def batches(rng: np.random.Generator) -> Example:
        return BlindNoise()(photographs.patches(patches, rng=rng), rng)

    schedule = Schedule(steps=8, warmup_steps=2)
    whole, interrupted = small(), small()
    train(whole, batches=batches, schedule=schedule, settings=LoopSettings(tmp_path / "a", bf16=False), seed=5)
    stopped = LoopSettings(tmp_path / "b", bf16=False, stop_after_seconds=0.0)
    done = train(interrupted, batches=batches, schedule=schedule, settings=stopped, seed=5)
    assert done == 1
    resumed = ResidualUNet(widths=(4, 8), blocks=1)
    goes_on = LoopSettings(tmp_path / "b", bf16=False)
    assert train(resumed, batches=batches, schedule=schedule, settings=goes_on, seed=5) == 8
    for first, second in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_killed_run_has_the_log_of_an_uninterrupted_one(tmp_path: Path) -> None:
    steps_done: list[int] = []

    def killed(rng: np.random.Generator) -> Example:
        steps_done.append(len(steps_done))
        if len(steps_done) == 7:
            raise KeyboardInterrupt
        return flat(rng)

    def run(folder: str, batches: Callable[[np.random.Generator], Example]) -> list[dict[str, Any]]:
        settings = LoopSettings(tmp_path / folder, bf16=False, log_every=4, checkpoint_seconds=0.0)
        train(small(), batches=batches, schedule=Schedule(steps=10, warmup_steps=2), settings=settings, seed=1)
        return [{**row, "seconds": None} for row in read_log(tmp_path / folder / LOG)]

    whole = run("whole", flat)
    with pytest.raises(KeyboardInterrupt):
        run("killed", killed)
    path = tmp_path / "killed" / LOG
    first = read_log(path)
    state = torch.load(path.with_name(CHECKPOINT), weights_only=True)
    assert len(state["pending"]["losses"]) == state["step"] - 4 == 2
    state["pending"]["seconds"] = 1000.0
    torch.save(state, path.with_name(CHECKPOINT))
    with path.open("a") as log:
        log.write('{"step": 8, "loss": 0.\u00fc')  # as a kill leaves it
    assert read_log(path) == first
    assert run("killed", flat) == whole
    assert read_log(path)[-1]["seconds"] >= 1000.0
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [4, 8, 10]


def test_a_checkpoint_of_before_goes_on(tmp_path: Path) -> None:
    settings = LoopSettings(tmp_path, bf16=False, stop_after_seconds=0.0)
    train(small(), batches=flat, schedule=Schedule(steps=3), settings=settings, seed=1)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    del state["pending"]
    torch.save(state, tmp_path / CHECKPOINT)
    assert train(small(), batches=flat, schedule=Schedule(steps=3), settings=settings, seed=1) == 2


def test_a_line_that_is_no_json_before_the_last_is_an_error(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text('{"step": \n{"step": 2}\n')
    with pytest.raises(ValueError, match="Expecting value"):
        read_log(tmp_path / LOG)


@pytest.mark.parametrize("fault", ["loss", "validation PSNR", "weight of"])
def test_a_run_that_diverges_stops_and_its_checkpoint_stays(tmp_path: Path, fault: str) -> None:
    settings = LoopSettings(tmp_path, bf16=False, log_every=2, validate_every=2, stop_after_seconds=0.0)
    train(small(), batches=flat, schedule=Schedule(steps=6), settings=settings, seed=1)
    before = (tmp_path / CHECKPOINT).read_bytes()

    def batches(rng: np.random.Generator) -> Example:
        example = flat(rng)
        return Example(example.network_input * torch.nan, example.target) if fault == "loss" else example

    network = small()

    def validate(_: torch.nn.Module) -> float:
        if fault == "weight of":
            with torch.no_grad():
                network.head.weight[0] = torch.nan
        return math.nan if fault == "validation PSNR" else 20.0

    with pytest.raises(DivergedError, match=rf"got a {fault}.* of nan at step 2.*lower learning rate"):
        train(network, batches=batches, schedule=Schedule(steps=6), settings=settings, seed=1, validate=validate)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert read_log(tmp_path / LOG) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e6])
def test_weights_that_are_not_finite_are_not_written(tmp_path: Path, value: float) -> None:
    blank = WeightCard(
        id="w", sha256="", network="", parameters=0, data=[], licence="", command="", steps=0, seed=0, commit=""
    )
    with pytest.raises(WeightsError, match="values in a not finite"):
        save_weights({"a": torch.tensor([1.0, value])}, card=blank, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("shares", "factor"),
    [((0.0, 0.0), 1), ((1.0, 0.0), 2), ((0.0, 1.0), 3)],
)
def test_shares_of_patches_are_cut_from_smaller_photographs(shares: tuple[float, float], factor: int) -> None:
    # Stripes of three columns, one of them white: a third of the size is one grey.
    stripes = np.zeros((90, 90, 3), np.uint8)
    stripes[:, ::3] = 255
    half, third = shares
    settings = PatchSettings(side=24, batch=6, half_scale_share=half, third_scale_share=third)
    patches = Photographs([stripes]).patches(settings, rng=np.random.default_rng(0))
    assert patches.shape == (6, 3, 24, 24)
    values = {round(float(value) * 255) for value in patches.unique()}
    assert values == {1: {0, 255}, 2: {0, 128}, 3: {85}}[factor]
    # Where no photograph is three times the patch, it is cut at full scale.
    large = PatchSettings(side=48, batch=2, half_scale_share=half, third_scale_share=third)
    assert {0.0, 1.0} == set(Photographs([stripes]).patches(large, rng=np.random.default_rng(0)).unique().tolist())


def test_a_run_that_no_longer_gains_ends_and_its_best_weights_count(tmp_path: Path) -> None:
    given = iter([20.0, 21.0, 20.5, 20.9, 25.0])
    kept: list[torch.Tensor] = []

    def validate(network: torch.nn.Module) -> float:
        kept.append(next(network.parameters()).detach().clone())
        return next(given)

    def run(network: ResidualUNet) -> int:
        settings = LoopSettings(tmp_path, bf16=False, log_every=1, validate_every=1, patience=2)
        return train(
            network,
            batches=flat,
            schedule=Schedule(steps=50, warmup_steps=2),
            settings=settings,
            seed=1,
            validate=validate,
        )

    for _ in range(2):  # what has ended does not go on
        network = small()
        assert run(network) == 2
        assert len(kept) == 4
        state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
        assert state["step"] == 2
        assert torch.equal(next(iter(state["network"].values())), kept[1])
        assert torch.equal(next(network.parameters()), kept[1])


def flat(rng: np.random.Generator) -> Example:
    levels = torch.from_numpy(rng.random((2, 3, 16, 16)).astype(np.float32))
    return Example(levels, levels.mean((2, 3), keepdim=True).expand_as(levels))


def test_a_sheet_of_examples_shows_input_output_and_target(tmp_path: Path) -> None:
    target = torch.zeros(2, 3, 16, 16)
    mask = torch.zeros(2, 1, 16, 16)
    mask[:, :, :8] = 1.0
    example = Example(torch.cat([target + 0.5, mask], dim=1), target, mask)

    class White(torch.nn.Module):
        def forward(self, entry: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(entry[:, :3])

    save_examples(White(), [example, example], path=tmp_path / "examples.png", device="cpu")
    sheet = cv2.imread(str(tmp_path / "examples.png"))
    assert sheet is not None
    assert sheet.shape == (40, 60, 3)
    assert [int(sheet[4, column, 0]) for column in (4, 24, 44)] == [128, 255, 0]
    assert int(sheet[12, 24, 0]) == 0  # what was known is put back


@pytest.mark.parametrize(
    "corruption",
    [BlindNoise(), BlindJpeg(), MildBlur(), Holes(), LostPixels(), Mixture()],
    ids=lambda c: type(c).__name__,
)
def test_a_batch_is_a_function_of_seed_and_step(photographs: Photographs, corruption: Corruption) -> None:
    def batch(step: int) -> Example:
        rng = np.random.default_rng((7, step))
        return corruption(photographs.patches(PatchSettings(side=32, batch=3, grey_share=0.5), rng=rng), rng)

    assert torch.equal(batch(3).network_input, batch(3).network_input)
    assert not torch.equal(batch(3).network_input, batch(4).network_input)


def test_grey_patches_get_grey_noise() -> None:
    clean = torch.full((4, 3, 8, 8), 0.5)
    noisy = BlindNoise(clip_share=0.0)(clean, np.random.default_rng(0)).network_input
    assert torch.equal(noisy[:, 0], noisy[:, 2])


def test_holes_change_exactly_what_the_mask_says() -> None:
    clean = torch.rand(6, 3, 32, 32)
    example = Holes()(clean, np.random.default_rng(1))
    mask = example.network_input[:, 3:]
    assert example.weight is not None
    assert torch.equal(mask, example.weight)
    filled = example.network_input[:, :3]
    assert torch.equal(filled * (1 - mask), clean * (1 - mask))
    assert not torch.equal(filled * mask, clean * mask)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}


def test_lost_pixels_are_zero_marked_and_supervised() -> None:
    clean = torch.rand(12, 3, 32, 32) * 0.8 + 0.1
    clean[:4] = clean[:4, :1]
    example = LostPixels()(clean, np.random.default_rng(0))
    values, known = example.network_input.chunk(2, dim=1)
    assert example.weight is not None
    assert torch.equal(values, clean * known)
    assert torch.equal(example.weight, 1 - known)
    shared = (known == known[:, :1]).flatten(1).all(1)
    assert bool(shared[:4].all())  # a grey picture is one plane
    assert 0 < int(shared[4:].sum()) < 8  # and of the others some lose whole pixels, some values
    assert 0.15 < float(example.weight.mean()) < 0.9


def test_mixtures_keep_grey_patches_grey_and_stay_within_range() -> None:
    clean = torch.rand(12, 3, 32, 32)
    clean[::2] = clean[::2, :1]
    degraded = Mixture(clean_share=0.0)(clean, np.random.default_rng(2)).network_input
    assert torch.equal(degraded[::2, 0], degraded[::2, 2])
    assert (degraded >= 0).all()
    assert (degraded <= 1).all()
    assert all(not torch.equal(one, other) for one, other in zip(clean[::2], degraded[::2], strict=True))


def test_learning_rate_warms_up_stays_and_decays() -> None:
    schedule = Schedule(steps=100, peak_lr=1.0, warmup_steps=10, decay_share=0.5)
    assert schedule.lr(0) == pytest.approx(0.1)
    assert schedule.lr(10) == schedule.lr(49) == 1.0
    assert schedule.lr(75) == pytest.approx(0.505)
    assert 0.0 < schedule.lr(99) < 0.05


@pytest.mark.parametrize(
    ("shape", "rates"),
    [
        ("linear", [1.0, 0.7525, 0.505, 0.2575]),
        ("cosine", [1.0, 1.0 - 0.99 * (0.5 - 0.5 * math.sqrt(0.5)), 0.505, 1.0 - 0.99 * (0.5 + 0.5 * math.sqrt(0.5))]),
        ("step", [0.1, 0.1, 0.01, 0.01]),
    ],
)
def test_the_decay_has_the_shape_that_is_asked_for(shape: Shape, rates: list[float]) -> None:
    schedule = Schedule(steps=80, peak_lr=1.0, warmup_steps=2, decay_share=0.5, shape=shape)
    assert schedule.lr(39) == 1.0
    assert [schedule.lr(step) for step in (40, 50, 60, 70)] == pytest.approx(rates)
    assert 0.01 <= schedule.lr(79) < 0.035
    with pytest.raises(ValueError, match="expected one of linear, cosine, step"):
        replace(schedule, shape="square")  # type: ignore[arg-type]


def test_no_photographs_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--data"):
        Photographs.below([tmp_path])


def test_recipes_have_unique_names_and_unknown_ones_get_a_hint() -> None:
    assert len({recipe.id for recipe in RECIPES}) == len(RECIPES)
    with pytest.raises(ValueError, match="did you mean 'denoise'"):
        get_recipe("denois")


def test_export_writes_verified_weights_with_a_card(tmp_path: Path) -> None:
    recipe = get_recipe("denoise")
    state = {"network": recipe.network().state_dict(), "optimizer": {}, "step": 12}
    torch.save(state, tmp_path / CHECKPOINT)
    card = export("denoise", checkpoint=tmp_path, folder=tmp_path)
    assert card.steps == 12
    assert card.parameters > 1_000_000
    assert (tmp_path / "denoise.safetensors").stat().st_size < 4 * 2**20

    mixed = export("denoise", checkpoint=tmp_path, folder=tmp_path, share=0.25)
    assert mixed.command.endswith("--share 0.25")
    shipped, written = load_weights("denoise"), load_file(tmp_path / "denoise.safetensors")
    name = next(name for name in shipped if shipped[name].ndim == 4)
    expected = 0.75 * shipped[name] + 0.25 * state["network"][name]
    assert torch.allclose(written[name].float(), expected, atol=1e-3)
    with pytest.raises(ValueError, match=r"share of 1\.5"):
        export("denoise", checkpoint=tmp_path, folder=tmp_path, share=1.5)


def test_a_checkpoint_knows_its_recipe_and_its_photographs(tmp_path: Path) -> None:
    denoise, deblock = (
        replace(
            get_recipe(name),
            widths=(4, 8),
            blocks=1,
            patches=PatchSettings(side=16, batch=2),
            schedule=Schedule(steps=2, warmup_steps=1),
        )
        for name in ("denoise", "deblock")
    )
    for name, count in (("own", 6), ("bsds500", 5)):
        (tmp_path / name).mkdir()
        for index in range(count):
            picture = np.random.default_rng(index).integers(0, 256, (40, 44, 3)).astype(np.uint8)
            cv2.imwrite(str(tmp_path / name / f"{index}.png"), picture)
    out = tmp_path / "run"
    run_recipe(deblock, RunSettings(data=[tmp_path / "own"], out=out, device="cpu"))
    with pytest.raises(ValueError, match=r"a training of 'deblock', expected one of 'denoise'; name another folder"):
        run_recipe(denoise, RunSettings(data=[tmp_path / "own"], out=out, device="cpu"))
    with pytest.raises(ValueError, match="a training of 'deblock', expected one of 'denoise'"):
        export("denoise", checkpoint=out, folder=tmp_path)
    run_recipe(deblock, RunSettings(data=[tmp_path / "bsds500"], out=out, device="cpu", steps=3, peak_lr=2e-4))
    origin = origin_of(out / CHECKPOINT, recipe="deblock")
    assert origin == Origin(recipe="deblock", data=(("own", 6), ("bsds500", 5)), steps=3, peak_lr=2e-4)
    assert [row["lr"] for row in read_log(out / LOG)][-1] == pytest.approx(2e-4)


@pytest.mark.parametrize(
    ("data", "said", "licence"),
    [
        ([("bsds500", 400), ("photos_1024", 443)], "BSDS500 train and test splits", "(BSDS500)"),
        ([("bsds500", 12)], "bsds500 (12 photographs", "are not known here"),
        ([("photos_1024", 443)], "photos_1024 (443 photographs, mostly", "Apache-2.0"),
        (None, "of an earlier version", "are not known here"),
    ],
)
def test_a_card_claims_the_photographs_that_were_used(
    tmp_path: Path, data: list[tuple[str, int]] | None, said: str, licence: str
) -> None:
    state = {"network": get_recipe("denoise").network().state_dict(), "step": 12}
    origin = {"recipe": "denoise", "data": data, "start_from": None, "steps": 12, "peak_lr": 3e-4}
    known = {} if data is None else {"origin": origin}
    torch.save({**state, **known}, tmp_path / CHECKPOINT)
    card = export("denoise", checkpoint=tmp_path, folder=tmp_path)
    assert said in card.data[0]
    assert len(card.data) == len(data or [0])
    assert card.licence.endswith(licence)
    assert card.command.endswith("--out <folder>" if data is None else "--out <folder> --steps 12 --peak-lr 0.0003")


def test_an_altered_weight_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blank = WeightCard(
        id="w", sha256="", network="", parameters=0, data=[], licence="", command="", steps=0, seed=0, commit=""
    )
    save_weights({"a": torch.ones(3)}, card=blank, folder=tmp_path)
    monkeypatch.setattr("models.weights.WEIGHTS_FOLDER", tmp_path)
    assert torch.equal(load_weights("w")["a"], torch.ones(3))
    path = tmp_path / "w.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WeightsError, match="its card says"):
        load_weights("w")
    with pytest.raises(WeightsError, match="expected one of"):
        load_card("absent")
