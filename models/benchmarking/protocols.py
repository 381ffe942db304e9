"""How a result is compared with its reference: which channel, which part, rounded or not. Every table names it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.metrics.planes import Channel

Region = Literal["whole", "hole"]
# What counts as equal: PSNR is infinite there, which neither a mean nor a table can hold.
LARGEST_PSNR_DB = 100.0
SMALLEST_SIDE = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """One way to measure. Results are always clipped to [0, 1] first; a picture of one channel is measured as it is.

    border: pixels left out on each side. round_to_8_bits: as writing an 8-bit file would. region "hole": PSNR over the
    pixels of the mask alone.
    """

    channel: Channel = "rgb"
    border: int = 0
    round_to_8_bits: bool = False
    region: Region = "whole"

    @property
    def text(self) -> str:
        """The protocol in words, as tables show it."""
        channel = {"rgb": "RGB", "y": "Y (BT.601, 16-235)", "grey": "grey"}[self.channel]
        parts = [channel, f"border {self.border}", "clipped"]
        parts += ["rounded to 8 bits"] if self.round_to_8_bits else []
        parts += ["inside the hole"] if self.region == "hole" else []
        return ", ".join(parts)


def default_protocol(*, scale: int) -> Protocol:
    """Return what is customary: Y without a border of `scale` pixels for super-resolution, else RGB as it is."""
    return Protocol(channel="y", border=scale, round_to_8_bits=True) if scale > 1 else Protocol()


def check_size(height: int, width: int, *, protocol: Protocol, needed: int, name: str) -> None:
    """Raise ValueError when a picture is too small for its recipe (`needed`, px) or for what is measured on it."""
    smallest = max(needed, SMALLEST_SIDE + 2 * protocol.border)
    if min(height, width) < smallest:
        raise ValueError(
            f"{name}: got {width} x {height} pixels, expected at least {smallest} each way for this recipe and "
            f"protocol ({protocol.text}); leave it out or take a larger picture"
        )
