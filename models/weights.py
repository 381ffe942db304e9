"""Weight files and their cards: what was trained, on what, how well, under which licence; loaded only when verified."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from models.low_rank import merged

WEIGHTS_FOLDER = Path(__file__).parent / "weights"


class WeightsError(RuntimeError):
    """A weight file that is absent, altered or does not fit its network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightCard:
    """Everything a user must know about one weight file, kept as JSON beside it.

    `metrics` maps the name of a set and protocol to numbers; `command` prints them or remakes the file. `beside`: the
    weight, of `beside_sha256`, to which the factors in the file are added; "" where it has weights of its own.
    """

    id: str
    sha256: str
    network: str
    parameters: int
    data: list[str]
    licence: str
    command: str
    steps: int
    seed: int
    commit: str
    metrics: dict[str, Any] = field(default_factory=dict)
    notes: str = ""
    beside: str = ""
    beside_sha256: str = ""


def weight_names() -> list[str]:
    """Names of the weights that are shipped."""
    return sorted(path.stem for path in WEIGHTS_FOLDER.glob("*.safetensors"))


def load_card(name: str, *, folder: Path | None = None) -> WeightCard:
    """Read the card of a weight, of the shipped ones unless in `folder`; WeightsError names the nearest one if none."""
    path = (folder or WEIGHTS_FOLDER) / f"{name}.json"
    if not path.is_file():
        near = difflib.get_close_matches(name, weight_names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise WeightsError(f"weights: got {name!r}, expected one of {weight_names()}{hint}")
    known = WeightCard.__dataclass_fields__
    content = json.loads(path.read_text())
    return WeightCard(**{key: value for key, value in content.items() if key in known})


def update_metrics(name: str, figures: dict[str, Any], *, folder: Path = WEIGHTS_FOLDER) -> None:
    """Replace these entries of the metrics on one card; the others stay."""
    path = folder / f"{name}.json"
    card = json.loads(path.read_text())
    card["metrics"].update(figures)
    path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")


@lru_cache(maxsize=32)
def weights_sha256(name: str) -> str:
    """The sha256 that the card promises (cheap: the file itself is not read)."""
    return load_card(name).sha256


def load_weights(name: str) -> dict[str, Tensor]:
    """Return the float32 tensors of a shipped weight after checking its bytes against the card's sha256.

    Factors come added to the weights that they were learned beside; WeightsError when these are others by now.
    """
    card = load_card(name)
    path = WEIGHTS_FOLDER / f"{name}.safetensors"
    if not path.is_file():
        raise WeightsError(f"weights {name!r}: {path.name} is missing beside its card; check the file out again")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != card.sha256:
        raise WeightsError(
            f"weights {name!r}: got a file with sha256 {found[:16]}…, its card says {card.sha256[:16]}…; "
            "restore the shipped file, or write a card for the new one with models.weights.save_weights"
        )
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in load(content).items()}
    if not card.beside:
        return tensors
    if weights_sha256(card.beside) != card.beside_sha256:
        raise WeightsError(
            f"weights {name!r}: got {card.beside!r} with sha256 {weights_sha256(card.beside)[:16]}…, expected "
            f"{card.beside_sha256[:16]}…, beside which it was trained; train it again"
        )
    return merged(load_weights(card.beside), tensors)


def save_weights(tensors: dict[str, Tensor], *, card: WeightCard, folder: Path = WEIGHTS_FOLDER) -> WeightCard:
    """Write float16 safetensors and the card, whose sha256 and parameter count are filled in here; return the card.

    Raises WeightsError, with nothing written, where a value is not finite, or too large for float16.
    """
    halves = {
        key: (
            value.detach().cpu().to(torch.float16) if value.is_floating_point() else value.detach().cpu()
        ).contiguous()
        for key, value in tensors.items()
    }
    for key, value in halves.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise WeightsError(
                f"weights {card.id!r}: got values in {key} not finite in half precision, expected finite ones; "
                "nothing was written: export a checkpoint of before the training went astray"
            )
    content = save(halves)
    parameters = sum(value.numel() for value in halves.values())
    filled = WeightCard(**{**asdict(card), "sha256": hashlib.sha256(content).hexdigest(), "parameters": parameters})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{card.id}.safetensors").write_bytes(content)
    (folder / f"{card.id}.json").write_text(json.dumps(asdict(filled), indent=2, ensure_ascii=False) + "\n")
    weights_sha256.cache_clear()
    return filled
