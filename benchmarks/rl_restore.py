"""`python -m benchmarks.rl_restore [--data DIR] [--patches N] [--trained NAME=FOLDER …] [--ablations] [--exhaustive]`.

Choosing tools, measured. Protocol: the 12 pairs of 63 x 63 that the authors of RL-Restore ship (4 mild, 4 moderate, 4
severe), or with `--patches` N patches a severity from the pictures of CBSD68, degraded by our recipes (seed = number of
the patch). PSNR gain over the degraded input in dB: RGB, 32-bit floats, peak 1, neither clipped nor rounded for the
chains (the paper's reward), clipped for all others. Chains know nothing of the reference but for those called oracle.
The best single tool is the best for each picture; "one for all" is the tool with the highest mean. Random chains: 3
tools, mean of 32 draws, seed 0. Chains: the authors' weights where they are given, ours, and with `--trained` any run:
NAME is one of models.rl_restore.baselines (`rl-restore-NAME` trains it), or anything else for an agent with its tools.
`--ablations` (benchmarks.rl_restore_ablations) adds what the parts of every system are worth.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.rl_restore_ablations import ablation_rows, greedy
from benchmarks.rl_restore_pairs import SEVERITIES, Pairs, made_pairs, official_pairs
from models.published.catalogue import SETTING, missing_weights, published_tensors
from models.published.owan import OperationAttentionNetwork
from models.rl_restore.baselines import NETWORKS
from models.rl_restore.chain import apply_chains, apply_tools, decide
from models.rl_restore.episodes import psnr_db
from models.rl_restore.export import finished
from models.rl_restore.networks import AGENT_SIDE, LARGEST_STEPS, STOP, TOOL_COUNT, ToolchainNetwork
from models.run import Runner, RunSettings
from models.training.checkpoints import CHECKPOINT
from models.weights import load_weights

OWN_METHODS = ("denoise", "deblock", "all-in-one")
RANDOM_DRAWS = 32
PUBLISHED = (
    "paper, 3,584 patches of DIV2K, PSNR (recalled, not re-read): RL-Restore 28.04 / 26.45 / 25.20, "
    "operation-wise attention 28.33 / 27.07 / 25.88: 0.29 / 0.62 / 0.68 dB more"
)


def chains(trained: dict[str, Path]) -> Iterator[tuple[str, ToolchainNetwork]]:
    """Yield every agent with its tools: the authors', ours, and those of runs."""
    states = {"ours": load_weights("rl-restore")}
    if missing_weights("rl-restore-released") is None:
        states = {"released": published_tensors("rl-restore-released"), **states}
    for name, folder in trained.items():
        if name not in NETWORKS:
            states[name] = torch.load(finished(folder), map_location="cpu", weights_only=True)["network"]
    for name, state in states.items():
        network = ToolchainNetwork()
        network.load_state_dict(state, strict=True)
        yield name, network.eval().requires_grad_(False)


def exhaustive(network: ToolchainNetwork, pairs: Pairs) -> Tensor:
    """PSNR of the best of all chains of at most three tools."""

    def best_after(images: Tensor, *, left: int) -> Tensor:
        best = psnr_db(images, pairs.references)
        for tool in range(1, TOOL_COUNT + 1) if left else ():
            following = apply_tools(network, images, actions=[tool] * len(images))
            best = torch.maximum(best, best_after(following, left=left - 1))
        return best

    return best_after(pairs.degraded, left=LARGEST_STEPS)


def random_chains(network: ToolchainNetwork, pairs: Pairs) -> Tensor:
    """Mean PSNR over random chains of three tools."""
    rng = np.random.default_rng(0)
    total = torch.zeros(len(pairs.degraded))
    for _ in range(RANDOM_DRAWS):
        drawn = rng.integers(1, STOP, (len(pairs.degraded), LARGEST_STEPS))
        total += psnr_db(
            apply_chains(network, pairs.degraded, chains=list(map(tuple, drawn.tolist()))), pairs.references
        )
    return total / RANDOM_DRAWS


def toolchain_rows(network: ToolchainNetwork, pairs: Pairs, *, search_all: bool) -> Iterator[tuple[str, Tensor]]:
    """Yield name and PSNR (N,) of every way to use one set of tools."""
    single = [
        psnr_db(apply_tools(network, pairs.degraded, actions=[tool] * len(pairs.degraded)), pairs.references)
        for tool in range(1, TOOL_COUNT + 1)
    ]
    scores = torch.stack(single)
    one = int(scores.mean(1).argmax())
    yield f"best single tool, one for all ({one + 1})", scores[one]
    yield "best single tool of each (oracle)", scores.max(0).values
    yield "random chain of 3", random_chains(network, pairs)
    decisions = decide(network, pairs.degraded, owners=range(len(pairs.degraded)))
    restored = apply_chains(network, pairs.degraded, chains=[decision.chain for decision in decisions])
    yield "agent", psnr_db(restored, pairs.references)
    yield "greedy oracle, 3 tools", greedy(network, pairs, may_stop=False)
    yield "greedy oracle + stop", greedy(network, pairs, may_stop=True)
    if search_all:
        yield "best of all chains (oracle)", exhaustive(network, pairs)


