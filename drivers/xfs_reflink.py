"""The driver for an array of reflink copies: the units are files in a pool with reflinks.

A snapshot of a unit is a copy that shares all extents (FICLONE); the kernel makes it at one point
in time, in a fraction of a millisecond, whatever the size. Several files have no common point by
themselves, so the writes of the datastores on the units are held while they are copied: the file
systems that are mounted from loop devices on the unit files are frozen (FIFREEZE). What cannot be
held is not snapshotted in a group, unless the settings say so.

Everything here blocks, so every call runs in a thread. A caller who stops waiting does not stop it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError, StillframeError
from . import xfs_ioctl, xfs_users
from .contracts import (
    ArrayCapabilities,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
    SnapshotMethod,
)
from .deadman import DeadMan
from .errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    NeverWillError,
    NotFoundError,
    PoolFullError,
)
from .records import DeviceIdentity, DeviceKind, StorageUnit, UnitId, UnitKind
from .xfs_fence import SNAPSHOT
from .xfs_make import SnapshotMaker
from .xfs_markers import thaw_what_the_dead_froze
from .xfs_settings import XfsSettings, parse_settings
from .xfs_store import CLONES, Manifest, Store

GROUPS_AT_ONCE = 8
"""Group calls that run at the same time; each waits in a thread, most of the time for a disk."""
_OTHER_CALLS = 4
_RETRY_S = 0.5
_OTHERS_S = 5.0
_POLL_S = 0.005
T = TypeVar("T")


class XfsReflinkDriver:
    """One pool; implements :class:`~stillframe.drivers.contracts.ReadableArrayDriver`.

    Made by :func:`open_xfs_reflink`. A unit's identifier is ``system_id/file``, that of a clone
    ``system_id/clones/name``.

    Parameters
    ----------
    store:
        The pool's folders, prepared.
    """

    def __init__(self, system_id: str, settings: XfsSettings, store: Store) -> None:
        self._id = system_id
        self._prefix = f"{system_id}/"
        self._settings = settings
        self._store = store
        self._switch = DeadMan()
        self._maker = SnapshotMaker(store, settings, self._switch)
        # Of their own, so that a pool that hangs while it is written can still be asked.
        self._making = ThreadPoolExecutor(GROUPS_AT_ONCE, f"{system_id} makes")
        self._threads = ThreadPoolExecutor(_OTHER_CALLS, f"{system_id} answers")
        self._capabilities = ArrayCapabilities(
            method=SnapshotMethod.REDIRECT_ON_WRITE,
            atomic_groups=settings.unheld == "refuse",
            holds_writes=True,
            group_operations=GROUPS_AT_ONCE,
            reads_back=True,
            clones=True,
        )

    @property
    def capabilities(self) -> ArrayCapabilities:
        """Atomic groups by holding writes; not claimed when what cannot be held is allowed."""
        return self._capabilities

    async def resolve(
        self, devices: Sequence[DeviceIdentity]
    ) -> Mapping[DeviceIdentity, StorageUnit]:
        """See :meth:`ArrayDriver.resolve`: answers for the files of the pool and for clones."""
        return await self._call("resolve", self._id, self._resolve, tuple(devices))

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """See :meth:`ArrayDriver.snapshot_group`.

        ``fence`` is the time from the first freeze to the last thaw, None when there was no
        datastore to hold.

        Raises
        ------
        NeverWillError
            A unit is unknown; or something writes to it that cannot be held; or the tag is that
            of a snapshot of other units.
        BusyError
            The tag, or a unit, is being snapshotted; or a datastore is frozen by somebody else.
        PoolFullError
            Too little of the pool is free.
        DidNotHappenError
            Writes could not be held, or would have been held for longer than allowed.
        UnknownOutcomeError
            The snapshot was made, and the pool failed before it was safe.
        """
        try:
            await self.arm()
        except StillframeError as error:
            raise DidNotHappenError(SNAPSHOT, request.tag, str(error)) from error
        work = _guarded(SNAPSHOT, request.tag, self._snapshot, request)
        return await asyncio.get_running_loop().run_in_executor(self._making, work)

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        """See :meth:`ArrayDriver.list_snapshots`; oldest first."""
        found = await self._call("list_snapshots", self._id, self._store.manifests)
        return [self._answer(one) for one in found if one.tag.startswith(tag_prefix)]

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """See :meth:`ArrayDriver.delete_snapshot`. Clones of it live on."""
        await self._call("delete_snapshot", ref.tag, self._delete, ref)

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: UnitId, offset_bytes: int, length_bytes: int
    ) -> bytes:
        """See :meth:`ReadableArrayDriver.read_back`.

        Raises
        ------
        NotFoundError
            There is no such snapshot, or the unit is not in it.
        NeverWillError
            The unit is not that long.
        """
        place = (offset_bytes, length_bytes)
        return await self._call("read_back", ref.tag, self._read_back, ref, unit_id, *place)

    async def clone(self, ref: GroupSnapshotRef, unit_id: UnitId, name: str) -> StorageUnit:
        """See :meth:`ReadableArrayDriver.clone`.

        Raises
        ------
        NotFoundError
            There is no such snapshot, or the unit is not in it.
        NeverWillError
            There is a clone of that name, or no file can have it.
        PoolFullError
            The pool is full.
        """
        return await self._call("clone", ref.tag, self._clone, ref, unit_id, name)

    async def discard(self, unit_id: UnitId) -> None:
        """See :meth:`ReadableArrayDriver.discard`.

        Raises
        ------
        NotFoundError
            There is no such clone.
        BusyError
            A loop device is on it.
        """
        await self._call("discard", unit_id, self._discard, unit_id)

    async def arm(self) -> None:
        """Have the process that thaws when this one dies; start it anew if it has died.

        Raises
        ------
        StillframeError
            It cannot be started.
        """
        await self._switch.start()

    async def close(self) -> None:
        """Wait for what is under way, and for what is still being frozen to be thawed."""
        for threads in (self._making, self._threads):
            await asyncio.to_thread(threads.shutdown)
        await asyncio.to_thread(self._maker.join)
        await self._switch.close()

    async def _call(self, operation: str, subject: str, work: Callable[..., T], *args: object) -> T:
        run = _guarded(operation, subject, work, *args)
        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def _resolve(self, devices: Sequence[DeviceIdentity]) -> dict[DeviceIdentity, StorageUnit]:
        own = {(path.stat().st_ino): name for name, path in self._store.units().items()}
        pool = xfs_users.device_number(self._store.pool.stat().st_dev)
        table = xfs_users.mount_table()
        found = {}
        for device in devices:
            # Another array's file may hang when it is looked at; one in the pool does not.
            path = Path(device.value)
            if device.kind is not DeviceKind.FILE or xfs_users.lies_on(path, table) != pool:
                continue
            with contextlib.suppress(FileNotFoundError):
                name = own.get(path.stat().st_ino)
                if name is not None:
                    found[device] = self._unit(name)
        return found

    def _unit(self, name: str) -> StorageUnit:
        path = self._store.units()[name]
        device = DeviceIdentity(DeviceKind.FILE, str(path))
        size = path.stat().st_size
        return StorageUnit(self._prefix + name, self._id, name, UnitKind.LUN, size, (device,))

    def _snapshot(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        unit_ids = dict.fromkeys(request.unit_ids)
        names = tuple(one.removeprefix(self._prefix) for one in unit_ids)
        return self._answer(self._maker.make(request.tag, names, request.fence_timeout_s))

    def _answer(self, manifest: Manifest) -> GroupSnapshot:
        ref = GroupSnapshotRef(self._id, manifest.snapshot_id, manifest.tag)
        units = tuple(self._prefix + name for name in manifest.units)
        return GroupSnapshot(ref, units, *manifest.clock())

    def _delete(self, ref: GroupSnapshotRef) -> None:
        # Whoever makes it lets go a moment after it can be seen; whoever deletes it is soon done.
        give_up_s = time.monotonic() + _OTHERS_S
        while True:
            try:
                if not self._store.delete(ref.tag, ref.snapshot_id):
                    raise NotFoundError("delete_snapshot", ref.tag, "there is no such snapshot")
            except BlockingIOError:
                if time.monotonic() < give_up_s:
                    time.sleep(_POLL_S)
                    continue
                reason = "it is being made or deleted"
                busy = BusyError("delete_snapshot", ref.tag, reason, retry_after_s=_RETRY_S)
                raise busy from None
            return

    def _snapshot_file(self, operation: str, ref: GroupSnapshotRef, unit_id: UnitId) -> Path:
        manifest = self._store.find(ref.tag)
        if manifest is None or manifest.snapshot_id != ref.snapshot_id:
            raise NotFoundError(operation, ref.tag, "there is no such snapshot")
        name = unit_id.removeprefix(self._prefix)
        if name not in manifest.units:
            raise NotFoundError(operation, ref.tag, f"unit {unit_id!r} is not in it")
        return self._store.unit_file(ref.tag, name)

    def _read_back(
        self, ref: GroupSnapshotRef, unit_id: UnitId, offset_bytes: int, length_bytes: int
    ) -> bytes:
        path = self._snapshot_file("read_back", ref, unit_id)
        try:
            opened = path.open("rb")
        except FileNotFoundError:
            raise NotFoundError("read_back", ref.tag, "it has just been deleted") from None
        with opened as file:
            size = os.fstat(file.fileno()).st_size
            if offset_bytes < 0 or length_bytes < 0 or offset_bytes + length_bytes > size:
                reason = f"{unit_id} holds {size} bytes"
                raise NeverWillError("read_back", ref.tag, reason)
            file.seek(offset_bytes)
            return file.read(length_bytes)

    def _clone(self, ref: GroupSnapshotRef, unit_id: UnitId, name: str) -> StorageUnit:
        source = self._snapshot_file("clone", ref, unit_id)
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise NeverWillError("clone", ref.tag, f"no clone can be called {name!r}")
        try:
            self._store.clone(source, name)
        except FileExistsError:
            raise NeverWillError("clone", ref.tag, f"there is a clone {name!r}") from None
        except FileNotFoundError:
            raise NotFoundError("clone", ref.tag, "it has just been deleted") from None
        return self._unit(CLONES + name)

    def _discard(self, unit_id: UnitId) -> None:
        name = unit_id.removeprefix(self._prefix)
        path = self._store.units().get(name)
        if path is None or not name.startswith(CLONES):
            raise NotFoundError("discard", unit_id, "there is no such clone")
        loops = xfs_users.loops_on(path)
        if loops:
            raise BusyError("discard", unit_id, f"{loops[0]} is on it", retry_after_s=_RETRY_S)
        path.unlink()


def _guarded(
    operation: str, subject: str, work: Callable[..., T], *args: object
) -> Callable[[], T]:
    """A call whose errors are the contract's: when the kernel refuses, nothing has happened."""

    def run() -> T:
        try:
            return work(*args)
        except DriverError:
            raise
        except StillframeError as error:
            raise NeverWillError(operation, subject, error.what, error.advice) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                advice = "delete snapshots, or enlarge the pool"
                raise PoolFullError(operation, subject, "the pool is full", advice) from error
            raise DidNotHappenError(operation, subject, f"the pool failed: {error}") from error

    return run


