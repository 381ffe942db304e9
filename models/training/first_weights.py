"""The weights that a training begins with: those that are named, else shipped ones that suit its recipe."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models import weights as shipped
from models.low_rank import plain_name
from models.training.checkpoints import CHECKPOINT
from models.training.recipes import Recipe

# In the place of a folder or file: from random weights, whatever is shipped.
SCRATCH = "none"


def first_weights(recipe: Recipe, *, given: Path | None, out: Path, its_own: bool = False) -> Path | None:
    """Return the folder or file of weights that a training of `recipe` in `out` begins with; None = from scratch.

    given: what was asked for, Path("none") = from scratch, None = the shipped weights of `recipe.start_from`, or, with
    `its_own`, of the recipe itself where there are any. None where `out` has a checkpoint, which is gone on from.
    Raises ValueError where the recipe starts from another one whose weights are not shipped and nothing was given.
    """
    if (out / CHECKPOINT).exists() or str(given) == SCRATCH:
        return None
    if given is not None:
        return given
    # Looked up anew: tests, and a checkout that is moved, have another folder.
    # Of factors, the file has no more than these: they are learned anew.
    names = [recipe.id] if its_own and recipe.rank is None else []
    names += [recipe.start_from] if recipe.start_from else []
    for name in names:
        path = shipped.WEIGHTS_FOLDER / f"{name}.safetensors"
        if path.is_file():
            return path
    if recipe.start_from:
        raise ValueError(
            f"start from: got nothing for {recipe.id!r}, expected weights of {recipe.start_from!r}, which are not "
            f"shipped; give a run's folder or a file of weights with --start-from, or --start-from {SCRATCH}"
        )
    return None


def describe(start: Path | None, *, out: Path) -> str:
    """Return in a few words what a training in `out` begins with."""
    if (out / CHECKPOINT).exists():
        return f"goes on from the checkpoint in {out}"
    return "starts from scratch" if start is None else f"starts from the weights of {start}"


def read_weights(place: Path) -> dict[str, Tensor]:
    """Return the network's weights of a checkpoint folder, or of a file of weights as they are shipped.

    Raises FileNotFoundError where there are none.
    """
    if place.suffix == ".safetensors" and place.is_file():
        return {name: value.float() for name, value in load_file(place).items()}
    path = place / CHECKPOINT
    if not path.is_file():
        raise FileNotFoundError(
            f"start from: got {place}, expected a run's folder with {CHECKPOINT} in it or a file of weights"
        )
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)["network"]
    return weights


def start_from(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load `weights` where the shapes agree; a wider first layer keeps its new input channels at zero.

    Layers of another shape (the first and last of an upscaler) stay as they are. Raises ValueError for weights of
    which nothing fits, or of layers that the network does not have.
    """
    own = network.state_dict()
    called = {plain_name(name): name for name in own}
    unknown = [name for name in weights if plain_name(name) not in called]
    weights = {called.get(plain_name(name), name): value for name, value in weights.items()}
    fitting = [name for name, value in weights.items() if name not in unknown and own[name].shape == value.shape]
    if unknown or not fitting:
        raise ValueError(
            f"start from: got weights of another network ({unknown[0] if unknown else 'no layer fits'}), expected "
            f"those of a {type(network).__name__} of the same widths; name others with --start-from, or {SCRATCH}"
        )
    for name, value in weights.items():
        if own[name].shape == value.shape:
            own[name] = value
        elif own[name].shape[0] == value.shape[0] and own[name].shape[1] > value.shape[1]:
            own[name] = torch.zeros_like(own[name])
            own[name][:, : value.shape[1]] = value
    network.load_state_dict(own)
