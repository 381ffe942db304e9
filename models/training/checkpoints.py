"""Checkpoints of trainings: the state of named parts, and how far the training is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

CHECKPOINT = "last.pt"
BEST_CHECKPOINT = "best.pt"


class Part(Protocol):
    """What has a state: a network, an optimizer."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


def save(parts: Mapping[str, Part], *, step: int, path: Path) -> None:
    """Write the parts' states and the step; a kill in the middle leaves the file that was there."""
    temporary = path.with_suffix(".tmp")
    torch.save({**{name: part.state_dict() for name, part in parts.items()}, "step": step}, temporary)
    temporary.replace(path)


def resume(parts: Mapping[str, Part], *, path: Path) -> int:
    """Load the parts' states and return the step; 0, and nothing loaded, where there is no such file."""
    if not path.exists():
        return 0
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])