def single_networks(trained: dict[str, Path]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the networks that restore in one step: the authors' attention over operations, and runs."""
    if missing_weights("owan") is None:
        released = OperationAttentionNetwork()
        released.load_state_dict(published_tensors("owan"), strict=True)
        yield "operation-wise attention, released", released.eval().requires_grad_(False)
    for name, folder in trained.items():
        if name in NETWORKS:
            network = NETWORKS[name]()
            state = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
            network.load_state_dict(state["network"], strict=True)
            yield f"{name}, {state['step']} steps", network.eval().requires_grad_(False)


def other_rows(pairs: Pairs, trained: dict[str, Path]) -> Iterator[tuple[str, Tensor]]:
    """Yield name and PSNR (N,), clipped, of single networks and of our own methods."""
    for name, network in single_networks(trained):
        restored = torch.cat([network(part) for part in torch.split(pairs.degraded, 32)])
        yield name, psnr_db(restored.clamp(0, 1), pairs.references)
    runner = Runner(RunSettings(device="cpu", precision="float32"))
    results = {}
    for method_id in OWN_METHODS:
        restored = torch.stack([runner.restore_planes(method_id, image) for image in pairs.degraded])
        results[method_id] = restored.clamp(0, 1)
        yield f"our {method_id}", psnr_db(results[method_id], pairs.references)
    restored = torch.stack([runner.restore_planes("denoise", image) for image in results["deblock"]]).clamp(0, 1)
    yield "our deblock, then denoise", psnr_db(restored, pairs.references)


def report(pairs: Pairs, rows: Iterator[tuple[str, Tensor]], *, title: str) -> None:
    """Print mean gain by severity and over all, and the share of pictures made worse by more than 0.1 dB."""
    before = psnr_db(pairs.degraded, pairs.references)
    members = [torch.tensor([severity == name for severity in pairs.severities]) for name in SEVERITIES]
    inputs = "  ".join(f"{float(before[member].mean()):8.2f}" for member in members)
    print(f"\n{title:<38}" + "  ".join(f"{name:>8}" for name in (*SEVERITIES, "all", "harmed")))
    print(f"{'input, PSNR dB':<38}{inputs}  {float(before.mean()):8.2f}")
    for name, after in rows:
        gains = after - before
        cells = "  ".join(f"{float(gains[member].mean()):+8.2f}" for member in members)
        harmed = f"{100 * float((gains < -0.1).float().mean()):6.1f} %"
        print(f"{name:<38}{cells}  {float(gains.mean()):+8.2f}  {harmed}", flush=True)


def gmac(network: nn.Module, *, side: int = AGENT_SIDE) -> float:
    """Return the billions of multiply-accumulates of one picture."""
    with FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 3, side, side))
    return float(counter.get_total_flops() / 2e9)


def toolchain_gmac(system: ToolchainNetwork) -> tuple[float, float]:
    """Return the GMAC of a 63 x 63 picture for three looks and three tools: of average ones, and of the largest.

    The paper says 0.474 of the former: every tool comes after a look of its own.
    """
    memory, last = system.agent.start(1), torch.zeros(1, TOOL_COUNT)
    with FlopCounterMode(display=False) as counter:
        system.agent(torch.rand(1, 3, AGENT_SIDE, AGENT_SIDE), last, memory)
    looking, tools = counter.get_total_flops() / 2e9, [gmac(tool) for tool in system.tools]
    return LARGEST_STEPS * (looking + sum(tools) / len(tools)), LARGEST_STEPS * (looking + max(tools))


def print_costs() -> None:
    """Print parameters and GMAC a picture of 63 x 63 of all networks, RL-Restore's in the paper's way and whole."""
    system = ToolchainNetwork().eval()
    tools = [sum(value.numel() for value in tool.parameters()) for tool in system.tools]
    agent = sum(value.numel() for value in system.agent.parameters())
    average, largest = toolchain_gmac(system)
    print(f"\n{'':<38}{'parameters':>12}  {'GMAC of 63 x 63':>16}")
    print(f"{'3 looks, 3 average tools (paper)':<38}{agent + sum(tools) // 4:>12,}  {average:>16.3f}")
    print(f"{'whole system, 3 looks, 3 large tools':<38}{agent + sum(tools):>12,}  {largest:>16.3f}")
    for name, make in NETWORKS.items():
        if name != "tools":
            network = make().eval()
            print(f"{name:<38}{sum(p.numel() for p in network.parameters()):>12,}  {gmac(network):>16.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rl_restore", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LACUNA_DATA", "../shared/data")))
    parser.add_argument("--patches", type=int, help="N patches a severity made from CBSD68 instead of the 12 pairs")
    parser.add_argument("--trained", nargs="*", default=[], metavar="NAME=FOLDER", help="runs to measure as well")
    parser.add_argument("--ablations", action="store_true", help="also what stop, order, steps and tools are worth")
    parser.add_argument("--exhaustive", action="store_true", help="also search all 1,884 chains (minutes)")
    arguments = parser.parse_args()
    if not (arguments.data / "test").is_dir():
        parser.error(f"--data: {arguments.data} holds no test/; point it or LACUNA_DATA at the data sets")
    os.environ.setdefault(SETTING, str(arguments.data / "parity"))
    trained = {name: Path(folder) for name, _, folder in (text.partition("=") for text in arguments.trained)}
    for name, folder in trained.items():
        if not (folder / CHECKPOINT).is_file():
            parser.error(f"--trained: got {name}={folder}, expected a run's folder with {CHECKPOINT} in it")
    pairs = made_pairs(arguments.data, count=arguments.patches) if arguments.patches else official_pairs(arguments.data)
    print(f"{len(pairs.severities)} pictures of {AGENT_SIDE} x {AGENT_SIDE}, PSNR gain over the input, dB")
    with torch.inference_mode():
        for name, network in chains(trained):
            report(pairs, toolchain_rows(network, pairs, search_all=arguments.exhaustive), title=f"tools: {name}")
            if arguments.ablations:
                report(pairs, ablation_rows(network, pairs), title=f"without parts: {name}")
        report(pairs, other_rows(pairs, trained), title="one step")
        print_costs()
    print(PUBLISHED)


if __name__ == "__main__":
    main()
