"""`python -m benchmarks.rl_restore [--data DIR] [--patches N | --views N] [--exhaustive]`: choosing tools, measured.

Protocol: the 12 pairs of 63 x 63 that the authors ship (4 mild, 4 moderate, 4 severe), or with `--patches` N patches a
severity from the pictures of CBSD68, degraded by our recipes (seed = number of the patch). PSNR gain over the degraded
input in dB: RGB, 32-bit floats, peak 1, neither clipped nor rounded for the chains (the paper's reward), clipped for
all others. Chains know nothing of the reference but for those called oracle. The best single tool is the best for each
picture; "one for all" is the tool with the highest mean. Random chains: 3 tools, mean of 32 draws, seed 0.
`--views N` compares instead how the agent may look at larger pictures: N whole pictures of CBSD68 a severity.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from models.degradations.recipes import get_recipe
from models.published.catalogue import SETTING, missing_weights, published_tensors
from models.published.owan import OperationAttentionNetwork
from models.rl_restore.chain import Chain, apply_chains, apply_tools, decide
from models.rl_restore.crops import crops_of_planes
from models.rl_restore.networks import AGENT_SIDE, LARGEST_STEPS, STOP, TOOL_COUNT, ToolchainNetwork
from models.run import Runner, RunSettings
from models.training.photographs import read_rgb

SEVERITIES = ("mild", "moderate", "severe")
OWN_METHODS = ("denoise", "deblock")
RANDOM_DRAWS = 32
PUBLISHED = (
    "paper, 3,584 patches of DIV2K, PSNR (recalled, not re-read): RL-Restore 28.04 / 26.45 / 25.20, "
    "operation-wise attention 28.33 / 27.07 / 25.88: 0.29 / 0.62 / 0.68 dB more"
)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Degraded pictures and references (N, 3, 63, 63) in [0, 1], and the severity of each."""

    degraded: Tensor
    references: Tensor
    severities: tuple[str, ...]


def planes(path: Path) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(read_rgb(path))).permute(2, 0, 1) / 255.0


def stacked(rows: list[tuple[Tensor, Tensor, str]]) -> Pairs:
    inputs, references = torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])
    return Pairs(inputs, references, tuple(row[2] for row in rows))


def official_pairs(data: Path) -> Pairs:
    """The pairs shipped with the authors' code; inputs and references sort alike though two are named otherwise."""
    rows: list[tuple[Tensor, Tensor, str]] = []
    for severity in SEVERITIES:
        folders = [data / "test" / "RL-Restore_test" / f"{severity}_{kind}" for kind in ("in", "gt")]
        inputs, references = (sorted(folder.glob("*.png"), key=lambda path: path.name[0]) for folder in folders)
        rows += [(planes(a), planes(b), severity) for a, b in zip(inputs, references, strict=True)]
    return stacked(rows)


def made_pairs(data: Path, *, count: int) -> Pairs:
    """`count` pairs a severity: each picture halved (as the paper's down-sampled DIV2K), a random place, our recipe."""
    paths = sorted(path for path in (data / "test" / "CBSD68").iterdir() if path.suffix in (".png", ".jpg", ".bmp"))
    rng = np.random.default_rng(0)
    rows: list[tuple[Tensor, Tensor, str]] = []
    for index in range(count * len(SEVERITIES)):
        severity = SEVERITIES[index % len(SEVERITIES)]
        picture = read_rgb(paths[int(rng.integers(len(paths)))])
        small = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        top, left = (int(rng.integers(length - AGENT_SIDE + 1)) for length in small.shape[:2])
        patch = np.ascontiguousarray(small[top : top + AGENT_SIDE, left : left + AGENT_SIDE])
        made = get_recipe(f"rl-restore/{severity}").apply(patch, seed=index)
        degraded, reference = (torch.from_numpy(image).permute(2, 0, 1) for image in (made.image, made.reference))
        rows.append((degraded, reference, severity))
    return stacked(rows)


def psnr_db(images: Tensor, references: Tensor) -> Tensor:
    """PSNR of each picture (N,), with the paper's 1e-10."""
    return -10.0 * torch.log10((images - references).square().mean((1, 2, 3)) + 1e-10)


def greedy(network: ToolchainNetwork, pairs: Pairs, *, may_stop: bool) -> Tensor:
    """PSNR of the chain that takes the tool with the highest true PSNR at each of three steps."""
    images = pairs.degraded
    for _ in range(LARGEST_STEPS):
        candidates = [apply_tools(network, images, actions=[tool] * len(images)) for tool in range(1, TOOL_COUNT + 1)]
        candidates += [images] if may_stop else []
        scores = torch.stack([psnr_db(candidate, pairs.references) for candidate in candidates])
        best = scores.argmax(0)
        images = torch.stack(candidates)[best, torch.arange(len(images))]
    return psnr_db(images, pairs.references)


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
        chains = [tuple(int(action) for action in row) for row in drawn]
        total += psnr_db(apply_chains(network, pairs.degraded, chains=chains), pairs.references)
    return total / RANDOM_DRAWS


