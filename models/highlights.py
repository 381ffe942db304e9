"""Noise at white, for networks without biases.

Such a network knows zero but not one: what it makes of half the brightness is half of what it makes of the whole. Where
noise was clipped at black it can tell; where it was clipped at white it cannot, and leaves white paper grey. Shown the
negative, it can (docs/decisions/0040).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

# From here up, and from as far above black down, a value may have been clipped: JPEG moves clipped ones a little.
CLIPPED = 250.0 / 255.0
# Side of the squares over which clipped values are counted, and then shares averaged, so that no seam shows.
WINDOW_PX = 17
# Share of clipped values that is none yet, so that a tile without more needs no second pass, and the share that weighs
# as much as all other evidence.
NOT_YET, AT_ONCE = 0.005, 0.02


def mean_around(planes: Tensor) -> Tensor:
    """Average (B, 1, H, W) over squares of WINDOW_PX; outside of the picture there is nothing."""
    # Columns, then rows: a fifth of the time of both at once, which would be a third of a network's.
    reach = WINDOW_PX // 2
    down = avg_pool2d(planes, (WINDOW_PX, 1), stride=1, padding=(reach, 0), count_include_pad=False)
    return avg_pool2d(down, (1, WINDOW_PX), stride=1, padding=(0, reach), count_include_pad=False)


def share_of_negative(image: Tensor) -> Tensor:
    """Return (B, 1, H, W) in [0, 1): how much of each pixel of `image` (B, 3, H, W) is to come from its negative.

    It is 0 except around values that may have been clipped at white, and for a picture with values above 1, which has
    not been clipped at all.
    """
    clipped = ((image >= CLIPPED) & (image.amax(dim=(1, 2, 3), keepdim=True) <= 1.0)).float()
    white = mean_around(clipped.mean(1, keepdim=True))
    black = mean_around((image <= 1.0 - CLIPPED).float().mean(1, keepdim=True))
    return mean_around((white - NOT_YET).clamp(min=0.0) / (white + black + AT_ONCE))


def with_highlights(restore: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Restore pictures (B, 3, H, W) in [0, 1], and around white that was clipped restore their negatives as well.

    `restore` takes and returns (B, 3, H, W). A picture without clipped white costs no more than `restore` itself.
    """
    restored = restore(image)
    if not bool((image >= CLIPPED).any()):
        return restored
    share = share_of_negative(image)
    there = share.amax(dim=(1, 2, 3)) > 0.0
    if not bool(there.any()):
        return restored
    negative = 1.0 - restore(1.0 - image[there]).float()
    mixed = restored.float()
    mixed[there] = torch.lerp(mixed[there], negative, share[there])
    return mixed
