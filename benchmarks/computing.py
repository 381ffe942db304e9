"""Where a benchmark computes: --device and --threads, with one meaning in every command that takes them."""

from __future__ import annotations

import argparse

import cv2
import torch

from models.device import keep_freed_memory, resolve_device


def add_computing(parser: argparse.ArgumentParser, *, threads: int = 2) -> None:
    """Let a command be told where to compute."""
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N; cuda where there is one if not given")
    parser.add_argument("--threads", type=int, default=threads, help="of the CPU")


def prepare(parser: argparse.ArgumentParser, given: argparse.Namespace) -> str:
    """Set what `add_computing` was given and return the device; a device that is not there ends the command."""
    try:
        device = resolve_device(given.device)
    except ValueError as error:
        parser.error(f"--{error}")
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(given.threads)
    keep_freed_memory()
    return device
