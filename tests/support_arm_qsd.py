"""The contract's arm for a qemu-storage-daemon array."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from support_contract_array import ArrayArm, Place

from stillframe.drivers.contracts import ArrayDriver
from stillframe.drivers.qsd import open_qsd
from stillframe.drivers.records import DeviceIdentity, DeviceKind
from stillframe.lab.backend_qsd import QsdBackend

UNIT_BYTES = 8 << 20


@asynccontextmanager
async def qsd_arm(folder: Path) -> AsyncIterator[ArrayArm]:
    """Three units; the second driver has the daemon's second monitor."""
    backend = QsdBackend(folder / "array", 3, UNIT_BYTES)
    files = await backend.up()
    settings = backend.settings()
    other = settings | {"qmp_socket": str(folder / "array" / "lab.sock")}

    def reopen() -> AbstractAsyncContextManager[ArrayDriver]:
        return open_qsd("a", other)

    try:
        async with open_qsd("a", settings) as driver:
            wanted = [DeviceIdentity(DeviceKind.FILE, str(file)) for file in files]
            known = await driver.resolve(wanted)
            yield ArrayArm(driver, [known[one] for one in wanted], [*map(Place, files)], reopen)
    finally:
        await backend.down()
