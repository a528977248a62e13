"""Reading the snapshots of a qemu-storage-daemon array, and writable clones of them."""

from __future__ import annotations

import contextlib

from .contracts import GroupSnapshotRef
from .errors import DidNotHappenError, NeverWillError, NotFoundError
from .qsd_daemon import Daemon
from .qsd_groups import Groups
from .qsd_monitor import RefusedError
from .qsd_read import NbdError, read_export
from .qsd_start import clone_export, fuse_options
from .records import DeviceIdentity, DeviceKind, StorageUnit, UnitId, UnitKind

READ = "read_back"
CLONE = "clone"
DISCARD = "discard"
_CLONES = "clones/"
"""What the identifiers of clones begin with, after the array's."""
_READ_EXPORT = "read-back"


class Clones:
    """Access to the snapshots of one array."""

    def __init__(self, daemon: Daemon, groups: Groups) -> None:
        self._daemon = daemon
        self._groups = groups

    async def read(
        self, ref: GroupSnapshotRef, unit_id: UnitId, offset_bytes: int, length_bytes: int
    ) -> bytes:
        """See :meth:`QsdDriver.read_back`."""
        daemon = self._daemon
        async with daemon.alone(READ, ref.tag):
            record = self._groups.found(READ, ref)
            graph = await daemon.graph(READ)
            image = self._groups.image(READ, graph, record, unit_id)
            size = graph.exports[daemon.unit_name(unit_id)].capacity_bytes
            if offset_bytes < 0 or length_bytes < 0 or offset_bytes + length_bytes > size:
                reason = f"{length_bytes} bytes at {offset_bytes} are not within {size}"
                raise NeverWillError(READ, unit_id, reason)
            # A reader that died may have left it; nobody else can be reading, the pool is locked.
            await daemon.end_export(READ, _READ_EXPORT)
            options = {"type": "nbd", "id": _READ_EXPORT, "node-name": graph.nodes[image]}
            # Whatever is lost on the way, nothing that counts has changed.
            await daemon.monitor.call(
                READ, "block-export-add", options | {"name": _READ_EXPORT, "writable": False}
            )
            try:
                return await read_export(
                    daemon.pool.nbd_socket, _READ_EXPORT, offset_bytes, length_bytes
                )
            except (NbdError, EOFError) as error:
                raise DidNotHappenError(READ, unit_id, str(error)) from error
            finally:
                await daemon.end_export(READ, _READ_EXPORT)

    async def clone(self, ref: GroupSnapshotRef, unit_id: UnitId, name: str) -> StorageUnit:
        """See :meth:`QsdDriver.clone`."""
        daemon = self._daemon
        async with daemon.alone(CLONE, ref.tag):
            record = self._groups.found(CLONE, ref)
            graph = await daemon.graph(CLONE)
            parent = self._groups.image(CLONE, graph, record, unit_id)
            export = clone_export(name)
            if export in graph.exports:
                raise NeverWillError(CLONE, name, "there is a clone of this name", "discard it")
            size = graph.exports[daemon.unit_name(unit_id)].capacity_bytes
            await self._remove_files(CLONE, name)  # what somebody left who did not get to the end
            path, device = daemon.pool.clone(name), daemon.pool.clone_device(name)
            try:
                device.touch(mode=0o600)
                await daemon.make_image(CLONE, path, parent, size, graph.nodes[parent])
                options = fuse_options(export, path, device)
                await daemon.monitor.change(CLONE, "block-export-add", options)
            except (RefusedError, OSError):
                await self._remove_files(CLONE, name)
                raise
            return StorageUnit(
                daemon.unit_id(_CLONES + name),
                daemon.array_id,
                name,
                UnitKind.LUN,
                size,
                (DeviceIdentity(DeviceKind.FILE, str(device)),),
            )

    async def discard(self, unit_id: UnitId) -> None:
        """See :meth:`QsdDriver.discard`."""
        daemon = self._daemon
        name = daemon.unit_name(unit_id).removeprefix(_CLONES)
        if not name or daemon.unit_id(_CLONES + name) != unit_id:
            raise NotFoundError(DISCARD, unit_id, "this is no clone")
        async with daemon.alone(DISCARD, unit_id):
            graph = await daemon.graph(DISCARD)
            if clone_export(name) not in graph.exports and not daemon.pool.clone(name).exists():
                raise NotFoundError(DISCARD, unit_id, "there is no such clone")
            await daemon.end_export(DISCARD, clone_export(name))
            await self._remove_files(DISCARD, name)
            await self._groups.reclaim(DISCARD, unit_id)

    async def _remove_files(self, operation: str, name: str) -> None:
        daemon = self._daemon
        path = daemon.pool.clone(name)
        if not await daemon.close_image(operation, path):
            raise RefusedError(f"{path} is still in use")
        for one in (path, daemon.pool.clone_device(name)):
            with contextlib.suppress(FileNotFoundError):
                one.unlink()
