"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Precision(StrEnum):
    """Number format inside the networks; auto takes bfloat16 where it is measured to be quicker."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines instead of tables.")]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="HH:MM", help="Begin nothing more after this time; run again to go on.")
]
ColourOption = Annotated[
    bool, typer.Option("--correct-colour", help="Also correct fading and colour casts. Never done unless asked for.")
]
ThoroughOption = Annotated[
    bool,
    typer.Option(
        "--thorough", help="Learned methods look at every picture in 8 flips and turns: better, and 8 times slower."
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        "--budget",
        metavar="GMAC",
        help="Most that a treatment may take, in GMAC per megapixel (see `lacuna methods`), such as 150. [no limit]",
    ),
]
FitIterationsOption = Annotated[
    int | None,
    typer.Option(
        "--fit-iterations",
        min=1,
        metavar="N",
        help="Most iterations of a method that learns from each picture itself: sooner, and mostly worse. [its own]",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[Precision, typer.Option("--precision", help="Number format inside the networks.")]
StrengthOption = Annotated[
    list[str] | None,
    typer.Option("--strength", metavar="METHOD=0..1", help="Strength of a method, 0 = never use it; may be repeated."),
]
UpscaleOption = Annotated[
    int | None,
    typer.Option("--upscale", metavar="2|4", help="Also enlarge every picture so many times. Never done unless asked."),
]
PolicyOption = Annotated[
    str,
    typer.Option(
        "--policy", metavar="POLICY", help="Makes plans: rules, predicted-gain, soft, regional, agent, fixed:METHOD."
    ),
]
ScratchThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--scratch-threshold",
        metavar="0..1",
        help="For pictures known to be scratched: fill from this probability on, such as 0.5. [0.82, if sure]",
    ),
]
MasksOption = Annotated[
    str | None,
    typer.Option(
        "--masks",
        metavar="FOLDER",
        help="Masks of damage, white = fill, under the pictures' names: followed, and those pictures not searched.",
    ),
]
FillOption = Annotated[str, typer.Option("--fill", metavar="METHOD", help="How scratches and holes are filled.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of methods that draw random numbers.")]