@asynccontextmanager
async def open_xfs_reflink(
    system_id: str, settings: Mapping[str, Any]
) -> AsyncIterator[XfsReflinkDriver]:
    """A pool of unit files on a file system with reflinks (XFS).

    Opening it thaws the datastores that a process which died in the middle of a snapshot left
    frozen, and removes what it left half made.

    Parameters
    ----------
    system_id:
        The array's identifier in the job.
    settings:
        See :class:`~stillframe.drivers.xfs_settings.XfsSettings`.

    Raises
    ------
    InputError
        The settings or the pool cannot be used.
    StillframeError
        A datastore that was left frozen cannot be thawed.
    """
    chosen = parse_settings(system_id, settings)
    store = await asyncio.to_thread(_opened, system_id, chosen)
    driver = XfsReflinkDriver(system_id, chosen, store)
    try:
        await driver.arm()
        yield driver
    finally:
        await asyncio.shield(driver.close())


def _opened(system_id: str, settings: XfsSettings) -> Store:
    folder = settings.pool_folder
    problem = ""
    try:
        store = Store(folder.resolve(strict=True))
        number = xfs_users.device_number(store.pool.stat().st_dev)
        if number != xfs_users.lies_on(store.pool, xfs_users.mount_table()):
            problem = f"{folder} lies on a file system with subvolumes"
        elif not xfs_ioctl.can_share(store.pool):
            problem = f"{folder} lies on a file system without reflink copies"
        else:
            store.prepare()
    except OSError as error:
        problem = f"{folder} cannot be used: {error.strerror}"
    if problem:
        advice = "give a folder on XFS, made with mkfs.xfs -m reflink=1"
        raise InputError(f"array {system_id}", "pool_folder", problem, advice)
    thaw_what_the_dead_froze(store.frozen)
    return store
