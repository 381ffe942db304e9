"""What the parts of RL-Restore are worth: stopping, the order of tools, the length of chains, the number of tools.

The networks stay as they are; only what the agent may choose, or what is done with its choice, is changed. Joint
training is told by comparing two runs, before and after it. Fewer tools are chosen forwards, each time the one with
which a greedy oracle gains most on the first pairs of the set that is measured: an upper bound of choosing them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.rl_restore_pairs import Pairs
from models.rl_restore.chain import apply_chains, apply_tools, decide
from models.rl_restore.episodes import play, psnr_db
from models.rl_restore.networks import LARGEST_STEPS, STOP, TOOL_COUNT, Memory, ToolchainNetwork

ALL_TOOLS = tuple(range(1, TOOL_COUNT + 1))
FEWER_TOOLS = (3, 4, 6)
_CHOSEN_ON = 48
_ORDERS = 16


class Limited:
    """The agent's best action among `allowed`, and nothing after `most` tools."""

    def __init__(
        self, network: ToolchainNetwork, count: int, *, allowed: Sequence[int], most: int = LARGEST_STEPS
    ) -> None:
        self._network, self._most = network, most
        self._allowed = torch.zeros(STOP, dtype=torch.bool)
        self._allowed[torch.tensor(allowed) - 1] = True
        self._memory: Memory = network.agent.start(count)

    def __call__(self, states: Tensor, last: Tensor, step: int) -> list[int]:
        values, self._memory = self._network.agent(states, last, self._memory)
        if step >= self._most:
            return [STOP] * len(states)
        found: list[int] = (values.masked_fill(~self._allowed, -torch.inf).argmax(1) + 1).tolist()
        return found


def greedy(network: ToolchainNetwork, pairs: Pairs, *, may_stop: bool, allowed: Sequence[int] = ALL_TOOLS) -> Tensor:
    """PSNR of the chain that takes the tool with the highest true PSNR at each of three steps."""
    images = pairs.degraded
    for _ in range(LARGEST_STEPS):
        candidates = [apply_tools(network, images, actions=[tool] * len(images)) for tool in allowed]
        candidates += [images] if may_stop else []
        scores = torch.stack([psnr_db(candidate, pairs.references) for candidate in candidates])
        images = torch.stack(candidates)[scores.argmax(0), torch.arange(len(images))]
    return psnr_db(images, pairs.references)


def chosen_tools(network: ToolchainNetwork, pairs: Pairs, *, count: int) -> list[int]:
    """Return `count` tools, each the one with which a greedy oracle gains most beside those before it."""
    few = pairs.first(_CHOSEN_ON)
    found: list[int] = []
    while len(found) < count:
        others = [tool for tool in ALL_TOOLS if tool not in found]
        gains = [float(greedy(network, few, may_stop=True, allowed=[*found, tool]).mean()) for tool in others]
        found.append(others[int(np.argmax(gains))])
    return found


def ablation_rows(network: ToolchainNetwork, pairs: Pairs) -> Iterator[tuple[str, Tensor]]:
    """Yield name and PSNR (N,) of the agent with less to choose from, or with its chains in another order."""

    def limited(allowed: Sequence[int], most: int = LARGEST_STEPS) -> Tensor:
        choose = Limited(network, len(pairs.degraded), allowed=allowed, most=most)
        return play(network, pairs.degraded, pairs.references, choose=choose, end_when_worse=False).after

    everything = (*ALL_TOOLS, STOP)
    yield "agent", limited(everything)
    yield "never stopping before 3 tools", limited(ALL_TOOLS)
    for most in range(1, LARGEST_STEPS):
        yield f"at most {most} tool{'s' if most > 1 else ''}", limited(everything, most)
    decisions = decide(network, pairs.degraded, owners=range(len(pairs.degraded)))
    taken = [[action for action in decision.chain if action != STOP] for decision in decisions]
    yield "its tools in reverse", _applied(network, pairs, [tuple(chain[::-1]) for chain in taken])
    rng = np.random.default_rng(0)
    shuffled = [[tuple(rng.permutation(chain).tolist()) for chain in taken] for _ in range(_ORDERS)]
    yield "its tools in random order", torch.stack([_applied(network, pairs, chains) for chains in shuffled]).mean(0)
    best = chosen_tools(network, pairs, count=max(FEWER_TOOLS))
    for count in FEWER_TOOLS:
        names = ",".join(str(tool) for tool in sorted(best[:count]))
        yield f"only tools {names}", limited([*best[:count], STOP])
        yield "  greedy oracle + stop with these", greedy(network, pairs, may_stop=True, allowed=best[:count])


def _applied(network: ToolchainNetwork, pairs: Pairs, chains: Sequence[tuple[int, ...]]) -> Tensor:
    return psnr_db(apply_chains(network, pairs.degraded, chains=chains), pairs.references)
