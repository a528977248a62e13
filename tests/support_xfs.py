"""A reflink array on a pool of its own, and what is attached to its units."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from threading import Thread

from stillframe.drivers.contracts import GroupSnapshot, GroupSnapshotRequest
from stillframe.drivers.records import DeviceIdentity, DeviceKind, StorageUnit
from stillframe.drivers.xfs_reflink import XfsReflinkDriver, open_xfs_reflink
from stillframe.lab.backend_xfs import XfsBackend
from stillframe.lab.host import attach_loop, detach_loop, mount, run, thaw, unmount

NEEDS = ("root", "xfs", "loop")
MIB = 1 << 20
BLOCK_BYTES = 4096
PATIENCE_S = 30.0


class Pool:
    """A pool, and what is attached to its units."""

    def __init__(self, folder: Path, backend: XfsBackend, files: list[Path]) -> None:
        self.folder = folder
        self.files = files
        self.path = files[0].parent
        self.hidden = self.path / ".stillframe"
        self.settings = backend.settings()
        self.unit_ids = tuple(f"xfs/{file.name}" for file in files)

    def driver(
        self, **settings: object
    ) -> contextlib.AbstractAsyncContextManager[XfsReflinkDriver]:
        """A driver for it; several may be open at the same time."""
        return open_xfs_reflink("xfs", self.settings | settings)

    async def datastore(
        self, number: int, *, direct_io: bool = True, offset: int = 0, size: int = 0
    ) -> Path:
        """An ext4 file system on a unit or a part of it, mounted."""
        device = await attach_loop(
            self.files[number], read_only=False, direct_io=direct_io, offset=offset, size=size
        )
        await run("mkfs.ext4", "-q", "-b", str(BLOCK_BYTES), device)
        at = self.folder / f"ds-{number}-{offset}"
        await mount(device, at, "noatime")
        return at

    @asynccontextmanager
    async def clone_mounted(
        self, driver: XfsReflinkDriver, snapshot: GroupSnapshot, unit_id: str, *options: str
    ) -> AsyncIterator[Path]:
        """The file system on a unit of a snapshot, through a clone."""
        clone = await driver.clone(snapshot.ref, unit_id, f"for-{snapshot.ref.tag}")
        file = Path(clone.devices[0].value)
        device = await attach_loop(file, read_only="ro" in options, direct_io=True)
        at = self.folder / "clone"
        try:
            await mount(device, at, *options)
            yield at
            await unmount(at)
        finally:
            await detach_loop(device)
        await until(lambda: not Path(f"/sys/block/{device.name}/loop").exists())
        await driver.discard(clone.id)


@asynccontextmanager
async def xfs_pool(folder: Path, units: int = 2, unit_bytes: int = 32 * MIB) -> AsyncIterator[Pool]:
    """A pool that is gone afterwards, with all that was attached to it."""
    backend = XfsBackend(folder, units, unit_bytes)
    async with AsyncExitStack() as stack:
        files = await backend.up()
        stack.push_async_callback(backend.down)
        yield Pool(folder, backend, files)


async def units_of(driver: XfsReflinkDriver, files: Sequence[Path]) -> list[StorageUnit]:
    """The units that these files are."""
    devices = [DeviceIdentity(DeviceKind.FILE, str(file)) for file in files]
    found = await driver.resolve(devices)
    return [found[device] for device in devices]


def request(tag: str, *unit_ids: str, fence_timeout_s: float = PATIENCE_S) -> GroupSnapshotRequest:
    """A group to snapshot, with all the time it may need."""
    return GroupSnapshotRequest(unit_ids, tag, fence_timeout_s)


async def until(true: Callable[[], bool]) -> None:
    """Wait for a condition; fails when it does not come about."""
    give_up_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < give_up_s, "it never came about"
        await asyncio.sleep(0.002)


class Write:
    """A synchronous write by a thread of its own, which may have to wait."""

    def __init__(self, *paths: Path, data: bytes = b"new") -> None:
        self.ended_s: float | None = None
        self._paths = paths
        self._data = data
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def blocks(self) -> None:
        """Returns when the kernel makes it wait; fails when it gets through."""
        give_up_s = time.monotonic() + PATIENCE_S
        while not self._waits():
            assert self.ended_s is None, "it was written"
            assert time.monotonic() < give_up_s, "it neither waits nor gets through"
            time.sleep(0.001)

    def ends(self) -> None:
        """Returns when it is done; fails when it is not."""
        self._thread.join(PATIENCE_S)
        assert self.ended_s is not None, "it still waits"

    def _waits(self) -> bool:
        return self._thread.native_id is not None and is_held(self._thread.native_id)

    def _run(self) -> None:
        for path in self._paths:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DSYNC, 0o600)
            os.pwrite(file, self._data, 0)
            os.close(file)
        self.ended_s = time.monotonic()


def is_held(thread_id: int) -> bool:
    """Whether a thread of this process waits for a file system to be thawed."""
    folder = Path(f"/proc/self/task/{thread_id}")
    try:
        where = (folder / "wchan").read_text("ascii")
        state = (folder / "stat").read_text("ascii").rpartition(")")[2].split()[0]
    except OSError:  # it has ended
        return False
    # A kernel that does not tell where a thread waits at least tells that it cannot be woken.
    return "percpu_rwsem" in where or (where == "0" and state == "D")


def is_frozen(at: Path) -> bool:
    """Whether writes to a file system are held; they are not any more afterwards."""
    return thaw(at)
