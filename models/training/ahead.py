"""Batches made by threads on the CPU while an accelerator learns from those before; on a CPU, made when asked for.

Cutting and degrading a batch costs a core as much as the step on it costs a GPU. A batch is a function of (seed, step)
alone, so who makes it, and when, changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import torch

from models.training.corruption import Example

Batches = Callable[[np.random.Generator], Example]
# More threads than this wait for one another at the interpreter's lock.
_MOST_WORKERS = 8


class BatchesAhead:
    """The batches of a training by step, on its device, with the generator that each was drawn from.

    turns: batches of each step, drawn from (seed, step) and then (seed, step, turn). workers: threads that make those
    to come, twice as many batches; 0 = none, the default for a CPU, which has no time to spare. Use it as a context
    manager: leaving it drops what was made in vain.
    """

    def __init__(self, batches: Batches, *, seed: int, device: str, turns: int = 1, workers: int | None = None) -> None:
        self._batches, self._seed, self._turns = batches, seed, turns
        self._device = torch.device(device)
        if workers is None:
            workers = 0 if self._device.type == "cpu" else min(_MOST_WORKERS, os.cpu_count() or 1)
        self._ahead = 2 * workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches") if workers else None
        self._coming: dict[int, Future[tuple[Example, np.random.Generator]]] = {}

    def __enter__(self) -> BatchesAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._coming.clear()

    def take(self, step: int, *, turn: int = 0) -> tuple[Example, np.random.Generator]:
        """Return the batch of a step, its input channels-last; steps are asked for in order, from any on.

        Whatever the making of a batch raises is raised here.
        """
        index = step * self._turns + turn
        example, rng = self._made(index) if self._pool is None else self._awaited(index, self._pool)
        return on_device(example, self._device), rng

    def _awaited(self, index: int, pool: ThreadPoolExecutor) -> tuple[Example, np.random.Generator]:
        for coming in range(index, index + self._ahead + 1):
            if coming not in self._coming:
                self._coming[coming] = pool.submit(self._made, coming)
        return self._coming.pop(index).result()

    def _made(self, index: int) -> tuple[Example, np.random.Generator]:
        step, turn = divmod(index, self._turns)
        rng = np.random.default_rng((self._seed, step, turn) if turn else (self._seed, step))
        example = self._batches(rng)
        return (pinned(example) if self._device.type == "cuda" else example), rng


def pinned(example: Example) -> Example:
    """Return the batch in memory that a GPU copies from by itself."""
    weight = None if example.weight is None else example.weight.pin_memory()
    return Example(example.network_input.pin_memory(), example.target.pin_memory(), weight)


def on_device(example: Example, device: torch.device) -> Example:
    """Return the batch on a device, its input channels-last."""
    return Example(
        example.network_input.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last),
        example.target.to(device, non_blocking=True),
        None if example.weight is None else example.weight.to(device, non_blocking=True),
    )
