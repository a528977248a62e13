"""The reflink array as an arm of the array contract."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support_contract_array import BLOCK_BYTES, SPAN_BYTES, ArrayArm, Place
from support_xfs import units_of, xfs_pool

_FIBMAP = 1
"""linux/fs.h: ``_IO(0x00, 1)``; where on the device a block of a file lies."""


@asynccontextmanager
async def xfs_arm(folder: Path) -> AsyncIterator[ArrayArm]:
    """Three units with a datastore on each: only the writes of datastores can be held."""
    async with xfs_pool(folder, units=3) as pool, pool.driver() as driver:
        places = []
        for number in range(len(pool.files)):
            file = await pool.datastore(number) / "file"
            places.append(Place(file, _laid_out(file)))
        units = await units_of(driver, pool.files)
        yield ArrayArm(driver, units, places, pool.driver)


def _laid_out(file: Path) -> int:
    """Write a file of the span that the tests use; the byte of the unit at which it begins."""
    with file.open("wb") as opened:
        opened.write(bytes(SPAN_BYTES))
        os.fsync(opened.fileno())
        blocks = [
            struct.unpack("i", fcntl.ioctl(opened, _FIBMAP, struct.pack("i", number)))[0]
            for number in range(SPAN_BYTES // BLOCK_BYTES)
        ]
    assert blocks == list(range(blocks[0], blocks[0] + len(blocks))), "it is in pieces"
    return blocks[0] * BLOCK_BYTES
