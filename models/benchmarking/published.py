"""Figures that others published, by suite and group; shown as "published" and never mixed with what is measured.

Each was read in the source named, but for those whose note says that they are quoted as others quote them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_DNCNN = "README of github.com/cszn/DnCNN, commit e93b278"
_DIP = "Ulyanov et al., Deep Image Prior, CVPR 2018"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One published mean. `level` as in the suite's group; `note` says where the protocol differs from ours."""

    suite: str
    dataset: str
    level: str
    method: str
    psnr_db: float
    ssim: float | None = None
    source: str
    note: str = ""


def _row_of(
    suite: str,
    dataset: str,
    levels: Sequence[str],
    method: str,
    *,
    psnr: Sequence[float],
    ssim: Sequence[float] = (),
    source: str,
    note: str = "",
) -> tuple[PublishedRow, ...]:
    """Return one row per level; a method published for the first few levels alone has as few figures."""
    return tuple(
        PublishedRow(
            suite=suite,
            dataset=dataset,
            level=level,
            method=method,
            psnr_db=psnr[index],
            ssim=ssim[index] if ssim else None,
            source=source,
            note=note,
        )
        for index, level in enumerate(levels[: len(psnr)])
    )


_SIGMAS = ("awgn/15", "awgn/25", "awgn/50")
_QUALITIES = ("jpeg/10", "jpeg/20", "jpeg/30", "jpeg/40")
_SCALES = ("bicubic/x2", "bicubic/x4")
_BSD68 = {
    "BM3D": (31.07, 28.57, 25.62),
    "TNRD": (31.42, 28.92, 25.97),
    "DnCNN-S": (31.73, 29.23, 26.23),
    "DnCNN-B": (31.61, 29.16, 26.23),
    "FDnCNN": (31.69, 29.22, 26.27),
    "DnCNN-3": (31.46, 29.02, 26.10),
    "DRUNet": (31.91, 29.48, 26.59),
}
_QUOTED = "as others quote it; not read in the source"
_CBSD68 = {
    "CBM3D": ((33.52, 30.71, 27.38), "Dabov et al., Color Image Denoising via Sparse 3D Collaborative Filtering, 2007"),
    "CDnCNN-B": ((33.89, 31.23, 27.92), "Zhang et al., Beyond a Gaussian Denoiser, TIP 2017"),
    "FFDNet": ((33.87, 31.21, 27.96), "Zhang et al., FFDNet, TIP 2018"),
    "DRUNet": ((34.30, 31.69, 28.51), "Zhang et al., Plug-and-Play Image Restoration, TPAMI 2021"),
}
_CLASSIC5 = {
    "AR-CNN": ((29.03, 31.15, 32.51, 33.34), (0.7929, 0.8517, 0.8806, 0.8953)),
    "TNRD": ((29.28, 31.47, 32.78), (0.7992, 0.8576, 0.8837)),
    "DnCNN-3": ((29.40, 31.63, 32.91, 33.77), (0.8026, 0.8610, 0.8861, 0.9003)),
}
_ENLARGED = {
    ("TNRD", "Set5"): ((36.86, 30.85), (0.9556, 0.8732)),
    ("TNRD", "Set14"): ((32.51, 27.66), (0.9069, 0.7563)),
    ("VDSR", "Set5"): ((37.56, 31.35), (0.9591, 0.8845)),
    ("VDSR", "Set14"): ((33.02, 27.99), (0.9128, 0.7659)),
    ("DnCNN-3", "Set5"): ((37.58, 31.40), (0.9590, 0.8845)),
    ("DnCNN-3", "Set14"): ((33.03, 28.04), (0.9128, 0.7672)),
}
_DIP_ENLARGED = {
    ("bicubic", "Set5"): 28.43,
    ("bicubic", "Set14"): 26.05,
    ("Deep Image Prior", "Set5"): 29.90,
    ("Deep Image Prior", "Set14"): 27.00,
    ("SRResNet", "Set5"): 32.10,
    ("SRResNet", "Set14"): 28.53,
}
_DIP_CROP = "measured on a centre crop whose sides are multiples of 32, without 4 px"
_HALF_MISSING = {"Papyan et al. (convolutional sparse coding)": 31.19, "Deep Image Prior": 33.48}

PUBLISHED: tuple[PublishedRow, ...] = (
    *(
        row
        for method, psnr in _BSD68.items()
        for row in _row_of("denoise-gray", "BSD68", _SIGMAS, method, psnr=psnr, source=_DNCNN)
    ),
    *(
        row
        for method, (psnr, source) in _CBSD68.items()
        for row in _row_of("denoise-color", "CBSD68", _SIGMAS, method, psnr=psnr, source=source, note=_QUOTED)
    ),
    *(
        row
        for method, (psnr, ssim) in _CLASSIC5.items()
        for row in _row_of("deblock", "classic5", _QUALITIES, method, psnr=psnr, ssim=ssim, source=_DNCNN)
    ),
    *(
        row
        for (method, dataset), (psnr, ssim) in _ENLARGED.items()
        for row in _row_of("sr", dataset, _SCALES, method, psnr=psnr, ssim=ssim, source=_DNCNN)
    ),
    *(
        row
        for (method, dataset), psnr in _DIP_ENLARGED.items()
        for row in _row_of("sr", dataset, ("bicubic/x4",), method, psnr=(psnr,), source=_DIP, note=_DIP_CROP)
    ),
    *(
        row
        for method, psnr in _HALF_MISSING.items()
        for row in _row_of(
            "inpaint-50", "11 pictures", ("50 % missing",), method, psnr=(psnr,), source=f"{_DIP}, table 1"
        )
    ),
)


def published_for(suite: str) -> tuple[PublishedRow, ...]:
    """Return what others published on a suite; nothing for a suite without a published table."""
    return tuple(row for row in PUBLISHED if row.suite == suite)
