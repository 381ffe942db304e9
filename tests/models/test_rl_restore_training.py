"""Training of RL-Restore: faults by tool, episodes and their rewards, values along episodes, and both loops."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.rl_restore.chain import apply_tools, decide
from models.rl_restore.episodes import Greedy, Replay, play, psnr_db, restored
from models.rl_restore.export import begin_stage, export, finished, stages
from models.rl_restore.networks import AGENT_SIDE, STOP, TOOL_COUNT, ToolchainNetwork
from models.rl_restore.tool_training import Toolbox, ToolFaults
from models.rl_restore.training import (
    AgentSettings,
    Patches,
    initialize,
    measure,
    q_loss,
    started_from,
    train_agent,
    train_tools,
    unrolled,
)
from models.training.checkpoints import CHECKPOINT
from models.training.photographs import Photographs
from models.training.recipes import get_recipe
from models.weights import WEIGHTS_FOLDER, load_card, load_weights


def photographs() -> Photographs:
    rows, columns = np.mgrid[0:200, 0:220]
    pictures = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        wave = [
            127 + 100 * np.sin(rows / rng.uniform(3, 20) + k) * np.cos(columns / rng.uniform(3, 20)) for k in range(3)
        ]
        pictures.append(np.stack(wave, axis=2).astype(np.uint8))
    return Photographs(pictures)


@pytest.fixture
def network() -> ToolchainNetwork:
    torch.manual_seed(0)
    made = ToolchainNetwork()
    initialize(made.agent)
    return made


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    return Patches(photographs(), single_fault_share=0.5).draw(8, rng=np.random.default_rng(0))


def test_each_patch_has_the_fault_of_its_tool_and_the_same_seed_gives_the_same_batch() -> None:
    clean = torch.rand(2 * TOOL_COUNT, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    example = ToolFaults(slight_share=0.0)(clean, np.random.default_rng(3))
    again = ToolFaults(slight_share=0.0)(clean, np.random.default_rng(3))
    torch.testing.assert_close(example.network_input, again.network_input, rtol=0, atol=0)
    change = (example.network_input - clean).square().mean((1, 2, 3)).sqrt() * 255
    for index, spec in ((4, (0, 12.5)), (5, (12.5, 25)), (6, (25, 37.5)), (7, (37.5, 50))):
        for patch in (index, index + TOOL_COUNT):  # clipping takes some of the noise away
            assert 0.6 * spec[0] <= float(change[patch]) <= 1.1 * spec[1] + 0.5
    torch.testing.assert_close(example.target, clean, rtol=0, atol=0)


def test_the_toolbox_gives_patch_n_to_tool_n_mod_twelve() -> None:
    torch.manual_seed(0)
    box = Toolbox()
    images = torch.rand(2 * TOOL_COUNT, 3, 20, 20)
    results = box(images)
    for index in (0, 7, 12, 19):
        torch.testing.assert_close(results[index], box.tools[index % TOOL_COUNT](images[index : index + 1])[0])
    with pytest.raises(ValueError, match="multiple of 12"):
        box(images[:5])
    assert sum(parameter.numel() for parameter in box.parameters()) == 436_068


def test_rewards_add_up_and_nothing_follows_an_end(network: ToolchainNetwork, pair: tuple) -> None:
    degraded, clean = pair
    script = [[1, 13, 5, 7, 9, 11, 13, 2][: len(degraded)], [6] * len(degraded), [13] * len(degraded)]
    played = play(network, degraded, clean, choose=lambda states, last, step: script[step], end_when_worse=False)
    torch.testing.assert_close(played.rewards.sum(1), played.after - played.before, rtol=1e-4, atol=1e-3)
    assert played.actions[1].tolist() == [STOP, 0, 0]
    assert played.actions[0].tolist() == [1, 6, STOP]
    assert played.ended[0].tolist() == [False, False, True]
    by_hand = apply_tools(network, apply_tools(network, degraded[:1], actions=[1]), actions=[6])
    torch.testing.assert_close(played.after[:1], psnr_db(by_hand, clean[:1]), rtol=1e-4, atol=1e-3)

    def spoil(states: torch.Tensor, last: torch.Tensor, step: int) -> list[int]:
        return [3] * len(states)

    with torch.no_grad():
        network.tools[2].conv3.bias += 1.0
    ended = play(network, degraded, clean, choose=spoil)
    assert ended.ended[:, 0].all()
    assert (ended.rewards[:, 0] < 0).all()


def test_values_along_an_episode_are_those_the_agent_decides_by(network: ToolchainNetwork, pair: tuple) -> None:
    degraded, clean = pair
    played = play(
        network,
        degraded,
        clean,
        choose=Greedy(network, len(degraded), epsilon=0.0, rng=np.random.default_rng(0)),
        end_when_worse=False,
    )
    values = unrolled(network.agent, played.states, played.actions)
    for index, decision in enumerate(decide(network, degraded, owners=list(range(len(degraded))))):
        length = len(decision.chain)
        assert played.actions[index, :length].tolist() == list(decision.chain)
        torch.testing.assert_close(values[index, :length], torch.tensor(decision.values), rtol=1e-3, atol=1e-4)


def test_replay_keeps_the_newest(network: ToolchainNetwork, pair: tuple) -> None:
    replay = Replay(10)
    for action in (1, 2, 3):
        replay.add(play(network, *pair, choose=lambda states, last, step, a=action: [a] * len(states)))
    assert replay.filled == 10
    states, actions, rewards, ended = replay.draw(64, rng=np.random.default_rng(0))
    assert states.shape == (64, 3, 3, AGENT_SIDE, AGENT_SIDE)
    assert set(actions[:, 0].tolist()) <= {2, 3}
    assert rewards.shape == ended.shape == (64, 3)


def test_learning_values_of_fixed_episodes_lowers_their_loss(network: ToolchainNetwork, pair: tuple) -> None:
    replay, rng = Replay(16), np.random.default_rng(0)
    for _ in range(2):
        replay.add(play(network, *pair, choose=Greedy(network, len(pair[0]), epsilon=1.0, rng=rng)))
    target, batch = copy.deepcopy(network.agent), replay.draw(8, rng=rng)
    optimizer = torch.optim.Adam(network.agent.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = q_loss(network.agent, target, batch, discount=0.99)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_both_loops_go_on_where_they_stopped(network: ToolchainNetwork, tmp_path: Path) -> None:
    patches = Patches(photographs(), single_fault_share=0.5)
    sets = {"moderate": patches.draw(4, rng=np.random.default_rng(9), severity="moderate")}
    settings = AgentSettings(actions=12, together=4, actions_per_update=4, replay_episodes=16, least_replay=4)
    validate = lambda trained: measure(trained, sets)  # noqa: E731
    agent = tmp_path / "agent"
    first = train_agent(network, patches, settings=settings, out=agent, minutes=0.0, validate=validate)
    assert first == 0
    done = train_agent(network, patches, settings=settings, out=agent, minutes=9.0, validate=validate)
    assert done >= 12
    assert train_agent(network, patches, settings=settings, out=agent, minutes=9.0, validate=validate) == done

    with torch.no_grad():
        network.agent.q.bias[STOP - 1] = -100.0  # so that tools are used
    before = copy.deepcopy(network.tools.state_dict())
    given = {"batch": 3, "learning_rate": 1e-3, "seed": 1, "minutes": 9.0, "validate": validate}
    assert train_tools(network, patches, steps=3, out=tmp_path / "joint", **given) == 3
    changed = [name for name, value in network.tools.state_dict().items() if not torch.equal(value, before[name])]
    assert changed
    assert train_tools(network, patches, steps=3, out=tmp_path / "joint", **given) == 3


def test_joint_training_keeps_the_running_mean_and_goes_on_from_what_it_learned(
    network: ToolchainNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        network.agent.q.bias[STOP - 1] = -100.0
    patches = Patches(photographs(), single_fault_share=0.5)
    given = {"batch": 2, "learning_rate": 1e-3, "seed": 1, "validate": lambda trained: {"mild": 0.0}}
    unbroken, broken = copy.deepcopy(network), network
    train_tools(unbroken, patches, steps=2, out=tmp_path / "a", minutes=9.0, **given)
    clock = iter([0.0, 0.0, 600.0])  # began, before the first step, after it
    with monkeypatch.context() as patched:
        patched.setattr("models.rl_restore.training.time", SimpleNamespace(monotonic=lambda: next(clock)))
        assert train_tools(broken, patches, steps=2, out=tmp_path / "b", minutes=9.0, **given) == 1
    assert train_tools(broken, patches, steps=2, out=tmp_path / "b", minutes=9.0, **given) == 2
    states = [torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in "ab"]
    for part in ("network", "learning"):
        assert all(torch.equal(value, states[1][part][name]) for name, value in states[0][part].items())
    assert any(not torch.equal(value, states[0]["learning"][name]) for name, value in states[0]["network"].items())
    assert all(torch.equal(value, states[0]["network"][name]) for name, value in unbroken.state_dict().items())


def test_an_agent_that_stopped_and_goes_on_is_that_of_an_uninterrupted_training(
    network: ToolchainNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches = Patches(photographs(), single_fault_share=0.5)
    settings = AgentSettings(
        actions=60, together=4, actions_per_update=2, replay_episodes=24, least_replay=4, batch=8, learning_rate=1e-2
    )

    def run(folder: str, *, rounds: int | None = None) -> tuple[int, dict[str, torch.Tensor]]:
        clock = itertools.count()
        # A clock of this module alone: threads of the test's own machinery look at the real one.
        monkeypatch.setattr("models.rl_restore.training.time", SimpleNamespace(monotonic=lambda: next(clock)))
        trained = copy.deepcopy(network)
        done = train_agent(
            trained,
            patches,
            settings=settings,
            out=tmp_path / folder,
            minutes=1e9 if rounds is None else (rounds + 0.5) / 60,
            validate=lambda _: {},
        )
        return done, trained.agent.state_dict()

    whole, wanted = run("whole")
    part, _ = run("stopped", rounds=3)
    assert 12 <= part < whole
    done, found = run("stopped")
    assert done == whole
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    state = torch.load(tmp_path / "stopped" / CHECKPOINT, weights_only=True)
    del state["replay"]  # as of an earlier version
    torch.save(state, tmp_path / "stopped" / CHECKPOINT)
    assert run("stopped")[0] == whole


def test_a_memory_of_episodes_is_kept_without_what_was_not_played(network: ToolchainNetwork, pair: tuple) -> None:
    replay, rng = Replay(12), np.random.default_rng(0)
    for _ in range(2):  # of 8 episodes each: the first four are forgotten
        replay.add(play(network, *pair, choose=Greedy(network, 8, epsilon=1.0, rng=rng)))
    state, again = replay.state_dict(), Replay(12)
    assert len(state["states"]) == int((state["actions"] > 0).sum()) < 36
    again.load_state_dict(state)
    drawn = [one.draw(64, rng=np.random.default_rng(1)) for one in (replay, again)]
    assert all(torch.equal(first, second) for first, second in zip(*drawn, strict=True))
    with pytest.raises(ValueError, match="got 12 episodes, expected at most 8"):
        Replay(8).load_state_dict(state)


def test_the_best_validation_is_what_the_next_stage_goes_on_from(network: ToolchainNetwork, tmp_path: Path) -> None:
    patches = Patches(photographs(), single_fault_share=0.5)
    gains = iter([1.0, 3.0, 2.0])
    validate = lambda trained: {"mild": 0.0, "severe": next(gains)}  # noqa: E731
    given = {"batch": 2, "learning_rate": 1e-3, "seed": 1, "minutes": 9.0, "validate": validate}
    with torch.no_grad():
        network.agent.q.bias[STOP - 1] = -100.0
    for steps in (1, 2, 3):
        assert train_tools(network, patches, steps=steps, out=tmp_path, **given) == steps
    kept = torch.load(finished(tmp_path), weights_only=True)
    last = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert (kept["step"], last["step"]) == (2, 3)
    assert any(not torch.equal(value, last["network"][name]) for name, value in kept["network"].items())
    assert stages(tmp_path) == ["tools: 2 steps"]


def test_chains_restored_with_gradients_are_those_that_are_played(network: ToolchainNetwork, pair: tuple) -> None:
    degraded, clean = pair
    choices = [[3, STOP, 1], [STOP, 2, 2], [5, 5, 5]]

    def choose(states: torch.Tensor, last: torch.Tensor, step: int) -> list[int]:
        return [choices[step][n % 3] for n in range(len(states))]

    played = play(network, degraded, clean, choose=choose, end_when_worse=False)
    images, actions = restored(network, degraded, choose=choose)
    torch.testing.assert_close(psnr_db(images.detach(), clean), played.after)
    assert torch.equal(actions, torch.where(played.actions > 0, played.actions, STOP))
    images.square().mean().backward()
    learnt = {n for n, tool in enumerate(network.tools, start=1) if any(p.grad is not None for p in tool.parameters())}
    assert learnt == set(actions.flatten().tolist()) - {STOP}


def test_a_shipped_system_says_how_all_its_parts_were_made(tmp_path: Path, network: ToolchainNetwork) -> None:
    steps = {"tools": 9000, "agent": 150_000, "joint": 4000}
    for name, done in steps.items():
        (tmp_path / name).mkdir()
        torch.save({"network": network.state_dict(), "step": done}, tmp_path / name / CHECKPOINT)
    begin_stage(tmp_path / "agent", what="agent", start_from=tmp_path / "tools", seed=1)
    begin_stage(tmp_path / "joint", what="joint", start_from=tmp_path / "agent", seed=2)
    begin_stage(tmp_path / "joint", what="joint", start_from=tmp_path / "joint", seed=3)  # going on: the note stays
    assert stages(tmp_path / "joint") == ["tools: 9000 steps", "agent: 150000 actions", "joint: 4000 steps"]
    card = export(tmp_path / "joint", folder=tmp_path)
    assert card.parameters == 523_931
    assert (card.steps, card.seed) == (4000, 2)
    assert "agent: 150000 actions" in card.command


def test_a_training_goes_on_from_shipped_weights_and_knows_what_they_had(tmp_path: Path) -> None:
    begun = started_from(WEIGHTS_FOLDER / "rl-restore.safetensors").state_dict()
    shipped = load_weights("rl-restore")
    assert all(torch.equal(value, shipped[name].float()) for name, value in begun.items())
    begin_stage(tmp_path, what="joint", start_from=WEIGHTS_FOLDER / "rl-restore.safetensors", seed=2)
    torch.save({"network": begun, "step": 7}, tmp_path / CHECKPOINT)
    before = load_card("rl-restore").command
    assert export(tmp_path, folder=tmp_path).command == f"{before}, joint: 7 steps"


@pytest.mark.parametrize(
    ("name", "parameters"), [("vdsr", 667_008), ("vdsr-s", 211_896), ("dncnn", 669_379), ("single", 520_515)]
)
def test_single_networks_begin_as_the_identity(name: str, parameters: int) -> None:
    single = get_recipe(f"rl-restore-{name}").network()
    assert sum(value.numel() for value in single.parameters()) == parameters
    images = torch.rand(2, 3, 20, 17)
    torch.testing.assert_close(single(images), images, rtol=0, atol=1e-6)


def test_learning_rate_and_exploration_go_down_as_the_authors_did() -> None:
    whole = AgentSettings()
    assert whole.epsilon(0) == 1.0
    assert whole.epsilon(500_000) == pytest.approx(0.55)
    assert whole.epsilon(1_500_000) == 0.1
    assert whole.rate(1_000_000) == pytest.approx(5e-5)
    assert whole.rate(10_000_000) == 2.5e-5
    assert AgentSettings(first_epsilon=0.3).epsilon(500_000) == pytest.approx(0.2)
    assert AgentSettings(actions=20_000).epsilon(5_000) == pytest.approx(whole.epsilon(500_000))
