"""The suites: each reproduces one kind of table of the literature, from standard sets and named recipes.

Folders are relative to the data folder (LACUNA_DATA). A group is one column of the table.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from models.benchmarking.protocols import Protocol

RGB, GREY = Protocol(), Protocol(channel="grey")
_PHOTOGRAPHS = ("CBSD68", "test/CBSD68")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Degraded pictures that came ready-made. Files belong together whose stems agree without their endings.

    mask_from_zeros: a pixel is missing where the degraded picture is 0 and the reference is not, so that what is truly
    black (such as a black border row) is not taken for a hole.
    """

    degraded_folder: str
    reference_ending: str
    degraded_endings: tuple[str, ...]
    mask_from_zeros: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Cases that share a column: a set of clean pictures, what is done to them, how results are measured.

    level: a recipe's id, or the name of a ready-made degradation when `pairs` is given. grey: pictures stored as three
    equal planes are read as one.
    """

    dataset: str
    folder: str
    level: str
    protocol: Protocol
    pairs: Pairs | None = None
    grey: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A named table. `methods` are run unless others are asked for, and `if_available` where their weights are there.

    detection: its cases are masks to be found, measured by `models.benchmarking.detection`.
    """

    id: str
    title: str
    groups: tuple[Group, ...]
    methods: tuple[str, ...]
    note: str = ""
    if_available: tuple[str, ...] = ()
    detection: bool = False


_BLURS = ("blur/0.8", "blur/1.2", "blur/1.6", "blur/2", "noisy-blur/2", "noisy-blur/5", "noisy-blur/10")


def _crossed(sets: Iterable[tuple[str, str]], levels: Iterable[str], protocol: Protocol) -> tuple[Group, ...]:
    levels = tuple(levels)
    return tuple(
        Group(dataset=name, folder=folder, level=level, protocol=protocol, grey=protocol.channel == "grey")
        for name, folder in sets
        for level in levels
    )


def _enlarged() -> tuple[Group, ...]:
    return tuple(
        Group(
            dataset=name,
            folder=f"test/{name}",
            level=f"bicubic/x{scale}",
            protocol=Protocol(channel="y", border=scale, round_to_8_bits=True),
        )
        for name in ("Set5", "Set14")
        for scale in (2, 4)
    )


def _official_rl_restore() -> tuple[Group, ...]:
    return tuple(
        Group(
            dataset="RL-Restore samples",
            folder=f"test/RL-Restore_test/{level}_gt",
            level=f"official {level}",
            protocol=RGB,
            pairs=Pairs(
                degraded_folder=f"test/RL-Restore_test/{level}_in",
                reference_ending="_gt",
                degraded_endings=("_in", ""),
            ),
        )
        for level in ("mild", "moderate", "severe")
    )


