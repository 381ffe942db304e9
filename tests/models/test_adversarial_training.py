"""Training against a discriminator: losses as published, what each side learns from, exact resume, better texture."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.blocks import ResidualUNet
from models.training.adversarial import AdversarialSettings, train_adversarially
from models.training.adversarial_losses import (
    Adversary,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    r1_penalty,
)
from models.training.checkpoints import CHECKPOINT
from models.training.corruption import Example
from models.training.discriminator import PatchDiscriminator
from models.training.feature_losses import LayersOf, gram, perceptual_loss, style_loss
from models.training.loop import LoopSettings, Schedule
from models.training.photographs import PatchSettings
from models.training.recipes import get_recipe
from models.training.run import RunSettings, feature_extractor, run_recipe
from models.training.search import candidates

REAL, FAKE = torch.tensor([2.0, 0.5]), torch.tensor([-0.5, 0.3])


def bce(score: float, *, target: float) -> float:
    believed = 1.0 / (1.0 + math.exp(-score))
    return -math.log(believed if target == 1.0 else 1.0 - believed)


def test_losses_are_the_published_ones() -> None:
    real, fake = REAL.tolist(), FAKE.tolist()

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    expected: dict[Adversary, tuple[float, float]] = {
        "vanilla": (
            mean([bce(r, target=1.0) for r in real]) + mean([bce(f, target=0.0) for f in fake]),
            mean([bce(f, target=1.0) for f in fake]),
        ),
        "lsgan": (
            0.5 * (mean([(r - 1) ** 2 for r in real]) + mean([f**2 for f in fake])),
            0.5 * mean([(f - 1) ** 2 for f in fake]),
        ),
        "hinge": (mean([max(0, 1 - r) for r in real]) + mean([max(0, 1 + f) for f in fake]), -mean(fake)),
        "wgan": (mean(fake) - mean(real), -mean(fake)),
        "relativistic": (
            0.5 * mean([bce(r - mean(fake), target=1.0) for r in real])
            + 0.5 * mean([bce(f - mean(real), target=0.0) for f in fake]),
            0.5 * mean([bce(r - mean(fake), target=0.0) for r in real])
            + 0.5 * mean([bce(f - mean(real), target=1.0) for f in fake]),
        ),
    }
    for kind, (judged, fooled) in expected.items():
        assert float(discriminator_loss(REAL, FAKE, kind=kind)) == pytest.approx(judged, abs=1e-6)
        assert float(generator_loss(REAL, FAKE, kind=kind)) == pytest.approx(fooled, abs=1e-6)


def test_penalties_of_a_linear_discriminator_are_known() -> None:
    direction = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)

    def discriminate(pictures: Tensor) -> Tensor:
        return (pictures * direction).sum((1, 2, 3))

    pictures = torch.rand(5, 2, 1, 1)
    assert float(r1_penalty(discriminate, pictures)) == pytest.approx(0.5 * 25.0)
    found = gradient_penalty(discriminate, pictures, torch.rand(5, 2, 1, 1), generator=torch.Generator().manual_seed(0))
    assert float(found) == pytest.approx((5.0 - 1.0) ** 2)


def test_spectral_normalization_bounds_the_discriminators_slope() -> None:
    torch.manual_seed(0)
    free, bound = (PatchDiscriminator(in_channels=3, widths=(8, 8), spectral=spectral) for spectral in (False, True))
    for level in free.levels:
        nn.init.normal_(level.weight)
    pictures = torch.rand(2, 3, 32, 32)
    for _ in range(20):  # of power iteration
        bound(pictures)
    assert float(r1_penalty(bound, pictures).detach()) < 0.01 * float(r1_penalty(free, pictures).detach())
    assert bound(pictures).shape == (2, 1, 8, 8)


def test_features_of_named_layers_and_their_losses() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
    extract = LayersOf(network, "2", "0", mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    pictures = torch.rand(2, 3, 16, 16)
    last, first = extract(pictures)
    assert torch.equal(last, network((pictures - 0.5) / 0.2))
    assert first.shape == (2, 4, 14, 14)
    assert float(perceptual_loss(extract, pictures, pictures)) == 0.0
    # Style is what does not depend on where things are, but for the border.
    mirrored = torch.rand(2, 3, 16, 16)
    assert float(style_loss(extract, mirrored, pictures)) > 0.0
    assert torch.allclose(gram(first), gram(first.flip(3)), atol=1e-6)
    changed = mirrored.clone().requires_grad_(True)
    perceptual_loss(extract, changed, pictures).backward()  # type: ignore[no-untyped-call]
    assert changed.grad is not None
    assert all(parameter.grad is None for parameter in network.parameters())
    with pytest.raises(ValueError, match="expected names of Sequential's layers"):
        LayersOf(network, "7")


def holes(rng: np.random.Generator) -> Example:
    """Stripes of one level with a hole in the middle; what was there cannot be known, only what it was like."""
    levels = torch.from_numpy(rng.random((4, 1, 32, 1)).astype(np.float32)).round().expand(-1, 3, -1, 32).contiguous()
    mask = torch.zeros(4, 1, 32, 32)
    mask[:, :, 8:24, 4:28] = 1.0
    return Example(torch.cat([levels * (1 - mask) + 0.5 * mask, mask], dim=1), levels, mask)


def generator(seed: int = 0) -> ResidualUNet:
    torch.manual_seed(seed)
    return ResidualUNet(in_channels=4, widths=(8, 8), blocks=1)


SMALL = AdversarialSettings(widths=(8, 8), adversarial_weight=0.1, matching_weight=0.1, averaging=0.5)


@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        replace(SMALL, kind="relativistic", penalty="r1", penalty_every=2, spectral=False),
        replace(SMALL, kind="wgan", penalty="gradient", discriminator_steps=2, spectral=False),
    ],
    ids=["hinge", "relativistic and R1", "WGAN-GP"],
)
def test_a_resumed_run_ends_with_the_same_weights(settings: AdversarialSettings, tmp_path: Path) -> None:
    schedule = Schedule(steps=5, warmup_steps=2)

    def run(folder: str, *, network: nn.Module, stop: float | None = None) -> int:
        torch.manual_seed(3)  # of the discriminator
        return train_adversarially(
            network,
            adversarial=settings,
            batches=holes,
            schedule=schedule,
            settings=LoopSettings(tmp_path / folder, bf16=False, stop_after_seconds=stop),
            seed=5,
        )

    whole, resumed = generator(), generator(seed=1)
    assert run("a", network=whole) == 5
    assert run("b", network=generator(), stop=0.0) == 1
    assert run("b", network=resumed) == 5
    for first, second in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(first, second)
    kept = torch.load(tmp_path / "a" / CHECKPOINT, weights_only=True)["network"]
    assert all(torch.equal(kept[name], value) for name, value in whole.state_dict().items())


def test_the_discriminator_is_told_apart_and_the_generator_draws_what_regression_blurs(tmp_path: Path) -> None:
    """Where the truth is 0 or 1 at random, regression's best answer is in between; no discriminator believes that."""

    def spread(adversarial_weight: float, *, out: Path) -> float:
        network = generator()
        torch.manual_seed(0)
        train_adversarially(
            network,
            adversarial=replace(
                SMALL, adversarial_weight=adversarial_weight, matching_weight=0.0, pixel_weight=0.1, averaging=0.9
            ),
            batches=holes_of_noise,
            schedule=Schedule(steps=150, peak_lr=2e-3, warmup_steps=5, clip_norm=1.0),
            settings=LoopSettings(out, bf16=False, log_every=150),
            seed=5,
        )
        example = holes_of_noise(np.random.default_rng(99))
        with torch.no_grad():
            inside = network(example.network_input)[:, :, 10:22, 6:26]
        return float(inside.std())

    assert spread(1.0, out=tmp_path / "with") > 2.0 * spread(0.0, out=tmp_path / "without")


