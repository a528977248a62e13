"""Drivers and systems that leave something behind."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from ...drivers.contracts import VmSnapshotRef
from ...drivers.errors import DidNotHappenError
from ...drivers.records import Inventory, PowerState
from ..canary import BrokenDriver, Canary, with_driver
from ..hypervisor_target import APART, HypervisorTarget, ScratchVm
from .hypervisor_answers import of_role

_MANY = 8


class _Overwhelmed(BrokenDriver):
    """Refuses one removal when snapshots are open on more than eight VMs."""

    def __init__(self, driver: Any, target: Any) -> None:
        super().__init__(driver, target)
        self._refused = False

    async def remove_snapshot(self, ref: VmSnapshotRef) -> Any:
        states = await self.inner.list_snapshots()
        if not self._refused and sum(bool(state.snapshots) for state in states) > _MANY:
            self._refused = True
            reason = "there are too many snapshots to remove one"
            raise DidNotHappenError("remove_snapshot", ref.vm_id, reason)
        return await self.inner.remove_snapshot(ref)


class _Counts(BrokenDriver):
    """Counts in the target the removals of the VM whose deltas lie elsewhere."""

    async def remove_snapshot(self, ref: VmSnapshotRef) -> Any:
        result = await self.inner.remove_snapshot(ref)
        self.target.removals = _removals(self.target) + of_role(ref.vm_id, APART)
        return result


def _removals(target: Any) -> int:
    count: int = getattr(target, "removals", 0)
    return count


def _leaves_files(reference: type[Any]) -> type[Any]:
    class Leaves(with_driver(_Counts)(reference)):  # type: ignore[misc]
        async def files_of(self, vm: ScratchVm) -> frozenset[tuple[str, str]]:
            files: frozenset[tuple[str, str]] = await super().files_of(vm)
            count = _removals(self) if vm.name == APART else 0
            return files | {("store-3", f"left-{number}.vmdk") for number in range(count)}

    return Leaves


def _stuns_for_ever(reference: type[Any]) -> type[Any]:
    class Stuns(with_driver(_Counts)(reference)):  # type: ignore[misc]
        async def write(self, vm: ScratchVm, disk: int, block: int, data: bytes) -> None:
            if vm.name == APART and _removals(self):
                await asyncio.get_running_loop().create_future()
            await super().write(vm, disk, block, data)

    return Stuns


class _Suspends(_Counts):
    """The VM whose deltas lie elsewhere is suspended after a removal."""

    async def inventory(self) -> Inventory:
        inventory: Inventory = await self.inner.inventory()
        if not _removals(self.target):
            return inventory
        vms = tuple(
            replace(vm, power_state=PowerState.SUSPENDED) if vm.name == APART else vm
            for vm in inventory.vms
        )
        return replace(inventory, vms=vms)


class _KeepsAlive:
    """A connection with a task that nobody ends."""

    tasks: set[asyncio.Task[Any]]

    def connect(self) -> AbstractAsyncContextManager[Any]:
        self.tasks = getattr(self, "tasks", set())
        self.tasks.add(asyncio.create_task(_keep_alive()))
        connected: AbstractAsyncContextManager[Any] = super().connect()  # type: ignore[misc]
        return connected


async def _keep_alive() -> None:
    await asyncio.get_running_loop().create_future()


def _with_keep_alive(reference: type[Any]) -> type[Any]:
    return type("KeepsAlive", (_KeepsAlive, reference), {})


CANARIES: tuple[Canary[HypervisorTarget], ...] = (
    Canary(
        "refuses-among-many",
        "HYP-END-01",
        "A removal is refused when many VMs have snapshots.",
        with_driver(_Overwhelmed),
    ),
    Canary(
        "leaves-files-at-the-end",
        "HYP-END-02",
        "A merged delta that lay elsewhere is not deleted.",
        _leaves_files,
    ),
    Canary(
        "stuns-for-ever",
        "HYP-END-03",
        "After a removal, a guest whose deltas lay elsewhere cannot write any more.",
        _stuns_for_ever,
    ),
    Canary(
        "suspends",
        "HYP-END-04",
        "After a removal, a VM whose deltas lay elsewhere is left suspended.",
        with_driver(_Suspends),
    ),
    Canary(
        "keep-alive-for-ever",
        "HYP-END-05",
        "A connection keeps itself alive after it was closed.",
        _with_keep_alive,
    ),
)
