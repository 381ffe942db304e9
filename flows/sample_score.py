"""Compares a restored sample archive with its ground truth."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.sample import MANIFEST_NAME

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PSNR_CEILING_DB = 100.0
LARGEST_LOSS_DB = 0.1
REQUIRED_MEAN_GAIN_DB = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleScoreRow:
    """PSNR of one picture against its ground truth before and after, in dB; 100 = identical.

    byte_identical: the restored file is the delivered one, byte for byte, or was not written because nothing was done.
    note: why a row has no `restored_psnr_db` (the file is missing, unreadable or of another size).
    """

    path: str
    damage: str
    clean: bool
    damaged_psnr_db: float
    restored_psnr_db: float | None
    gain_db: float | None
    byte_identical: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleScore:
    """All rows of a scored sample and what they add up to; damaged pictures only in the gains."""

    rows: tuple[SampleScoreRow, ...]

    @property
    def damaged_rows(self) -> tuple[SampleScoreRow, ...]:
        return tuple(row for row in self.rows if not row.clean)

    @property
    def mean_gain_db(self) -> float:
        """Mean gain over the damaged pictures; one without a restored picture counts as 0 dB."""
        gains = [row.gain_db or 0.0 for row in self.damaged_rows]
        return sum(gains) / len(gains)

    @property
    def worst_gain_db(self) -> float:
        return min(row.gain_db or 0.0 for row in self.damaged_rows)

    @property
    def clean_untouched(self) -> bool:
        return all(row.byte_identical for row in self.rows if row.clean)

    @property
    def complete(self) -> bool:
        return all(not row.note for row in self.rows)

    @property
    def passed(self) -> bool:
        """The sample's acceptance: every picture there, ≥ 3 dB mean gain, no loss over 0.1 dB, clean ones untouched."""
        enough = self.mean_gain_db >= REQUIRED_MEAN_GAIN_DB and self.worst_gain_db >= -LARGEST_LOSS_DB
        return enough and self.clean_untouched and self.complete


def score_sample(*, reference: Path, damaged: Path, restored: Path) -> SampleScore:
    """Score `restored` (the flow's output folder for the sample) against `reference`, relative to `damaged`.

    RGB PSNR over all pages in sRGB at the file's bit depth, upright, no border left out. A file that is not in
    `restored` counts as left as it was.
    """
    manifest_path = reference / MANIFEST_NAME
    if not manifest_path.is_file():
        raise FileNotFoundError(f"{manifest_path} is missing; expected the reference folder of a sample archive")
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    rows = [
        _score_picture(entry, reference=reference, damaged=damaged, restored=restored) for entry in manifest["pictures"]
    ]
    return SampleScore(rows=tuple(rows))


def _score_picture(entry: dict[str, Any], *, reference: Path, damaged: Path, restored: Path) -> SampleScoreRow:
    truth = read_pages(reference / entry["reference"])
    before = damaged / entry["path"]
    after = restored / entry["path"]
    if not after.is_file():
        after = before
    before_db = psnr_db(truth, read_pages(before))
    after_db: float | None = None
    note = ""
    try:
        after_db = psnr_db(truth, read_pages(after))
    except (OSError, ValueError) as error:
        note = str(error)
    return SampleScoreRow(
        path=entry["path"],
        damage=", ".join(f"{kind} {amount:g}" for kind, amount in entry["damage"]) or "none",
        clean=entry["clean"],
        damaged_psnr_db=before_db,
        restored_psnr_db=after_db,
        gain_db=None if after_db is None else after_db - before_db,
        byte_identical=after.read_bytes() == before.read_bytes(),
        note=note,
    )


def psnr_db(truth: list[NDArray[np.float64]], pages: list[NDArray[np.float64]]) -> float:
    """Return the PSNR in dB over all pages, values in [0, 1], at most 100.

    Another number or size of pages raises ValueError.
    """
    import numpy as np

    expected, got = [page.shape for page in truth], [page.shape for page in pages]
    if expected != got:
        raise ValueError(f"expected pages (rows, columns, channels) {expected}, got {got}; geometry must be kept")
    squares = sum(float(np.square(a - b).sum()) for a, b in zip(truth, pages, strict=True))
    mean = squares / sum(page.size for page in truth)
    return PSNR_CEILING_DB if mean <= 10 ** (-PSNR_CEILING_DB / 10) else -10.0 * math.log10(mean)


def read_pages(path: Path) -> list[NDArray[np.float64]]:
    """Return every page of `path` upright in sRGB, (H, W, 1 or 3), in [0, 1]; an unreadable file raises OSError."""
    import pyvips

    try:
        count = pyvips.Image.new_from_file(str(path)).get_n_pages()
        options = [{"page": index} for index in range(count)] if count > 1 else [{}]
        return [_page_values(pyvips.Image.new_from_file(str(path), **option)) for option in options]
    except pyvips.Error as error:
        raise OSError(f"{path} cannot be read as a picture: {error}") from error


def _page_values(image: Any) -> NDArray[np.float64]:
    import numpy as np

    image = image.autorot()
    depth = 16 if image.format == "ushort" else 8
    if image.get_typeof("icc-profile-data") and image.bands >= 3:
        image = image.icc_transform("srgb", embedded=True, depth=depth)
    values = np.asarray(image.numpy(), dtype=np.float64) / (2**depth - 1)
    return np.asarray(values.reshape(image.height, image.width, image.bands), np.float64)


def score_metrics(score: SampleScore, *, image_ids: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return the score as rows of the catalogue's metrics table (metric psnr_db, stages before and after).

    image_ids: the identities catalogued under each relative path, one per page; paths not in it are left out.
    """
    rows: list[dict[str, Any]] = []
    for row in score.rows:
        stages = (("before", row.damaged_psnr_db), ("after", row.restored_psnr_db))
        for image_id in image_ids.get(row.path, ()):
            known = {"image_id": image_id, "relative_path": row.path, "metric": "psnr_db", "higher_is_better": True}
            rows += [{**known, "stage": stage, "value": value} for stage, value in stages if value is not None]
    return rows
