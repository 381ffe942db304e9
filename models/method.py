"""What a restoration method is: its card, its protocol, and the image contract everything obeys.

Image: (B, C, H, W) float in [0, 1], RGB or grey, display-referred sRGB. Mask: (B, 1, H, W), exactly {0, 1},
1 = missing.
A method whose paper uses other conventions converts at the edge of its own file and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.shares import Shares
from models.types import DegradationEstimate

Purpose = Literal["denoise", "degrain", "deblock", "deblur", "mixed", "fill", "colour", "upscale"]


# Of methods whose weights were trained here.
LEARNED_LICENCE = "Apache-2.0 (code and weights; see the weight card for the training pictures)"


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodCard:
    """What a method is for, where it comes from, and what running it takes.

    `scale`: how many times larger the result is, in width and in height; only "upscale" may change the size.
    `size_multiple`: height and width the network accepts are multiples of this. `context_px`: how far away a pixel can
    noticeably influence a result; tiles overlap by twice this. `largest_tile`: side in px of the tiles that it takes at
    most, None = whatever the runner is set to. `gmac_per_megapixel` None = not a network.
    `weights` names a card in models/weights, None = nothing learned. `opt_in`: never chosen unless the user asks.
    `fits_each_picture`: it learns from every picture anew, minutes or hours each, which no GMAC of one pass says: None.
    """

    id: str
    title: str
    paper: str
    purpose: Purpose
    licence: str
    scale: int = 1
    needs_mask: bool = False
    size_multiple: int = 1
    context_px: int = 0
    largest_tile: int | None = None
    half_precision: bool = True
    stochastic: bool = False
    gmac_per_megapixel: float | None = None
    weights: str | None = None
    opt_in: bool = False
    fits_each_picture: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a method may know about the whole picture that a tile belongs to."""

    estimate: DegradationEstimate | None = None
    statistics: tuple[float, ...] = ()


@runtime_checkable
class Method(Protocol):
    """One restoration algorithm. It holds no tensors: `build` makes the network, `__call__` runs it on tiles."""

    @property
    def card(self) -> MethodCard:
        """What the method is for and what it takes."""
        ...

    def build(self) -> nn.Module:
        """Return the network, without weights and without any I/O; `nn.Identity` for a classical method."""
        ...

    def statistics(self, image: npt.NDArray[Any]) -> tuple[float, ...]:
        """Return what must be known of the whole picture ((H, W) or (H, W, 3), uint8 or uint16); mostly nothing."""
        ...

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        """Return the restored tiles (B, 3, H·scale, W·scale) of `image` (B, 3, H, W).

        Grey comes as three equal planes.
        """
        ...


@runtime_checkable
class CombiningMethod(Method, Protocol):
    """A method made of others: each restores the whole picture, and their results are mixed."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Ids of the methods it is made of."""
        ...

    def shares(
        self,
        network: nn.Module,
        image: npt.NDArray[Any],
        results: Sequence[npt.NDArray[Any]],
        *,
        estimate: DegradationEstimate | None,
    ) -> Shares:
        """Return the share of each part's result of `image`, (H, W) or (H, W, 3), 8 or 16 bit."""
        ...


@runtime_checkable
class DecidingMethod(Method, Protocol):
    """A method that decides for every picture what it does to it, so that its id alone does not say what was done."""

    def decided(self, statistics: Sequence[float]) -> str:
        """Return what was decided for the picture with these statistics, in words for the catalogue."""
        ...


@dataclass(frozen=True, slots=True)
class PlainMethod:
    """What most methods share: a card, no network, and nothing to know of the whole picture. Override what differs."""

    card: MethodCard

    def build(self) -> nn.Module:
        return nn.Identity()

    def statistics(self, image: npt.NDArray[Any]) -> tuple[float, ...]:
        return ()


Picture = npt.NDArray[np.float32]
Hole = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ArrayFiller(PlainMethod):
    """Fills each tile on the CPU in float32 by `fill`, which takes (H, W, 3) in [0, 1] and the hole (H, W).

    A tile without a hole, or without a known pixel, comes back as it is.
    """

    fill: Callable[[Picture, Hole], Picture]

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        holes = required_mask(mask, method_id=self.card.id)
        filled = []
        for planes, missing in zip(image, holes, strict=True):
            picture, hole = planes.permute(1, 2, 0).float().cpu().numpy(), missing[0].cpu().numpy() > 0
            filled.append(self.fill(picture, hole) if hole.any() and not hole.all() else picture)
        return torch.from_numpy(np.stack(filled)).permute(0, 3, 1, 2).to(image)


