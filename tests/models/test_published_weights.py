"""Published checkpoints: the TensorFlow reader on files written here, and every way in which a file can be wrong."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.methods.published_denoisers import DnCNN
from models.published.catalogue import PUBLISHED, SETTING, card_of, missing_weights, tensors_of
from models.published.converters import convert_agent, convert_tool, read_dncnn, read_owan
from models.published.sstable import FOOTER_BYTES, MAGIC, CheckpointError, masked_crc32c, read_varint
from models.published.tf_checkpoint import read_checkpoint
from models.registry import METHODS, get_method, unavailable
from models.run import Runner, RunSettings
from models.weights import WeightsError

DATA = Path(os.environ.get("LACUNA_DATA", Path(__file__).parents[3] / "shared" / "data"))


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def part(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Entries with shared key prefixes, one restart point and the trailer."""
    out, last = b"", b""
    for key, value in pairs:
        shared = 0
        while shared < min(len(key), len(last)) and key[shared] == last[shared]:
            shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    out += struct.pack("<II", 0, 1)
    return out + b"\0" + struct.pack("<I", masked_crc32c(out + b"\0"))


def table(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A table of two data blocks, an empty meta index and an index."""
    out, index = b"", []
    half = len(pairs) // 2
    for group in (pairs[:half], pairs[half:]):
        written = block(group)
        index.append((group[-1][0], varint(len(out)) + varint(len(written) - 5)))
        out += written
    handles = b""
    for written in (block([]), block(index)):
        handles += varint(len(out)) + varint(len(written) - 5)
        out += written
    return out + handles.ljust(FOOTER_BYTES - 8, b"\0") + struct.pack("<Q", MAGIC)


TENSORS: dict[str, npt.NDArray[Any]] = {
    "conv1/biases": np.arange(4, dtype=np.float32),
    "conv1/weights": np.linspace(-1, 1, 2 * 2 * 3 * 4, dtype=np.float32).reshape(2, 2, 3, 4),
    "conv2/weights": np.ones((300, 2), np.float64),
    "step": np.array(1050000, np.int32),
}
CODES = {"float32": 1, "float64": 2, "int32": 3}


def write_checkpoint(folder: Path, *, changes: dict[str, bytes] | None = None) -> Path:
    data, pairs = b"", [(b"", number(1, 1) + part(3, number(1, 1)))]
    for name, tensor in TENSORS.items():
        content = tensor.tobytes()
        shape = b"".join(part(2, number(1, size)) for size in tensor.shape)
        entry = number(1, CODES[tensor.dtype.name]) + part(2, shape) + number(4, len(data)) + number(5, len(content))
        entry += varint(6 << 3 | 5) + struct.pack("<I", masked_crc32c(content))
        pairs.append((name.encode(), (changes or {}).get(name, entry)))
        data += content
    (folder / "net.index").write_bytes(table(pairs))
    (folder / "net.data-00000-of-00001").write_bytes(data)
    return folder / "net"


def test_the_checksum_is_crc32c() -> None:
    unmasked = (masked_crc32c(b"123456789") - 0xA282EAD8) & 0xFFFFFFFF
    assert (unmasked << 15 | unmasked >> 17) & 0xFFFFFFFF == 0xE3069283


def test_reads_names_shapes_types_and_values(tmp_path: Path) -> None:
    found = read_checkpoint(write_checkpoint(tmp_path))
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert np.array_equal(found[name], tensor)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    prefix = write_checkpoint(tmp_path)
    for path in (tmp_path / "net.index", tmp_path / "net.data-00000-of-00001"):
        whole = path.read_bytes()
        for size in range(0, len(whole), 7):
            path.write_bytes(whole[:size])
            with pytest.raises(CheckpointError):
                read_checkpoint(prefix)
        path.write_bytes(whole)


def test_altered_bytes_are_refused_or_harmless(tmp_path: Path) -> None:
    prefix = write_checkpoint(tmp_path)
    rng = np.random.default_rng(0)
    refused = 0
    for path in (tmp_path / "net.index", tmp_path / "net.data-00000-of-00001"):
        whole = path.read_bytes()
        for at in rng.integers(0, len(whole), 150):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(8))]) + whole[at + 1 :])
            try:
                found = read_checkpoint(prefix)
            except CheckpointError:
                refused += 1
                continue
            # A flipped bit outside of what is read: the meta index or the padding of the footer.
            assert all(np.array_equal(found[name], tensor) for name, tensor in TENSORS.items())
        path.write_bytes(whole)
    assert refused > 250


@pytest.mark.parametrize("content", [b"", b"x" * 47, b"\x89PNG" * 100, bytes(4096)])
def test_foreign_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.index").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"net\.index"):
        read_checkpoint(tmp_path / "net")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"keep the \.index and \.data files"):
        read_checkpoint(tmp_path / "net")
    prefix = write_checkpoint(tmp_path)
    (tmp_path / "net.data-00000-of-00001").unlink()
    with pytest.raises(CheckpointError, match=r"net\.data-00000-of-00001"):
        read_checkpoint(prefix)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (number(1, 7), "data type 7"),
        (number(1, 1) + part(2, part(2, number(1, 9))) + number(5, 4), "shape"),
        (number(1, 1) + part(2, part(2, number(1, 1 << 50))) + number(5, 4), "dimension"),
        (number(1, 1) + part(7, b""), "partitioned"),
        (number(1, 1) + number(3, 5) + number(5, 4), "lies in file 5"),
        (number(1, 1) + number(4, 1 << 40) + number(5, 4), "truncated"),
        (number(1, 1) + number(5, 4), "checksum"),
        (b"\x0b", "kind 3"),
        (b"\x2a\x7f", "runs out"),
    ],
)
def test_entries_that_lie_are_refused(tmp_path: Path, entry: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(write_checkpoint(tmp_path, changes={"conv1/biases": entry}))


def test_a_number_without_end_is_refused() -> None:
    with pytest.raises(CheckpointError, match="does not end"):
        read_varint(b"\xff" * 20, 0, name="x")


@pytest.mark.parametrize("convert", [convert_tool, convert_agent])
def test_another_networks_checkpoint_is_refused(convert: Any) -> None:
    with pytest.raises(CheckpointError, match="another checkpoint"):
        convert({"conv1/weights": np.zeros((3, 3), np.float32)}, name="tool01")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 but no archive", b"cos\nsystem\n(S'true'\ntR."])
def test_files_that_hold_no_tensors_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    for read in (read_dncnn, read_owan):
        with pytest.raises(CheckpointError, match=r"weights\.pth"):
            read(path)


def test_dncnn_files_of_other_layouts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for tensors, message in (
        ({"model.1.running_mean": torch.zeros(3)}, "batch normalization"),
        ({"body.0.weight": torch.zeros(3)}, r"expected model\.N\.weight"),
        ({"epoch": 3}, "plain dictionary of tensors"),
    ):
        torch.save(tensors, path)
        with pytest.raises(CheckpointError, match=message):
            read_dncnn(path)


def test_absent_weights_are_a_sentence_and_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((20, 20), np.uint8)
    for folder, message in (("", "is not set"), (str(tmp_path / "x"), "not a folder"), (str(tmp_path), "is not in")):
        monkeypatch.setenv(SETTING, folder)
        for published in PUBLISHED:
            reason = missing_weights(published.card.id)
            assert reason is not None
            assert reason.startswith("needs weights: ")
            assert message in reason
            assert published.origin in reason
        for method_id in ("dncnn-25", "rl-restore-released"):
            assert unavailable(get_method(method_id))
            assert Runner.weights_sha256(method_id) == card_of(method_id).sha256
            with pytest.raises(WeightsError, match="needs weights"):
                Runner(RunSettings(device="cpu")).apply(method_id, [image])
    assert not any(unavailable(method) for method in METHODS if method.card.weights in (None, "denoise", "fill"))


def test_an_altered_file_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, str(tmp_path))
    (tmp_path / "dncnn_25.pth").write_bytes(b"something else")
    assert "sha256 differs" in str(missing_weights("dncnn-25"))
    with pytest.raises(WeightsError, match="sha256 differs"):
        tensors_of("dncnn-25")


@pytest.mark.data
def test_every_published_set_fits_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (DATA / "parity").is_dir():
        pytest.skip(f"SKIPPED: no {DATA / 'parity'}; set LACUNA_DATA to the folder above parity/ and test/")
    monkeypatch.setenv(SETTING, str(DATA / "parity"))
    for published in PUBLISHED:
        assert missing_weights(published.card.id) is None
        tensors = tensors_of(published.card.id)
        assert sum(value.numel() for value in tensors.values()) == published.card.parameters


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("folder", "published_db"), [("Set12", 30.44), ("BSD68", 29.23)])
def test_dncnn_reaches_its_published_figures(monkeypatch: pytest.MonkeyPatch, folder: str, published_db: float) -> None:
    """Grey, σ 25, noise neither clipped nor rounded, seed 0 for the set, PSNR of the clipped result."""
    paths = sorted(path for path in (DATA / "test" / folder).glob("*") if path.suffix in (".png", ".jpg", ".bmp"))
    if not paths:
        pytest.skip(f"SKIPPED: no pictures in {DATA / 'test' / folder}; set LACUNA_DATA to the folder above test/")
    monkeypatch.setenv(SETTING, str(DATA / "parity"))
    runner, rng, found = Runner(RunSettings(device="cpu", precision="float32")), np.random.default_rng(0), []
    for path in paths:
        clean = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255.0
        noisy = clean + rng.normal(0.0, 25.0 / 255.0, clean.shape).astype(np.float32)
        restored = runner.restore_planes("dncnn-25", torch.from_numpy(noisy).expand(3, -1, -1))[0].clamp(0, 1).numpy()
        found.append(-10.0 * np.log10(np.mean((restored - clean) ** 2)))
    print(f"{folder}: {np.mean(found):.3f} dB, published {published_db}")
    assert np.mean(found) == pytest.approx(published_db, abs=0.05)


def test_dncnn_treats_planes_alike() -> None:
    network = DnCNN().eval()
    assert sum(value.numel() for value in network.parameters()) == 555_137
    image = torch.rand(2, 3, 12, 17)
    with torch.no_grad():
        together = network(image)
        for plane in range(3):
            assert torch.allclose(together[:, plane : plane + 1], network(image[:, plane : plane + 1]), atol=1e-6)
