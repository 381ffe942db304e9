"""Muon over convolutions: which parameters it takes, what a step is, and that it goes on where it stopped."""

from __future__ import annotations

import pytest
import torch

from models.blocks import ResidualUNet
from models.training.optimizer import MUON_LR_FACTOR, ConvolutionMuon


def network() -> ResidualUNet:
    torch.manual_seed(0)
    return ResidualUNet(widths=(8, 16), blocks=1)


def with_gradients(trained: ResidualUNet, optimizer: ConvolutionMuon, *, seed: int, scale: float = 1.0) -> None:
    picture = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    (scale * trained(picture).square().mean()).backward()


def optimizer_of(trained: ResidualUNet) -> ConvolutionMuon:
    return ConvolutionMuon(trained, weight_decay=0.0)


def test_a_hidden_layers_step_is_nearly_orthogonal_and_of_the_size_of_adams() -> None:
    trained = network()
    optimizer = optimizer_of(trained)
    before = trained.body[0].first.weight.detach().clone()
    with_gradients(trained, optimizer, seed=1)
    optimizer.step(lr=1e-3, clip_norm=1.0)
    step = (trained.body[0].first.weight.detach() - before).flatten(1)
    values = torch.linalg.svdvals(step)
    assert values.max() < 2.0 * values.min()
    assert float(step.square().mean().sqrt()) == pytest.approx(0.2 * MUON_LR_FACTOR * 1e-3, rel=0.25)


def test_the_size_of_the_gradient_matters_to_no_hidden_layer() -> None:
    networks = []
    for scale in (1.0, 1024.0):
        trained = network()
        optimizer = optimizer_of(trained)
        with_gradients(trained, optimizer, seed=1, scale=scale)
        optimizer.step(lr=1e-3, clip_norm=1e9)
        networks.append(trained)
    for name, value in networks[0].named_parameters():
        assert torch.allclose(value, networks[1].state_dict()[name], atol=1e-5), name


def test_first_and_last_layers_are_left_to_adamw() -> None:
    trained = network()
    optimizer = optimizer_of(trained)
    before = {name: value.detach().clone() for name, value in trained.named_parameters()}
    with_gradients(trained, optimizer, seed=1)
    optimizer.step(lr=1e-3, clip_norm=1.0)
    for name in ("head.weight", "tail.weight"):
        change = (trained.state_dict()[name] - before[name]).abs()
        assert float(change.max()) == pytest.approx(1e-3, rel=0.05), name


def test_the_state_goes_on_exactly_and_one_of_an_earlier_version_is_refused() -> None:
    whole, parted = network(), network()
    first, second = optimizer_of(whole), optimizer_of(parted)
    for seed in range(2):
        for trained, optimizer in ((whole, first), (parted, second)):
            with_gradients(trained, optimizer, seed=seed)
            optimizer.step(lr=1e-3, clip_norm=1.0)
    resumed = network()
    third = optimizer_of(resumed)
    resumed.load_state_dict(parted.state_dict())
    third.load_state_dict(second.state_dict())
    for trained, optimizer in ((whole, first), (resumed, third)):
        with_gradients(trained, optimizer, seed=2)
        optimizer.step(lr=1e-3, clip_norm=1.0)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="start a new run"):
        third.load_state_dict(torch.optim.AdamW(network().parameters()).state_dict())
