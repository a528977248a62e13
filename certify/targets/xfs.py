"""The reflink array as a target: a pool of its own with a datastore on each unit.

The driver holds the writes of datastores, so the kit writes to a file on each of them: one that
lies in one piece and reaches to the end of its unit.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated, NamedTuple, Self
from urllib.parse import quote

from pydantic import Field

from ...drivers import xfs_ioctl
from ...drivers.contracts import ArrayDriver, GroupSnapshotRef
from ...drivers.records import DeviceIdentity
from ...drivers.xfs_reflink import open_xfs_reflink
from ...errors import StillframeError
from ...lab.backend_xfs import XfsBackend
from ...lab.host import attach_loop, detach_loop, loops, mount, mounts, run, unmount
from ...quantity import Bytes
from ..array_target import BLOCK_BYTES, ScratchUnit
from .lab_array import (
    MIB,
    SYSTEM_ID,
    LabArray,
    LabArraySettings,
    file_device,
    filled,
)

_ROOM_WHEN_FULL_BYTES = 32 * MIB
"""Half of what the driver wants to be free, and enough for what hosts overwrite meanwhile."""
_FIEMAP = 0xC020660B
"""linux/fs.h: ``_IOWR('f', 11, struct fiemap)``."""
_FIEMAP_HEAD = struct.Struct("=QQLLLL")
_FIEMAP_EXTENT = struct.Struct("=QQQQQLLLL")
"""linux/fiemap.h: start, length, flags, extents found and asked for; then logical and physical
place and length of each extent, and its flags."""
_SYNC_FIRST = 1
_HIDDEN = ".stillframe"
_MAKE = ("mkfs.ext4", "-q", "-b", str(BLOCK_BYTES), "-m", "0")
_LOSE_POWER = 0x8004587D
"""xfs_fs.h: ``XFS_IOC_GOINGDOWN``, ``_IOR('X', 125, uint32)``."""
_WITHOUT_A_LAST_WRITE = struct.pack("=L", 2)
"""``XFS_FSOP_GOING_FLAGS_NOLOGFLUSH``: what is in memory only is lost."""
_LET_GO_S = 30.0
_POLL_S = 0.02


class Extent(NamedTuple):
    """A part of a file that lies in one piece, in bytes."""

    logical: int
    physical: int
    length: int


class XfsSettings(LabArraySettings):
    """As for the others, but a file in one piece fits into one block group of ext4 only."""

    unit_size: Annotated[Bytes, Field(ge=16 * MIB, le=128 * MIB)] = 16 * MIB


class XfsTarget(LabArray):
    """A pool with datastores on its units."""

    name = "XFS reflink"
    settings_model = XfsSettings
    programs = {"xfsprogs": ("mkfs.xfs", "-V")}  # noqa: RUF012

    def __init__(self, settings: LabArraySettings, folder: Path, seed: int) -> None:
        super().__init__(settings, folder, seed)
        self._backend = XfsBackend(folder / "array", settings.units, self.unit_bytes)
        self._pool = (folder / "array" / "pool").resolve()
        self._stack = AsyncExitStack()
        self._units: list[ScratchUnit] = []

    async def __aenter__(self) -> Self:
        """Make the pool, and a datastore on each unit."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._backend.down)
            for number, unit in enumerate(await self._backend.up()):
                device = await self._attach(number, unit, *_MAKE)
                file, extent = await asyncio.to_thread(_laid_out, self._datastore(number), device)
                name = f"{SYSTEM_ID}/{unit.name}"
                self._units.append(
                    ScratchUnit((file_device(unit),), extent.length, file, name, extent.physical)
                )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take all of it down."""
        await self._stack.aclose()

    def connect(self) -> AbstractAsyncContextManager[ArrayDriver]:
        """A driver."""
        return open_xfs_reflink(SYSTEM_ID, self._backend.settings())

    async def units(self) -> Sequence[ScratchUnit]:
        """The files on the datastores."""
        return self._units

    def foreign_devices(self) -> Sequence[DeviceIdentity]:
        """Files beside the units: those of the datastores, the image of the pool, one not there."""
        files = [unit.path for unit in self._units if unit.path is not None]
        beside = [self._pool.parent / "pool.img", self._pool / f"unit-{len(files)}"]
        return [file_device(file) for file in (*files, *beside)]

    # -- hooks -----------------------------------------------------------------------------------

    async def snapshots_on_device(self) -> frozenset[str]:
        """Every file in the hidden folders but locks and notes: copies of units, whole or not."""
        places = [self._pool / _HIDDEN / name for name in ("snapshots", "staging", "trash")]
        copies = [path for place in places for path in place.glob("*/units/*")]
        copies += (self._pool / _HIDDEN / "clones").glob("*")
        copies += self._pool.glob(".somebody-else/*")
        return frozenset(str(path.relative_to(self._pool)) for path in copies)

    async def place_of(
        self, unit: ScratchUnit, offset_bytes: int, snapshot: GroupSnapshotRef | None
    ) -> str:
        """Where on the pool's device the block lies, as the kernel tells (FIEMAP)."""
        file = Path(unit.devices[0].value)
        if snapshot is not None:
            folder = self._pool / _HIDDEN / "snapshots" / f"tag-{quote(snapshot.tag, safe='')}"
            file = folder / "units" / file.name
        start = unit.begins_bytes + offset_bytes
        extents = await asyncio.to_thread(_extents, file, start, BLOCK_BYTES)
        if not extents:
            return f"nowhere in {file.name}"
        first = extents[0]
        return f"pool:{first.physical + start - first.logical}"

    @asynccontextmanager
    async def foreign_snapshot(self, unit: ScratchUnit) -> AsyncIterator[str]:
        """A reflink copy beside those of the driver."""
        source = Path(unit.devices[0].value)
        folder = self._pool / ".somebody-else"
        copy = folder / f"{source.name}.copy"
        await run("mkdir", "-p", folder)
        await run("cp", "--reflink=always", source, copy)
        try:
            yield str(copy.relative_to(self._pool))
        finally:
            await run("rm", copy)

    @asynccontextmanager
    async def failing_unit(self, unit: ScratchUnit) -> AsyncIterator[None]:
        """Somebody else has frozen the datastore on the unit."""
        assert unit.path is not None  # noqa: S101  # it is on the datastore
        folder = await asyncio.to_thread(os.open, unit.path.parent, os.O_RDONLY)
        try:
            await asyncio.to_thread(xfs_ioctl.freeze, folder)
            yield
        finally:
            await asyncio.to_thread(xfs_ioctl.thaw, folder)
            os.close(folder)

    def full_pool(self) -> AbstractAsyncContextManager[None]:
        """The pool is filled, but for a little that hosts' writes may still take."""
        return filled(self._pool, _ROOM_WHEN_FULL_BYTES)

    async def restart(self) -> None:
        """The pool loses power: what it has not written is gone, and its journal is replayed."""
        (disk,) = [entry.source for entry in mounts() if entry.at == self._pool]
        await asyncio.to_thread(_lose_power, self._pool)
        for number, unit in enumerate(self._units):
            await _let_go(self._datastore(number))
            for loop in loops():
                if file_device(loop.backing) in unit.devices:
                    await detach_loop(loop.device)
        await _let_go(self._pool)
        await mount(Path(disk), self._pool)
        for number, unit in enumerate(self._units):
            await self._attach(number, Path(unit.devices[0].value))

    async def _attach(self, number: int, unit: Path, *make: str | Path) -> str:
        """Mount the datastore on a unit, made first with ``make``; the name of its device."""
        device = await attach_loop(unit, read_only=False, direct_io=True)
        if make:
            await run(*make, device)
        await mount(device, self._datastore(number), "noatime")
        return device.name

    def _datastore(self, number: int) -> Path:
        return self.folder / f"ds-{number}"


