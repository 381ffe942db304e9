"""Enlargement through the whole flow: sizes, the catalogue, references of the large size, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pyvips
from typer.testing import CliRunner

import flows.prefect_settings  # noqa: F401 - before prefect
from flows.cli import app
from flows.restore_archive import restore_archive
from models.degradations.resample import resize
from storage.catalogue import query
from storage.limits import IngestLimits
from storage.locations import Location
from tasks.jobs import RestoreOptions
from tests.flows.conftest import smooth_picture, write_picture

STRENGTHS = (("deblock", 0.0), ("deblur", 0.0), ("denoise", 0.0), ("fill", 0.0), ("upscale-x2", 1.0))


def shrink(picture: np.ndarray) -> np.ndarray:
    """Half the height and width, as the published tables do it."""
    import torch

    planes = torch.from_numpy(picture if picture.ndim == 2 else picture.transpose(2, 0, 1))
    small = resize(planes, height=picture.shape[0] // 2, width=picture.shape[1] // 2).clamp(0, 1).numpy()
    return np.asarray(small if picture.ndim == 2 else small.transpose(1, 2, 0))


def save(path: Path, picture: np.ndarray, *, bits: int = 8) -> None:
    array = np.rint(picture * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    pyvips.Image.new_from_array(np.ascontiguousarray(array)).copy(
        interpretation={2: "b-w", 3: "srgb"}[array.ndim] if bits == 8 else {2: "grey16", 3: "rgb16"}[array.ndim]
    ).write_to_file(str(path))


@pytest.fixture(scope="module")
def destination(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of 48 px enlarged to 96; one of them is flat, and one too large for the limit."""
    folder = tmp_path_factory.mktemp("upscale")
    for name, grey, bits in (("colour.png", False, 8), ("grey.png", True, 8), ("deep.tif", False, 16)):
        picture = smooth_picture(len(name), grey=grey)
        save(folder / "in" / name, shrink(picture), bits=bits)
        write_picture(folder / "large" / name, picture, bits=bits)
    save(folder / "in" / "flat.png", np.full((48, 40), 0.5))
    save(folder / "in" / "huge.png", np.full((48, 60), 0.5))
    options = RestoreOptions(
        device="cpu",
        precision="float32",
        strengths=STRENGTHS,
        reference=str(folder / "large"),
        limits=IngestLimits(max_pixels=100 * 100),
        write_report=False,
    )
    restore_archive(str(folder / "in"), str(folder / "out"), options)
    return folder / "out"


def rows(destination: Path, sql: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = query(Location(str(destination)).join("catalogue"), sql).to_pylist()
    return found


@pytest.mark.parametrize(
    ("name", "shape"),
    [("colour.png", (96, 96, 3)), ("grey.png", (96, 96, 1)), ("deep.tif", (96, 96, 3)), ("flat.png", (96, 80, 1))],
)
def test_results_have_twice_the_size(destination: Path, name: str, shape: tuple[int, int, int]) -> None:
    image = pyvips.Image.new_from_file(str(destination / "images" / name))
    assert (image.height, image.width, image.bands) == shape
    assert image.format == ("ushort" if name == "deep.tif" else "uchar")


def test_the_step_says_what_it_did(destination: Path) -> None:
    steps = rows(destination, "SELECT * FROM steps WHERE relative_path = 'colour.png'")
    assert [step["method_id"] for step in steps] == ["upscale-x2"]
    assert steps[0]["reason"] == "enlargement 2 times was asked for"
    assert "48 x 48 px became 96 x 96 px" in str(steps[0]["note"])


def test_references_of_the_large_size_give_the_gain_over_plain_enlargement(destination: Path) -> None:
    gains = rows(
        destination,
        "SELECT a.relative_path, a.value - b.value AS gain FROM metrics a JOIN metrics b USING (relative_path, metric) "
        "WHERE metric = 'psnr_db' AND a.stage = 'after' AND b.stage = 'before'",
    )
    assert {row["relative_path"] for row in gains} == {"colour.png", "grey.png", "deep.tif"}
    assert all(float(str(row["gain"])) > 1.0 for row in gains)


def test_a_picture_that_would_be_too_large_fails_with_a_sentence(destination: Path) -> None:
    (row,) = rows(destination, "SELECT * FROM images WHERE relative_path = 'huge.png'")
    assert row["status"] == "failed"
    assert "11,520 pixels" in str(row["error_text"])


def test_a_scale_without_a_method_is_refused(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["restore", str(tmp_path), str(tmp_path / "out"), "--upscale", "3"])
    assert found.exit_code == 2
    assert "expected 2 or 4" in found.output
