"""Blocks of a unit as tests write and read them: past the page cache, a number all over each."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BLOCK_BYTES = 4096


def block_of(value: int) -> bytes:
    """A block that holds a number all over, so that a part of another block shows."""
    return value.to_bytes(8, "little") * (BLOCK_BYTES // 8)


def value_of(block: bytes) -> int:
    """The number that a block holds."""
    value = int.from_bytes(block[:8], "little")
    assert block == block_of(value), "the block is mixed of two writes"
    return value


def write_block(file: Path, block: int, value: int) -> None:
    """Write a block past the host's page cache, and wait until it is kept."""
    with direct(file, os.O_RDWR | os.O_DSYNC) as handle, aligned() as buffer:
        buffer[:] = block_of(value)
        os.pwritev(handle, [buffer], block * BLOCK_BYTES)


def read_block(file: Path, offset_bytes: int) -> int:
    """Read a block past the host's page cache."""
    with direct(file, os.O_RDONLY) as handle, aligned() as buffer:
        assert os.preadv(handle, [buffer], offset_bytes) == BLOCK_BYTES
        return value_of(bytes(buffer))


@contextmanager
def direct(file: Path, flags: int) -> Iterator[int]:
    """A file opened past the host's page cache."""
    handle = os.open(file, flags | os.O_DIRECT)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def aligned() -> Iterator[mmap.mmap]:
    """Memory as direct I/O wants it."""
    with mmap.mmap(-1, BLOCK_BYTES) as memory:
        yield memory
