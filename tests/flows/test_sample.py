"""The sample archive: what it holds, that its bytes are reproducible, and how a restoration of it is scored."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import pyvips

from flows.sample import PICTURES, SampleArchive, build_sample_archive
from flows.sample_score import psnr_db, read_pages, score_metrics, score_sample


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleArchive:
    return build_sample_archive(tmp_path_factory.mktemp("sample"))


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def copy_reference(sample: SampleArchive, restored: Path) -> Path:
    """Write the ground truth under the delivered names; readers go by content, not suffix."""
    shutil.copytree(sample.originals, restored)
    for picture in json.loads(sample.manifest.read_text())["pictures"]:
        if not picture["clean"]:
            shutil.copy(sample.reference / picture["reference"], restored / picture["path"])
    return restored


def test_archive_has_every_kind_of_damage_and_clean_pictures() -> None:
    kinds = {kind for picture in PICTURES for kind, _ in picture.damage}
    assert kinds == {"scratches", "cracks", "holes", "noise", "blur", "jpeg", "fading"}
    assert len(PICTURES) >= 12
    assert sum(picture.clean for picture in PICTURES) >= 2
    assert any(len(picture.damage) > 1 for picture in PICTURES)


def test_files_and_zip_hold_the_same_members(sample: SampleArchive) -> None:
    expected = {picture.path for picture in sample.pictures} | set(sample.corrupt) | set(sample.ignored)
    assert set(digests(sample.originals)) == expected
    with zipfile.ZipFile(sample.archive_zip) as archive:
        assert set(archive.namelist()) == expected
        assert archive.testzip() is None


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(sample: SampleArchive, tmp_path: Path) -> None:
    again = build_sample_archive(tmp_path / "again")
    other = build_sample_archive(tmp_path / "other", seed=1)
    first = digests(sample.originals.parent)
    assert digests(again.originals.parent) == first
    changed = digests(other.originals.parent)
    assert changed["originals/night_prints/cat.png"] != first["originals/night_prints/cat.png"]
    assert changed["originals/well_kept/motorcycle.png"] == first["originals/well_kept/motorcycle.png"]


def test_building_again_replaces_a_sample_but_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "originals").mkdir()
    (tmp_path / "originals" / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="empty destination"):
        build_sample_archive(tmp_path)
    assert (tmp_path / "originals" / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("mine", ["reference/mine.png", "reference/manifest.json", "originals.zip"])
def test_building_replaces_no_files_of_others(mine: str, tmp_path: Path) -> None:
    (tmp_path / mine).parent.mkdir(exist_ok=True)
    (tmp_path / mine).write_text('{"mine": true}')
    with pytest.raises(FileExistsError, match=r"empty destination"):
        build_sample_archive(tmp_path)
    assert (tmp_path / mine).read_text() == '{"mine": true}'


def test_master_is_truly_16_bit_with_profile_resolution_and_xmp(sample: SampleArchive) -> None:
    master = pyvips.Image.new_from_file(str(sample.originals / "masters/motorcycle.tif"))
    assert (master.format, master.bands) == ("ushort", 3)
    assert len(np.unique(master.numpy() % 257)) > 200  # 8-bit values stretched to 16 bits would leave one remainder
    assert master.xres * 25.4 == pytest.approx(300)
    assert b"scan 0017" in master.get("xmp-data")
    assert len(master.get("icc-profile-data")) > 100


def test_rotated_jpeg_multipage_tiff_and_corrupt_member(sample: SampleArchive) -> None:
    lying = pyvips.Image.new_from_file(str(sample.originals / "newspaper/launch.jpg"))
    assert lying.get("orientation") == 6
    assert lying.height > lying.width
    upright = read_pages(sample.originals / "newspaper/launch.jpg")[0]
    assert psnr_db(read_pages(sample.reference / "newspaper/launch.jpg.png"), [upright]) > 20
    assert len(read_pages(sample.originals / "masters/index_pages.tif")) == 2
    with pytest.raises(pyvips.Error):
        pyvips.Image.new_from_file(str(sample.originals / sample.corrupt[0]), fail_on="truncated").avg()


def test_nothing_restored_scores_zero_and_does_not_pass(sample: SampleArchive, tmp_path: Path) -> None:
    score = score_sample(reference=sample.reference, damaged=sample.originals, restored=tmp_path)
    assert score.mean_gain_db == 0
    assert score.clean_untouched
    assert not score.passed
    damaged = {row.path: row.damaged_psnr_db for row in score.damaged_rows}
    assert damaged["night_prints/cat.png"] == pytest.approx(20.3, abs=0.3)  # σ 25: 20 log10(255 / 25) = 20.17, clipped
    assert all(value < 36 for value in damaged.values())


def test_perfect_restoration_passes(sample: SampleArchive, tmp_path: Path) -> None:
    restored = copy_reference(sample, tmp_path / "restored")
    score = score_sample(reference=sample.reference, damaged=sample.originals, restored=restored)
    assert score.passed
    assert score.worst_gain_db > 50


def test_a_touched_clean_picture_or_a_changed_size_fails(sample: SampleArchive, tmp_path: Path) -> None:
    restored = copy_reference(sample, tmp_path / "restored")
    clean = pyvips.Image.new_from_file(str(sample.originals / "well_kept/photographer.png"))
    (restored / "well_kept/photographer.png").write_bytes(clean.linear(1, 2).cast("uchar").pngsave_buffer())
    (restored / "night_prints/cat.png").write_bytes(clean.pngsave_buffer())
    score = score_sample(reference=sample.reference, damaged=sample.originals, restored=restored)
    assert not score.clean_untouched
    assert not score.passed
    assert {row.path for row in score.rows if "geometry" in row.note} == {"night_prints/cat.png"}


def test_score_becomes_metric_rows_of_every_page(sample: SampleArchive, tmp_path: Path) -> None:
    score = score_sample(reference=sample.reference, damaged=sample.originals, restored=tmp_path)
    rows = score_metrics(score, image_ids={"masters/index_pages.tif": ["aa#0", "aa#1"]})
    assert [(row["image_id"], row["stage"]) for row in rows] == [
        ("aa#0", "before"),
        ("aa#0", "after"),
        ("aa#1", "before"),
        ("aa#1", "after"),
    ]
    assert all(row["value"] == pytest.approx(22.2, abs=1) for row in rows)


def test_importing_the_sample_does_not_load_torch() -> None:
    code = "import sys, flows.sample, flows.sample_score; print('torch' in sys.modules or 'skimage' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_scoring_a_folder_that_is_no_sample_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        score_sample(reference=tmp_path, damaged=tmp_path, restored=tmp_path)
