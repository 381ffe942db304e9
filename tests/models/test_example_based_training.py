"""The five example-based networks where they learn from photographs: recipes, exports, and both as methods."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import mse_loss

from models.example_based.networks import RECIPES, OnSmoothFill, build_network, network_for_photographs
from models.registry import get_method
from models.training import recipes
from models.training.checkpoints import CHECKPOINT
from models.training.export import export
from models.weights import load_weights
from tests.models.test_example_based import holes, picture


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_all_five_networks_can_learn_from_photographs(name: str) -> None:
    image, known = picture(channels=3), 1 - holes()
    planes = torch.cat([image * known, known.expand_as(image)], dim=1)
    network = network_for_photographs(name, channels=3, seed=0)
    with torch.no_grad():
        before = network(planes)
    assert before.shape == image.shape
    assert isinstance(network, OnSmoothFill) == (name in ("deep_denoise", "deep_wide_denoise"))
    if not isinstance(network, OnSmoothFill):
        # It is his, with nothing before it.
        assert torch.equal(before, build_network(name, channels=3, seed=0)(planes))
    target = 0.8 * image
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    for _ in range(5):
        optimizer.zero_grad()
        mse_loss(network(planes), target).backward()
        optimizer.step()
    with torch.no_grad():
        assert float(mse_loss(network(planes), target)) < float(mse_loss(before, target))


def test_a_recipe_for_each_example_based_network_and_its_card_says_which(tmp_path: Path) -> None:
    found = {}
    for recipe in recipes.RECIPES:
        if recipe.example_network is None:
            continue
        found[recipe.example_network] = recipe.id
        state = {"network": recipe.network().state_dict(), "optimizer": {}, "step": 12}
        torch.save(state, tmp_path / CHECKPOINT)
        card = export(recipe.id, checkpoint=tmp_path, folder=tmp_path)
        kind = "OnSmoothFill" if "_" in recipe.example_network else "build_network"
        assert card.network == f"{kind}({recipe.example_network}, channels=3)"
    assert found == {
        "deep_wide_denoise": "example-external",
        "deep_denoise": "example-external-narrow",
        "single": "example-external-single",
        "denoise": "example-external-denoise",
        "deep": "example-external-deep",
    }


@pytest.mark.parametrize("kind", ["external", "online"])
@pytest.mark.parametrize(("suffix", "network_name"), [("", "deep_wide_denoise"), ("-narrow", "deep_denoise")])
def test_both_networks_with_weights_are_methods(kind: str, suffix: str, network_name: str) -> None:
    method = get_method(f"example-{kind}{suffix}")
    network = method.build()
    network.load_state_dict(load_weights(f"example-external{suffix}"), strict=True)
    own = network_for_photographs(network_name, channels=3, seed=0)
    assert sum(weight.numel() for weight in network.parameters()) == sum(w.numel() for w in own.parameters())
    assert method.card.weights == f"example-external{suffix}"
    assert method.card.opt_in
    assert method.card.stochastic == (kind == "online")
