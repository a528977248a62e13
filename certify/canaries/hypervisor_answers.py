"""Ways to change what a hypervisor driver answers, for canaries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from ...drivers.contracts import VmLocation, VmSnapshot, VmSnapshotState
from ...drivers.records import Inventory, Vm
from ..canary import BrokenDriver, with_driver

Make = Callable[[type[Any]], type[Any]]
"""From the class of the reference target to a broken one."""


def instead(method: str, call: Callable[..., Awaitable[Any]]) -> Make:
    """A driver that does ``call(driver, *arguments)`` instead of a method of its own.

    ``driver`` is the driver that works.
    """

    def wrap(driver: Any, target: Any) -> Any:
        broken = BrokenDriver(driver, target)

        async def changed(*arguments: Any) -> Any:
            return await call(driver, *arguments)

        setattr(broken, method, changed)
        return broken

    return with_driver(wrap)


def told(method: str, change: Callable[[Any], Any]) -> Make:
    """A driver that tells ``change(answer)`` instead of the answer of a method."""

    async def call(driver: Any, *arguments: Any) -> Any:
        return change(await getattr(driver, method)(*arguments))

    return instead(method, call)


def shown(role: str, change: Callable[[Vm], Vm]) -> Make:
    """An inventory that shows the VM of a role otherwise; every VM, if the role is empty."""

    def changed(inventory: Inventory) -> Inventory:
        vms = tuple(
            change(vm) if role in ("", vm.name) else vm  # the reference calls VMs by their roles
            for vm in inventory.vms
        )
        return replace(inventory, vms=vms)

    return told("inventory", changed)


def listed(change: Callable[[VmSnapshotState], VmSnapshotState]) -> Make:
    """A listing that tells each VM's state otherwise."""
    return told("list_snapshots", lambda states: [change(state) for state in states])


def located(change: Callable[[VmLocation], VmLocation]) -> Make:
    """Another location, in the answer to a create as in every listing."""

    class Misplaced(BrokenDriver):
        async def create_snapshot(self, request: Any) -> VmSnapshot:
            made: VmSnapshot = await self.inner.create_snapshot(request)
            return made._replace(location=change(made.location))

        async def list_snapshots(self, vm_ids: Any = None) -> list[VmSnapshotState]:
            states = await self.inner.list_snapshots(vm_ids)
            return [state._replace(location=change(state.location)) for state in states]

    return with_driver(Misplaced)


def of_role(vm_id: str, role: str) -> bool:
    """Whether an identifier of the reference is that of the VM of this role."""
    return vm_id.endswith(f"/{role}")
