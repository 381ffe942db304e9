"""RL-Restore (Yu et al., "Crafting a Toolchain for Image Restoration by Deep Reinforcement Learning", CVPR 2018).

An agent looks at 63 x 63 crops of the whole picture and chooses one chain of at most three tools for it; the tools are
then applied tile by tile. See docs/decisions on how pictures that are not 63 x 63 are looked at.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.method import LEARNED_LICENCE, Context, MethodCard, PlainMethod
from models.published.catalogue import SETTING, tensors_of
from models.rl_restore.chain import Chain, apply_chains, decide
from models.rl_restore.crops import crops_of_picture, crops_of_planes
from models.rl_restore.networks import CONTEXT_PX, STOP, TOOLS, ToolchainNetwork

_FAULTS = {"blur_sigma_px": "blur of σ {} px", "noise_sigma": "noise of σ {}", "jpeg_quality": "JPEG quality {}"}


@lru_cache(maxsize=4)
def _agent_and_tools(weights: str, _folder: str) -> ToolchainNetwork:
    network = ToolchainNetwork()
    network.load_state_dict(tensors_of(weights), strict=True)
    return network.eval().requires_grad_(False)


def _chosen(network: ToolchainNetwork, context: Context, planes: Tensor) -> Chain:
    """The chain chosen for the whole picture; where nobody looked at it, these planes are the picture."""
    if context.statistics:
        return _chain(context.statistics)
    crops = crops_of_planes(planes)
    return decide(network, crops, owners=[0] * len(crops))[0].chain


def _chain(statistics: Sequence[float]) -> Chain:
    return tuple(int(action) for action in statistics[: len(statistics) // 2])


def _in_words(action: int) -> str:
    if action == STOP:
        return "to stop"
    tool = TOOLS[action - 1]
    return f"tool {action} for {_FAULTS[tool.fault].format(f'{tool.low:g}-{tool.high:g}')}"


@dataclass(frozen=True, slots=True)
class Toolchain(PlainMethod):
    """A chain of tools chosen by the agent."""

    def build(self) -> nn.Module:
        return ToolchainNetwork()

    def statistics(self, image: npt.NDArray[Any]) -> tuple[float, ...]:
        """Return the chain for the picture, 1-12 are tools, 13 is stop, and then the Q value of each of its actions.

        Raises WeightsError without weights.
        """
        network = _agent_and_tools(str(self.card.weights), os.environ.get(SETTING, ""))
        with torch.inference_mode():
            crops = crops_of_picture(image)
            (decision,) = decide(network, crops, owners=[0] * len(crops))
        values = (row[action - 1] for action, row in zip(decision.chain, decision.values, strict=True))
        return (*(float(action) for action in decision.chain), *values)

    def decided(self, statistics: Sequence[float]) -> str:
        """Return the chain in words, with the Q value that the agent gave each of its actions."""
        chain = _chain(statistics)
        pairs = zip(chain, statistics[len(chain) :], strict=True)
        return "chose " + ", then ".join(f"{_in_words(action)} (Q {value:+.2f})" for action, value in pairs)

    def __call__(
        self, network: nn.Module, image: Tensor, *, mask: Tensor | None, contexts: Sequence[Context], seed: int
    ) -> Tensor:
        if not isinstance(network, ToolchainNetwork):
            raise TypeError(f"{self.card.id}: got a {type(network).__name__}, expected what build() returns")
        chains = [_chosen(network, context, planes) for context, planes in zip(contexts, image, strict=True)]
        return apply_chains(network, image, chains=chains)


def _card(method_id: str, *, title: str, licence: str) -> MethodCard:
    return MethodCard(
        id=method_id,
        title=title,
        paper="Yu et al., Crafting a Toolchain for Image Restoration by Deep Reinforcement Learning, CVPR 2018",
        # Its tools take noise, blur and compression away, and whoever looks for noise alone finds detail missing.
        purpose="mixed",
        licence=licence,
        context_px=CONTEXT_PX,
        half_precision=False,
        # Three large tools; the chain depends on the picture and costs less on average.
        gmac_per_megapixel=151.7,
        weights=method_id,
        opt_in=True,
    )


METHODS = (
    Toolchain(
        _card(
            "rl-restore",
            title="Chain of up to three small tools chosen by a trained agent",
            licence=LEARNED_LICENCE,
        )
    ),
    Toolchain(
        _card(
            "rl-restore-released",
            title="The same with its authors' weights",
            licence="MIT (code and weights, by its authors; not shipped)",
        )
    ),
)
