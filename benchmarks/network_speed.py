"""How much faster a shipped network infers and trains than in its naive form, on the CPU.

Naive: fp32, NCHW memory, eager. Ours: channels_last, and bf16 where this CPU is quicker at it, as `models.run` and
`models.training.loop` do. Both take turns in one process and on the same tensors; printed is the median of the turns'
ratios. With --compiled our training step is compared with the same under `torch.compile` instead: above 1, compiling
would pay.

    python -m benchmarks.network_speed [--method denoise] [--side 512] [--turns 5] [--threads 2] [--compiled]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models import registry
from models.device import quick_products
from models.training.loop import Schedule
from models.training.losses import charbonnier
from models.training.optimizer import ConvolutionMuon

TARGET_RATIO = 4.0
TRAINING_SHAPE = (4, 128)


def seconds_of(call: Callable[[], object], *, repeats: int) -> float:
    """Return the mean seconds of a call."""
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats


def inference(network: nn.Module, pictures: Tensor, *, fast: bool) -> Callable[[], object]:
    """Return a call that restores `pictures` (B, C, H, W)."""
    layout = torch.channels_last if fast else torch.contiguous_format
    ready = network.eval().to(memory_format=layout)  # type: ignore[call-overload]
    entry = pictures.contiguous(memory_format=layout)

    def run() -> None:
        with torch.inference_mode(), quick_products("cpu", allowed=fast):
            ready(entry)

    return run


def training_step(network: nn.Module, pictures: Tensor, *, fast: bool, compiled: bool = False) -> Callable[[], object]:
    """Return a call that does one optimizer step on `pictures`; Muon in the fast form, AdamW in the naive one."""
    layout = torch.channels_last if fast else torch.contiguous_format
    ready = network.train().to(memory_format=layout)  # type: ignore[call-overload]
    entry = pictures.contiguous(memory_format=layout)
    target = entry[:, :3].contiguous()
    schedule = Schedule(steps=1)
    adamw = torch.optim.AdamW(ready.parameters(), lr=schedule.peak_lr)
    muon = ConvolutionMuon(ready, weight_decay=schedule.weight_decay)
    forward = torch.compile(ready) if compiled else ready

    def run() -> None:
        with quick_products("cpu", allowed=fast):
            output = forward(entry)
        ready.zero_grad(set_to_none=True)
        charbonnier(output.float(), target, weight=None).backward()  # type: ignore[no-untyped-call]
        if fast:
            muon.step(lr=1e-6, clip_norm=schedule.clip_norm)
        else:
            adamw.step()

    return run


def compare(calls: dict[str, Callable[[], object]], *, turns: int, repeats: int) -> dict[str, float]:
    """Return the seconds of both forms and the median of their ratios, first over second; they alternate."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            seconds[name].append(seconds_of(call, repeats=repeats))
    ratios = [first / second for first, second in zip(*seconds.values(), strict=True)]
    result = {f"{name}_seconds": round(statistics.median(values), 4) for name, values in seconds.items()}
    return {**result, "ratio": round(statistics.median(ratios), 2)}


def main() -> None:
    """Print both comparisons as JSON; exit code 1 when one ratio is below the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="denoise")
    parser.add_argument("--side", type=int, default=512, help="pictures for inference are this many pixels wide")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compiled", action="store_true", help="compare our training step with the same, compiled")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    method = registry.get_method(given.method)
    network = method.build()
    channels = next(network.parameters()).shape[1] // int(getattr(network, "unshuffle", 1)) ** 2
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand((1, channels, given.side, given.side), generator=generator)
    count, side = TRAINING_SHAPE
    patches = torch.rand((count, channels, side, side), generator=generator)
    if given.compiled:
        steps = {
            "ours": training_step(method.build(), patches, fast=True),
            "compiled": training_step(method.build(), patches, fast=True, compiled=True),
        }
        step = compare(steps, turns=given.turns, repeats=3)
        print(json.dumps({"method": given.method, "threads": given.threads, "training": step}))
        return
    forms = {"naive": False, "ours": True}
    pictures = {name: inference(method.build(), picture, fast=fast) for name, fast in forms.items()}
    batches = {name: training_step(method.build(), patches, fast=fast) for name, fast in forms.items()}
    found = {
        "inference": compare(pictures, turns=given.turns, repeats=3),
        "training": compare(batches, turns=given.turns, repeats=3),
    }
    print(json.dumps({"method": given.method, "threads": given.threads, **found, "target_ratio": TARGET_RATIO}))
    raise SystemExit(min(part["ratio"] for part in found.values()) < TARGET_RATIO)


if __name__ == "__main__":
    main()
