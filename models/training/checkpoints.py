"""Checkpoints of trainings: the state of named parts, how far the training is, and what it was made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

CHECKPOINT = "last.pt"
BEST_CHECKPOINT = "best.pt"
# In the place of a folder's name, for what was learned before checkpoints said from which photographs.
UNRECORDED = "not recorded"


class Part(Protocol):
    """What has a state: a network, an optimizer."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a checkpoint was made of: a recipe's id, photographs as (name of their folder, how many), first weights.

    start_from: name of the file or folder of weights that it began with, None = from scratch. steps, peak_lr: those
    that the latest run was given, None = the recipe's.
    """

    recipe: str
    data: tuple[tuple[str, int], ...] = ()
    start_from: str | None = None
    steps: int | None = None
    peak_lr: float | None = None

    def after(self, before: Origin | None) -> Origin:
        """Return the origin of a run that goes on from `before`, None = from a checkpoint that does not say."""
        if before is None:
            return replace(self, data=((UNRECORDED, 0), *self.data))
        return replace(self, data=tuple(dict.fromkeys((*before.data, *self.data))), start_from=before.start_from)


def save(parts: Mapping[str, Part], *, step: int, path: Path, origin: Origin | None = None) -> None:
    """Write the parts' states, the step and the origin; a kill in the middle leaves the file that was there."""
    temporary = path.with_suffix(".tmp")
    state = {**{name: part.state_dict() for name, part in parts.items()}, "step": step}
    if origin is not None:
        state["origin"] = asdict(origin)
    torch.save(state, temporary)
    temporary.replace(path)


def resume(parts: Mapping[str, Part], *, path: Path, optional: Collection[str] = ()) -> int:
    """Load the parts' states and return the step; 0, and nothing loaded, where there is no such file.

    optional: parts that checkpoints of earlier versions lack; they stay as they are then.
    """
    if not path.exists():
        return 0
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        if name in optional and name not in state:
            continue
        part.load_state_dict(state[name])
    return int(state["step"])


def origin_of(path: Path, *, recipe: str) -> Origin | None:
    """Return what the checkpoint at `path` was made of, None for one of before this was kept.

    Raises ValueError when it was made by another recipe than `recipe`.
    """
    kept = torch.load(path, map_location="cpu", weights_only=True).get("origin")
    if kept is None:
        return None
    origin = Origin(
        recipe=kept["recipe"],
        data=tuple((str(name), int(count)) for name, count in kept["data"]),
        start_from=kept["start_from"],
        steps=kept.get("steps"),
        peak_lr=kept.get("peak_lr"),
    )
    if origin.recipe != recipe:
        raise ValueError(
            f"checkpoint: got {path}, a training of {origin.recipe!r}, expected one of {recipe!r}; name another folder "
            f"(to begin with its weights: --start-from), or the recipe {origin.recipe!r}"
        )
    return origin
