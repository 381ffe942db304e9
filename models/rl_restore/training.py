"""Training of RL-Restore's agent, then of its tools through the chains: `python -m models.rl_restore.training --help`.

`agent` learns by deep Q-learning with a recurrent network over whole episodes (section 3.3; the released code fills in
what the paper leaves out), from mixtures of moderate level and patches of single faults, half and half. `joint`
improves the tools by the error at the end of the chains that the finished agent chooses (Algorithm 1). The authors
took 2,000,000 actions and 200,000 batches; `--actions` and `--steps` say how many here, and what is scheduled over
them is scaled with them. Both stop after `--minutes`, and go on from their checkpoint.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from models.degradations import mixtures
from models.device import quick_products
from models.rl_restore.episodes import Greedy, Replay, play, psnr_db, restored
from models.rl_restore.export import begin_stage, finished
from models.rl_restore.networks import AGENT_SIDE, LARGEST_STEPS, STOP, TOOL_COUNT, Agent, ToolchainNetwork, told_of
from models.rl_restore.tool_training import ToolFaults
from models.training.averaging import move_mean
from models.training.checkpoints import BEST_CHECKPOINT, CHECKPOINT, Part, resume, save
from models.training.corruption import MixtureOfSeverity
from models.training.log import LOG, mend_log, read_lines, require_finite
from models.training.losses import log_error
from models.training.photographs import PatchSettings, Photographs
from models.training.run import HELD_BACK

_VALIDATION_SEED = 30_000_001
_VALIDATED = 192
# A picture this good is left out: there is nothing to learn from it.
_TOO_GOOD_DB = 50.0
_ACTIONS_PER_LINE = 5_000
# The agent's memory of episodes. A training that goes on without it, as checkpoints of before have none, learns from
# others.
_REPLAY = "replay"
# The tools as the optimizer has them; joint trainings of before had no other.
_LEARNING = "learning"
_AVERAGING = 0.997


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """As in the released code, but for `together` and `actions_per_update`, which fit the machine, and the clipping.

    least_replay: episodes to be there before learning begins. actions: of training, over which exploration and learning
    rate go down as over the authors' 2,000,000. Without clipped gradients an independent reproduction exploded.
    """

    actions: int = 2_000_000
    together: int = 64
    actions_per_update: int = 4
    replay_episodes: int = 8_000
    least_replay: int = 500
    batch: int = 32
    discount: float = 0.99
    learning_rate: float = 1e-4
    least_learning_rate: float = 2.5e-5
    target_every: int = 10_000
    first_epsilon: float = 1.0
    least_epsilon: float = 0.1
    clip_norm: float = 5.0
    single_fault_share: float = 0.5
    seed: int = 1

    @property
    def scale(self) -> float:
        """Return how much shorter this training is than the authors'."""
        return self.actions / 2_000_000

    def epsilon(self, done: int) -> float:
        """Return the probability of a random action: from the first down to the least over the first half."""
        fall = self.first_epsilon - self.least_epsilon
        return max(self.least_epsilon, self.first_epsilon - fall * done / (1_000_000 * self.scale))

    def rate(self, done: int) -> float:
        """Return the learning rate: halved, smoothly, every 1,000,000 of the authors' actions."""
        halvings = done / (1_000_000 * self.scale)
        return max(self.least_learning_rate, self.learning_rate * math.exp2(-halvings))


class Patches:
    """Seeded batches of 63 x 63 patches, (degraded, clean) each (B, 3, 63, 63) in [0, 1]."""

    def __init__(self, photographs: Photographs, *, single_fault_share: float) -> None:
        self._photographs = photographs
        self._share = single_fault_share
        self._faults = ToolFaults()

    def draw(
        self, count: int, *, rng: np.random.Generator, severity: mixtures.Severity = "moderate"
    ) -> tuple[Tensor, Tensor]:
        """Return `count` patches with mixtures of a severity or, for the given share, single faults."""
        settings = PatchSettings(side=AGENT_SIDE, batch=count, half_scale_share=0.5)
        clean = self._photographs.patches(settings, rng=rng)
        single = int(rng.binomial(count, self._share))
        order = rng.permutation(TOOL_COUNT)
        faulty = [self._faults.of_tool(clean[n : n + 1], int(order[n % TOOL_COUNT]), rng) for n in range(single)]
        mixture = MixtureOfSeverity(severity)
        faulty += [mixture.of_patch(clean[n : n + 1], rng) for n in range(single, count)]
        degraded = torch.cat(faulty)
        kept = psnr_db(degraded, clean) <= _TOO_GOOD_DB
        return degraded[kept], clean[kept]


