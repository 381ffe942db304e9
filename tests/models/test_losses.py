"""What the losses of regression count, and how much."""

from __future__ import annotations

import pytest
import torch

from models.training.losses import charbonnier, log_error


def test_the_loss_counts_the_values_that_are_marked() -> None:
    target, output = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    output[:, 1] = 9.0
    values = torch.ones(1, 3, 2, 2)
    values[:, 1] = 0.0
    assert charbonnier(output, target, weight=values) == pytest.approx(0.5, abs=1e-4)
    assert charbonnier(output, target, weight=torch.ones(1, 1, 2, 2)) == pytest.approx(10 / 3, abs=1e-4)


def test_the_logarithm_of_the_error_counts_every_picture_alike() -> None:
    target = torch.zeros(2, 3, 8, 8)
    output = torch.stack([torch.full((3, 8, 8), 0.01), torch.full((3, 8, 8), 0.1)]).requires_grad_()
    log_error(output, target, weight=None).backward()
    assert output.grad is not None
    relative = (output.grad * output).detach().sum((1, 2, 3))  # a percent less error is worth the same in both
    assert float(relative[0]) == pytest.approx(float(relative[1]), rel=0.1)

    seen = torch.zeros(2, 1, 8, 8)
    seen[:, :, :4] = 1.0
    elsewhere = output.detach().clone()
    elsewhere[:, :, 4:] = 5.0
    whole = float(log_error(output.detach(), target, weight=None))
    assert float(log_error(elsewhere, target, weight=seen)) == pytest.approx(whole)
    assert log_error(target, target, weight=None).isfinite()
