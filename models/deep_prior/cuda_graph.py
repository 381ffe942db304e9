"""A network's forward and backward pass recorded once and replayed, which a GPU starts without the CPU's help.

A step of Deep Image Prior is hundreds of kernels over one small picture: started one by one, they wait for Python
longer than they run (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn


@contextmanager
def replayed(network: nn.Module, *, source: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield what computes `network` for sources of the shape of `source`: recorded on CUDA, else the network itself.

    The recording belongs to the autocast mode it is made in, which must not cache casts, and ends with the block. What
    the replay returns is a tensor of its own: the recording writes its output to the same memory each time.
    """
    if not _can_record(source):
        yield network
        return
    # The recording is of the current device, and reads its input from the memory of the sample, which must not be the
    # source that is kept.
    with torch.cuda.device_of(source):  # type: ignore[no-untyped-call]
        recorded = cast(nn.Module, torch.cuda.make_graphed_callables(network, (source.clone(),)))
    try:
        yield lambda given: cast(Tensor, recorded(given)).clone()
    finally:
        # It was put upon the instance; the class's own takes any size again.
        del network.forward


def _can_record(source: Tensor) -> bool:
    return source.is_cuda
