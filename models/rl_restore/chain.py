"""Choosing a chain of tools for each picture and applying chains, in batches grouped by the tool that comes next.

A chain is the tuple of its actions, numbered as the paper's checkpoints: 1-12 = a tool, 13 = stop, which is always
last. Chains have at most three actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.rl_restore.networks import (
    AGENT_SIDE,
    LARGEST_STEPS,
    STOP,
    TOOL_COUNT,
    Memory,
    ToolchainNetwork,
    told_of,
)

Chain = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A picture's chain, and for each action the 13 values that it was picked from (the mean over its crops)."""

    chain: Chain
    values: tuple[tuple[float, ...], ...]


def apply_tools(network: ToolchainNetwork, images: Tensor, *, actions: Sequence[int]) -> Tensor:
    """Apply to each image (B, 3, H, W) its tool, images of one tool in one pass; 13 leaves it as it is.

    Raises ValueError for an action outside 1-13 or another number of them than images.
    """
    if len(actions) != len(images) or any(not 1 <= action <= STOP for action in actions):
        raise ValueError(f"actions: got {tuple(actions)}, expected {len(images)} numbers from 1 to {STOP}")
    result = images.clone()
    for action in sorted(set(actions) - {STOP}):
        chosen = [index for index, other in enumerate(actions) if other == action]
        result[chosen] = network.tools[action - 1](images[chosen])
    return result


def apply_chains(network: ToolchainNetwork, images: Tensor, *, chains: Sequence[Chain]) -> Tensor:
    """Apply to each image (B, 3, H, W) its chain; the results are not clipped."""
    for step in range(max((len(chain) for chain in chains), default=0)):
        actions = [chain[step] if step < len(chain) else STOP for chain in chains]
        images = apply_tools(network, images, actions=actions)
    return images


def decide(network: ToolchainNetwork, crops: Tensor, *, owners: Sequence[int]) -> list[Decision]:
    """Choose the chains of several pictures from their crops (N, 3, 63, 63); `owners` says whose each crop is.

    Owners are 0, 1, … without gaps. Every crop keeps a memory of its own and is restored along; at each step a picture
    takes the action with the highest value averaged over its crops. With one crop this is the paper's procedure.
    Raises ValueError for crops of another size or owners with gaps.
    """
    count = max(owners, default=-1) + 1
    if crops.shape[1:] != (3, AGENT_SIDE, AGENT_SIDE) or set(owners) != set(range(count)) or len(owners) != len(crops):
        raise ValueError(
            f"crops: got {tuple(crops.shape)} of owners {sorted(set(owners))}, expected (N, 3, {AGENT_SIDE}, "
            f"{AGENT_SIDE}) and N owners 0, 1, … without gaps"
        )
    owner = torch.tensor(owners, dtype=torch.long, device=crops.device)
    share = 1.0 / torch.bincount(owner, minlength=count).to(crops.dtype)
    memory: Memory = network.agent.start(len(crops))
    last = crops.new_zeros(len(crops), TOOL_COUNT)
    chains: list[list[int]] = [[] for _ in range(count)]
    values: list[list[tuple[float, ...]]] = [[] for _ in range(count)]
    for _ in range(LARGEST_STEPS):
        q, memory = network.agent(crops, last, memory)
        means = torch.zeros(count, TOOL_COUNT + 1, dtype=q.dtype, device=q.device).index_add(0, owner, q)
        means = means * share[:, None]
        best = (means.argmax(1) + 1).tolist()
        for picture in range(count):
            if STOP not in chains[picture]:
                chains[picture].append(best[picture])
                values[picture].append(tuple(means[picture].tolist()))
        actions = torch.tensor([chain[-1] for chain in chains], device=crops.device)[owner]
        if bool((actions == STOP).all()):
            break
        crops = apply_tools(network, crops, actions=actions.tolist())
        last = told_of(actions, dtype=crops.dtype)
    return [Decision(chain=tuple(chain), values=tuple(rows)) for chain, rows in zip(chains, values, strict=True)]
