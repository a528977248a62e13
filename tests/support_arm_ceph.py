"""The Ceph arm of the contract of array drivers: three images of a cluster behind a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from support_contract_array import ArrayArm, Place

from stillframe.drivers.ceph_rbd import open_ceph_rbd
from stillframe.drivers.contracts import ArrayDriver
from stillframe.drivers.records import DeviceIdentity, DeviceKind
from stillframe.lab.backend_ceph import CephBackend

UNIT_BYTES = 8 << 20


@asynccontextmanager
async def ceph_arm(folder: Path) -> AsyncIterator[ArrayArm]:
    """The array and a driver for it."""
    backend = CephBackend(folder / "a", 3, UNIT_BYTES)
    files = await backend.up()

    def reopen() -> AbstractAsyncContextManager[ArrayDriver]:
        return open_ceph_rbd("a", backend.settings())

    try:
        async with open_ceph_rbd("a", backend.settings()) as driver:
            devices = [DeviceIdentity(DeviceKind.FILE, str(file)) for file in files]
            known = await driver.resolve(devices)
            units = [known[device] for device in devices]
            yield ArrayArm(driver, units, [Place(file) for file in files], reopen)
    finally:
        await backend.down()