def initialize(agent: Agent) -> None:
    """Give a new agent the starting values of the released code."""
    for layer in (agent.l1, agent.l2, agent.l3, agent.l4):
        spread = math.sqrt(2.0 / (layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels))
        nn.init.trunc_normal_(layer.weight, std=spread, a=-2 * spread, b=2 * spread)
    for linear in (agent.l7, agent.q):
        nn.init.normal_(linear.weight, std=1e-3)
    nn.init.xavier_uniform_(agent.gates.weight)
    for module in (agent.l1, agent.l2, agent.l3, agent.l4, agent.l7, agent.q, agent.gates):
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    with torch.no_grad():  # gates i, f, g, o: TensorFlow adds 1 to the second
        agent.gates.bias[50:100] = 1.0


def unrolled(agent: Agent, states: Tensor, actions: Tensor) -> Tensor:
    """Return the values (B, 3, 13) along episodes: states (B, 3, 3, 63, 63), actions (B, 3) with 0 = none any more."""
    memory = agent.start(len(states))
    last = states.new_zeros(len(states), TOOL_COUNT)
    values = []
    for step in range(LARGEST_STEPS):
        found, memory = agent(states[:, step], last, memory)
        values.append(found)
        last = told_of(actions[:, step].clamp(min=1), dtype=states.dtype)
    return torch.stack(values, dim=1)


def q_loss(agent: Agent, target: Agent, batch: tuple[Tensor, Tensor, Tensor, Tensor], *, discount: float) -> Tensor:
    """Return the Huber loss of the values of the actions taken against reward and the target's best value after it."""
    states, actions, rewards, ended = batch
    with torch.no_grad():
        best = unrolled(target, states, actions).amax(dim=2)
        following = functional.pad(best[:, 1:], (0, 1))
        wanted = rewards + discount * torch.where(ended, torch.zeros_like(following), following)
    taken = actions > 0
    values = unrolled(agent, states, actions).gather(2, (actions.clamp(min=1) - 1)[..., None])[..., 0]
    return functional.smooth_l1_loss(values[taken].float(), wanted[taken].float())


