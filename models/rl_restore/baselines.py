"""Single networks that RL-Restore is measured against, trained here on the same mixtures as its agent.

VDSR (Kim et al., CVPR 2016) and DnCNN (Zhang et al., TIP 2017) as the paper of RL-Restore used them, on RGB; a VDSR of
RL-Restore's size by the paper's way of counting (its layout was not published: width 36 is ours); a single network of
the size of the whole system; operation-wise attention (Suganuma et al., CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from models.published.owan import OperationAttentionNetwork
from models.rl_restore.tool_training import Toolbox


class PlainNetwork(nn.Module):
    """`depth` 3x3 convolutions of `width` channels that predict what to add to the picture (B, 3, H, W); not clipped.

    normalized: batch normalization between the first and the last, as DnCNN has.
    """

    def __init__(self, *, depth: int, width: int = 64, bias: bool = True, normalized: bool = False) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1, bias=bias)
        layers: list[nn.Module] = [nn.ReLU()]
        for _ in range(depth - 2):
            layers.append(nn.Conv2d(width, width, 3, padding=1, bias=bias and not normalized))
            layers += [nn.BatchNorm2d(width)] if normalized else []
            layers.append(nn.ReLU())
        self.body = nn.Sequential(*layers)
        self.tail = nn.Conv2d(width, 3, 3, padding=1, bias=bias)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.tail.weight)  # the picture itself to begin with

    def forward(self, image: Tensor) -> Tensor:
        change: Tensor = self.tail(self.body(self.head(image)))
        return image + change


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "tools": Toolbox,
    "vdsr": partial(PlainNetwork, depth=20, bias=False),  # 667,008 parameters
    "vdsr-s": partial(PlainNetwork, depth=20, width=36, bias=False),  # 211,896; the paper's has 209,000
    "dncnn": partial(PlainNetwork, depth=20, normalized=True),  # 669,379; 2,304 of them normalize
    "single": partial(PlainNetwork, depth=16),  # 520,515; the whole of RL-Restore has 523,931
    "owan": OperationAttentionNetwork,  # 391,456
}