SUITES: tuple[Suite, ...] = (
    Suite(
        id="denoise-gray",
        title="Grey denoising: Set12 and BSD68, Gaussian noise of σ 15, 25, 50",
        groups=_crossed([("Set12", "test/Set12"), ("BSD68", "test/BSD68")], ("awgn/15", "awgn/25", "awgn/50"), GREY),
        methods=("denoise", "nlm"),
        note="Noise is neither clipped nor rounded before the method. nlm is told σ, denoise is blind.",
    ),
    Suite(
        id="denoise-color",
        title="Colour denoising: CBSD68, Gaussian noise of σ 15, 25, 50",
        groups=_crossed([_PHOTOGRAPHS], ("awgn/15", "awgn/25", "awgn/50"), RGB),
        methods=("denoise", "nlm"),
        note="Noise is neither clipped nor rounded before the method. nlm is told σ, denoise is blind.",
    ),
    Suite(
        id="denoise-files",
        title="Noise in files, clipped at black and white: CBSD68, Gaussian noise of σ 5, 15, 25, 50",
        groups=_crossed([_PHOTOGRAPHS], ("awgn-8bit/5", "awgn-8bit/15", "awgn-8bit/25", "awgn-8bit/50"), RGB),
        methods=("denoise", "degrain", "lacuna"),
        note="All methods are blind.",
    ),
    Suite(
        id="grain",
        title="Film grain, whose neighbouring pixels are alike: CBSD68, σ 6, 12, 20 at mid-grey",
        groups=_crossed([_PHOTOGRAPHS], ("film-grain/6", "film-grain/12", "film-grain/20"), RGB),
        methods=("degrain", "denoise", "all-in-one", "nlm", "lacuna"),
        note="Its size is drawn for every picture, 0.3 to 1.2 px. All methods are blind.",
    ),
    Suite(
        id="deblock",
        title="JPEG artefacts: classic5, quality 10 to 40",
        groups=_crossed([("classic5", "test/classic5")], ("jpeg/10", "jpeg/20", "jpeg/30", "jpeg/40"), GREY),
        methods=("deblock", "nlm"),
    ),
    Suite(
        id="deblock-color",
        title="JPEG artefacts in colour: CBSD68, quality 10 to 40, chroma halved",
        groups=_crossed([_PHOTOGRAPHS], ("jpeg-420/10", "jpeg-420/20", "jpeg-420/30", "jpeg-420/40"), RGB),
        methods=("deblock",),
    ),
    Suite(
        id="deblur",
        title="Mild Gaussian blur: CBSD68, σ 0.8 to 2 px, and of 1.6 px before noise of σ 2 to 10",
        groups=_crossed([_PHOTOGRAPHS], _BLURS, Protocol(border=8)),
        methods=("deblur", "unsharp"),
        note="Both methods are told the blur's σ; the picture is rounded to 8 bits.",
    ),
    Suite(
        id="sr",
        title="Super-resolution: Set5 and Set14, 2 and 4 times",
        groups=_enlarged(),
        methods=("upscale-x2", "upscale-x4", "bicubic-upscale"),
        note="Shrunk by MATLAB's antialiased bicubic; a grey picture of a set is measured as it is.",
    ),
    Suite(
        id="inpaint-50",
        title="Half of the pixels missing: the 11 pictures and masks of Deep Image Prior",
        groups=(
            Group(
                dataset="11 pictures",
                folder="test/dip_inpaint_50",
                level="50 % missing",
                protocol=GREY,
                grey=True,
                pairs=Pairs(
                    degraded_folder="test/dip_inpaint_50",
                    reference_ending="_GT",
                    degraded_endings=("_masked",),
                    mask_from_zeros=True,
                ),
            ),
        ),
        methods=("fill", "biharmonic", "telea", "navier-stokes"),
        note="A black pixel of the reference is not a hole; taking it for one costs biharmonic 0.6 dB on average.",
    ),
    Suite(
        id="rl-restore",
        title="Mixed blur, noise and JPEG: the three levels of RL-Restore, and its official samples",
        groups=(
            *_official_rl_restore(),
            *_crossed([_PHOTOGRAPHS], ("rl-restore/mild", "rl-restore/moderate", "rl-restore/severe"), RGB),
        ),
        methods=("all-in-one", "rl-restore", "denoise", "deblock", "deblur", "nlm", "unsharp", "lacuna"),
        note="One tool per picture; the oracle says what choosing it per picture is worth. lacuna plans several steps.",
        if_available=("rl-restore-released",),
    ),
    Suite(
        id="old-photo-synthetic",
        title="Synthetic old photographs: unstructured, structured and mixed damage",
        groups=_crossed([_PHOTOGRAPHS], ("old-photo/unstructured", "old-photo/structured", "old-photo/mixed"), RGB),
        methods=("all-in-one", "denoise", "deblock", "fill", "nlm", "telea", "lacuna"),
        note="Hole fillers are given the true mask, which a real photograph does not come with; lacuna finds its own.",
    ),
    Suite(
        id="scratch-detection",
        title="Scratch detection on held-back synthetic damage, and false finds on clean pictures",
        groups=(),
        methods=("scratch-detector", "top-hat"),
        detection=True,
    ),
    Suite(
        id="fill-scratches",
        title="Filling synthetic scratches, cracks, folds, dust and holes: CBSD68, true mask",
        groups=_crossed([_PHOTOGRAPHS], ("scratches/synthetic",), Protocol(region="hole")),
        methods=("fill", "biharmonic", "telea", "navier-stokes"),
    ),
    Suite(
        id="clean",
        title="Do no harm: clean CBSD68, Set5 and Set14, each method forced upon them",
        groups=_crossed([_PHOTOGRAPHS, ("Set5", "test/Set5"), ("Set14", "test/Set14")], ("clean",), RGB),
        methods=("all-in-one", "denoise", "degrain", "deblock", "deblur", "nlm", "lacuna"),
        note="The input is perfect, which counts as 100 dB: any change is harm, and the PSNR says how much.",
    ),
    Suite(
        id="examples",
        title="Random pixels lost in every row: 40, 60 and 80 %, as in example-based work",
        groups=_crossed([("Set12", "test/Set12")], ("rows/40", "rows/60", "rows/80"), GREY),
        methods=("fill", "example-external", "biharmonic", "telea", "navier-stokes"),
    ),
)


def suite_ids() -> list[str]:
    """Return the ids of all suites in the order of the table."""
    return [suite.id for suite in SUITES]


def get_suite(suite_id: str) -> Suite:
    """Return a suite by its id; ValueError names the nearest."""
    for suite in SUITES:
        if suite.id == suite_id:
            return suite
    near = difflib.get_close_matches(suite_id, suite_ids(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"suite: got {suite_id!r}, expected one of {suite_ids()} or the folder of a degraded set{hint}")
