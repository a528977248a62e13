"""The vSphere driver as a target of the kit: on the test endpoint, with rules for what goes wrong.

The endpoint has no guests and no data: what needs them is not offered, and not tested.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self

from pyVmomi import vim
from support_pyvmomi import Client
from support_vsim import FOREIGN, PASSWORD, Vsim, lun

from stillframe.certify.hypervisor_target import (
    INDEPENDENT,
    KEPT,
    OFF,
    PLAIN,
    RAW,
    SECOND,
    TOOLLESS,
    WIDE,
    HypervisorTarget,
    ScratchVm,
)
from stillframe.drivers.contracts import HypervisorDriver
from stillframe.drivers.records import DeviceIdentity
from stillframe.drivers.vsphere import open_vsphere

_PASSWORD_ENV = "STILLFRAME_CERTIFY_PASSWORD"  # noqa: S105  the variable's name
_EXTENTS = {"ds1": [lun(1)], "ds2": [lun(2), lun(3)], "ds3": [lun(4)]}
_SIZE_MB = 512
_MOVE_MS = 1500
_RAW_LUN = lun(9)
_SETTINGS = {"connect_timeout": 3.0, "call_timeout": 4.0, "poll_interval": 0.02}


def _disk(datastore: str, **more: Any) -> dict[str, Any]:
    return {"datastore": datastore, "sizeMb": _SIZE_MB, **more}


_VMS: dict[str, dict[str, Any]] = {
    PLAIN: {"disks": [_disk("ds1")]},
    SECOND: {"disks": [_disk("ds2")]},
    WIDE: {"disks": [_disk("ds1"), _disk("ds2")]},
    OFF: {"disks": [_disk("ds1")], "off": True},
    TOOLLESS: {"disks": [_disk("ds1")], "tools": "notRunning"},
    INDEPENDENT: {"disks": [_disk("ds1"), _disk("ds2", mode="independent_persistent")]},
    RAW: {"disks": [_disk("ds1"), _disk("ds1", rawLun=_RAW_LUN, rawMode="physicalMode")]},
    KEPT: {"disks": [_disk("ds1")], "snapshots": [FOREIGN]},
}
_INVENTORY = {
    "hosts": 2,
    "luns": [{"name": name} for names in _EXTENTS.values() for name in names]
    + [{"name": _RAW_LUN}],
    "datastores": [{"name": name, "type": "VMFS", "lun": luns} for name, luns in _EXTENTS.items()],
    "vms": [{"name": name, **what} for name, what in _VMS.items()],
}
_CREATES = ("CreateSnapshotEx_Task", "CreateSnapshot_Task")
_METHODS = {
    "create_snapshot": _CREATES,
    "remove_snapshot": ("RemoveSnapshot_Task",),
    "consolidate": ("ConsolidateVMDisks_Task",),
    "list_snapshots": ("RetrievePropertiesEx",),
    "inventory": ("RetrievePropertiesEx",),
}
"""The calls by which the vSphere driver carries out a method of the contract."""
_READ = ("list_snapshots", "inventory")


class VsphereEndpoint(HypervisorTarget):
    """A vCenter simulator with a VM for each role but ``apart``."""

    name = "vSphere endpoint"
    _vsim: Vsim

    async def __aenter__(self) -> Self:
        self._rules: list[dict[str, Any]] = []
        self._vsim = await asyncio.to_thread(Vsim(_INVENTORY, keep=True).__enter__)
        os.environ[_PASSWORD_ENV] = PASSWORD
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.environ.pop(_PASSWORD_ENV, None)
        await asyncio.to_thread(self._vsim.__exit__, kind, error, trace)

    def connect(self) -> AbstractAsyncContextManager[HypervisorDriver]:
        """The vSphere driver on the endpoint."""
        where = {
            "host": self._vsim.host,
            "port": self._vsim.port,
            "ca_file": self._vsim.ca_file,
            "user": self._vsim.user,
            "password_env": _PASSWORD_ENV,
        }
        return open_vsphere("vc", {**where, **_SETTINGS})

    async def environment(self) -> Mapping[str, str]:
        """What the endpoint says that it is."""
        about = await self._done(lambda client: client.content.about)
        return {
            "hypervisor": f"{about.fullName} (govmomi's vCenter simulator, extended)",
            "API": about.apiVersion,
        }

    async def vms(self) -> Mapping[str, ScratchVm]:
        """The VMs of the inventory."""
        found = {}
        for role, what in _VMS.items():
            plain = [one for one in what["disks"] if "rawLun" not in one]
            stores = tuple(None if "rawLun" in one else one["datastore"] for one in what["disks"])
            found[role] = ScratchVm(
                role,
                stores,
                {
                    name: tuple(DeviceIdentity.parse(one) for one in _EXTENTS[name])
                    for name in stores
                    if name is not None
                },
                raw_device=DeviceIdentity.parse(_RAW_LUN) if role == RAW else None,
                foreign_snapshot=FOREIGN if role == KEPT else None,
                capacities_bytes=(_SIZE_MB << 20,) * len(plain) if role != RAW else None,
            )
        return found

    # -- hooks -----------------------------------------------------------------------------------

    async def files_of(self, vm: ScratchVm) -> frozenset[tuple[str, str]]:
        """The disk descriptors of the VM's layout, read by another client."""

        def read(client: Client) -> frozenset[tuple[str, str]]:
            layout = client.read(client.vm(vm.name), "layoutEx")["layoutEx"]
            paths = [file.name for file in layout.file if file.type == "diskDescriptor"]
            return frozenset((path[1 : path.index("]")], path) for path in paths)

        return await self._done(read)

    async def restart(self) -> None:
        """The endpoint is killed and started again; sessions and tasks are gone."""
        await asyncio.to_thread(self._vsim.kill)
        await asyncio.to_thread(self._vsim.restart)
        await self._apply()

    async def expire_sessions(self) -> None:
        """Sessions are ended by an administrator's client.

        The endpoint's own collector answers without a session, a vCenter's does not: so a rule
        has the next call of the collector refused.
        """

        def end(client: Client) -> None:
            manager = client.content.sessionManager
            mine = manager.currentSession.key
            others = [one.key for one in manager.sessionList if one.key != mine]
            if others:
                manager.TerminateSession(others)

        await self._done(end)
        once = {"method": "RetrievePropertiesEx", "fault": "NotAuthenticated", "atCall": True}
        await asyncio.to_thread(self._vsim.rules, [*self._rules, {**once, "times": 1}])

    def lost_answers(self, operation: str) -> AbstractAsyncContextManager[None]:
        """The connection breaks when the work is done."""
        how = {"drop": True, "after": True, "ended": operation not in _READ}
        return self._ruled({"method": method, **how} for method in _METHODS[operation])

    def slow_calls(self, operation: str, delay_s: float) -> AbstractAsyncContextManager[None]:
        """Tasks run so much longer."""
        delay_ms = int(delay_s * 1000)
        return self._ruled({"method": one, "delayMs": delay_ms} for one in _METHODS[operation])

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[None]:
        """The endpoint's process is stopped (SIGSTOP)."""
        process = self._vsim._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def failing_freeze(self, vm: ScratchVm) -> AbstractAsyncContextManager[None]:
        """Creates end as if the guest had refused."""
        return self._failing(vm, _CREATES[:1], fault="FilesystemQuiesceFault")

    def failing_create(self, vm: ScratchVm) -> AbstractAsyncContextManager[None]:
        """Creates end as if there had been no space left."""
        return self._failing(vm, _CREATES, fault="NoDiskSpace")

    def failing_merge(self, vm: ScratchVm) -> AbstractAsyncContextManager[None]:
        """Removals forget the snapshot, and leave its delta."""
        how = {"fault": "FileLocked", "after": True, "leaveDeltas": True}
        return self._failing(vm, ("RemoveSnapshot_Task",), **how)

    @asynccontextmanager
    async def migrating(self, vm: ScratchVm) -> AsyncIterator[None]:
        """A storage vMotion, from another client, that takes a while."""
        here = await self._done(lambda client: client.vm(vm.name).config.files.vmPathName)
        there = "ds3" if not here.startswith("[ds3]") else "ds1"
        rule = {"method": "RelocateVM_Task", "delayMs": _MOVE_MS}
        async with self._ruled([rule]):
            moving = asyncio.create_task(self.migrate(vm, there))
            try:
                await self._done(lambda client: _wait_for_task(client, vm.name))
                yield
            finally:
                await moving

    async def migrate(self, vm: ScratchVm, datastore: str) -> None:
        """A storage vMotion."""

        def move(client: Client) -> None:
            spec = vim.vm.RelocateSpec(datastore=client.store(datastore))
            client.finish(client.vm(vm.name).RelocateVM_Task(spec))

        await self._done(move)

    async def power_off(self, vm: ScratchVm) -> None:
        """Powered off by another client."""
        await self._done(lambda client: client.finish(client.vm(vm.name).PowerOffVM_Task()))

    async def power_on(self, vm: ScratchVm) -> None:
        """Powered on by another client."""
        await self._done(lambda client: client.finish(client.vm(vm.name).PowerOnVM_Task()))

    # -- rules and clients -----------------------------------------------------------------------

    def _failing(
        self, vm: ScratchVm, methods: tuple[str, ...], **how: Any
    ) -> AbstractAsyncContextManager[None]:
        return self._ruled({"method": one, "object": vm.name, **how} for one in methods)

    @asynccontextmanager
    async def _ruled(self, rules: Any) -> AsyncIterator[None]:
        mine = list(rules)
        self._rules += mine
        await self._apply()
        try:
            yield
        finally:
            for rule in mine:
                self._rules.remove(rule)
            await self._apply()

    async def _apply(self) -> None:
        await asyncio.to_thread(self._vsim.rules, self._rules)

    async def _done(self, work: Callable[[Client], Any]) -> Any:
        def run() -> Any:
            with Client(self._vsim) as client:
                return work(client)

        return await asyncio.to_thread(run)


def _wait_for_task(client: Client, name: str) -> None:
    """Until a task of the VM is running."""
    vm = client.vm(name)
    while True:
        recent = client.read(vm, "recentTask").get("recentTask", [])
        states = [client.read(task, "info.state")["info.state"] for task in recent]
        if "running" in states:
            return
