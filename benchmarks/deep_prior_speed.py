"""Iterations a second of Deep Image Prior against the plain form of the same network.

    python -m benchmarks.deep_prior_speed [--presets inpaint-half-missing …] [--sides 256 512] [--turns 3] [--threads 2]

Plain: as the authors' notebooks run it: fp32, memory given back to the system, one step after the other. Ours: what
`models.deep_prior.fitting.fit` does: bf16 on a CPU where it pays, channels last, freed memory kept, and the gradients
of the convolution of the enlarged picture at the small size. Each turn runs both in processes of their own, in
alternation; printed are the medians, the median of the turns' ratios, and the peak memory of the processes (on Linux).
On a GPU also the rate of floating point operations of the plain network's count and the share of what a large matrix
product reaches there.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.deep_prior.data_terms import WholePicture
from models.deep_prior.fitting import fit, with_budget
from models.deep_prior.networks import quickened
from models.deep_prior.picture_fit import first_source, untrained
from models.deep_prior.settings import PUBLISHED, Preset
from models.device import quick_products, resolve_device

TARGET_RATIO = 3.0
WARM_UP = 2


def plain_seconds(preset: Preset, *, side: int, iterations: int, device: str) -> float:
    """Return the seconds of an iteration of a loop as simple as can be."""
    network = untrained(preset, in_channels=preset.fit.source_channels, out_channels=3, seed=0).to(device)
    quickened(network, quick=False)
    source = first_source(preset, height=side, width=side, seed=0).to(device)
    observed = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=preset.fit.learning_rate)
    began = 0.0
    for iteration in range(iterations + WARM_UP):
        if iteration == WARM_UP:
            began = _now(device)
        optimizer.zero_grad()
        output = network(source + preset.fit.perturbation * torch.randn_like(source))
        loss = torch.nn.functional.mse_loss(output, observed)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return (_now(device) - began) / iterations


def our_seconds(preset: Preset, *, side: int, iterations: int, device: str) -> float:
    """Return the seconds of an iteration of `fit`."""
    observed = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    times: list[float] = []
    with quick_products(device):
        fit(
            WholePicture(observed),
            preset=with_budget(preset, iterations=iterations + WARM_UP),
            seed=0,
            progress=lambda told: times.append(_now(device)),
        )
    return (times[-1] - times[WARM_UP - 1]) / iterations


def operations(preset: Preset, *, side: int) -> float:
    """Return the floating point operations of an iteration of the plain network, forward and backward."""
    network = quickened(untrained(preset, in_channels=preset.fit.source_channels, out_channels=3, seed=0), quick=False)
    with FlopCounterMode(display=False) as counter:
        network(first_source(preset, height=side, width=side, seed=0)).sum().backward()
    return float(counter.get_total_flops())


def peak_rate(device: str) -> float:
    """Return the operations a second of a large bf16 matrix product."""
    side = 8192
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    left @ right
    began = _now(device)
    for _ in range(10):
        left @ right
    return 10 * 2 * side**3 / (_now(device) - began)


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def measured(form: str, *, preset: str, side: int, iterations: int, threads: int, device: str) -> tuple[float, float]:
    """Return (seconds of an iteration, peak memory in GB) of a process of its own: the allocator cannot be set back."""
    command = [sys.executable, "-m", "benchmarks.deep_prior_speed", "--form", form, "--presets", preset]
    command += ["--sides", str(side), "--iterations", str(iterations), "--threads", str(threads), "--device", device]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    return float(found["seconds"]), float(found["peak_gb"])


def compare(preset: str, *, side: int, given: argparse.Namespace, device: str) -> None:
    """Print one line of iterations a second and their ratio."""
    turns: dict[str, list[float]] = {"plain": [], "ours": []}
    memory = dict.fromkeys(turns, 0.0)
    kept = {"iterations": given.iterations, "threads": given.threads, "device": device}
    for _ in range(given.turns):
        for form, seconds in turns.items():
            took, peak = measured(form, preset=preset, side=side, **kept)
            seconds.append(took)
            memory[form] = max(memory[form], peak)
    rates = {form: 1 / statistics.median(seconds) for form, seconds in turns.items()}
    ratio = statistics.median(a / b for a, b in zip(turns["plain"], turns["ours"], strict=True))
    line = f"{preset:22} {side:4} px  plain {rates['plain']:7.3f} it/s  ours {rates['ours']:7.3f} it/s  "
    line += f"ratio {ratio:.2f} (aim {TARGET_RATIO})  memory {memory['plain']:.2f} and {memory['ours']:.2f} GB"
    if device.startswith("cuda"):
        rate = operations(PUBLISHED[preset], side=side) * rates["ours"]
        line += f"  {rate / 1e12:.1f} TFLOP/s, {rate / peak_rate(device):.0%} of a matrix product's"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=PUBLISHED, default=["inpaint-half-missing", "inpaint-text"])
    parser.add_argument("--sides", nargs="+", type=int, default=[256, 512])
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--form", choices=("plain", "ours"), help="measure one form here and print it as JSON")
    given = parser.parse_args()
    device = resolve_device(given.device)
    torch.set_num_threads(given.threads)
    for preset in given.presets:
        for side in given.sides:
            if given.form is None:
                compare(preset, side=side, given=given, device=device)
            else:
                measure = plain_seconds if given.form == "plain" else our_seconds
                seconds = measure(PUBLISHED[preset], side=side, iterations=given.iterations, device=device)
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
                print(json.dumps({"seconds": seconds, "peak_gb": peak}))


if __name__ == "__main__":
    main()
