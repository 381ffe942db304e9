"""How a fit is run, and the published settings of each experiment as named presets.

Ulyanov, Vedaldi and Lempitsky, "Deep Image Prior", CVPR 2018, and the notebooks its authors published.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from models.deep_prior.decoder import DecoderSettings
from models.deep_prior.networks import SkipSettings
from models.deep_prior.sources import SourceKind
from models.deep_prior.variants import ResNetSettings, UNetSettings

NetworkSettings = SkipSettings | ResNetSettings | UNetSettings | DecoderSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How long and how to optimize.

    `perturbation`: σ of the noise added to the source anew in each iteration. `smoothing`: the result is the running
    mean that keeps this share of itself per iteration (0 = the latest output). `backtrack_db`: when the PSNR to the
    observation falls by more than this in `backtrack_every` iterations, the parameters from before come back (None =
    never), and the learning rate goes down to `backtrack_rate` of itself, so that a picture finds the rate it can bear.
    `autoencode_every`: so often, the output becomes the source, which the output is held to with `autoencode_weight`
    (0 = never; Alkhouri et al., "Image Reconstruction via Autoencoding Sequential Deep Image Prior", NeurIPS 2024).
    `seconds`: a second budget beside `iterations`; it makes results depend on the machine.
    """

    iterations: int
    learning_rate: float = 0.01
    source: SourceKind = "noise"
    source_channels: int = 32
    perturbation: float = 0.0
    smoothing: float = 0.0
    backtrack_db: float | None = None
    backtrack_every: int = 1
    backtrack_rate: float = 1.0
    autoencode_every: int = 0
    autoencode_weight: float = 1.0
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"FitSettings: got {self.iterations} iterations, expected at least 1")
        if self.backtrack_every < 1:
            raise ValueError(f"FitSettings: got backtrack_every {self.backtrack_every}, expected at least 1")
        if not 0.0 < self.backtrack_rate <= 1.0:
            raise ValueError(f"FitSettings: got a backtrack_rate of {self.backtrack_rate}, expected above 0 to 1")
        if not 0.0 <= self.smoothing < 1.0:
            raise ValueError(f"FitSettings: got a smoothing of {self.smoothing}, expected 0 to below 1")
        if self.autoencode_every and self.source != "picture":
            raise ValueError(f"FitSettings: got autoencoding from {self.source!r}, expected the source 'picture'")


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSettings:
    """When to stop without the true picture.

    "held-out" keeps `fraction` of the known pixels from the fit (inpainting); "variance" watches a window of outputs,
    "moving-variance" the same without the window's memory (denoising). These two wait no longer for a lower variance
    than the lowest took to come: of a small picture it falls again once the noise is fitted.
    """

    rule: Literal["held-out", "variance", "moving-variance"]
    patience: int = 1000
    window: int = 100
    fraction: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A network and how it is fitted. `stop` None = all iterations, as published.

    `runs`: how many fits, from other seeds, the result is the mean of; two gained 0.6 dB in the paper.
    """

    network: NetworkSettings
    fit: FitSettings
    stop: StopSettings | None = None
    runs: int = 1

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise ValueError(f"Preset: got {self.runs} runs, expected at least 1")


def _hourglass(width: int, *, skip: int, upsampling: Literal["nearest", "bilinear"]) -> SkipSettings:
    return SkipSettings(down=(width,) * 5, up=(width,) * 5, skip=(skip,) * 5, upsampling=upsampling)


_SMOOTH = _hourglass(128, skip=4, upsampling="bilinear")
_LIBRARY_WIDTHS = (16, 32, 64, 128, 128, 128)


def _library(depth: int) -> Preset:
    widths = _LIBRARY_WIDTHS[:depth]
    network = SkipSettings(down=widths, up=widths, skip=(0,) * depth, kernel_down=5, upsampling="nearest", mix_up=False)
    # The published code names a noise on the parameters here, which has no effect in it.
    return Preset(network=network, fit=FitSettings(iterations=3001, source_channels=1))


DENOISE_SIGMA_25 = Preset(
    network=_SMOOTH, fit=FitSettings(iterations=3000, perturbation=1 / 30, smoothing=0.99, backtrack_db=5.0)
)
DENOISE_SIGMA_50 = Preset(
    network=_SMOOTH, fit=FitSettings(iterations=3000, perturbation=1 / 20, smoothing=0.99, backtrack_db=5.0)
)
JPEG = Preset(
    network=SkipSettings(down=(8, 16, 32, 64, 128), up=(8, 16, 32, 64, 128), skip=(0, 0, 0, 4, 4)),
    fit=FitSettings(iterations=2400, source_channels=3, perturbation=1 / 30, smoothing=0.99, backtrack_db=5.0),
)
UPSCALE_4 = Preset(network=_SMOOTH, fit=FitSettings(iterations=2000, perturbation=0.03))
UPSCALE_8 = Preset(network=_SMOOTH, fit=FitSettings(iterations=4000, perturbation=0.05))
# Beside `without_network.NO_PRIOR` and `TV_PRIOR`: the same small picture, and noise of three planes to begin with.
UPSCALE_PRIOR_EFFECT = Preset(network=_SMOOTH, fit=FitSettings(iterations=2000, source_channels=3, perturbation=1 / 30))
INPAINT_TEXT = Preset(
    network=_hourglass(128, skip=128, upsampling="nearest"), fit=FitSettings(iterations=6001, perturbation=0.03)
)
INPAINT_VASE = Preset(
    network=_hourglass(128, skip=0, upsampling="nearest"),
    fit=FitSettings(iterations=5001, source="meshgrid", source_channels=2, perturbation=0.03),
)
INPAINT_LIBRARY_DEPTH_6, INPAINT_LIBRARY_DEPTH_4, INPAINT_LIBRARY_DEPTH_2 = _library(6), _library(4), _library(2)
INPAINT_LIBRARY_RESNET = Preset(
    network=ResNetSettings(), fit=FitSettings(iterations=3001, learning_rate=0.001, source_channels=1)
)
INPAINT_LIBRARY_UNET = Preset(
    network=UNetSettings(), fit=FitSettings(iterations=3001, learning_rate=0.001, source_channels=1)
)
INPAINT_HALF_MISSING = Preset(
    network=_SMOOTH,
    fit=FitSettings(iterations=11000, learning_rate=0.001, perturbation=0.03, backtrack_db=5.0, backtrack_every=50),
)
INPAINT_FEW_KNOWN = Preset(
    network=SkipSettings(down=(16, 32, 64, 128, 128), up=(16, 32, 64, 128, 128), skip=(0,) * 5, downsampling="average"),
    fit=FitSettings(iterations=1000, backtrack_db=5.0, backtrack_every=50),
)
FLASH = Preset(
    network=SkipSettings(
        down=(128,) * 5,
        up=(128,) * 5,
        skip=(4,) * 5,
        upsampling=("nearest", "nearest", "bilinear", "bilinear", "bilinear"),
    ),
    fit=FitSettings(iterations=601, learning_rate=0.1, source_channels=3),
)
PUBLISHED: dict[str, Preset] = {
    "denoise-sigma-25": DENOISE_SIGMA_25,
    "denoise-sigma-50": DENOISE_SIGMA_50,
    "jpeg": JPEG,
    "upscale-4": UPSCALE_4,
    "upscale-8": UPSCALE_8,
    "upscale-prior-effect": UPSCALE_PRIOR_EFFECT,
    "inpaint-text": INPAINT_TEXT,
    "inpaint-vase": INPAINT_VASE,
    "inpaint-library-depth-6": INPAINT_LIBRARY_DEPTH_6,
    "inpaint-library-depth-4": INPAINT_LIBRARY_DEPTH_4,
    "inpaint-library-depth-2": INPAINT_LIBRARY_DEPTH_2,
    "inpaint-library-resnet": INPAINT_LIBRARY_RESNET,
    "inpaint-library-unet": INPAINT_LIBRARY_UNET,
    "inpaint-half-missing": INPAINT_HALF_MISSING,
    "inpaint-few-known": INPAINT_FEW_KNOWN,
    "flash": FLASH,
}

# Our own: the published network with a running mean, ten times its rate and held-out pixels that say when to stop.
FILL = Preset(
    network=_SMOOTH,
    fit=FitSettings(iterations=4000, perturbation=0.03, smoothing=0.99, backtrack_db=5.0, backtrack_rate=0.95),
    stop=StopSettings(rule="held-out", patience=600),
)
FILL_FAST = Preset(
    network=_hourglass(48, skip=4, upsampling="bilinear"),
    fit=FitSettings(iterations=1500, perturbation=0.03, smoothing=0.98, backtrack_db=5.0),
    stop=StopSettings(rule="held-out", patience=300),
)
DENOISE = Preset(
    network=_SMOOTH,
    fit=FitSettings(iterations=5000, perturbation=1 / 30, smoothing=0.99, backtrack_db=5.0),
    stop=StopSettings(rule="variance", patience=1000),
)
# What the paper averages: two fits from other seeds, each stopped by itself, at twice the time.
FILL_TWO_RUNS, DENOISE_TWO_RUNS = replace(FILL, runs=2), replace(DENOISE, runs=2)
# As its authors' own demonstration: 100,224 parameters for a colour picture. Stops nowhere, since it cannot fit noise.
DENOISE_DECODER = Preset(
    network=DecoderSettings(), fit=FitSettings(iterations=1900, source_channels=128, smoothing=0.98)
)
# The input is held to what comes out, and follows it every other iteration.
DENOISE_AUTOENCODING = Preset(
    network=_SMOOTH,
    fit=FitSettings(iterations=5000, learning_rate=3e-4, source="picture", smoothing=0.98, autoencode_every=2),
    stop=StopSettings(rule="variance", patience=1000),
)
FILL_AUTOENCODING = replace(DENOISE_AUTOENCODING, stop=StopSettings(rule="held-out", patience=600))
OWN: dict[str, Preset] = {
    "fill": FILL,
    "fill-fast": FILL_FAST,
    "fill-two-runs": FILL_TWO_RUNS,
    "fill-autoencoding": FILL_AUTOENCODING,
    "denoise": DENOISE,
    "denoise-two-runs": DENOISE_TWO_RUNS,
    "denoise-decoder": DENOISE_DECODER,
    "denoise-autoencoding": DENOISE_AUTOENCODING,
}
