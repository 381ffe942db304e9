"""Choosing where and how precisely to compute, and keeping the CPU allocator from giving memory back all the time."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
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
