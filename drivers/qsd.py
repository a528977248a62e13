"""The driver for an array of images under one qemu-storage-daemon.

A snapshot of a group is one transaction of the daemon: it stops the writes of all units, puts a new
overlay on each, and goes on; all of them or none. What was on top stands still from then on and is
the snapshot. Deleting one merges the overlay above it down into it.

The daemon outlives its clients, and the pool's folder outlives the daemon, so snapshots do too. A
call whose caller stops waiting is finished all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .contracts import (
    ArrayCapabilities,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
    SnapshotMethod,
)
from .qsd_clones import Clones
from .qsd_daemon import Daemon, translated
from .qsd_groups import MOST_SNAPSHOTS, Groups
from .qsd_monitor import Monitor
from .qsd_pool import Pool
from .qsd_settings import parse_settings
from .records import ArrayId, DeviceIdentity, DeviceKind, StorageUnit, UnitId, UnitKind

T = TypeVar("T")
_CAPABILITIES = ArrayCapabilities(
    method=SnapshotMethod.REDIRECT_ON_WRITE,
    atomic_groups=True,
    snapshots_per_unit=MOST_SNAPSHOTS,
    reads_back=True,
    clones=True,
)


class QsdDriver:
    """One daemon; implements :class:`~stillframe.drivers.contracts.ReadableArrayDriver`.

    Made by :func:`open_qsd`. Units have the identifiers ``system_id/EXPORT``, clones
    ``system_id/clones/NAME``.
    """

    def __init__(self, daemon: Daemon, least_free_bytes: float) -> None:
        self._daemon = daemon
        self._groups = Groups(daemon, least_free_bytes)
        self._clones = Clones(daemon, self._groups)
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def capabilities(self) -> ArrayCapabilities:
        """Redirect on write, groups that are atomic by themselves, one call at a time."""
        return _CAPABILITIES

    async def resolve(
        self, devices: Sequence[DeviceIdentity]
    ) -> Mapping[DeviceIdentity, StorageUnit]:
        """See :meth:`ArrayDriver.resolve`: a unit is known by the file that it is exported as.

        Clones are left out: the array does not snapshot them.
        """
        graph = await self._daemon.graph("resolve")
        known = {
            _identity(self._daemon.pool.device(name)): name for name in self._daemon.units(graph)
        }
        return {
            device: StorageUnit(
                self._daemon.unit_id(known[device]),
                self._daemon.array_id,
                known[device],
                UnitKind.LUN,
                graph.exports[known[device]].capacity_bytes,
                (device,),
            )
            for device in devices
            if device in known
        }

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """See :meth:`ArrayDriver.snapshot_group`.

        ``fence`` is the time from sending the transaction to its answer, which encloses the time
        for which writes were held; ``cut_s`` is its middle. The daemon knows no limit for it, so
        ``fence_timeout_s`` has no effect: the hold takes milliseconds, or the daemon hangs.

        Raises
        ------
        NeverWillError
            A unit is unknown, there is none, or the tag belongs to a snapshot of other units.
        BusyError
            A snapshot of this tag is being made, or another process does not let go of the pool.
        PoolFullError
            There is no room for the overlays, or less than what later overwrites may need.
        DidNotHappenError
            The daemon refused, or did not answer before the transaction was sent.
        UnknownOutcomeError
            It was sent and no answer came.
        """
        return await self._finish(self._groups.make(request))

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        """See :meth:`ArrayDriver.list_snapshots`; oldest first.

        A group that is being made is waited for, and one whose maker has ended is decided about: a
        tag that is not listed does not appear later.

        Raises
        ------
        BusyError
            Another process is making such a group, or does not let go of the pool.
        """
        with translated("list_snapshots", self._daemon.array_id):
            return await self._groups.listed(tag_prefix)

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """See :meth:`ArrayDriver.delete_snapshot`.

        Its space is free when this returns, with two exceptions: the overlay that takes a unit's
        writes cannot be merged while the unit is exported, so the space of the newest snapshot of
        a unit is freed by the first deletion after a newer one has been made; and an overlay that
        a clone of a newer snapshot reads through stays until that is discarded.

        Raises
        ------
        NotFoundError
            There is no such snapshot (any more).
        BusyError
            A clone lies on it, or another process does not let go of the pool.
        HappenedError
            It is deleted, but freeing its space failed; the next deletion tries again.
        """
        await self._finish(self._groups.delete(ref))

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: UnitId, offset_bytes: int, length_bytes: int
    ) -> bytes:
        """See :meth:`ReadableArrayDriver.read_back`; served by the daemon itself, over NBD.

        Raises
        ------
        NotFoundError
            There is no such snapshot, or the unit is not in it.
        NeverWillError
            The bytes are not all within the unit.
        """
        return await self._finish(self._clones.read(ref, unit_id, offset_bytes, length_bytes))

    async def clone(self, ref: GroupSnapshotRef, unit_id: UnitId, name: str) -> StorageUnit:
        """See :meth:`ReadableArrayDriver.clone`: an overlay of its own, exported as a file.

        Raises
        ------
        NotFoundError
            There is no such snapshot, or the unit is not in it.
        NeverWillError
            There is a clone of this name.
        """
        return await self._finish(self._clones.clone(ref, unit_id, name))

    async def discard(self, unit_id: UnitId) -> None:
        """See :meth:`ReadableArrayDriver.discard`; let go of its file first."""
        await self._finish(self._clones.discard(unit_id))

    async def close(self) -> None:
        """Wait for calls that nobody waits for any more, then let go of the monitor."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._daemon.monitor.close()

    async def _finish(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a call to its end, also when its caller stops waiting for it."""
        task = asyncio.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen, in case that nobody waits for it


def _identity(file: Path) -> DeviceIdentity:
    # The pool's folder is resolved; touching the file itself would wait for a daemon that hangs.
    return DeviceIdentity(DeviceKind.FILE, str(file))


@contextlib.asynccontextmanager
async def open_qsd(system_id: ArrayId, settings: Mapping[str, Any]) -> AsyncIterator[QsdDriver]:
    """Connect to a daemon's monitor, give its driver, let go of the monitor at the end.

    Parameters
    ----------
    system_id:
        Under which name the estate knows the array; prefix of all identifiers.
    settings:
        See :class:`~stillframe.drivers.qsd_settings.QsdSettings`.

    Raises
    ------
    InputError
        The settings cannot be used.
    DidNotHappenError
        Nobody answers at the monitor, or another client holds it.
    """
    checked = parse_settings(system_id, settings)
    monitor = Monitor(system_id, checked.qmp_socket, checked.connect_timeout, checked.call_timeout)
    await monitor.connect("connect")
    daemon = Daemon(system_id, Pool(checked.pool_folder.resolve()), monitor, checked.call_timeout)
    driver = QsdDriver(daemon, checked.least_free)
    try:
        yield driver
    finally:
        await driver.close()
