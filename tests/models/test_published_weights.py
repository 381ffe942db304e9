"""Published checkpoints: the TensorFlow reader on files written here, and every way in which a file can be wrong."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.published.sstable import FOOTER_BYTES, MAGIC, CheckpointError, masked_crc32c, read_varint
from models.published.tf_checkpoint import read_checkpoint


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
