"""The optimizer of restoring networks and scratch detector: Muon for convolutions between feature maps, else AdamW.

Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024) makes each step an orthogonal
matrix, so that all directions of a layer learn alike; its steps are scaled to the size of AdamW's (Liu et al., "Muon is
Scalable for LLM Training", 2025, section 2.2). docs/decisions/0013 has what it gained here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
# Times AdamW's learning rate. At 5, the first hundreds of steps of the denoiser threw it back.
MUON_LR_FACTOR = 2.0


class ConvolutionMuon:
    """torch's Muon, which takes matrices only, over 4-D kernels: (out, in, height, width) as (out, everything else).

    First and last layers, by the name of their module, biases and scales are AdamW's, as Muon's authors advise.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        weight_decay: float,
        ends: tuple[str, ...] = ("head", "tail"),
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        def is_hidden(name: str, value: Tensor) -> bool:
            factor = value.ndim == 2 and name.endswith((".up", ".down"))
            return (factor or value.ndim == 4) and not set(ends) & set(name.split("."))

        named = [(name, value) for name, value in network.named_parameters() if value.requires_grad]
        self._kernels = [value for name, value in named if is_hidden(name, value)]
        self._others = [value for name, value in named if not is_hidden(name, value)]
        self._matrices = [nn.Parameter(kernel.detach().flatten(1).clone()) for kernel in self._kernels]
        self._muon = torch.optim.Muon(
            self._matrices, weight_decay=weight_decay, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"
        )
        self._adamw = torch.optim.AdamW(self._others, weight_decay=weight_decay, betas=betas)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for value in (*self._kernels, *self._others):
            value.grad = None

    @torch.no_grad()
    def step(self, *, lr: float, clip_norm: float) -> None:
        """Do one step at AdamW's learning rate `lr`; Muon's is MUON_LR_FACTOR times it.

        `clip_norm` bounds the norm of AdamW's gradients; Muon's steps do not depend on the size of theirs.
        """
        nn.utils.clip_grad_norm_(self._others, clip_norm)
        for group in self._adamw.param_groups:
            group["lr"] = lr
        for group in self._muon.param_groups:
            group["lr"] = lr * MUON_LR_FACTOR
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            # The network may have been loaded or moved since.
            matrix.copy_(kernel.flatten(1))
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        self._muon.step()  # type: ignore[no-untyped-call]
        self._adamw.step()
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            kernel.copy_(matrix.view_as(kernel))

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`'s result; raises ValueError for a state of AdamW alone, which came before Muon."""
        if "muon" not in state:
            raise ValueError(
                "checkpoint: got the state of AdamW alone, of an earlier version, which cannot be continued; start a "
                "new run from its weights, with another --out and --start-from"
            )
        self._muon.load_state_dict(state["muon"])
        self._adamw.load_state_dict(state["adamw"])
