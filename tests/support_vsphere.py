"""What the tests of the vSphere driver share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from support_vsim import PASSWORD, Vsim, small_inventory

from stillframe.drivers.contracts import VmSnapshotRequest, VmSnapshotState
from stillframe.drivers.records import Vm
from stillframe.drivers.vsphere import VsphereDriver, open_vsphere

TEST_PASSWORD_ENV = "STILLFRAME_TEST_PASSWORD"  # noqa: S105  the variable's name
CREATE = "CreateSnapshotEx_Task"
EXPIRED = {
    "method": "RetrievePropertiesEx",
    "fault": "NotAuthenticated",
    "atCall": True,
    "times": 1,
}
"""The endpoint's own collector answers without a session; a vCenter's does not."""


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint's password in the environment, for every test of a file that imports this."""
    monkeypatch.setenv(TEST_PASSWORD_ENV, PASSWORD)


@pytest.fixture
def vsim() -> Iterator[Vsim]:
    """An endpoint with three VMs; the first has a snapshot of somebody's."""
    with Vsim(small_inventory(3, foreign=1)) as endpoint:
        yield endpoint


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


async def until(condition: Callable[[], bool]) -> None:
    """Ask (in a thread) until it is so."""
    while not await asyncio.to_thread(condition):
        pass


def opened(settings: dict[str, Any]) -> None:
    """Open a driver with these settings, and close it."""

    async def main() -> None:
        async with open_vsphere("vc", settings):
            pass

    asyncio.run(main())
