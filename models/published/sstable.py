"""Reading of sorted string tables: the container of TensorFlow's `.index` files, as LevelDB defined it.

Format: LevelDB, doc/table_format.md. Only uncompressed blocks are read; TensorFlow writes no others for checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
TRAILER_BYTES = 5
_VARINT_BYTES = 10
_CASTAGNOLI = 0x82F63B78
_MASK_DELTA = 0xA282EAD8


class CheckpointError(ValueError):
    """A checkpoint that is truncated, altered or of another kind; the message says where and what was expected."""


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_CASTAGNOLI if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _crc_table()


def masked_crc32c(content: bytes) -> int:
    """Return CRC-32C (Castagnoli) of `content`, rotated and offset as LevelDB stores it."""
    crc, table = 0xFFFFFFFF, _TABLE
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def read_varint(content: bytes, at: int, *, name: str) -> tuple[int, int]:
    """Return the little-endian base-128 number at `at` and where it ends; CheckpointError when it does not end."""
    value = 0
    for index in range(_VARINT_BYTES):
        if at + index >= len(content):
            break
        byte = content[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise CheckpointError(f"{name}: a number at byte {at} does not end; the file is truncated or not a checkpoint")


def read_table(content: bytes, *, name: str) -> dict[bytes, bytes]:
    """Return the keys and values of a whole table; CheckpointError for one that is truncated, altered or foreign.

    `name` is what the messages call it.
    """
    if len(content) < FOOTER_BYTES:
        raise CheckpointError(
            f"{name}: got {len(content)} bytes, expected at least {FOOTER_BYTES}; the file is truncated, copy it again"
        )
    footer = content[-FOOTER_BYTES:]
    if int.from_bytes(footer[-8:], "little") != MAGIC:
        raise CheckpointError(
            f"{name}: got {footer[-8:].hex()} at its end, expected the mark of a table; "
            "give the .index file of a TensorFlow V2 checkpoint, whole"
        )
    _, _, end = _read_handle(footer, 0, name=name)
    start, size, _ = _read_handle(footer, end, name=name)
    table: dict[bytes, bytes] = {}
    for _, handle in _entries(_read_block(content, start, size=size, name=name), name=name):
        start, size, _ = _read_handle(handle, 0, name=name)
        table.update(_entries(_read_block(content, start, size=size, name=name), name=name))
    return table


def _read_handle(content: bytes, at: int, *, name: str) -> tuple[int, int, int]:
    start, at = read_varint(content, at, name=name)
    size, at = read_varint(content, at, name=name)
    return start, size, at


def _read_block(content: bytes, start: int, *, size: int, name: str) -> bytes:
    end = start + size
    if end + TRAILER_BYTES > len(content) - FOOTER_BYTES:
        raise CheckpointError(
            f"{name}: a block is said to end at byte {end}, the file has {len(content)}; it is truncated, copy it again"
        )
    stored = int.from_bytes(content[end + 1 : end + TRAILER_BYTES], "little")
    if masked_crc32c(content[start : end + 1]) != stored:
        raise CheckpointError(f"{name}: the block at byte {start} has another checksum than stored; copy it again")
    if content[end] != 0:
        raise CheckpointError(
            f"{name}: got a block of compression {content[end]}, expected 0 (none); "
            "write the checkpoint again with TensorFlow's own Saver"
        )
    return content[start:end]


def _entries(block: bytes, *, name: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values; a key is stored as how much of the last one it shares, and the rest."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if len(block) < 4 or end < 0:
        raise CheckpointError(f"{name}: a block of {len(block)} bytes cannot hold {restarts} restart points")
    key, at = b"", 0
    while at < end:
        shared, at = read_varint(block, at, name=name)
        fresh, at = read_varint(block, at, name=name)
        size, at = read_varint(block, at, name=name)
        if shared > len(key) or at + fresh + size > end:
            raise CheckpointError(f"{name}: an entry runs out of its block; the file is altered, copy it again")
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + size]
        at += fresh + size
