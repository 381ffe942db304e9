"""`python -m models.rl_restore.export --checkpoint DIR`: ship a run of the agent or of joint training, with its card.

A run keeps in `stages.json` what came before it, so that the card says how all parts were made.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from models.rl_restore.networks import ToolchainNetwork
from models.training.checkpoints import BEST_CHECKPOINT, CHECKPOINT
from models.training.export import DATA, LICENCE, new_card
from models.weights import WEIGHTS_FOLDER, WeightCard, load_card, save_weights

WEIGHT = "rl-restore"
STAGES = "stages.json"
_UNITS = {"tools": "steps", "agent": "actions", "joint": "steps"}


def begin_stage(out: Path, *, what: str, start_from: Path, seed: int) -> None:
    """Note in the folder of a run what it is and what it starts from; a run that goes on keeps its note."""
    if not (out / STAGES).exists():
        out.mkdir(parents=True, exist_ok=True)
        note = {"what": what, "before": stages(start_from), "seed": seed}
        (out / STAGES).write_text(json.dumps(note) + "\n")


def read_note(folder: Path) -> dict[str, Any]:
    """Return what a run is, what came before it and its seed; without a note it is a run of the tools."""
    note = folder / STAGES
    return dict(json.loads(note.read_text())) if note.exists() else {"what": "tools", "before": [], "seed": 1}


def finished(folder: Path) -> Path:
    """Return the checkpoint of a run that counts: the one of the best validation, or the last where none was done."""
    best = folder / BEST_CHECKPOINT
    return best if best.is_file() else folder / CHECKPOINT


def stages(folder: Path) -> list[str]:
    """Return what was done to make a run's checkpoint, such as ["tools: 9000 steps", "agent: 150000 actions"].

    Of a file of shipped weights, what its card says.
    """
    if folder.suffix == ".safetensors":
        return load_card(folder.stem, folder=folder.parent).command.rpartition("; ")[2].split(", ")
    known = read_note(folder)
    what = str(known["what"])
    done = int(torch.load(finished(folder), map_location="cpu", weights_only=True)["step"])
    return [*known["before"], f"{what}: {done} {_UNITS[what]}"]


def export(checkpoint: Path, *, folder: Path = WEIGHTS_FOLDER) -> WeightCard:
    """Write agent and tools of a run as fp16 safetensors; earlier metrics move to the card's notes."""
    state = torch.load(finished(checkpoint), map_location="cpu", weights_only=True)
    network = ToolchainNetwork()
    network.load_state_dict(state["network"], strict=True)
    card = new_card(
        WEIGHT,
        network="ToolchainNetwork(): twelve tools and the agent",
        command="python -m models.training rl-restore-tools, then python -m models.rl_restore.training agent and joint "
        f"(docs/training.md); {', '.join(stages(checkpoint))}",
        steps=int(state["step"]),
        seed=int(read_note(checkpoint).get("seed", 1)),
        data=DATA,
        licence=LICENCE,
        folder=folder,
    )
    return save_weights(network.state_dict(), card=card, folder=folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.rl_restore.export", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    card = export(parser.parse_args().checkpoint)
    print(f"{card.id}: {card.parameters} parameters, {card.command}, sha256 {card.sha256}")


if __name__ == "__main__":
    main()
