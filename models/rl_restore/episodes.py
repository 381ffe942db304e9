"""Episodes of the agent: many pictures restored side by side, tool after tool, and a memory of what that brought.

Section 3.2 of the paper: the state is the picture as it is by now, the reward of an action the PSNR it gains, and an
episode ends with `stop`, after three actions, or once a picture has become worse than it was at first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.rl_restore.chain import apply_tools
from models.rl_restore.networks import AGENT_SIDE, LARGEST_STEPS, STOP, Memory, ToolchainNetwork, told_of

# (states (B, 3, 63, 63), their memory, last actions one-hot, step) -> actions 1-13
Choose = Callable[[Tensor, Tensor, int], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """B episodes: states before each action (B, 3, 3, 63, 63), actions (B, 3), 0 = none any more, rewards (B, 3) dB.

    ended: (B, 3) bool, whether nothing follows the action. before, after: PSNR in dB at first and at last, (B,).
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    ended: Tensor
    before: Tensor
    after: Tensor


def psnr_db(images: Tensor, targets: Tensor) -> Tensor:
    """Return the PSNR in dB of each image (B,), RGB, peak 1, not clipped, as the reward is measured."""
    error = (images - targets).square().flatten(1).mean(1)
    return -10.0 * (error + 1e-10).log10()


@torch.no_grad()
def play(
    network: ToolchainNetwork, degraded: Tensor, clean: Tensor, *, choose: Choose, end_when_worse: bool = True
) -> Episodes:
    """Restore (B, 3, 63, 63) pictures by the tools that `choose` names. end_when_worse: as in training."""
    count = len(degraded)
    states = degraded.new_zeros(count, LARGEST_STEPS, *degraded.shape[1:])
    actions = torch.zeros(count, LARGEST_STEPS, dtype=torch.long, device=degraded.device)
    rewards = degraded.new_zeros(count, LARGEST_STEPS)
    ended = torch.ones(count, LARGEST_STEPS, dtype=torch.bool, device=degraded.device)
    before = psnr_db(degraded, clean)
    current, quality, last = degraded, before, degraded.new_zeros(count, STOP - 1)
    alive = torch.ones(count, dtype=torch.bool, device=degraded.device)
    for step in range(LARGEST_STEPS):
        states[:, step] = current
        chosen = torch.tensor(choose(current, last, step), device=degraded.device)
        taken = torch.where(alive, chosen, STOP)
        following = apply_tools(network, current, actions=taken.tolist())
        reached = psnr_db(following, clean)
        actions[:, step] = torch.where(alive, taken, 0)
        rewards[:, step] = reached - quality
        over = taken == STOP
        if end_when_worse:
            over |= reached < before
        ended[:, step] = over | (step + 1 == LARGEST_STEPS)
        alive = alive & ~over
        current, quality, last = following, reached, told_of(taken, dtype=degraded.dtype)
        if not bool(alive.any()):
            break
    return Episodes(states=states, actions=actions, rewards=rewards, ended=ended, before=before, after=quality)


def restored(network: ToolchainNetwork, degraded: Tensor, *, choose: Choose) -> tuple[Tensor, Tensor]:
    """Return (B, 3, 63, 63) pictures after the tools that `choose` names, and its actions (B, 3), 13 from `stop` on.

    Gradients reach the tools through the whole chain; what is chosen is not differentiated.
    """
    images, last = degraded, degraded.new_zeros(len(degraded), STOP - 1)
    actions = torch.full((len(degraded), LARGEST_STEPS), STOP, device=degraded.device)
    for step in range(LARGEST_STEPS):
        with torch.no_grad():
            chosen = torch.tensor(choose(images.detach(), last, step), device=degraded.device)
        stopped = (actions[:, :step] == STOP).any(1)
        actions[:, step] = torch.where(stopped, STOP, chosen)
        images = apply_tools(network, images, actions=actions[:, step].tolist())
        last = told_of(actions[:, step], dtype=degraded.dtype)
    return images, actions


class Greedy:
    """The agent's own choice, or with probability `epsilon` any action; keeps the memories of one batch."""

    def __init__(self, network: ToolchainNetwork, count: int, *, epsilon: float, rng: np.random.Generator) -> None:
        self._network, self._epsilon, self._rng = network, epsilon, rng
        self._memory: Memory = network.agent.start(count)

    def __call__(self, states: Tensor, last: Tensor, step: int) -> list[int]:
        values, self._memory = self._network.agent(states, last, self._memory)
        best = (values.argmax(1) + 1).cpu().numpy()
        random = self._rng.integers(1, STOP + 1, len(best))
        return [int(action) for action in np.where(self._rng.random(len(best)) < self._epsilon, random, best)]


class Replay:
    """The last `capacity` episodes, half precision, and batches drawn from them."""

    def __init__(self, capacity: int) -> None:
        self._states = torch.zeros(capacity, LARGEST_STEPS, 3, AGENT_SIDE, AGENT_SIDE, dtype=torch.float16)
        self._actions = torch.zeros(capacity, LARGEST_STEPS, dtype=torch.long)
        self._rewards = torch.zeros(capacity, LARGEST_STEPS)
        self._ended = torch.ones(capacity, LARGEST_STEPS, dtype=torch.bool)
        self._next, self.filled = 0, 0

    def add(self, episodes: Episodes) -> None:
        """Take in episodes, in the place of the oldest."""
        capacity = len(self._states)
        places = (self._next + torch.arange(len(episodes.actions))) % capacity
        # What follows an episode's end is not learned from: nothing, so that it need not be kept.
        taken = (episodes.actions > 0)[..., None, None, None]
        self._states[places] = torch.where(taken, episodes.states, 0.0).to("cpu", torch.float16)
        self._actions[places] = episodes.actions.cpu()
        self._rewards[places] = episodes.rewards.cpu()
        self._ended[places] = episodes.ended.cpu()
        self._next = int((places[-1] + 1) % capacity)
        self.filled = min(capacity, self.filled + len(places))

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes: the states that actions were taken in, 24 KB each, and the rest."""
        actions = self._actions[: self.filled]
        return {
            "states": self._states[: self.filled][actions > 0],
            "actions": actions.to(torch.int8),
            "rewards": self._rewards[: self.filled].clone(),
            "ended": self._ended[: self.filled].clone(),
            "next": self._next,
        }

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on from `state_dict`'s result; raises ValueError for more episodes than there is room for."""
        filled, capacity = len(state["actions"]), len(self._states)
        if filled > capacity:
            raise ValueError(f"replay: got {filled} episodes, expected at most {capacity}; give it the room it had")
        self._actions[:filled] = state["actions"].long()
        self._states[:filled][self._actions[:filled] > 0] = state["states"]
        self._rewards[:filled] = state["rewards"]
        self._ended[:filled] = state["ended"]
        self._next, self.filled = int(state["next"]) % capacity, filled

    def draw(self, count: int, *, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (states, actions, rewards, ended) of `count` episodes."""
        rows: npt.NDArray[np.int64] = rng.integers(0, self.filled, count)
        chosen = torch.from_numpy(rows)
        return self._states[chosen].float(), self._actions[chosen], self._rewards[chosen], self._ended[chosen]
