"""The driver for plain QEMU: the guests of one host, each behind a monitor and a guest agent.

A snapshot is a qcow2 overlay on each disk of the VM, made in one transaction while the guest's
file systems are frozen; removing it merges the overlay back. docs/qemu.md says what is written
where, and what happens when something dies in the middle.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from . import deadman_child
from .contracts import (
    HypervisorCapabilities,
    MergeResult,
    VmSnapshot,
    VmSnapshotRef,
    VmSnapshotRequest,
    VmSnapshotState,
)
from .deadman import DeadMan
from .errors import DidNotHappenError, NotFoundError
from .hostfacts import HostFacts
from .qemu_create import CREATE, Creation
from .qemu_files import Marker
from .qemu_inventory import read_inventory
from .qemu_monitor import MonitorLostError
from .qemu_remove import CONSOLIDATE, REMOVE, consolidate, remove_overlays
from .qemu_settings import QemuSettings, parse_settings, read_guests
from .qemu_vm import QemuVm
from .records import Inventory, VmId

_CAPABILITIES = HypervisorCapabilities(
    reports_quiesce=True, reports_stun=True, reports_delta=True, consolidates=True
)


class QemuDriver:
    """The guests of one host; implements :class:`~stillframe.drivers.contracts.HypervisorDriver`.

    Made by :func:`open_qemu`. The identifier of a VM is ``system_id/name``.
    """

    def __init__(self, system_id: str, settings: QemuSettings, facts: HostFacts) -> None:
        self._system_id = system_id
        self._settings = settings
        self._facts = facts
        self._deadman = DeadMan()
        self._vms: dict[VmId, QemuVm] = {}

    @property
    def capabilities(self) -> HypervisorCapabilities:
        """It sees freezes and thaws, and consolidates.

        ``stun`` is the time for which QEMU holds the guest's I/O, seen from outside and so never
        exact: virtual CPUs run on, and only who writes or reads feels it.
        """
        return _CAPABILITIES

    async def inventory(self) -> Inventory:
        """Every guest that the folder describes, running or not."""
        await self._read_guests()
        try:
            return await read_inventory(
                self._system_id, list(self._vms.values()), self._settings, self._facts
            )
        except MonitorLostError as error:
            raise DidNotHappenError("inventory", self._system_id, str(error)) from error

    async def create_snapshot(self, request: VmSnapshotRequest) -> VmSnapshot:
        """See :meth:`HypervisorDriver.create_snapshot`.

        The ``quiesce`` window begins when the freeze is sent and ends when the thaw is answered;
        ``stun`` is the transaction that makes the overlays.
        """
        vm = await self._vm(CREATE, request.vm_id)
        with _counted(vm, CREATE):
            async with vm.lock:
                return await Creation(vm, request, self._deadman, self._settings).run()

    async def list_snapshots(self, vm_ids: Sequence[VmId] | None = None) -> list[VmSnapshotState]:
        """See :meth:`HypervisorDriver.list_snapshots`.

        ``operation_running`` tells of block jobs and of calls of this driver; it is None when
        QEMU runs and does not answer, and the rest is then what the files say.
        """
        await self._read_guests()
        asked = self._vms if vm_ids is None else dict.fromkeys(vm_ids)
        known = [self._vms[vm_id] for vm_id in asked if vm_id in self._vms]
        try:
            return list(await asyncio.gather(*(vm.state() for vm in known)))
        except MonitorLostError as error:
            raise DidNotHappenError("list_snapshots", self._system_id, str(error)) from error

    async def remove_snapshot(self, ref: VmSnapshotRef) -> MergeResult:
        """See :meth:`HypervisorDriver.remove_snapshot`; children are never removed with it.

        ``delta_bytes`` is what its overlays took up on their file systems, ``merged_bytes`` what
        the jobs moved, ``stun`` the time for which they held the guest's writes at the end. A
        removal that was broken off is taken up where it stopped. When it is cancelled before the
        guest's writes are held, the snapshot stays as it was.
        """
        vm = await self._vm(REMOVE, ref.vm_id)
        with _counted(vm, REMOVE):
            async with vm.lock:
                return await remove_overlays(vm, ref.tag, self._deadman)

    async def consolidate(self, vm_id: VmId) -> None:
        """See :meth:`HypervisorDriver.consolidate`; overlays of others are left alone."""
        vm = await self._vm(CONSOLIDATE, vm_id)
        with _counted(vm, CONSOLIDATE):
            async with vm.lock:
                await consolidate(vm, self._deadman)

    async def let_go_of_the_dead(self) -> None:
        """Thaw guests, and let them write, that a process held which is no more."""
        await self._read_guests()
        await asyncio.gather(*(self._let_go(vm) for vm in self._vms.values()))

    async def close(self) -> None:
        """Disconnect; a guest that could not be thawed yet is left to the dead man's switch.

        Raises
        ------
        StillframeError
            A guest may still be frozen.
        """
        thawing = [task for vm in self._vms.values() for task in vm.thawing]
        if thawing:
            await asyncio.wait(thawing, timeout=self._settings.thaw_timeout)
            for task in thawing:
                task.cancel()
            await asyncio.wait(thawing)
        for vm in self._vms.values():
            await vm.close()
        await self._deadman.close()

    async def _read_guests(self) -> None:
        """Guests may come and go; one that stays keeps its connection."""
        guests = await asyncio.to_thread(read_guests, self._settings.guests_folder)
        found = {f"{self._system_id}/{name}": guest for name, guest in guests.items()}
        for vm_id in [one for one, vm in self._vms.items() if found.get(one) != vm.guest]:
            if not self._vms[vm_id].is_busy:
                await self._vms.pop(vm_id).close()
        for vm_id, guest in found.items():
            if vm_id not in self._vms:
                self._vms[vm_id] = QemuVm(vm_id, guest, self._settings, self._facts)

    async def _vm(self, operation: str, vm_id: VmId) -> QemuVm:
        if vm_id not in self._vms:
            await self._read_guests()
        if vm_id not in self._vms:
            raise NotFoundError(operation, vm_id, "there is no such VM")
        return self._vms[vm_id]

    async def _let_go(self, vm: QemuVm) -> None:
        marker = Marker(vm.guest.folder)
        if not marker.is_left():
            return
        limit_s = self._settings.thaw_timeout
        done = await asyncio.to_thread(deadman_child.finish_merges, str(vm.guest.qmp), limit_s)
        if vm.guest.agent is not None:
            agent = str(vm.guest.agent)
            done &= await asyncio.to_thread(deadman_child.thaw_agent, agent, limit_s)
        if done:
            marker.take().drop()


@contextlib.contextmanager
def _counted(vm: QemuVm, operation: str) -> Iterator[None]:
    vm.under_way[operation] += 1
    try:
        with vm.monitor.used():
            yield
    finally:
        vm.under_way[operation] -= 1


@contextlib.asynccontextmanager
async def open_qemu(
    system_id: str, settings: Mapping[str, Any], facts: HostFacts | None = None
) -> AsyncIterator[QemuDriver]:
    """Give the driver of a host's guests; disconnect at the end.

    QEMU need not run: a guest without it is off. Guests that a dead process has left frozen are
    thawed first.

    Parameters
    ----------
    system_id:
        Under which name the estate knows the host; prefix of all identifiers.
    settings:
        See :class:`~stillframe.drivers.qemu_settings.QemuSettings`.
    facts:
        Where mounts and devices are read; those of this host by default.

    Raises
    ------
    InputError
        The settings or a guest's description cannot be used.
    """
    driver = QemuDriver(system_id, parse_settings(system_id, settings), facts or HostFacts())
    try:
        await driver.let_go_of_the_dead()
        yield driver
    finally:
        await driver.close()
