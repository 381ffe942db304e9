"""Reading of TensorFlow V2 checkpoints (`.index` and `.data-00000-of-00001`) with numpy alone.

Layout: tensorflow/core/protobuf/tensor_bundle.proto. Partitioned variables, strings, variants and big-endian files are
refused with a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.published.sstable import CheckpointError, masked_crc32c, read_table, read_varint

# tensorflow/core/framework/types.proto
_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    9: np.dtype("<i8"),
    10: np.dtype("?"),
    19: np.dtype("<f2"),
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """Where a tensor's bytes lie and what they mean."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    shard: int
    start: int
    size: int
    crc: int


def read_checkpoint(prefix: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the variables of a V2 checkpoint by name; `prefix` is its path without `.index`.

    Every tensor's bytes are checked against the stored CRC-32C. Raises CheckpointError for a file that is missing,
    truncated, altered, or not such a checkpoint.
    """
    index = prefix.with_name(prefix.name + ".index")
    table = read_table(_read_file(index), name=index.name)
    shards = _shard_count(table.pop(b"", b""), name=index.name)
    contents: dict[int, bytes] = {}
    tensors: dict[str, npt.NDArray[Any]] = {}
    for key, value in table.items():
        name = key.decode("utf-8", errors="replace")
        entry = _read_entry(value, name=f"{index.name}: {name}")
        if entry.shard >= shards:
            raise CheckpointError(f"{index.name}: {name} lies in file {entry.shard}, there are {shards}")
        path = prefix.with_name(f"{prefix.name}.data-{entry.shard:05d}-of-{shards:05d}")
        if entry.shard not in contents:
            contents[entry.shard] = _read_file(path)
        tensors[name] = _read_tensor(contents[entry.shard], entry, name=f"{path.name}: {name}")
    return tensors


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path.name}: cannot be read ({error.strerror}) in {path.parent}; "
            "keep the .index and .data files of a checkpoint together"
        ) from error


def _fields(message: bytes, *, name: str) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of every field of a protocol buffer message."""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at, name=name)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = read_varint(message, at, name=name)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = read_varint(message, at, name=name)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise CheckpointError(f"{name}: got a field of kind {kind}, expected 0, 1, 2 or 5; the file is altered")
        part = message[at : at + size]
        if len(part) < size:
            raise CheckpointError(f"{name}: a field of {size} bytes runs out of its message; the file is altered")
        yield number, part if kind == _BYTES else int.from_bytes(part, "little")
        at += size


def _shard_count(header: bytes, *, name: str) -> int:
    fields = dict(_fields(header, name=name))
    count, byte_order = fields.get(1, 0), fields.get(2, 0)
    if not isinstance(count, int) or not 1 <= count <= 99999:
        raise CheckpointError(f"{name}: got {count!r} data files in its header, expected 1 or more; not a checkpoint")
    if byte_order != 0:
        raise CheckpointError(f"{name}: got byte order {byte_order!r}, expected 0 (little-endian)")
    return count


def _read_entry(message: bytes, *, name: str) -> _Entry:
    numbers: dict[int, int] = {}
    shape: tuple[int, ...] = ()
    for number, value in _fields(message, name=name):
        if number == 7:
            raise CheckpointError(f"{name}: is a partitioned variable, expected a whole one; save it unpartitioned")
        if isinstance(value, int):
            numbers[number] = value
        elif number == 2:
            shape = _read_shape(value, name=name)
    dtype = _DTYPES.get(numbers.get(1, 0))
    if dtype is None:
        raise CheckpointError(f"{name}: got data type {numbers.get(1, 0)}, expected one of {sorted(_DTYPES)}")
    size = numbers.get(5, 0)
    if math.prod(shape) * dtype.itemsize != size:
        raise CheckpointError(f"{name}: got {size} bytes for shape {shape} of {dtype}; the file is altered")
    return _Entry(
        dtype=dtype, shape=shape, shard=numbers.get(3, 0), start=numbers.get(4, 0), size=size, crc=numbers.get(6, 0)
    )


def _read_shape(message: bytes, *, name: str) -> tuple[int, ...]:
    sizes = []
    for number, value in _fields(message, name=name):
        if number != 2 or not isinstance(value, bytes):
            raise CheckpointError(f"{name}: has no fixed number of dimensions; the file is altered")
        size = dict(_fields(value, name=name)).get(1, 0)
        if not isinstance(size, int) or size >= 1 << 40:
            raise CheckpointError(f"{name}: got a dimension of {size!r}, expected a size; the file is altered")
        sizes.append(size)
    return tuple(sizes)


def _read_tensor(content: bytes, entry: _Entry, *, name: str) -> npt.NDArray[Any]:
    part = content[entry.start : entry.start + entry.size]
    if len(part) < entry.size:
        raise CheckpointError(
            f"{name}: ends at byte {entry.start + entry.size}, the file has {len(content)}; it is truncated"
        )
    if masked_crc32c(part) != entry.crc:
        raise CheckpointError(f"{name}: its bytes have another checksum than stored; copy the file again")
    return np.frombuffer(part, entry.dtype).reshape(entry.shape).copy()
