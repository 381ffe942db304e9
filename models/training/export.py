"""`python -m models.training.export RECIPE --checkpoint DIR`: turn a training into a shipped weight with card."""

from __future__ import annotations

import argparse
import subprocess
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from models.blocks import LEAK
from models.example_based.networks import OnSmoothFill
from models.low_rank import frozen_and_factors
from models.training.checkpoints import CHECKPOINT, UNRECORDED, Origin, origin_of
from models.training.first_weights import SCRATCH
from models.training.recipes import Recipe, get_recipe
from models.weights import WEIGHTS_FOLDER, WeightCard, load_card, load_weights, save_weights, weights_sha256

_BSDS500 = ("bsds500", 400)
# What is known of sets of photographs, by the name of their folder and how many are in it.
_KNOWN = {
    _BSDS500: "BSDS500 train and test splits (400 photographs; no licence stated by the repository, a research data "
    "set)",
    ("photos_1024", 443): "photos_1024 (443 photographs, mostly CC-BY, CC-BY-SA and CC0; authors and licences per "
    "picture in SOURCES.csv)",
}
DATA = list(_KNOWN.values())
LICENCE = "Apache-2.0; part of the training photographs carries no stated licence (BSDS500)"


def export(recipe_id: str, *, checkpoint: Path, folder: Path = WEIGHTS_FOLDER, share: float = 1.0) -> WeightCard:
    """Write the weights of a checkpoint folder as fp16 safetensors; earlier metrics move to the card's notes.

    share: of the checkpoint in the mean with the weights it replaces, if it was trained on from these: that keeps most
    of what they could and most of what is new (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).

    The card names the photographs that the checkpoint says it learned from. Raises ValueError for an unknown recipe,
    for a checkpoint of another one, and for a share outside 0 to 1.
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"export: got a share of {share:g}, expected more than 0 and at most 1")
    recipe = get_recipe(recipe_id)
    origin = origin_of(checkpoint / CHECKPOINT, recipe=recipe_id) or Origin(
        recipe=recipe_id, data=((UNRECORDED, 0),), start_from=recipe.start_from
    )
    state = torch.load(checkpoint / CHECKPOINT, map_location="cpu", weights_only=True)
    network = recipe.network()
    network.load_state_dict(state["network"], strict=True)
    if share < 1.0 and recipe.rank is not None:
        raise ValueError(f"export: got a share of {share:g} for {recipe_id!r}, expected 1: it has factors, not weights")
    if share < 1.0:
        before = load_weights(recipe_id)
        network.load_state_dict({name: torch.lerp(before[name], new, share) for name, new in state["network"].items()})
    given = (
        ("--start-from", f"<{origin.start_from}>" if origin.start_from else SCRATCH if recipe.start_from else None),
        ("--steps", origin.steps),
        ("--peak-lr", origin.peak_lr),
    )
    options = "".join(f" {name} {value}" for name, value in given if value is not None)
    folders = " ".join(f"<{name}>" for name, _ in origin.data)
    card = new_card(
        recipe_id,
        network=_network_text(recipe, network=network),
        command=f"python -m models.training {recipe_id} --data {folders} --out <folder>{options}"
        + (f", exported with --share {share:g}" if share < 1.0 else ""),
        steps=int(state["step"]),
        seed=recipe.seed,
        data=_data_texts(origin),
        licence=_licence(origin),
        folder=folder,
    )
    if recipe.rank is None:
        return save_weights(network.state_dict(), card=card, folder=folder)
    frozen, factors = frozen_and_factors(network.state_dict())
    return save_weights(factors, card=_beside(card, recipe=recipe, frozen=frozen), folder=folder)


def _beside(card: WeightCard, *, recipe: Recipe, frozen: dict[str, Tensor]) -> WeightCard:
    """Return the card of factors, which says beside which weights they belong; ValueError where those are others."""
    name = str(recipe.start_from)
    if any(not torch.equal(value, frozen[key]) for key, value in load_weights(name).items()):
        raise ValueError(
            f"export: got factors trained beside other weights than {name!r} has, expected the shipped ones; train "
            f"{recipe.id!r} from these"
        )
    return replace(card, beside=name, beside_sha256=weights_sha256(name))


def _data_texts(origin: Origin) -> list[str]:
    texts = []
    for name, count in origin.data:
        if name == UNRECORDED:
            texts.append("photographs that a checkpoint of an earlier version did not record")
        else:
            texts.append(_KNOWN.get((name, count), f"{name} ({count} photographs; their licences are not known here)"))
    started = f"what the weights it began with, {origin.start_from}, were trained on"
    return [*texts, started] if origin.start_from else texts


def _licence(origin: Origin) -> str:
    unknown = any(source not in _KNOWN for source in origin.data)
    known = LICENCE if _BSDS500 in origin.data else "Apache-2.0"
    return f"{known}; the licences of other training photographs are not known here" if unknown else known


def new_card(
    weight: str, *, network: str, command: str, steps: int, seed: int, data: list[str], licence: str, folder: Path
) -> WeightCard:
    """Return the card of a weight that was trained here; the metrics of one it replaces move to its notes."""
    previous = ""
    if (folder / f"{weight}.json").exists():
        old = load_card(weight)
        previous = f"replaces {old.sha256[:16]} ({old.steps} steps), which measured {old.metrics}"
    return WeightCard(
        id=weight,
        sha256="",
        network=network,
        parameters=0,
        data=data,
        licence=licence,
        command=command,
        steps=steps,
        seed=seed,
        commit=current_commit(),
        notes=previous,
    )


def _network_text(recipe: Recipe, *, network: nn.Module) -> str:
    if recipe.rl_restore is not None:
        return f"models.rl_restore.baselines.NETWORKS[{recipe.rl_restore!r}]"
    if recipe.example_network is not None:
        name = f"{recipe.example_network}, channels=3"
        return f"OnSmoothFill({name})" if isinstance(network, OnSmoothFill) else f"build_network({name})"
    first = f"scale={recipe.scale}" if recipe.scale > 1 else f"in_channels={recipe.in_channels}"
    kind = "ResidualUpscaler" if recipe.scale > 1 else "ResidualUNet"
    unshuffle = "" if recipe.scale > 1 else f", unshuffle={recipe.unshuffle}"
    whole = f"{kind}({first}, widths={recipe.widths}, blocks={recipe.blocks}, slope={LEAK}{unshuffle})"
    return whole if recipe.rank is None else f"{whole} of {recipe.start_from!r}, with factors of rank {recipe.rank}"


def current_commit() -> str:
    """Return the commit that a weight is made at, "unknown" outside a checkout."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.training.export", description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--share", type=float, default=1.0, help="of it in the mean with the weights that it replaces")
    arguments = parser.parse_args()
    card = export(arguments.recipe, checkpoint=arguments.checkpoint, share=arguments.share)
    print(f"{card.id}: {card.parameters} parameters, {card.steps} steps, sha256 {card.sha256}")


if __name__ == "__main__":
    main()
