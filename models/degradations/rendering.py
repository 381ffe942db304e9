"""What recipes are made of: a render takes one clean picture and a generator and returns it damaged, with its mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.degradations.damage_layers import FloatArray
from models.degradations.operator import Degradation
from models.types import to_json

Image: TypeAlias = NDArray[np.float32]
Parameters: TypeAlias = dict[str, Any]
OperatorT = TypeVar("OperatorT", bound=Degradation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A damaged picture (H, W[, 3]), what is lost or damaged (True), and everything that was drawn, in order.

    clipped: within [0, 1] and to be rounded to 8 bits; False = left exactly as computed. scale: the reference is
    `scale` times as large.
    """

    image: Image
    steps: tuple[Parameters, ...]
    mask: NDArray[np.bool_] | None = None
    clipped: bool = True
    scale: int = 1


class Render(Protocol):
    """Damages one picture. The generator alone decides what is drawn."""

    def __call__(
        self, image: Image, rng: np.random.Generator, *, strength: float = 1.0, field: FloatArray | None = None
    ) -> Rendered:
        """Return the damaged picture.

        strength: factor on the level the recipe names. field: (H, W) in [0, 1], for renders of lost pixels alone:
        where more of them are lost.
        """
        ...


def to_batch(image: Image) -> Tensor:
    """Return a picture (H, W) or (H, W, 3) as (1, C, H, W)."""
    planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(planes))[None]


def from_batch(images: Tensor) -> Image:
    """Return the one picture of (1, C, H, W) as (H, W) or (H, W, 3)."""
    planes = images[0].numpy()
    return np.ascontiguousarray(planes[0] if planes.shape[0] == 1 else planes.transpose(1, 2, 0))


def describe(operator: Degradation) -> Parameters:
    """Return the operator's name and drawn values as JSON; values drawn for the one image lose their list."""
    values: Parameters = {
        name: value[0] if isinstance(value, list) and len(value) == 1 else value
        for name, value in to_json(operator).items()
    }
    return {"operator": type(operator).__name__, **values}


def in_turn(make: Callable[[np.random.Generator, float], Sequence[Degradation]], *, clipped: bool = True) -> Render:
    """Return a render that applies the operators which `make` draws for a strength, one after the other."""

    def render(
        image: Image, rng: np.random.Generator, *, strength: float = 1.0, field: FloatArray | None = None
    ) -> Rendered:
        batch, steps = to_batch(image), []
        for operator in make(rng, strength):
            batch = operator.apply(batch)
            steps.append(describe(operator))
        return Rendered(image=from_batch(batch), steps=tuple(steps), clipped=clipped)

    return render
