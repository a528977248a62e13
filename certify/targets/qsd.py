"""The qemu-storage-daemon array as a target: a daemon of its own, on a small disk of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from ...drivers.contracts import ArrayDriver, GroupSnapshotRef, GroupSnapshotRequest
from ...drivers.qsd import open_qsd
from ...drivers.qsd_daemon import Daemon
from ...drivers.qsd_monitor import Monitor
from ...drivers.qsd_pool import Pool, node_name
from ...drivers.qsd_start import chain_of
from ...drivers.records import DeviceIdentity
from ...lab.backend_qsd import QsdBackend
from ...lab.host import run
from ..array_target import BLOCK_BYTES, ScratchUnit
from .lab_array import (
    CALL_TIMEOUT_S,
    MIB,
    SYSTEM_ID,
    Disk,
    LabArray,
    LabArraySettings,
    file_device,
    filled,
    scratch_units,
    stopped,
)
from .qmp_proxy import QmpProxy

_DRIVERS = 6
"""How many may be connected at the same time."""
_LEAST_FREE_BYTES = 64 * MIB
_ROOM_WHEN_FULL_BYTES = _LEAST_FREE_BYTES - 32 * MIB
"""Too little for a snapshot, and enough for what hosts overwrite meanwhile."""
_COMMANDS = {
    "resolve": "query-block-exports",
    "snapshot_group": "transaction",
    "list_snapshots": "query-block-exports",
    "delete_snapshot": "query-jobs",
    "read_back": "block-export-add",
    "clone": "block-export-add",
    "discard": "block-export-del",
}
"""With which command a method of the driver has the daemon do what it is about. What
``delete_snapshot`` is about the driver does itself: it asks first, and merges afterwards."""
_BLOCKER = "somebody-else"


class QsdTarget(LabArray):
    """One daemon with scratch units, and a line to its monitors that can be disturbed."""

    name = "qemu-storage-daemon"
    programs = {"qemu-storage-daemon": ("qemu-storage-daemon", "--version")}  # noqa: RUF012

    def __init__(self, settings: LabArraySettings, folder: Path, seed: int) -> None:
        super().__init__(settings, folder, seed)
        self._disk = Disk(folder)
        self._pool = Pool(self._disk.at.resolve() / "a")
        self._backend = QsdBackend(
            self._pool.folder, settings.units, self.unit_bytes, more_monitors=_DRIVERS - 1
        )
        self._socket = folder / "qmp.sock"
        self._proxy = QmpProxy(self._socket, self._backend.monitors)
        self._stack = AsyncExitStack()
        self._units: Sequence[ScratchUnit] = ()

    async def __aenter__(self) -> Self:
        """Make the disk and the array on it."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._disk.down)
            await self._disk.up(_disk_bytes(self.settings.units * self.unit_bytes))
            stack.push_async_callback(self._backend.down)
            files = await self._backend.up()
            await stack.enter_async_context(self._proxy.serving())
            self._units = scratch_units(files, self.unit_bytes)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take both down."""
        await self._stack.aclose()

    def connect(self) -> AbstractAsyncContextManager[ArrayDriver]:
        """A driver, through the proxy."""
        settings = self._backend.settings() | {
            "qmp_socket": str(self._socket),
            "connect_timeout": CALL_TIMEOUT_S,
            "call_timeout": CALL_TIMEOUT_S,
            "least_free": _LEAST_FREE_BYTES,
        }
        return open_qsd(SYSTEM_ID, settings)

    async def units(self) -> Sequence[ScratchUnit]:
        """The exports."""
        return self._units

    def foreign_devices(self) -> Sequence[DeviceIdentity]:
        """The files under the exports, which hosts must not touch, and one that does not exist."""
        pool, names = self._pool, self._pool.units()
        return [file_device(pool.base(name)) for name in names] + [
            file_device(pool.device(f"unit-{len(names)}")),
            file_device(pool.clone_device(names[0])),
        ]

    # -- hooks -----------------------------------------------------------------------------------

    async def snapshots_on_device(self) -> frozenset[str]:
        """The overlays of groups that nobody has deleted, and clones; seen from the files alone.

        An overlay of a deleted group is no snapshot any more but part of the unit: it takes its
        writes until it can be merged.
        """
        deleted = {path.name.split(".")[0] for path in self._pool.groups.glob("*.deleted.json")}
        overlays = [path.name for path in self._pool.folder.glob("*.qcow2")]
        kept = [name for name in overlays if name.split(".")[-2] not in deleted]
        clones = [f"clone {path.name}" for path in self._pool.clones.glob("*.qcow2")]
        return frozenset([*kept, *clones])

    async def place_of(
        self, unit: ScratchUnit, offset_bytes: int, snapshot: GroupSnapshotRef | None
    ) -> str:
        """The image in which the block lies and where there, as qemu-img finds it."""
        name = self._name(unit)
        chain = chain_of(self._pool, name)[::-1]
        if snapshot is not None:
            pattern = f"{name}.{quote(snapshot.tag, safe='')}.*.qcow2"
            (overlay,) = self._pool.folder.glob(pattern)
            chain = chain[chain.index(overlay) + 1 :]
        span = ("--start-offset", str(offset_bytes), "--max-length", str(BLOCK_BYTES))
        told = await run("qemu-img", "map", "-U", "--output=json", *span, chain[0])
        found = json.loads(told)[0]
        return f"{chain[found['depth']].name}:{found.get('offset', 'zeros')}"

    @asynccontextmanager
    async def foreign_snapshot(self, unit: ScratchUnit) -> AsyncIterator[str]:
        """Somebody else puts an overlay of his own on the unit, through another monitor."""
        name, operation = self._name(unit), "lab"
        mine = self._pool.folder / f"{name}.{_BLOCKER}.qcow2"
        monitor = Monitor(SYSTEM_ID, self._pool.lab_socket, CALL_TIMEOUT_S, CALL_TIMEOUT_S)
        daemon = Daemon(SYSTEM_ID, self._pool, monitor, CALL_TIMEOUT_S)
        try:
            chain = (await daemon.graph(operation)).exports[name]
            under, size = chain.images[0], unit.capacity_bytes
            await daemon.make_image(operation, mine, under, size, backing=None)
            put = {"node": chain.node, "overlay": node_name(mine)}
            await monitor.change(operation, "blockdev-snapshot", put)
            try:
                yield mine.name
            finally:
                await self._bury(daemon, name, mine)
        finally:
            await monitor.close()

    async def _bury(self, daemon: Daemon, name: str, overlay: Path) -> None:
        """Merge an overlay; not while it takes the unit's writes."""
        operation = "lab"
        graph = await daemon.graph(operation)
        if graph.exports[name].images[0] == overlay:
            async with self.connect() as driver:
                request = GroupSnapshotRequest((daemon.unit_id(name),), _BLOCKER, CALL_TIMEOUT_S)
                await driver.delete_snapshot((await driver.snapshot_group(request)).ref)
            graph = await daemon.graph(operation)
        options = {
            "job-id": _BLOCKER,
            "device": graph.exports[name].node,
            "top-node": graph.nodes[overlay],
            "base-node": graph.nodes[graph.exports[name].under(overlay)],
            "auto-dismiss": False,
        }
        await daemon.monitor.run_job(operation, _BLOCKER, "block-commit", options)
        await daemon.close_image(operation, overlay)
        await asyncio.to_thread(overlay.unlink)

    @asynccontextmanager
    async def failing_unit(self, unit: ScratchUnit) -> AsyncIterator[None]:
        """Somebody else copies the unit meanwhile, and the daemon keeps it for that."""
        monitor = Monitor(SYSTEM_ID, self._pool.lab_socket, CALL_TIMEOUT_S, CALL_TIMEOUT_S)
        operation = "lab"
        try:
            size = {"node-name": _BLOCKER, "driver": "null-co", "size": unit.capacity_bytes}
            await monitor.change(operation, "blockdev-add", size | {"read-zeroes": True})
            node = node_name(chain_of(self._pool, self._name(unit))[-1])
            copy = {"job-id": _BLOCKER, "device": node, "target": _BLOCKER, "sync": "none"}
            await monitor.change(operation, "blockdev-backup", copy)
            try:
                yield
            finally:
                cancel = {"device": _BLOCKER, "force": True}
                await monitor.change(operation, "block-job-cancel", cancel)
                await monitor.end_of_job(operation, _BLOCKER)
                await monitor.change(operation, "blockdev-del", {"node-name": _BLOCKER})
        finally:
            await monitor.close()

    def full_pool(self) -> AbstractAsyncContextManager[None]:
        """The disk is filled, but for a little that hosts' writes may still take."""
        return filled(self._disk.at, _ROOM_WHEN_FULL_BYTES)

    async def restart(self) -> None:
        """SIGKILL the daemon, and start it again on what it left."""
        await self._backend.kill()
        await self._backend.restart()

    async def expire_sessions(self) -> None:
        """Every connection to a monitor ends."""
        self._proxy.hang_up()

    @asynccontextmanager
    async def lost_answers(self, operation: str) -> AsyncIterator[None]:
        """The connection ends before the daemon's answer passes."""
        with self._proxy.losing(self._about(operation)):
            yield

    @asynccontextmanager
    async def slow_calls(self, operation: str, delay_s: float) -> AsyncIterator[None]:
        """The command that the operation is about reaches the daemon later."""
        with self._proxy.slowing(lambda command: command == _COMMANDS[operation], delay_s):
            yield

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[None]:
        """SIGSTOP: the daemon neither answers nor serves its units."""
        with stopped([self._backend.process]):
            yield

    def _about(self, operation: str) -> Callable[[str], bool]:
        if operation != "delete_snapshot":
            return lambda command: command == _COMMANDS[operation]
        before = self._deleted()
        return lambda _command: bool(self._deleted() - before)

    def _deleted(self) -> set[str]:
        return {path.name for path in self._pool.groups.glob("*.deleted.json")}

    def _name(self, unit: ScratchUnit) -> str:
        assert unit.path is not None  # noqa: S101  # every unit of this array has one
        return unit.path.stem


def _disk_bytes(units_bytes: int) -> int:
    """Room for the units, many overlays of each, and a disk that XFS takes; it is sparse."""
    return max(512 * MIB, 16 * units_bytes)
