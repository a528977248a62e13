"""Creates and removes of the vSphere driver that a vCenter refuses, and what they leave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support_vsim import Vsim
from support_vsphere import CREATE, drive, password, request, state_of, vms_by_name, vsim

from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    HappenedError,
    NeverWillError,
    QuiesceTimeoutError,
)
from stillframe.drivers.vsphere import VsphereDriver

__all__ = ["password", "vsim"]  # fixtures


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ({"fault": "TaskInProgress"}, BusyError),
        ({"fault": "TaskInProgress", "atCall": True}, BusyError),
        ({"fault": "Timedout"}, QuiesceTimeoutError),
        ({"fault": "TooManySnapshotLevels"}, NeverWillError),
        # What such a fault means is found out by a look at the VM:
        ({"fault": "SystemError"}, DidNotHappenError),
        ({"fault": "SystemError", "after": True}, HappenedError),
    ],
)
def test_a_create_that_fails(vsim: Vsim, rule: dict[str, Any], error: type[Exception]) -> None:
    async def main(driver: VsphereDriver) -> None:
        one = (await vms_by_name(driver))["vm0001"]
        vsim.rules([{"method": CREATE} | rule])
        with pytest.raises(error) as caught:
            await driver.create_snapshot(request(one.id))
        assert type(caught.value) is error
        left = (await state_of(driver, one.id)).snapshots
        assert bool(left) is (error is HappenedError)

    drive(vsim, main)


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ({"fault": "FileLocked"}, DidNotHappenError),
        ({"fault": "SystemError", "after": True}, HappenedError),
        ({"fault": "ConcurrentAccess"}, BusyError),
    ],
)
def test_a_remove_that_fails(vsim: Vsim, rule: dict[str, Any], error: type[Exception]) -> None:
    async def main(driver: VsphereDriver) -> None:
        one = (await vms_by_name(driver))["vm0001"]
        made = await driver.create_snapshot(request(one.id))
        vsim.rules([{"method": "RemoveSnapshot_Task"} | rule])
        with pytest.raises(error) as caught:
            await driver.remove_snapshot(made.ref)
        assert type(caught.value) is error
        left = (await state_of(driver, one.id)).snapshots
        assert bool(left) is (error is not HappenedError)

    drive(vsim, main)


def test_a_server_without_quiesce_specs_is_asked_once_and_then_the_old_way(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        vms = await vms_by_name(driver)
        vsim.rules([{"method": CREATE, "fault": "MethodNotFound", "atCall": True}])
        for name in ("vm0001", "vm0002"):
            made = await driver.create_snapshot(request(vms[name].id))
            assert made.quiesce is not None
        calls = await asyncio.to_thread(vsim.calls)
        assert (calls[CREATE], calls["CreateSnapshot_Task"]) == (1, 2)

    drive(vsim, main)


def test_a_snapshot_says_whose_it_is(vsim: Vsim) -> None:
    from pyVmomi import vim

    async def main(driver: VsphereDriver) -> str:
        one = (await vms_by_name(driver))["vm0001"]
        await driver.create_snapshot(request(one.id, "stillframe-7-1"))
        vm = vim.VirtualMachine(one.id.removeprefix("vc/"), driver.session.stub)
        tree = await asyncio.to_thread(lambda: vm.snapshot.rootSnapshotList)
        return f"{tree[0].name}: {tree[0].description}"

    assert drive(vsim, main).startswith("stillframe-7-1: Made by Stillframe")
