"""Small pictures for the report: shrunk, enlarged, with the damage that was filled and the region that changed most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips

from tasks.reporting.previews import PreviewFolder, make_preview


def picture(seed: int, *, dtype: type = np.uint8, shape: tuple[int, ...] = (60, 90, 3)) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(700, 1400), (700, 1400, 3)])
def test_preview_shrinks_the_picture_and_finds_the_most_changed_region(dtype: type, shape: tuple[int, ...]) -> None:
    before = picture(0, dtype=dtype, shape=shape)
    after = before.copy()
    after[500:560, 1100:1180] = 0
    preview = make_preview(before, after)
    shown = pyvips.Image.new_from_buffer(preview.after, "")
    assert (shown.width, shown.height) == (preview.width, preview.height) == (1000, 500)
    assert preview.crop_x is not None
    assert preview.crop_y is not None
    assert preview.crop_x <= 1100
    assert preview.crop_x + 320 >= 1180
    assert preview.crop_y <= 500
    assert preview.crop_y + 320 >= 560
    crop = pyvips.Image.new_from_buffer(preview.crop_after, "")
    assert (crop.width, crop.height, preview.crop_zoom) == (320, 320, 1)


def test_small_pictures_are_enlarged_and_larger_results_are_shown_at_the_same_size() -> None:
    preview = make_preview(picture(0), picture(1, shape=(120, 180, 3)))
    assert preview.crop_zoom == 2
    shown = pyvips.Image.new_from_buffer(preview.after, "")
    assert (shown.width, shown.height) == (90, 60)
    crop = pyvips.Image.new_from_buffer(preview.crop_after, "")
    assert (crop.width, crop.height) == (180, 120)


def test_thin_scratch_survives_in_the_shrunken_mask() -> None:
    mask = np.zeros((3000, 4000), np.uint8)
    mask[:, 2001] = 1
    preview = make_preview(picture(0, shape=(3000, 4000)), mask=mask)
    alpha = pyvips.Image.new_from_buffer(preview.mask, "").numpy()[:, :, -1]
    assert alpha.shape == (750, 1000)
    assert (alpha.max(axis=1) > 200).all()
    assert (alpha > 0).mean() < 0.01


def test_untouched_preview_has_one_picture_and_the_folder_gives_back_what_it_got(tmp_path: Path) -> None:
    folder = PreviewFolder(tmp_path / "previews")
    same = picture(3)
    folder.put("a#1", make_preview(same, picture(4)))
    folder.put("a#1", make_preview(same, same.copy()))
    kept = folder.get("a#1")
    assert kept == make_preview(same)
    assert kept is not None
    assert kept.after is None
    assert kept.crop_before is None
    assert folder.get("../../etc/passwd") is None


def test_preview_refuses_floats() -> None:
    with pytest.raises(ValueError, match="uint8 or uint16"):
        make_preview(np.zeros((4, 4), np.float32))
