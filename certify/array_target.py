"""What a vendor says of an array: the one class to write."""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..drivers.contracts import ArrayDriver, GroupSnapshotRef
from ..drivers.records import DeviceIdentity, StorageUnit, UnitId
from .target import Target, is_base

BLOCK_BYTES = 4096
"""What a host writes at once, and what offsets and lengths of plain writes are multiples of."""
_PIECE_BYTES = 256 << 10
"""Most in one request: larger direct ones to a FUSE file arrive in wrong places (Linux 6.18)."""


@dataclass(frozen=True, slots=True)
class ScratchUnit:
    """A unit that the kit may overwrite.

    Attributes
    ----------
    devices:
        Every identity under which hosts know it (page-83 forms, serial number, NFS export, file).
    capacity_bytes:
        Its size as hosts see it.
    path:
        Where this machine reads and writes it: a block device or a file, past which there is no
        cache. None when the target overrides ``write`` and ``read``.
    unit_id:
        The array's own identifier as the array's console shows it, in the form that the driver
        gives it (``array/lun-7``); None when it is not known beforehand.
    begins_bytes:
        Which byte of the unit the kit's byte 0 is: not zero where hosts reach only a part of it,
        such as one file of a datastore on it.
    """

    devices: tuple[DeviceIdentity, ...]
    capacity_bytes: int
    path: Path | None = None
    unit_id: UnitId | None = None
    begins_bytes: int = 0


@is_base
class ArrayTarget(Target[ArrayDriver]):
    """One array whose scratch units may be overwritten, and its driver.

    To override: ``connect`` and ``units``; ``write`` and ``read`` where the units have no ``path``;
    and as many hooks as the array allows.
    """

    async def units(self) -> Sequence[ScratchUnit]:
        """The scratch units, three at least; four show more. The same each time."""
        raise NotImplementedError

    def foreign_devices(self) -> Sequence[DeviceIdentity]:
        """Identities that this array must not answer for, beside those that the kit makes up."""
        return ()

    # -- a host's reads and writes ---------------------------------------------------------------

    async def write(self, unit: ScratchUnit, offset_bytes: int, data: bytes) -> None:
        """Write as a host does; returns when the array has acknowledged that it is kept.

        Parameters
        ----------
        offset_bytes, data:
            Any offset and length within the unit; a target that takes whole blocks only reads,
            changes and writes them (as the one here does).
        """
        await asyncio.to_thread(write_direct, _path(unit), offset_bytes, data)

    async def read(self, unit: ScratchUnit, offset_bytes: int, length_bytes: int) -> bytes:
        """What a host reads now."""
        return await asyncio.to_thread(read_direct, _path(unit), offset_bytes, length_bytes)

    async def write_clone(self, clone: StorageUnit, offset_bytes: int, data: bytes) -> None:
        """Write to a clone as a host does; by default through its ``file`` device."""
        await asyncio.to_thread(write_direct, _clone_path(clone), offset_bytes, data)

    async def read_clone(self, clone: StorageUnit, offset_bytes: int, length_bytes: int) -> bytes:
        """Read a clone as a host does; by default through its ``file`` device."""
        return await asyncio.to_thread(read_direct, _clone_path(clone), offset_bytes, length_bytes)

    # -- hooks -----------------------------------------------------------------------------------

    async def snapshots_on_device(self) -> frozenset[str]:
        """Hook: every snapshot of a scratch unit that the array holds, not asked of the driver.

        Any names, one for each member of each group, clones included: the kit only compares them
        from one moment to another, so what was there before has to keep its name.
        """
        raise NotImplementedError

    async def place_of(
        self, unit: ScratchUnit, offset_bytes: int, snapshot: GroupSnapshotRef | None
    ) -> str:
        """Hook: where the array keeps this block of the unit (None) or of a snapshot of it.

        Any name of a place, such as ``sda:8192``: the kit only compares them.
        """
        raise NotImplementedError

    def foreign_snapshot(self, unit: ScratchUnit) -> AbstractAsyncContextManager[str]:
        """Hook: meanwhile a snapshot by somebody else exists on this unit; gives its name.

        The name is the one under which ``snapshots_on_device`` lists it.
        """
        raise NotImplementedError

    def failing_unit(self, unit: ScratchUnit) -> AbstractAsyncContextManager[None]:
        """Hook: meanwhile this unit cannot be snapshotted, while the others can."""
        raise NotImplementedError

    def full_pool(self) -> AbstractAsyncContextManager[None]:
        """Hook: meanwhile no snapshot space is free; afterwards it is again."""
        raise NotImplementedError


def _path(unit: ScratchUnit) -> Path:
    if unit.path is None:
        raise NotImplementedError(f"unit {unit.devices[0]} has no path; override write and read")
    return unit.path


def _clone_path(clone: StorageUnit) -> Path:
    (device,) = clone.devices
    return Path(device.value)


def write_direct(path: Path, offset_bytes: int, data: bytes) -> None:
    """Write past this machine's page cache and wait until it is kept."""
    start = offset_bytes - offset_bytes % BLOCK_BYTES
    end = _up(offset_bytes + len(data))
    with _direct(path, os.O_RDWR | os.O_DSYNC) as handle, _aligned(end - start) as buffer:
        if (start, end) != (offset_bytes, offset_bytes + len(data)):
            _fill(handle, buffer, start)
        at = offset_bytes - start
        buffer[at : at + len(data)] = data
        _pour(handle, buffer, start)


def read_direct(path: Path, offset_bytes: int, length_bytes: int) -> bytes:
    """Read past this machine's page cache."""
    start = offset_bytes - offset_bytes % BLOCK_BYTES
    end = _up(offset_bytes + length_bytes)
    with _direct(path, os.O_RDONLY) as handle, _aligned(end - start) as buffer:
        _fill(handle, buffer, start)
        at = offset_bytes - start
        return bytes(buffer[at : at + length_bytes])


def _up(value: int) -> int:
    return -(-value // BLOCK_BYTES) * BLOCK_BYTES


def _fill(handle: int, buffer: mmap.mmap, start: int) -> None:
    view, done = memoryview(buffer), 0
    while done < len(buffer):
        got = os.preadv(handle, [view[done:]], start + done)
        if not got:
            raise EOFError(f"nothing can be read at byte {start + done}")
        done += got


def _pour(handle: int, buffer: mmap.mmap, start: int) -> None:
    view, done = memoryview(buffer), 0
    while done < len(buffer):
        done += os.pwritev(handle, [view[done : done + _PIECE_BYTES]], start + done)


@contextmanager
def _direct(path: Path, flags: int) -> Iterator[int]:
    handle = os.open(path, flags | os.O_DIRECT)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _aligned(size: int) -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, size) as memory:
        yield memory
