"""Every weight that this loop makes, as one frozen recipe: network, corruption, patches, schedule, seed."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import get_args

from torch import nn

from models.blocks import FULL_WIDTHS, HALF_WIDTHS, ResidualUNet, ResidualUpscaler
from models.example_based.networks import network_for_photographs
from models.low_rank import freeze_beside_low_rank
from models.rl_restore.baselines import NETWORKS
from models.rl_restore.tool_training import ToolFaults
from models.training.adversarial import AdversarialSettings
from models.training.corruption import (
    BlindJpeg,
    BlindNoise,
    Corruption,
    Holes,
    LostPixels,
    MildBlur,
    Mixture,
    MixtureOfSeverity,
    Shrunk,
)
from models.training.loop import Schedule
from models.training.losses import PixelLoss
from models.training.photographs import PatchSettings
from models.training.scan_noise import NoiseOfScans
from models.training.sparing import PartlySpared


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one weight file is made. `start_from` names the recipe whose weights it begins with.

    `scale` > 1 makes an upscaler, whose patches are those of the large picture; `example_network` one of the five of
    `models.example_based`; `rl_restore` the tools of RL-Restore or one of the networks it is measured against;
    `rank`: what `start_from` names stays as it is, and only factors of this rank beside it are learned and shipped.
    `adversarial` None = regression alone, which lowers `loss`. Raises ValueError for an unknown loss, and for factors
    beside nothing.
    """

    id: str
    corruption: Corruption
    schedule: Schedule
    patches: PatchSettings = field(default_factory=PatchSettings)
    seed: int = 0
    in_channels: int = 3
    widths: tuple[int, ...] = FULL_WIDTHS
    blocks: int = 2
    unshuffle: int = 1
    scale: int = 1
    example_network: str | None = None
    rl_restore: str | None = None
    start_from: str | None = None
    rank: int | None = None
    loss: PixelLoss = "charbonnier"
    adversarial: AdversarialSettings | None = None

    def __post_init__(self) -> None:
        if self.loss not in get_args(PixelLoss):
            raise ValueError(f"Recipe: got loss {self.loss!r}, expected one of {', '.join(get_args(PixelLoss))}")
        if self.rank is not None and self.start_from is None:
            raise ValueError(f"Recipe: got rank {self.rank} and nothing to start from, expected what it is beside")

    def network(self) -> nn.Module:
        """Return the recipe's network, freshly initialized from torch's global generator."""
        network = self._plain_network()
        if self.rank is not None:
            freeze_beside_low_rank(network, rank=self.rank)
        return network

    def _plain_network(self) -> nn.Module:
        if self.rl_restore is not None:
            return NETWORKS[self.rl_restore]()
        if self.example_network is not None:
            return network_for_photographs(self.example_network, channels=3, seed=self.seed)
        if self.scale > 1:
            return ResidualUpscaler(scale=self.scale, widths=self.widths, blocks=self.blocks)
        return ResidualUNet(
            in_channels=self.in_channels, widths=self.widths, blocks=self.blocks, unshuffle=self.unshuffle
        )


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        id="denoise",
        loss="log-error",
        corruption=PartlySpared(BlindNoise(clip_share=0.5)),
        patches=PatchSettings(grey_share=0.4, tint_share=0.05),
        schedule=Schedule(steps=24000, peak_lr=5e-4, decay_share=0.8),
        widths=HALF_WIDTHS,
        unshuffle=2,
    ),
    Recipe(
        id="degrain",
        loss="log-error",
        corruption=PartlySpared(NoiseOfScans(grain_share=0.8)),
        patches=PatchSettings(grey_share=0.4, tint_share=0.05),
        schedule=Schedule(steps=5000, peak_lr=2e-3, decay_share=0.8),
        widths=HALF_WIDTHS,
        unshuffle=2,
        start_from="denoise",
        rank=4,
        seed=12,
    ),
    Recipe(
        id="deblock",
        loss="log-error",
        corruption=BlindJpeg(),
        patches=PatchSettings(grey_share=0.5, tint_share=0.03),
        schedule=Schedule(steps=14400, peak_lr=7e-4, decay_share=0.8),
        widths=HALF_WIDTHS,
        unshuffle=2,
        start_from="denoise",
        seed=1,
    ),
    Recipe(
        id="deblur",
        corruption=MildBlur(),
        patches=PatchSettings(grey_share=0.25, tint_share=0.05),
        schedule=Schedule(steps=5000, peak_lr=8e-4, decay_share=0.9),
        in_channels=7,
        start_from="all-in-one",
        seed=2,
    ),
    Recipe(
        id="fill",
        corruption=Holes(),
        patches=PatchSettings(grey_share=0.35, tint_share=0.05),
        schedule=Schedule(steps=6000, decay_share=0.9),
        in_channels=4,
        seed=3,
    ),
    # The pixels keep what regression found; what the discriminator adds is texture, where that left none.
    Recipe(
        id="fill-texture",
        corruption=Holes(random_pixel_share=0.1),
        patches=PatchSettings(side=128, batch=8, grey_share=0.35, tint_share=0.05),
        schedule=Schedule(steps=6000, peak_lr=1e-4, warmup_steps=100, decay_share=0.3, clip_norm=1.0),
        in_channels=4,
        seed=9,
        start_from="fill",
        adversarial=AdversarialSettings(adversarial_weight=0.01, matching_weight=0.02),
    ),
    # The five networks of the example-based work; weights of the first two are shipped.
    *(
        Recipe(
            id=recipe_id,
            corruption=LostPixels(),
            patches=PatchSettings(grey_share=0.35, tint_share=0.05),
            schedule=Schedule(steps=6000, decay_share=0.9),
            in_channels=6,
            example_network=network,
            seed=7,
        )
        for recipe_id, network in (
            ("example-external", "deep_wide_denoise"),
            ("example-external-narrow", "deep_denoise"),
            ("example-external-single", "single"),
            ("example-external-denoise", "denoise"),
            ("example-external-deep", "deep"),
        )
    ),
    # Most patches are shrunk: the mixtures of RL-Restore are measured on photographs at 1, 2/3 and 1/3 of their size.
    Recipe(
        id="all-in-one",
        loss="log-error",
        corruption=Mixture(old_photo_share=0.25),
        patches=PatchSettings(grey_share=0.2, tint_share=0.05, half_scale_share=0.35, third_scale_share=0.35),
        schedule=Schedule(steps=12500, peak_lr=8e-4, decay_share=0.9),
        start_from="fill",
        seed=6,
    ),
    # All twelve tools at once, three patches each; what the agent sees is 63 px, too.
    Recipe(
        id="rl-restore-tools",
        corruption=ToolFaults(),
        patches=PatchSettings(side=63, batch=36, half_scale_share=0.5),
        schedule=Schedule(steps=20000, peak_lr=1e-3, decay_share=0.7),
        rl_restore="tools",
        seed=8,
    ),
    # What a single network makes of the mixtures that the agent learns from: moderate ones, as in the paper.
    *(
        Recipe(
            id=f"rl-restore-{name}",
            corruption=MixtureOfSeverity(),
            patches=PatchSettings(side=63, batch=16, half_scale_share=0.5),
            schedule=Schedule(steps=20000, peak_lr=5e-4, warmup_steps=200, decay_share=0.7, clip_norm=1.0),
            rl_restore=name,
            seed=10,
        )
        for name in ("vdsr", "vdsr-s", "dncnn", "single", "owan")
    ),
    # Patches of the large picture: 64 px of the small one, whose deepest level is at a quarter of that.
    Recipe(
        id="upscale-x4",
        corruption=Shrunk(scale=4),
        patches=PatchSettings(side=256, grey_share=0.1, tint_share=0.03),
        # Gradients are a tenth of the other recipes' (norm 0.01-0.05): clipped at 0.2, one odd batch blew it up.
        schedule=Schedule(steps=10000, peak_lr=7e-4, warmup_steps=200, decay_share=0.8, clip_norm=0.04),
        widths=HALF_WIDTHS,
        scale=4,
        seed=4,
    ),
    Recipe(
        id="upscale-x2",
        corruption=Shrunk(scale=2),
        patches=PatchSettings(side=128, grey_share=0.1, tint_share=0.03),
        schedule=Schedule(steps=6000, peak_lr=5e-4, warmup_steps=200, decay_share=0.8, clip_norm=0.04),
        widths=HALF_WIDTHS,
        scale=2,
        start_from="upscale-x4",
        seed=5,
    ),
)


def get_recipe(recipe_id: str) -> Recipe:
    """Return the recipe called `recipe_id`; ValueError names the nearest one."""
    by_id = {recipe.id: recipe for recipe in RECIPES}
    if recipe_id not in by_id:
        near = difflib.get_close_matches(recipe_id, by_id, n=1) or sorted(by_id)
        raise ValueError(f"recipe: got {recipe_id!r}, expected one of {sorted(by_id)}; did you mean {near[0]!r}?")
    return by_id[recipe_id]
