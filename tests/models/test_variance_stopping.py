"""When a fit of noise is stopped by the variance of its outputs, which on a small picture falls twice."""

from __future__ import annotations

import math
import os
from pathlib import Path

import cv2
import pytest
import torch

from models.deep_prior import settings, stopping
from models.deep_prior.restoring import denoise
from models.deep_prior.stopping import MovingVariance, WindowedVariance

DATA = Path(os.environ.get("LACUNA_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.parametrize("rule", [WindowedVariance(window=10), MovingVariance(rate=2 / 11)])
def test_a_variance_that_falls_again_does_not_hide_its_first_minimum(rule: WindowedVariance | MovingVariance) -> None:
    generator = torch.Generator().manual_seed(0)
    best = stopped = 0
    for step in range(1, 600):
        # A valley at 60; from 200 on the outputs of a network that has fitted the noise come to a standstill.
        spread = 0.02 + min(abs(step - 60), 140) / 1000 if step < 200 else 0.16 * math.exp(-(step - 200) / 60)
        output = 0.5 + spread * torch.randn((1, 1, 16, 16), generator=generator)
        verdict = rule.judge(output, candidate=output, iteration=step)
        best = step if verdict.best else best
        if verdict.stop:
            stopped = step
            break
    assert 58 <= best <= 75
    assert stopped == 2 * best, "it waits as long as the minimum took to come"


def test_a_late_minimum_is_waited_at_for_the_published_patience() -> None:
    lowest = stopping._Lowest(1000, at_least=200)
    for iteration, score in ((100, 9.0), (250, 8.0), (1500, 1.0)):
        assert lowest.see(score, iteration=iteration).best
    assert not lowest.see(2.0, iteration=2499).stop
    assert lowest.see(2.0, iteration=2500).stop
    early = stopping._Lowest(1000, at_least=200)
    early.see(1.0, iteration=100)
    assert not early.see(2.0, iteration=299).stop
    assert early.see(2.0, iteration=300).stop


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(900)
def test_denoising_64_px_stops_before_the_noise_is_fitted() -> None:
    path = DATA / "test" / "Set12" / "03.png"
    if not path.is_file():
        pytest.skip(f"SKIPPED: no {path}; set LACUNA_DATA to the folder above test/")
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    clean = torch.from_numpy(image[96:160, 96:160].astype("float32") / 255)[None, None]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)) * 25 / 255
    result = denoise((clean + noise).clamp(0, 1), preset=settings.DENOISE, seed=0)
    psnr_db = -10 * math.log10(float((result.image - clean).square().mean()))
    assert result.stopped_by == "rule"
    assert result.iterations < 800
    assert psnr_db > 26.0, "the noisy picture has 20.3 dB, which is also what it gave with the whole patience"
