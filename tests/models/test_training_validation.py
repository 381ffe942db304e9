"""Named sets that a training follows: whole pictures, degraded the same each time, deciding nothing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.training.corruption import BlindNoise
from models.training.log import Progress
from models.training.loop import LoopSettings, Schedule, train
from models.training.validation import named_sets, psnr_by_set
from tests.models.test_training import flat, small


def test_named_sets_are_followed_and_decide_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "Set2"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, shape in (("wide.png", (40, 70, 3)), ("high.png", (600, 33, 3))):
        cv2.imwrite(str(folder / name), rng.integers(0, 256, shape, dtype=np.uint8))
    sets, again = (named_sets([folder], BlindNoise(sigma_max=20.0)) for _ in range(2))
    assert [tuple(example.target.shape[2:]) for example in sets["Set2"]] == [(512, 32), (32, 64)]
    assert all(torch.equal(a.network_input, b.network_input) for a, b in zip(sets["Set2"], again["Set2"], strict=True))
    lines: list[Progress] = []
    train(
        small(),
        batches=flat,
        schedule=Schedule(steps=3, warmup_steps=1),
        settings=LoopSettings(tmp_path / "run", bf16=False, log_every=1, validate_every=2),
        seed=1,
        follow=lambda network: psnr_by_set(network, sets, device="cpu", bf16=False),
        observe=lines.append,
    )
    assert [line.named_psnr_db is not None for line in lines] == [False, True, True]
    assert 0 < dict(lines[-1].named_psnr_db or {})["Set2"] < 60
    assert lines[-1].validation_psnr_db is None


def test_a_named_set_without_pictures_or_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="give a folder of clean pictures"):
        named_sets([tmp_path], BlindNoise())
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(ValueError, match="two sets called"):
        named_sets([tmp_path, tmp_path], BlindNoise())
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="9 x 20 px"):
        named_sets([tmp_path], BlindNoise())
