"""One temporary Prefect server for all tests that run the flow, and a small archive to run it on."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import pyvips

# Before anything imports the flow's settings: nothing of a test may reach the user's own home.
_HOME = Path(tempfile.mkdtemp(prefix="lacuna-tests-"))
os.environ["LACUNA_HOME"] = str(_HOME)
os.environ["PREFECT_HOME"] = str(_HOME)

SIDE = 96


@pytest.fixture(scope="session", autouse=True)
def _remove_home() -> Iterator[None]:
    yield
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A server of Prefect with a database of its own; starting it takes seconds, so only flow tests ask for it."""
    import flows.prefect_settings  # noqa: F401, I001 - before prefect
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    # At its end a flow waits for the thread of its heartbeat, half a second on the mean; there are hundreds of them.
    quick = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with prefect_test_harness(server_startup_timeout=300), temporary_settings(quick):
        yield


def smooth_picture(seed: int, *, grey: bool = False) -> np.ndarray:
    """A clean picture (SIDE, SIDE, 3) or (SIDE, SIDE) in [0, 1]: slow gradients and sharp discs over the full range."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    planes = []
    for _ in range(3):
        plane = rng.uniform(0.0, 0.4) + 0.5 * (x * rng.uniform(0.2, 1) + y * rng.uniform(0.2, 1)) / 2
        for _ in range(5):
            centre, radius = rng.uniform(0.1, 0.9, 2), rng.uniform(0.08, 0.2)
            distance = np.hypot(x - centre[0], y - centre[1]) - radius
            plane = plane + rng.uniform(-0.4, 0.4) / (1 + np.exp(np.clip(distance * 400, -50, 50)))
        planes.append(plane)
    picture = np.clip(np.stack(planes, axis=-1), 0.0, 1.0)
    return picture[..., 1] if grey else picture


def write_picture(path: Path, picture: np.ndarray, *, noise_sigma: float = 0.0, bits: int = 8) -> None:
    """Write a picture in [0, 1] with noise of `noise_sigma` 8-bit levels; the suffix says the format."""
    rng = np.random.default_rng(len(path.name))
    noisy = np.clip(picture + rng.normal(0.0, noise_sigma / 255, picture.shape), 0.0, 1.0)
    array = np.rint(noisy * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    bands = 1 if array.ndim == 2 else 3
    kind = "uchar" if bits == 8 else "ushort"
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(array).data, SIDE, SIDE, bands, kind)
    spaces = {(1, 8): "b-w", (3, 8): "srgb", (1, 16): "grey16", (3, 16): "rgb16"}
    path.parent.mkdir(parents=True, exist_ok=True)
    image.copy(interpretation=spaces[bands, bits]).write_to_file(str(path))


def build_archive(folder: Path) -> Path:
    """Six pictures in two folders, three of them noisy, and a file that is no picture."""
    write_picture(folder / "a" / "clean.png", smooth_picture(1))
    write_picture(folder / "a" / "noisy.png", smooth_picture(2), noise_sigma=25)
    write_picture(folder / "a" / "noisy_grey.png", smooth_picture(3, grey=True), noise_sigma=30)
    write_picture(folder / "b" / "clean_16.tif", smooth_picture(4), bits=16)
    write_picture(folder / "b" / "noisy_16.tif", smooth_picture(5), noise_sigma=25, bits=16)
    write_picture(folder / "b" / "twin.png", smooth_picture(1))
    (folder / "b" / "corrupt.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is not a picture")
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return build_archive(tmp_path / "archive")


def write_tar(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a tar as other programs do, with a time in every header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000
            archive.addfile(info, io.BytesIO(data))
