"""Every recipe there is: how it is called, what it does, after which paper, and how it varies over a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from models.degradations import old_photo, single_faults
from models.degradations.mixtures import TOTAL_LEVELS, rl_restore
from models.degradations.pixel_loss import HOLE_RATIO_BINS
from models.degradations.rendering import Render

Task = Literal["denoise", "deblock", "deblur", "super-resolution", "inpaint", "mixed", "scratches", "none"]

# How the strength varies over a picture. levels: one draw at three strengths, blended. draws: three independent draws,
# blended. opacity: one draw, faded in and out over the clean picture. density: more or fewer pixels are lost.
Varying = Literal["levels", "draws", "opacity", "density"]

_WAN = "Wan et al., Bringing Old Photos Back to Life, CVPR 2020"
_OURS = "no paper: ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A kind of recipe. `prefix` is its id, completed by a number within [low, high] when `canonical` is not empty.

    min_side: smallest side of a picture in pixels, growing by `side_per_unit` with the number. strengths: those that
    are blended by the varying version of kind "levels".
    """

    prefix: str
    description: str
    paper: str
    task: Task
    make: Callable[[float], Render]
    varying: Varying | None
    canonical: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    min_side: int = 8
    side_per_unit: float = 0.0
    strengths: tuple[float, ...] = (1 / 3, 1.0, 5 / 3)


def _fixed(make: Render) -> Callable[[float], Render]:
    return lambda _: make


_NOISE = (
    Family(
        prefix="awgn/",
        description="white Gaussian noise of this sigma (8-bit levels), neither clipped nor rounded",
        paper="Zhang et al., DnCNN, TIP 2017",
        task="denoise",
        make=single_faults.awgn,
        varying="levels",
        canonical=(5, 10, 15, 25, 30, 50, 75),
        low=0.1,
        high=255,
    ),
    Family(
        prefix="awgn/blind",
        description="white Gaussian noise, sigma drawn from [0, 55], neither clipped nor rounded",
        paper="Zhang et al., DnCNN-B, TIP 2017",
        task="denoise",
        make=_fixed(single_faults.awgn_blind(0.0, 55.0)),
        varying="levels",
    ),
    Family(
        prefix="awgn-8bit/",
        description="white Gaussian noise of this sigma (8-bit levels), clipped and rounded as a file holds it",
        paper=_OURS,
        task="denoise",
        make=partial(single_faults.awgn, clip=True),
        varying="levels",
        canonical=(5, 15, 25, 50),
        low=0.1,
        high=255,
    ),
    Family(
        prefix="poisson/",
        description="shot noise with this number of photons at white",
        paper="Maekitalo and Foi, Anscombe inversion, TIP 2011",
        task="denoise",
        make=single_faults.poisson,
        varying="levels",
        canonical=(10, 30, 100),
        low=0.1,
        high=1e6,
    ),
    Family(
        prefix="speckle/",
        description="multiplicative noise of this sigma (8-bit levels, relative to white)",
        paper=_WAN,
        task="denoise",
        make=single_faults.speckle,
        varying="levels",
        canonical=(15, 25, 50),
        low=0.1,
        high=255,
    ),
    Family(
        prefix="salt-pepper/",
        description="this percentage of the pixels black or white",
        paper=_OURS,
        task="denoise",
        make=single_faults.salt_pepper,
        varying="levels",
        canonical=(1, 5, 10),
        low=0.01,
        high=60,
    ),
    Family(
        prefix="film-grain/",
        description="film grain of this sigma (8-bit levels) at mid-grey",
        paper=_WAN,
        task="denoise",
        make=single_faults.film_grain,
        varying="levels",
        canonical=(6, 12, 20),
        low=0.1,
        high=100,
        min_side=12,
    ),
)

_JPEG = tuple(
    Family(
        prefix=prefix,
        description=description,
        paper=paper,
        task="deblock",
        make=make,
        varying="levels",
        canonical=(10, 20, 30, 40),
        low=1,
        high=95,
        whole=True,
    )
    for prefix, description, paper, make in (
        (
            "jpeg/",
            "JPEG at this IJG quality, 4:4:4",
            "Dong et al., AR-CNN, ICCV 2015",
            partial(single_faults.jpeg, subsampling="444"),
        ),
        (
            "jpeg-420/",
            "JPEG at this IJG quality, chroma halved (4:2:0)",
            "Jiang et al., FBCNN, ICCV 2021",
            partial(single_faults.jpeg, subsampling="420"),
        ),
        (
            "jpeg-double/",
            "JPEG at this quality on a shifted grid, then again at a higher one",
            "Jiang et al., FBCNN, ICCV 2021",
            single_faults.jpeg_double,
        ),
    )
)