def holes_of_noise(rng: np.random.Generator) -> Example:
    """Noise of two levels, of which the hole keeps a faint, useless trace to draw from."""
    levels = torch.from_numpy(rng.random((4, 1, 32, 32)).astype(np.float32)).round().expand(-1, 3, -1, -1).contiguous()
    trace = torch.from_numpy(rng.random((4, 1, 32, 32)).astype(np.float32)).expand(-1, 3, -1, -1)
    mask = torch.zeros(4, 1, 32, 32)
    mask[:, :, 8:24, 4:28] = 1.0
    return Example(torch.cat([levels * (1 - mask) + (0.4 + 0.2 * trace) * mask, mask], dim=1), levels, mask)


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 'r1', 'gradient' or None"):
        AdversarialSettings(penalty="r2")
    with pytest.raises(ValueError, match="expected an extractor"):
        train_adversarially(
            generator(),
            adversarial=replace(SMALL, style_weight=1.0),
            batches=holes,
            schedule=Schedule(steps=1),
            settings=LoopSettings(tmp_path),
            seed=0,
        )


def test_a_recipe_learns_from_the_features_of_a_shipped_network(tmp_path: Path) -> None:
    for index in range(6):
        picture = np.random.default_rng(index).integers(0, 256, (40, 44, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{index}.png"), picture)
    recipe = replace(
        get_recipe("fill-texture"),
        widths=(4, 8),
        blocks=1,
        patches=PatchSettings(side=32, batch=2),
        schedule=Schedule(steps=2, warmup_steps=1),
        adversarial=replace(SMALL, matching_weight=0.0),
    )
    (with_style,) = candidates(recipe, {"adversarial.style_weight": ["10"]})
    (perceptual,) = candidates(recipe, {"adversarial.perceptual_weight": ["0.1"]})
    learned = []
    for number, tried in enumerate((recipe, with_style.recipe, perceptual.recipe)):
        out = tmp_path / str(number)
        assert run_recipe(tried, RunSettings(data=[tmp_path], out=out, device="cpu")) == 2
        state = torch.load(out / CHECKPOINT, weights_only=True)["generator"]
        learned.append(torch.cat([value.flatten() for value in state.values()]))
    assert not torch.equal(learned[0], learned[1])
    assert not torch.equal(learned[0], learned[2])
    # Only the losses differ: the first weights of both sides and the batches are the same.
    assert torch.allclose(learned[0], learned[2], atol=0.01)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"feature_weight": "fill"}, "takes more than a picture, expected one of pictures alone"),
        ({"feature_weight": "denois"}, "did you mean 'denoise'"),
        ({"feature_layers": ("conv5",)}, "got ['conv5'], expected names of ResidualUNet's layers"),
    ],
)
def test_features_that_no_shipped_network_has_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        feature_extractor(replace(SMALL, style_weight=1.0, **changed), device="cpu")


def test_the_recipe_for_texture_goes_on_from_the_network_that_fills() -> None:
    recipe, before = get_recipe("fill-texture"), get_recipe("fill")
    assert recipe.start_from == before.id
    assert recipe.adversarial is not None
    shapes = [value.shape for value in before.network().state_dict().values()]
    assert [value.shape for value in recipe.network().state_dict().values()] == shapes
