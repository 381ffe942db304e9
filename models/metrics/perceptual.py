"""LPIPS 0.1: a learned perceptual distance, from local weights only.

R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang, "The unreasonable effectiveness of deep features as a
perceptual metric", CVPR 2018. The networks are those of A. Krizhevsky (arXiv:1404.5997) and of K. Simonyan and
A. Zisserman (ICLR 2015, 16 layers). Weights are read from two files that are not part of this repository: the
ImageNet classifier as torchvision publishes it, and the linear heads `alex.pth` or `vgg.pth` of LPIPS 0.1.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.metrics.planes import Pixels, comparable
from models.weights import WeightsError

Backbone = Literal["alex", "vgg"]
BACKBONE_VARIABLE = "LACUNA_LPIPS_BACKBONE"
HEADS_VARIABLE = "LACUNA_LPIPS_HEADS"


def _alexnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def _vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    width = 3
    for depth, channels in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        if layers:
            layers.append(nn.MaxPool2d(2, stride=2))
        for _ in range(depth):
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()]
            width = channels
    return nn.Sequential(*layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taps:
    """After which layers (indices in the published stack) features of how many channels are compared."""

    layers: tuple[int, ...]
    channels: tuple[int, ...]
    smallest: int


_TAPS = {
    "alex": _Taps(layers=(1, 4, 7, 9, 11), channels=(64, 192, 384, 256, 256), smallest=31),
    "vgg": _Taps(layers=(3, 8, 15, 22, 29), channels=(64, 128, 256, 512, 512), smallest=16),
}


def _taps(backbone: str) -> _Taps:
    if backbone not in _TAPS:
        raise ValueError(f"LPIPS: unknown backbone {backbone!r}; known: {', '.join(_TAPS)}")
    return _TAPS[backbone]


class _Head(nn.Module):
    """One weight per channel, named `model.1` as in the published files (`model.0` is their dropout)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, difference: Tensor) -> Tensor:
        weighted: Tensor = self.model(difference)
        return weighted


def unit_length(features: Tensor) -> Tensor:
    """Return features (B, C, H, W) divided by their length over the channels (at least 1e-10)."""
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


class Lpips(nn.Module):
    """The published network; `features.*` are torchvision's names, `lin0.model.1.weight` … those of LPIPS."""

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone = "alex") -> None:
        super().__init__()
        self.taps = _taps(backbone)
        self.backbone = backbone
        # The means and deviations of ImageNet, written for pixels in [-1, 1].
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)
        self.features = _alexnet() if backbone == "alex" else _vgg16()
        for index, channels in enumerate(self.taps.channels):
            self.add_module(f"lin{index}", _Head(channels))
        self.eval().requires_grad_(False)

    def compared_features(self, images: Tensor) -> list[Tensor]:
        """Return the five unit-length feature maps of pictures (B, 3, H, W) in [0, 1]."""
        current = (images * 2 - 1 - self.shift) / self.scale
        collected = []
        for index, layer in enumerate(self.features):
            current = layer(current)
            if index in self.taps.layers:
                collected.append(unit_length(current))
        return collected

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the distances (B,) of pictures (B, 3, H, W) in [0, 1]; 0 = the same features."""
        pairs = zip(self.compared_features(first), self.compared_features(second), strict=True)
        total = first.new_zeros(len(first))
        for index, (one, other) in enumerate(pairs):
            head: nn.Module = self.get_submodule(f"lin{index}")
            total = total + head((one - other).square()).mean(dim=(1, 2, 3))
        return total


def _read(path: Path) -> dict[str, Tensor]:
    """Read tensors from .safetensors or .pth; never unpickles anything but tensors."""
    if path.suffix == ".safetensors":
        return load_file(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path}: expected a dictionary of tensors, got something else; give a state dictionary")
    return content


def read_lpips(backbone_file: Path, heads_file: Path, *, backbone: Backbone = "alex") -> Lpips:
    """Build the network and load both files strictly; the classifier of the backbone file is left out.

    Raises FileNotFoundError, and WeightsError when names or shapes are not those of the published files.
    """
    network = Lpips(backbone)
    classifier = _read(backbone_file)
    state = {key: value for key, value in classifier.items() if not key.startswith("classifier.")}
    state |= _read(heads_file)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise WeightsError(
            f"LPIPS ({backbone}): {backbone_file.name} and {heads_file.name} do not fit it ({error}); give "
            "torchvision's weights of that network and the heads of LPIPS 0.1"
        ) from error
    return network


def load_lpips(
    backbone_file: Path | None = None, heads_file: Path | None = None, *, backbone: Backbone = "alex"
) -> Lpips | None:
    """Return LPIPS from two files, else from those named by LACUNA_LPIPS_BACKBONE and _HEADS, else None.

    Never a download. Raises ValueError when only one of the two is given.
    """
    named = [
        str(path) if path else os.environ.get(variable, "")
        for path, variable in ((backbone_file, BACKBONE_VARIABLE), (heads_file, HEADS_VARIABLE))
    ]
    if not any(named):
        return None
    if not all(named):
        raise ValueError(
            f"LPIPS needs the weights of the backbone and of the heads, got {named}; set both {BACKBONE_VARIABLE} and "
            f"{HEADS_VARIABLE}"
        )
    return read_lpips(Path(named[0]), Path(named[1]), backbone=backbone)


def lpips(restored: Pixels, reference: Pixels, *, model: Lpips | None, border: int = 0) -> float | None:
    """Return the perceptual distance of two pictures, 0 = the same, about 0.7 = unrelated; None without a model.

    Grey pictures are taken as three equal channels. Raises ValueError when the shapes differ or the pictures are
    smaller than 31 px (AlexNet) or 16 px (VGG).
    """
    if model is None:
        return None
    planes = comparable(restored, reference, channel="rgb", border=border)
    if min(planes[0].shape[:2]) < model.taps.smallest:
        raise ValueError(
            f"LPIPS ({model.backbone}) needs at least {model.taps.smallest} px, got {planes[0].shape[:2]}; use ssim"
        )
    tensors = []
    for plane in planes:
        colour = np.repeat(plane[:, :, None], 3, axis=2) if plane.ndim == 2 else plane
        tensors.append(torch.from_numpy(colour.transpose(2, 0, 1).copy()).float()[None].to(model.shift.device))
    with torch.no_grad():
        return float(model(tensors[0], tensors[1])[0])