def required_mask(mask: Tensor | None, *, method_id: str) -> Tensor:
    """Return the mask of a method that cannot do without; ValueError when there is none."""
    if mask is None:
        raise ValueError(f"{method_id}: got no mask, expected (B, 1, H, W) with 1 = missing; detect damage first")
    return mask


def nothing_known(holes: Tensor) -> Tensor:
    """Return (B, 1, 1, 1) bool: where all of a tile (B, 1, H, W) is missing, of which nothing can be made."""
    return (holes > 0).flatten(1).all(1).view(-1, 1, 1, 1)


def without_repeated_planes(image: Tensor) -> Tensor:
    """Return (B, 1, H, W) for pictures that are grey, three equal planes, and (B, 3, H, W) as it is otherwise."""
    is_grey = torch.equal(image[:, 0], image[:, 1]) and torch.equal(image[:, 0], image[:, 2])
    return image[:, :1] if is_grey else image


def is_grey_as_rgb(image: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None) -> bool:
    """Whether `image` is (H, W, 3) with equal planes, those pixels left out that `mask` says are missing."""
    if image.ndim == 2:
        return False
    unequal = (image[:, :, 0] != image[:, :, 1]) | (image[:, :, 0] != image[:, :, 2])
    return not bool((unequal if mask is None else unequal & ~mask).any())


class ImageContractError(ValueError):
    """An image or mask that breaks the contract; the message says what, got, expected and what to do."""


def check_image(image: npt.NDArray[Any], *, name: str = "image") -> None:
    """Raise ImageContractError unless `image` is (H, W) or (H, W, 3), uint8 or uint16, and not empty."""
    shape_ok = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if not shape_ok or image.size == 0:
        raise ImageContractError(
            f"{name}: got shape {image.shape}, expected (H, W) grey or (H, W, 3) RGB, not empty; split alpha off first"
        )
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageContractError(f"{name}: got dtype {image.dtype}, expected uint8 or uint16; scale and round it first")


def check_mask(mask: npt.NDArray[Any], *, image: npt.NDArray[Any]) -> None:
    """Raise ImageContractError unless `mask` is a boolean (H, W) array of the image's size (True = missing)."""
    if mask.shape != image.shape[:2] or mask.dtype != np.bool_:
        raise ImageContractError(
            f"mask: got shape {mask.shape} {mask.dtype}, expected {image.shape[:2]} bool, True = missing; "
            "threshold it, or resize it with nearest neighbours"
        )


def check_inputs(
    method: Method,
    *,
    images: Sequence[npt.NDArray[Any]],
    masks: Sequence[npt.NDArray[np.bool_] | None],
    strengths: Sequence[float],
) -> None:
    """Raise ImageContractError for a picture or mask that breaks the contract, ValueError for what the method lacks."""
    for image, mask, strength in zip(images, masks, strengths, strict=True):
        check_image(image)
        if mask is not None:
            check_mask(mask, image=image)
        elif method.card.needs_mask:
            raise ValueError(
                f"{method.card.id}: got no mask, expected one (H, W) bool array per picture, True = missing"
            )
        if not 0.0 <= strength <= 1.0:
            raise ValueError(f"strength: got {strength}, expected a number from 0 (no change) to 1")


def largest_value(dtype: npt.DTypeLike) -> float:
    """255 for uint8, 65535 for uint16: what 1.0 means in the working copy."""
    return float(np.iinfo(np.dtype(dtype)).max)


def to_planes(tile: npt.NDArray[Any]) -> Tensor:
    """Turn an integer tile (H, W) or (H, W, 3) into (3, H, W) float32 in [0, 1]."""
    planes = torch.from_numpy(np.ascontiguousarray(tile, dtype=np.float32)) / largest_value(tile.dtype)
    if planes.ndim == 2:
        return planes.expand(3, -1, -1)
    return planes.permute(2, 0, 1)
