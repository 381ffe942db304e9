"""Number format: bfloat16 where the CPU has it and is quicker with it, else float32; asking changes nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from models import device


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    device.cpu_has_fast_bf16.cache_clear()
    yield
    device.cpu_has_fast_bf16.cache_clear()


@pytest.mark.parametrize(
    ("has", "speed", "expected"),
    [
        (False, 9.0, torch.float32),
        (True, 0.55, torch.float32),
        (True, 1.8, torch.bfloat16),
        (True, 8.0, torch.bfloat16),
    ],
)
def test_bfloat16_is_taken_where_it_is_there_and_pays(
    monkeypatch: pytest.MonkeyPatch, has: bool, speed: float, expected: torch.dtype
) -> None:
    monkeypatch.setattr(device, "_has_bf16_products", lambda: has)
    monkeypatch.setattr(device, "_speed_of_bf16", lambda: speed)
    assert device.resolve_precision("auto", device="cpu") is expected
    assert device.resolve_precision("bfloat16", device="cpu") is torch.bfloat16  # asked for, it is done
    with device.quick_products("cpu"):
        assert torch.is_autocast_enabled("cpu") is (expected is torch.bfloat16)
    with device.quick_products("cpu", allowed=False):
        assert not torch.is_autocast_enabled("cpu")


def test_measuring_leaves_chance_and_threads_as_they_were() -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert device._speed_of_bf16() > 0
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_num_threads() == threads
