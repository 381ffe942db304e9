"""`python -m benchmarks.rl_restore_views [--data DIR] [--count N]`: how the agent may look at larger pictures.

N whole pictures of CBSD68 a severity, degraded by our recipes; released weights; PSNR gain in dB (RGB, not clipped).
docs/decisions/0007 has what was chosen.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.rl_restore_pairs import SEVERITIES
from models.degradations.recipes import get_recipe
from models.published.catalogue import SETTING, missing_weights, published_tensors
from models.rl_restore.chain import Chain, apply_chains, apply_tools, decide
from models.rl_restore.crops import crops_of_planes
from models.rl_restore.episodes import psnr_db
from models.rl_restore.networks import LARGEST_STEPS, STOP, TOOL_COUNT, ToolchainNetwork, told_of
from models.training.photographs import read_rgb


def voted_chain(network: ToolchainNetwork, crops: Tensor) -> Chain:
    """The authors' way with larger pictures: at each step the action most crops would take."""
    memory, last = network.agent.start(len(crops)), crops.new_zeros(len(crops), TOOL_COUNT)
    chain: Chain = ()
    for _ in range(LARGEST_STEPS):
        values, memory = network.agent(crops, last, memory)
        action = int(torch.bincount(values.argmax(1), minlength=STOP).argmax()) + 1
        chain = (*chain, action)
        if action == STOP:
            break
        crops = apply_tools(network, crops, actions=[action] * len(crops))
        last = told_of(torch.full((len(crops),), action), dtype=crops.dtype)
    return chain


def compare_views(data: Path, *, count: int) -> None:
    """Print the mean gain on whole pictures for several ways to show them to the agent."""
    network = ToolchainNetwork().eval().requires_grad_(False)
    network.load_state_dict(published_tensors("rl-restore-released"), strict=True)
    gains: dict[str, list[float]] = {}
    for index, path in enumerate(sorted((data / "test" / "CBSD68").glob("*.png"))[: count * len(SEVERITIES)]):
        made = get_recipe(f"rl-restore/{SEVERITIES[index % len(SEVERITIES)]}").apply(read_rgb(path), seed=index)
        image, reference = (torch.from_numpy(part).permute(2, 0, 1)[None] for part in (made.image, made.reference))
        chains: dict[str, Chain] = {}
        for most in (1, 6, 24, 96):
            crops = crops_of_planes(image[0], most=most)
            chains[f"mean of values, {most} crops"] = decide(network, crops, owners=[0] * len(crops))[0].chain
        chains["vote, 24 crops"] = voted_chain(network, crops_of_planes(image[0], most=24))
        scores = {chain: psnr_db(apply_chains(network, image, chains=[chain]), reference) for chain in chains.values()}
        for name, chain in chains.items():
            gains.setdefault(name, []).append(float(scores[chain] - psnr_db(image, reference)))
    for name, values in gains.items():
        print(f"{name:<38}{np.mean(values):+8.2f}  lowest {min(values):+.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rl_restore_views", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LACUNA_DATA", "../shared/data")))
    parser.add_argument("--count", type=int, default=5, help="pictures a severity")
    arguments = parser.parse_args()
    os.environ.setdefault(SETTING, str(arguments.data / "parity"))
    reason = missing_weights("rl-restore-released")
    if reason:
        parser.error(reason)
    with torch.inference_mode():
        compare_views(arguments.data, count=arguments.count)


if __name__ == "__main__":
    main()