def _laid_out(at: Path, device: str) -> tuple[Path, Extent]:
    """Fill a new datastore with one file; where the file lies on the unit.

    Raises
    ------
    StillframeError
        It is in several pieces.
    """
    Path(f"/sys/fs/ext4/{device}/reserved_clusters").write_text("0", encoding="ascii")
    file = at / "data"
    facts = os.statvfs(at)
    size_bytes = facts.f_bfree * facts.f_frsize
    with file.open("xb") as opened:
        os.posix_fallocate(opened.fileno(), 0, size_bytes)
        opened.write(bytes(size_bytes))
        os.fsync(opened.fileno())
    pieces = _extents(file, 0, size_bytes)
    if len(pieces) != 1:
        raise StillframeError(f"{file} lies in {len(pieces)} pieces", "choose another unit_size")
    return file, pieces[0]


def _lose_power(pool: Path) -> None:
    try:
        folder = os.open(pool, os.O_RDONLY)
    except OSError as error:
        if error.errno == errno.EIO:  # it has failed already
            return
        raise
    try:
        fcntl.ioctl(folder, _LOSE_POWER, _WITHOUT_A_LAST_WRITE)
    finally:
        os.close(folder)


async def _let_go(at: Path) -> None:
    """Unmount, once those who were at work there have seen that it is dead."""
    give_up_s = asyncio.get_running_loop().time() + _LET_GO_S
    while True:
        try:
            return await unmount(at)
        except StillframeError:
            if asyncio.get_running_loop().time() > give_up_s:
                raise
            await asyncio.sleep(_POLL_S)


def _extents(file: Path, start: int, length: int) -> list[Extent]:
    """Where a part of a file lies on the device of its file system, in order."""
    most = 64
    request = _FIEMAP_HEAD.pack(start, length, _SYNC_FIRST, 0, most, 0)
    buffer = bytearray(request + bytes(most * _FIEMAP_EXTENT.size))
    with file.open("rb") as opened:
        fcntl.ioctl(opened, _FIEMAP, buffer)
    found = _FIEMAP_HEAD.unpack_from(buffer)[3]
    rows = (
        _FIEMAP_EXTENT.unpack_from(buffer, _FIEMAP_HEAD.size + number * _FIEMAP_EXTENT.size)
        for number in range(found)
    )
    return [Extent(*row[:3]) for row in rows]