_BLUR = (
    Family(
        prefix="blur/",
        description="round Gaussian blur of this sigma in pixels, rounded to 8 bits",
        paper="Dong et al., NCSR, TIP 2013 (kernel of width 1.6)",
        task="deblur",
        make=single_faults.gaussian_blur,
        varying="levels",
        canonical=(0.8, 1.6, 3),
        low=0.1,
        high=20,
        side_per_unit=6,
    ),
    Family(
        prefix="noisy-blur/",
        description="round Gaussian blur of 1.6 px, then white Gaussian noise of this sigma, rounded to 8 bits",
        paper="Dong et al., NCSR, TIP 2013 (with a sigma of 1.41)",
        task="deblur",
        make=single_faults.noisy_blur,
        varying="levels",
        canonical=(2, 5, 10),
        low=0.1,
        high=100,
        min_side=16,
    ),
    Family(
        prefix="box-blur/",
        description="mean over a square of this side in pixels, rounded to 8 bits",
        paper=_WAN,
        task="deblur",
        make=single_faults.box_blur,
        varying="levels",
        canonical=(3, 5, 7),
        low=1,
        high=51,
        side_per_unit=1,
    ),
    Family(
        prefix="motion-blur/",
        description="straight motion of this many pixels in a drawn direction, rounded to 8 bits",
        paper=_OURS,
        task="deblur",
        make=single_faults.motion_blur,
        varying="levels",
        canonical=(7, 15),
        low=1,
        high=101,
        side_per_unit=1,
    ),
    Family(
        prefix="bicubic/x",
        description="shrunk this many times by MATLAB's antialiased bicubic, rounded to 8 bits",
        paper="Timofte et al., NTIRE 2017 (imresize protocol)",
        task="super-resolution",
        make=single_faults.bicubic,
        varying="levels",
        canonical=(2, 3, 4, 8),
        low=2,
        high=16,
        whole=True,
        side_per_unit=8,
        strengths=(1.0, 2.0, 3.0),
    ),
)

_LOSS = (
    Family(
        prefix="pixels/",
        description="each pixel lost with this chance in percent",
        paper="Ulyanov et al., Deep Image Prior, CVPR 2018",
        task="inpaint",
        make=single_faults.pixels,
        varying="density",
        canonical=(50,),
        low=1,
        high=99,
    ),
    Family(
        prefix="rows/",
        description="exactly this percentage (rounded down) of every row of every channel lost",
        paper="example-based restoration exercise (Wang et al.)",
        task="inpaint",
        make=single_faults.rows,
        varying="density",
        canonical=(40, 60, 80),
        low=1,
        high=99,
    ),
    *(
        Family(
            prefix=f"irregular-holes/{low:g}-{high:g}",
            description=f"strokes that take a share in ({low:g}, {high:g}] of the picture",
            paper="Liu et al., Partial Convolutions, ECCV 2018",
            task="inpaint",
            make=_fixed(single_faults.irregular_holes(low, high)),
            varying="density",
            min_side=32,
        )
        for low, high in HOLE_RATIO_BINS
    ),
)

_SURFACE = tuple(
    Family(
        prefix=prefix,
        description=description,
        paper=paper,
        task="scratches",
        make=_fixed(make),
        varying="opacity",
        min_side=32,
    )
    for prefix, description, paper, make in (
        (
            "scratches/synthetic",
            "scratches, cracks, folds, dust, hair, blotches, holes",
            _WAN,
            single_faults.synthetic_scratches(),
        ),
        ("stains", "water stains or foxing", _OURS, single_faults.stains()),
        ("paper-texture", "paper fibres and creases", _WAN, single_faults.paper_texture()),
        ("tears", "tears and torn holes", _WAN, single_faults.tears()),
    )
)

_AGE = (
    Family(
        prefix="fading",
        description="lost contrast and a colour cast",
        paper=_OURS,
        task="mixed",
        make=_fixed(single_faults.fading()),
        varying="opacity",
    ),
    Family(
        prefix="yellowing",
        description="yellowed paper, more towards the edges",
        paper=_OURS,
        task="mixed",
        make=_fixed(single_faults.yellowing()),
        varying="opacity",
    ),
    Family(
        prefix="colour-jitter/",
        description="each channel shifted by up to this many 8-bit levels",
        paper=_WAN,
        task="mixed",
        make=single_faults.colour_jitter,
        varying="opacity",
        canonical=(20,),
        low=1,
        high=128,
    ),
)

_MIXED = (
    *(
        Family(
            prefix=f"rl-restore/{severity}",
            description=f"blur, noise and JPEG of total level {low}-{high}",
            paper="Yu et al., RL-Restore, CVPR 2018",
            task="mixed",
            make=_fixed(rl_restore(severity)),
            varying="draws",
        )
        for severity, (low, high) in TOTAL_LEVELS.items()
    ),
    *(
        Family(
            prefix=f"old-photo/{name}",
            description=description,
            paper=_WAN,
            task="scratches" if name == "structured" else "mixed",
            make=_fixed(make),
            varying="draws",
            min_side=32,
        )
        for name, description, make in (
            ("unstructured", "blur, noise, low resolution, JPEG, jitter in random order", old_photo.unstructured),
            ("structured", "scratches, paper, holes, then grain and blur", old_photo.structured),
            ("mixed", "unstructured, then structured", old_photo.mixed),
        )
    ),
    Family(
        prefix="clean",
        description="nothing: must be left alone",
        paper=_OURS,
        task="none",
        make=_fixed(single_faults.clean()),
        varying=None,
        min_side=1,
    ),
)

FAMILIES: tuple[Family, ...] = (*_NOISE, *_JPEG, *_BLUR, *_LOSS, *_SURFACE, *_AGE, *_MIXED)