def measure(network: ToolchainNetwork, sets: dict[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Return the mean gain in dB of the agent's whole chains on each set of (degraded, clean)."""
    gains = {}
    for name, (degraded, clean) in sets.items():
        choose = Greedy(network, len(degraded), epsilon=0.0, rng=np.random.default_rng(0))
        played = play(network, degraded, clean, choose=choose, end_when_worse=False)
        gains[name] = round(float((played.after - played.before).mean()), 4)
    return gains


def train_agent(
    network: ToolchainNetwork,
    patches: Patches,
    *,
    settings: AgentSettings,
    out: Path,
    minutes: float,
    validate: Callable[[ToolchainNetwork], dict[str, float]],
) -> int:
    """Train `network.agent` in place until its actions are done or the time is up; return the actions done.

    Stopped and resumed, it ends with the weights of an uninterrupted training. Raises DivergedError for a loss that is
    not finite.
    """
    agent, target = network.agent, copy.deepcopy(network.agent)
    optimizer = torch.optim.Adam(agent.parameters(), lr=settings.learning_rate)
    replay, began = Replay(settings.replay_episodes), time.monotonic()
    parts: dict[str, Part] = {"network": network, "target": target, "optimizer": optimizer, _REPLAY: replay}
    out.mkdir(parents=True, exist_ok=True)
    done = resume(parts, path=out / CHECKPOINT, optional=(_REPLAY,))
    while done < settings.actions and time.monotonic() - began < 60 * minutes:
        rng = np.random.default_rng((settings.seed, done))
        degraded, clean = patches.draw(settings.together, rng=rng)
        choose = Greedy(network, len(degraded), epsilon=settings.epsilon(done), rng=rng)
        with quick_products("cpu"):
            played = play(network, degraded, clean, choose=choose)
        replay.add(played)
        made = int((played.actions > 0).sum())
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(done)
        losses = []
        for _ in range(made // settings.actions_per_update if replay.filled >= settings.least_replay else 0):
            with quick_products("cpu"):
                loss = q_loss(agent, target, replay.draw(settings.batch, rng=rng), discount=settings.discount)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(agent.parameters(), settings.clip_norm)
            optimizer.step()
            losses.append(float(loss.detach()))
            require_finite({"loss": losses[-1]}, step=done, out=out)
        every = max(1, int(settings.target_every * settings.scale))
        before, done = done, done + made
        if before // every != done // every:
            target.load_state_dict(agent.state_dict())
        if before // _ACTIONS_PER_LINE != done // _ACTIONS_PER_LINE:
            line = {"actions": done, "loss": _mean(losses), "epsilon": settings.epsilon(done)}
            _record(out, line, gains=validate(network), parts=parts, step=done)
    save(parts, step=done, path=out / CHECKPOINT)
    return done


def train_tools(
    network: ToolchainNetwork,
    patches: Patches,
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    out: Path,
    minutes: float,
    validate: Callable[[ToolchainNetwork], dict[str, float]],
) -> int:
    """Train `network.tools` in place through the chains of the frozen agent (Algorithm 1); return the steps done.

    The error at the end of a chain goes back through all its tools: its logarithm, as the agent's reward is. A tool's
    gradient is the mean over its uses in the batch. What is validated, kept and returned is the tools' running mean.
    """
    optimizer = torch.optim.Adam(network.tools.parameters(), lr=learning_rate)
    averaged = copy.deepcopy(network).requires_grad_(False)
    parts: dict[str, Part] = {_LEARNING: network, "optimizer": optimizer, "network": averaged}
    out.mkdir(parents=True, exist_ok=True)
    done = resume(parts, path=out / CHECKPOINT, optional=(_LEARNING,))
    if done and _LEARNING not in torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True):
        network.load_state_dict(averaged.state_dict())
    began = time.monotonic()
    while done < steps and time.monotonic() - began < 60 * minutes:
        rng = np.random.default_rng((seed, 7, done))
        degraded, clean = patches.draw(batch, rng=rng)
        choose = Greedy(network, len(degraded), epsilon=0.0, rng=rng)
        with quick_products("cpu"):
            images, actions = restored(network, degraded, choose=choose)
        loss = log_error(images, clean, weight=None)
        require_finite({"loss": float(loss.detach())}, step=done, out=out)
        optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:  # not where the agent stops at once with every picture
            loss.backward()  # type: ignore[no-untyped-call]
        uses = torch.bincount(actions.flatten(), minlength=STOP + 1)
        for index, tool in enumerate(network.tools, start=1):
            for parameter in tool.parameters():
                if parameter.grad is not None and uses[index]:
                    parameter.grad *= len(degraded) / float(uses[index])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1.0 - 0.95 * done / steps)
        optimizer.step()
        move_mean(averaged.tools.state_dict(), network.tools.state_dict(), decay=_AVERAGING)
        done += 1
        if done % 200 == 0 or done == steps:
            line = {"steps": done, "loss": float(loss.detach())}
            _record(out, line, gains=validate(averaged), parts=parts, step=done)
    save(parts, step=done, path=out / CHECKPOINT)
    network.load_state_dict(averaged.state_dict())
    return done


def _mean(values: list[float]) -> float | None:
    return round(float(np.mean(values)), 5) if values else None


def _record(out: Path, line: dict[str, Any], *, gains: dict[str, float], parts: Mapping[str, Part], step: int) -> None:
    """Log what was validated, keep a checkpoint, and keep it as the best where no mean gain before was higher.

    An agent's gain on mixtures peaks early and falls while its loss goes on falling: what comes after it goes on from
    the best (`finished`).
    """
    log = out / LOG
    mend_log(log)
    rows = read_lines(log)
    gain = round(float(np.mean(list(gains.values()))), 4)
    text = json.dumps({**line, **gains, "gain_db": gain})
    with log.open("a") as file:
        file.write(text + "\n")
    print(text, flush=True)
    save(parts, step=step, path=out / CHECKPOINT)
    if gain > max((row.get("gain_db", -math.inf) for row in rows), default=-math.inf):
        # Nothing is gone on with from there but weights.
        parts = {name: part for name, part in parts.items() if name not in (_REPLAY, _LEARNING)}
        save(parts, step=step, path=out / BEST_CHECKPOINT)


def started_from(start: Path) -> ToolchainNetwork:
    """Return a network with the tools, and if there is one the agent, of a checkpoint folder or file of weights."""
    network = ToolchainNetwork()
    initialize(network.agent)
    if start.suffix == ".safetensors":
        state = {name: value.float() for name, value in load_file(start).items()}
    else:
        state = torch.load(finished(start), map_location="cpu", weights_only=True)["network"]
    missing, unexpected = network.load_state_dict(state, strict=False)
    if unexpected or any(not name.startswith("agent.") for name in missing):
        raise ValueError(
            f"--start-from: {start} holds no tools of RL-Restore; expected a run of rl-restore-tools, of the agent or "
            "of joint training, or rl-restore.safetensors"
        )
    return network


def validation_sets(photographs: Photographs) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the same patches of held-back photographs for every run, at each severity."""
    patches = Patches(photographs.only_held_back(), single_fault_share=0.0)
    sets = {}
    for index, severity in enumerate(mixtures.TOTAL_LEVELS):
        rng = np.random.default_rng((_VALIDATION_SEED, index))
        sets[str(severity)] = patches.draw(_VALIDATED, rng=rng, severity=severity)
    return sets


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.rl_restore.training", description=__doc__)
    parser.add_argument("what", choices=("agent", "joint"))
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of photographs")
    parser.add_argument(
        "--start-from",
        type=Path,
        required=True,
        help="run of the tools, of the agent for joint, or shipped rl-restore.safetensors",
    )
    parser.add_argument("--out", type=Path, required=True)
    usual = AgentSettings()
    parser.add_argument("--actions", type=int, default=usual.actions)
    parser.add_argument("--actions-per-update", type=int, default=usual.actions_per_update)
    parser.add_argument(
        "--first-epsilon", type=float, default=usual.first_epsilon, help="lower for an agent that has learned before"
    )
    parser.add_argument("--steps", type=int, default=200_000, help="of joint training")
    parser.add_argument("--batch", type=int, default=32, help="patches of a step of joint training")
    parser.add_argument(
        "--learning-rate", type=float, default=usual.learning_rate, help="to begin with; larger for a shorter training"
    )
    parser.add_argument(
        "--single-fault-share",
        type=float,
        default=usual.single_fault_share,
        help="of patches of single faults, 0 to 1: the authors' half helps the agent on mild mixtures",
    )
    parser.add_argument(
        "--seed", type=int, default=usual.seed, help="another one for other patches than a stage before it saw"
    )
    parser.add_argument("--minutes", type=float, default=1e9)
    given = parser.parse_args()
    if not 0.0 <= given.single_fault_share <= 1.0:
        parser.error(f"--single-fault-share: got {given.single_fault_share:g}, expected a share between 0 and 1")
    settings = AgentSettings(
        actions=given.actions,
        actions_per_update=given.actions_per_update,
        first_epsilon=given.first_epsilon,
        learning_rate=given.learning_rate,
        single_fault_share=given.single_fault_share,
        seed=given.seed,
    )
    begin_stage(given.out, what=given.what, start_from=given.start_from, seed=given.seed)
    torch.manual_seed(settings.seed)
    network: ToolchainNetwork = started_from(given.start_from).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    photographs = Photographs.below(given.data, hold_back=HELD_BACK)
    sets = validation_sets(photographs)
    patches = Patches(photographs, single_fault_share=settings.single_fault_share)
    if given.what == "agent":
        network.tools.requires_grad_(False)
        train_agent(
            network,
            patches,
            settings=settings,
            out=given.out,
            minutes=given.minutes,
            validate=lambda trained: measure(trained, sets),
        )
    else:
        network.agent.requires_grad_(False)
        train_tools(
            network,
            patches,
            steps=given.steps,
            batch=given.batch,
            learning_rate=given.learning_rate,
            seed=settings.seed,
            out=given.out,
            minutes=given.minutes,
            validate=lambda trained: measure(trained, sets),
        )


if __name__ == "__main__":
    main()
