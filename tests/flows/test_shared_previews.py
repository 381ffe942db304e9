"""Previews at a remote destination: the next report shows them on a machine that never saw the pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from storage.locations import Location
from tasks.reporting.previews import PreviewFolder, make_preview
from tasks.reporting.shared_previews import SharedPreviews


def preview(seed: int) -> object:
    before = np.random.default_rng(seed).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    return make_preview(before, before[::-1].copy(), mask=None)


def test_what_was_shown_is_kept_and_found_elsewhere(tmp_path: Path) -> None:
    place = Location(f"memory://previews-{tmp_path.name}")
    here = PreviewFolder(tmp_path / "here")
    for number in range(3):
        here.put(f"image {number}", preview(number))
    first = SharedPreviews(here, place)
    shown = [first.get("image 0"), first.get("image 1"), first.get("unknown")]
    first.keep()
    assert len(place.list()) == 2, "only what was shown"

    elsewhere = SharedPreviews(PreviewFolder(tmp_path / "elsewhere"), place)
    assert [elsewhere.get("image 0"), elsewhere.get("image 1"), elsewhere.get("unknown")] == shown
    assert elsewhere.get("image 2") is None
    before = [entry.modified for entry in place.entries()]
    elsewhere.keep()
    assert [entry.modified for entry in place.entries()] == before, "what is there is not put again"


def test_a_broken_one_is_left_out_and_a_foreign_one_not_unpacked(tmp_path: Path) -> None:
    import io
    import zipfile

    place = Location(f"memory://broken-{tmp_path.name}")
    folder = PreviewFolder(tmp_path / "here")
    place.join(f"{folder.stem('a')}.zip").write_bytes_atomic(b"no zip")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../outside.jpg", b"x")
    place.join(f"{folder.stem('b')}.zip").write_bytes_atomic(packed.getvalue())
    found = SharedPreviews(folder, place)
    assert (found.get("a"), found.get("b")) == (None, None)
    assert list(tmp_path.rglob("*.jpg")) == []