def toolchain_rows(pairs: Pairs, *, search_all: bool) -> Iterator[tuple[str, Tensor]]:
    """Yield name and PSNR (N,) of every way to use the released tools."""
    network = ToolchainNetwork().eval().requires_grad_(False)
    network.load_state_dict(published_tensors("rl-restore"), strict=True)
    singles = []
    for tool in range(1, TOOL_COUNT + 1):
        singles.append(
            psnr_db(apply_tools(network, pairs.degraded, actions=[tool] * len(pairs.degraded)), pairs.references)
        )
        yield f"tool {tool} alone", singles[-1]
    scores = torch.stack(singles)
    one = int(scores.mean(1).argmax())
    yield f"best single tool, one for all ({one + 1})", scores[one]
    yield "best single tool of each (oracle)", scores.max(0).values
    yield "random chain of 3", random_chains(network, pairs)
    decisions = decide(network, pairs.degraded, owners=range(len(pairs.degraded)))
    restored = apply_chains(network, pairs.degraded, chains=[decision.chain for decision in decisions])
    yield "released agent", psnr_db(restored, pairs.references)
    yield "greedy oracle, 3 tools", greedy(network, pairs, may_stop=False)
    yield "greedy oracle + stop", greedy(network, pairs, may_stop=True)
    if search_all:
        yield "best of all chains (oracle)", exhaustive(network, pairs)


def other_rows(pairs: Pairs) -> Iterator[tuple[str, Tensor]]:
    """Yield name and PSNR (N,), clipped, of operation-wise attention and of our own methods."""
    if missing_weights("owan") is None:
        network = OperationAttentionNetwork().eval().requires_grad_(False)
        network.load_state_dict(published_tensors("owan"), strict=True)
        restored = torch.cat([network(part) for part in torch.split(pairs.degraded, 32)])
        yield "operation-wise attention, released", psnr_db(restored.clamp(0, 1), pairs.references)
    runner = Runner(RunSettings(device="cpu", precision="float32"))
    results = {}
    for method_id in OWN_METHODS:
        restored = torch.stack([runner.restore_planes(method_id, image) for image in pairs.degraded])
        results[method_id] = restored.clamp(0, 1)
        yield f"our {method_id}", psnr_db(results[method_id], pairs.references)
    restored = torch.stack([runner.restore_planes("denoise", image) for image in results["deblock"]]).clamp(0, 1)
    yield "our deblock, then denoise", psnr_db(restored, pairs.references)


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
        last = torch.zeros_like(last)
        last[:, action - 1] = 1.0
    return chain


def compare_views(data: Path, *, count: int) -> None:
    """Print the mean gain on whole pictures for several ways to show them to the agent."""
    network = ToolchainNetwork().eval().requires_grad_(False)
    network.load_state_dict(published_tensors("rl-restore"), strict=True)
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


def report(pairs: Pairs, rows: Iterator[tuple[str, Tensor]]) -> None:
    """Print mean gain by severity and over all, and the share of pictures made worse by more than 0.1 dB."""
    before = psnr_db(pairs.degraded, pairs.references)
    members = [torch.tensor([severity == name for severity in pairs.severities]) for name in SEVERITIES]
    inputs = "  ".join(f"{float(before[member].mean()):8.2f}" for member in members)
    print(f"{'':<38}" + "  ".join(f"{name:>8}" for name in (*SEVERITIES, "all", "harmed")))
    print(f"{'input, PSNR dB':<38}{inputs}  {float(before.mean()):8.2f}")
    for name, after in rows:
        gains = after - before
        cells = "  ".join(f"{float(gains[member].mean()):+8.2f}" for member in members)
        harmed = f"{100 * float((gains < -0.1).float().mean()):6.1f} %"
        print(f"{name:<38}{cells}  {float(gains.mean()):+8.2f}  {harmed}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rl_restore", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LACUNA_DATA", "../shared/data")))
    parser.add_argument("--patches", type=int, help="N patches a severity made from CBSD68 instead of the 12 pairs")
    parser.add_argument("--exhaustive", action="store_true", help="also search all 1,884 chains (minutes)")
    parser.add_argument("--views", type=int, help="compare ways to look at larger pictures, on N a severity")
    arguments = parser.parse_args()
    if not (arguments.data / "test").is_dir():
        parser.error(f"--data: {arguments.data} holds no test/; point it or LACUNA_DATA at the data sets")
    os.environ.setdefault(SETTING, str(arguments.data / "parity"))
    reason = missing_weights("rl-restore")
    if reason:
        parser.error(reason)
    if arguments.views:
        with torch.inference_mode():
            compare_views(arguments.data, count=arguments.views)
        return
    pairs = made_pairs(arguments.data, count=arguments.patches) if arguments.patches else official_pairs(arguments.data)
    print(f"{len(pairs.severities)} pictures of {AGENT_SIDE} x {AGENT_SIDE}, PSNR gain over the input, dB")
    with torch.inference_mode():
        report(pairs, toolchain_rows(pairs, search_all=arguments.exhaustive))
        report(pairs, other_rows(pairs))
    print(PUBLISHED)


if __name__ == "__main__":
    main()
