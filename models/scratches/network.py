"""The scratch-detection U-Net: one grey channel in, one logit per pixel out, at native resolution.

The idea is that of the detector in "Bringing Old Photos Back to Life" (CVPR 2020), but far smaller and without its
resize to a short side of 256, which erased thin scratches of large scans. Full resolution is packed into channels
(pixel unshuffle), so that lines thinner than a pixel stay visible at the cost of half resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """widths: channels at 1/2, 1/4, 1/8 and 1/16 of the resolution; blocks: residual blocks going down."""

    widths: tuple[int, ...] = (32, 64, 96, 128)
    blocks: tuple[int, ...] = (2, 2, 2, 2)


SIZE_MULTIPLE = 16


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.conv_a = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm_a: nn.Module = nn.BatchNorm2d(channels)
        self.conv_b = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm_b: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu(self.norm_a(self.conv_a(features)))
        return F.relu(features + self.norm_b(self.conv_b(inner)))


def _step(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def local_contrast(grey: Tensor, *, cell: int = SIZE_MULTIPLE) -> Tensor:
    """Return `grey` (B, 1, H, W) minus its local mean, over its local deviation: faint damage in dark areas stands out.

    The statistics come from cells of `cell` pixels, smoothed over 3x3 cells and interpolated; both sides must be
    multiples of `cell`.
    """
    mean = F.avg_pool2d(grey, cell)
    square = F.avg_pool2d(grey * grey, cell)
    pooled = F.pad(torch.cat([mean, square], dim=1), (1, 1, 1, 1), mode="replicate")
    smooth = F.interpolate(
        F.avg_pool2d(pooled, 3, stride=1), size=grey.shape[-2:], mode="bilinear", align_corners=False
    )
    mean, square = smooth[:, :1], smooth[:, 1:]
    deviation = (square - mean * mean).clamp_min(0).sqrt()
    return (grey - mean) / (deviation + 0.03)


class ScratchUNet(nn.Module):
    """Maps a grey picture (B, 1, H, W) in [0, 1], sides multiples of 16, to logits (B, 1, H, W) of being damaged."""

    def __init__(self, settings: NetworkSettings | None = None) -> None:
        super().__init__()
        settings = settings or NetworkSettings()
        widths, blocks = settings.widths, settings.blocks
        self.downs = nn.ModuleList()
        inputs = 8
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            dilation = 2 if level == len(widths) - 1 else 1
            inner = [_ResidualBlock(width, dilation=dilation) for _ in range(count)]
            self.downs.append(nn.Sequential(_step(inputs, width, stride=1 if level == 0 else 2), *inner))
            inputs = width
        self.laterals = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.ups = nn.ModuleList(_ResidualBlock(width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], 16, 3, padding=1)
        self.last = nn.Conv2d(16 // 4 + 2, 8, 3, padding=1)
        self.logit = nn.Conv2d(8, 1, 1)
        # Damage is rare: start from a low probability everywhere.
        nn.init.constant_(self.logit.bias, -2.5)  # type: ignore[arg-type]

    def forward(self, grey: Tensor) -> Tensor:
        entry = torch.cat([(grey - 0.5) * 2, local_contrast(grey)], dim=1)
        features = F.pixel_unshuffle(entry, 2)
        skips: list[Tensor] = []
        for down in self.downs:
            features = down(features)
            skips.append(features)
        for level in range(len(self.ups) - 1, -1, -1):
            raised = F.interpolate(self.laterals[level](features), scale_factor=2.0, mode="nearest")
            features = self.ups[level](raised + skips[level])
        full = F.pixel_shuffle(self.head(features), 2)
        full = F.relu(self.last(torch.cat([full, entry.to(full.dtype)], dim=1)))
        logits: Tensor = self.logit(full)
        return logits.float()


def prepare_for_inference(network: nn.Module) -> nn.Module:
    """Fold every batch norm into the convolution before it, in place, and freeze the network; results stay the same."""
    network.eval().requires_grad_(False)
    for module in list(network.modules()):
        if isinstance(module, _ResidualBlock):
            module.conv_a, module.norm_a = _fold(module.conv_a, module.norm_a)
            module.conv_b, module.norm_b = _fold(module.conv_b, module.norm_b)
        elif isinstance(module, nn.Sequential) and len(module) == 3 and isinstance(module[1], nn.BatchNorm2d):
            module[0], module[1] = _fold(module[0], module[1])
    return network


def _fold(conv: nn.Module, norm: nn.Module) -> tuple[nn.Conv2d, nn.Identity]:
    if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
        raise TypeError(
            f"expected a convolution and its batch norm, got {type(conv).__name__} and {type(norm).__name__}"
        )
    fused = torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
    return fused, nn.Identity()


@torch.no_grad()
def unfold(network: ScratchUNet, folded: dict[str, Tensor], examples: Sequence[Tensor]) -> None:
    """Start `network` from weights whose batch norms were folded (`prepare_for_inference`), so that it can be trained.

    `examples`: batches (B, 1, H, W) of training pictures. On them every norm measures what it gets, and undoes its own
    normalization: the network computes what the folded one did. Filters get the length that trained ones have, which a
    norm after them does not notice, since the optimizer's steps do not depend on it. Raises KeyError for other layers.
    """
    pairs = _normalized(network)
    norms = tuple(f"{name}." for _, _, name, _ in pairs)
    own = network.state_dict()
    for name in own:
        if not name.startswith(norms):
            own[name].copy_(folded[name])
    network.load_state_dict(own)
    for conv_name, conv, _, norm in pairs:
        scale = (conv.weight[0].numel() / _USUAL_INPUTS) ** 0.5 / conv.weight.flatten(1).norm(dim=1).mean()
        conv.weight *= scale
        nn.init.constant_(norm.weight, 1 / float(scale))
        norm.bias.copy_(folded[f"{conv_name}.bias"])
        nn.init.zeros_(norm.running_mean)  # type: ignore[arg-type]
        nn.init.constant_(norm.running_var, 1 - norm.eps)  # type: ignore[arg-type]
    sums: dict[nn.Module, Tensor] = {
        norm: torch.zeros(3, norm.num_features, dtype=torch.float64) for _, _, _, norm in pairs
    }

    def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].double().transpose(0, 1).flatten(1)
        sums[module] += torch.stack([torch.ones(len(values)) * values.shape[1], values.sum(1), values.square().sum(1)])

    hooks = [norm.register_forward_pre_hook(add) for norm in sums]
    network.eval()
    for batch in examples:
        network(batch)
    for hook in hooks:
        hook.remove()
    for _, _, _, norm in pairs:
        count, total, squares = sums[norm]
        mean = total / count
        variance = squares / count - mean.square()
        norm.bias.add_((norm.weight * mean).float())
        norm.weight.mul_((variance + norm.eps).sqrt().float())
        norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        norm.running_var.copy_(variance)  # type: ignore[union-attr]


# Inputs of a filter of 3x3 over 32 channels, whose length is 1 after `unfold`.
_USUAL_INPUTS = 288


def _normalized(network: nn.Module) -> list[tuple[str, nn.Conv2d, str, nn.BatchNorm2d]]:
    """Return every convolution with the batch norm behind it, and their names."""
    found = []
    for name, module in network.named_modules():
        if isinstance(module, _ResidualBlock):
            found += [(f"{name}.conv_{x}", f"{name}.norm_{x}") for x in "ab"]
        elif isinstance(module, nn.Sequential) and len(module) == 3 and isinstance(module[1], nn.BatchNorm2d):
            found.append((f"{name}.0", f"{name}.1"))
    modules: dict[str, Any] = dict(network.named_modules())
    return [(conv, modules[conv], norm, modules[norm]) for conv, norm in found]


@torch.no_grad()
def widen(network: ScratchUNet, narrow: dict[str, Tensor]) -> None:
    """Start `network` from the weights of a narrower one, so that it computes the same and has room to learn more.

    Old channels do not see the new ones at first; blocks that the old network did not have add nothing at first.
    Chen et al., "Net2Net", ICLR 2016. Raises KeyError when `narrow` has a layer that `network` lacks.
    """
    for module in network.modules():
        if isinstance(module, _ResidualBlock) and isinstance(module.norm_b, nn.BatchNorm2d):
            nn.init.zeros_(module.norm_b.weight)
    own = network.state_dict()
    for name, value in narrow.items():
        target = own[name]
        if target.ndim == 4:
            target[: value.shape[0]] = 0
        corner = tuple(slice(size) for size in value.shape)
        target[corner] = value
    network.load_state_dict(own)
