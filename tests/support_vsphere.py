"""What the tests of the vSphere driver share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from support_vsim import Vsim

from stillframe.drivers.contracts import VmSnapshotRequest, VmSnapshotState
from stillframe.drivers.records import Vm
from stillframe.drivers.vsphere import VsphereDriver, open_vsphere

TEST_PASSWORD_ENV = "STILLFRAME_TEST_PASSWORD"  # noqa: S105  the variable's name


def settings_of(vsim: Vsim, **more: Any) -> dict[str, Any]:
    """What connects to this endpoint; polls fast."""
    return {
        "host": vsim.host,
        "port": vsim.port,
        "ca_file": vsim.ca_file,
        "user": vsim.user,
        "password_env": TEST_PASSWORD_ENV,
        "poll_interval": 0.02,
    } | more


def drive(vsim: Vsim, main: Callable[[VsphereDriver], Awaitable[Any]], **settings: Any) -> Any:
    """Run this with a driver on the endpoint."""

    async def body() -> Any:
        async with open_vsphere("vc", settings_of(vsim, **settings)) as driver:
            return await main(driver)

    return asyncio.run(body())


async def vms_by_name(driver: VsphereDriver) -> dict[str, Vm]:
    """The inventory's VMs."""
    return {vm.name: vm for vm in (await driver.inventory()).vms}


async def state_of(driver: VsphereDriver, vm_id: str) -> VmSnapshotState:
    """What the driver says about one VM."""
    (state,) = await driver.list_snapshots([vm_id])
    return state


def request(vm_id: str, tag: str = "tag", *, quiesce: bool = True) -> VmSnapshotRequest:
    """A create as the orchestrator asks for it."""
    return VmSnapshotRequest(vm_id, tag, quiesce, 300.0)
