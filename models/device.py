"""Choosing where and how precisely to compute, and keeping the CPU allocator from giving memory back all the time."""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial

import torch
from torch.nn import functional

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
# Gains and losses of bfloat16 are far from 1 on every CPU seen.
_LEAST_GAIN = 1.15
_TURNS = 8
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_TRIM_THRESHOLD = 2**30
_ANY_SIZE = 2**31 - 1


def resolve_device(device: str) -> str:
    """Return a torch device name for "auto", "cpu", "cuda" or "cuda:N"; ValueError when it is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device: got {device!r}, expected auto, cpu, cuda or cuda:N") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: got {device!r}, but torch sees no CUDA device; use --device cpu or auto")
    return device


@lru_cache(maxsize=1)
def cpu_has_fast_bf16() -> bool:
    """Whether this CPU convolves bfloat16 faster than float32: it has instructions for it, and they pay.

    Measured once per process, in 0.2 s (docs/decisions/0032): some CPUs with AVX512-BF16 are twice
    as quick in bfloat16, others half as quick.
    """
    return _has_bf16_products() and _speed_of_bf16() > _LEAST_GAIN


def quick_products(device: str | torch.device, *, allowed: bool = True) -> torch.autocast:
    """Return the context for products that bear rounding, as in training: bfloat16 where it is quicker and `allowed`.

    It is entered anew for every step, since it remembers weights that it has rounded.
    """
    fast = allowed and resolve_precision("auto", device=str(device)) is torch.bfloat16
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=fast)


def _speed_of_bf16() -> float:
    """Return how many times as quick a 3x3 convolution of 64 channels is in bfloat16 as in float32.

    In CPU time of one thread: what else the machine does must not decide. Two threads would wait for each other.
    """
    calls = []
    for dtype in (torch.float32, torch.bfloat16):
        picture = torch.ones((1, 64, 96, 96), dtype=dtype).to(memory_format=torch.channels_last)
        filters = torch.ones((64, 64, 3, 3), dtype=dtype).to(memory_format=torch.channels_last)
        calls.append(partial(functional.conv2d, picture, filters, padding=1))
    seconds = [math.inf, math.inf]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for turn in range(_TURNS):
                for index, call in enumerate(calls):
                    began = time.thread_time()
                    call()
                    if turn:  # the first one prepares
                        seconds[index] = min(seconds[index], time.thread_time() - began)
    finally:
        torch.set_num_threads(threads)
    return seconds[0] / seconds[1]


def _has_bf16_products() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AVX512-BF16 or AMX)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve_precision(precision: str, *, device: str) -> torch.dtype:
    """Return the autocast dtype; "auto" is bfloat16 where the hardware is fast at it, else float32."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision: got {precision!r}, expected one of {PRECISIONS}")
    if precision == "auto":
        on_gpu = torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if on_gpu or (device == "cpu" and cpu_has_fast_bf16()) else torch.float32
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks; page faults otherwise cost up to 40 % of a CPU network's time.

    Returns whether it took effect (False on other C libraries).
    """
    return _keep_blocks(_LARGEST_MMAP_THRESHOLD, trim=_TRIM_THRESHOLD)


@contextmanager
def large_blocks_kept() -> Iterator[None]:
    """While a network is trained on whole pictures, keep freed blocks of any size; give them back at the end."""
    kept = _keep_blocks(_ANY_SIZE, trim=_ANY_SIZE)
    try:
        yield
    finally:
        if kept:
            _keep_blocks(_LARGEST_MMAP_THRESHOLD, trim=_TRIM_THRESHOLD)
            ctypes.CDLL(None).malloc_trim(0)


def _keep_blocks(largest: int, *, trim: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, largest)) and bool(mallopt(_M_TRIM_THRESHOLD, trim))
