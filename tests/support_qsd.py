"""A qemu-storage-daemon array for one test, and ways to end its daemon or its driver half way."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import ExecInterruptedError, QMPClient
from support_blocks import BLOCK_BYTES, read_block, value_of, write_block

from stillframe.drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest
from stillframe.drivers.qsd import QsdDriver, open_qsd
from stillframe.drivers.qsd_pool import Pool
from stillframe.lab.backend_qsd import QsdBackend

NEEDS = ("root", "fuse", "loop")
UNIT_BYTES = 8 << 20


class Died(BaseException):
    """The driver's process ended here."""


class QsdArray:
    """An array that is up."""

    def __init__(self, folder: Path, units: int) -> None:
        self.folder = folder
        self.backend = QsdBackend(folder, units, UNIT_BYTES)
        self.pool = Pool(folder)
        self.files: list[Path] = []
        self.unit_ids = [f"a/unit-{number}" for number in range(units)]

    def driver(self, **settings: Any) -> AbstractAsyncContextManager[QsdDriver]:
        """Open a driver."""
        return open_qsd("a", self.backend.settings() | settings)

    @property
    def pid(self) -> int:
        """The daemon's process."""
        return int((self.folder / "daemon.pid").read_text(encoding="ascii"))

    async def cut(self, driver: QsdDriver, tag: str, *numbers: int) -> GroupSnapshot:
        """Snapshot the units of these numbers; all of them if none is given."""
        chosen = [self.unit_ids[number] for number in numbers] or self.unit_ids
        return await driver.snapshot_group(GroupSnapshotRequest(tuple(chosen), tag, 30.0))

    async def held(self, driver: QsdDriver, ref: GroupSnapshotRef, block: int = 0) -> list[int]:
        """What a block of each unit holds in a snapshot of all of them."""
        return [
            value_of(await driver.read_back(ref, unit_id, block * BLOCK_BYTES, BLOCK_BYTES))
            for unit_id in self.unit_ids
        ]

    async def write(self, value: int, block: int = 0) -> None:
        """Write a block of every unit."""
        for file in self.files:
            await asyncio.to_thread(write_block, file, block, value)

    async def live(self, block: int = 0) -> list[int]:
        """What a block of each unit holds."""
        offset = block * BLOCK_BYTES
        return [await asyncio.to_thread(read_block, file, offset) for file in self.files]

    async def kill_and_restart(self) -> None:
        """Let the daemon die and come back."""
        await self.backend.kill()
        self.files = await self.backend.restart()

    def signal(self, how: signal.Signals) -> None:
        """Send the daemon a signal."""
        os.kill(self.pid, how)

    def overlays(self) -> list[str]:
        """The overlays that lie in the pool."""
        return sorted(path.name for path in self.folder.glob("*.qcow2"))


@asynccontextmanager
async def qsd_array(folder: Path, units: int = 2) -> AsyncIterator[QsdArray]:
    """Bring one up; down whatever happens."""
    array = QsdArray(folder / "array", units)
    array.files = await array.backend.up()
    try:
        yield array
    finally:
        await array.backend.down()


Execute = Callable[..., Awaitable[object]]


class Interruption:
    """Does something at one of the commands that drivers send.

    Parameters
    ----------
    command, number:
        Which one: the first of its name has number 0.
    then:
        What happens.
    after:
        When the command has been carried out, whose answer is lost then; before it otherwise.
    """

    def __init__(
        self,
        command: str,
        number: int,
        then: Callable[[], Awaitable[None]],
        *,
        after: bool = False,
    ) -> None:
        self.struck = False
        self._command = command
        self._left = number
        self._then = then
        self._after = after

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Stand between drivers and daemons."""
        execute: Execute = QMPClient.execute

        async def between(client: QMPClient, command: str, arguments: Any = None) -> object:
            if command == self._command:
                self._left -= 1
            if self.struck or self._left >= 0:
                return await execute(client, command, arguments)
            self.struck = True
            if not self._after:
                await self._then()
                return await execute(client, command, arguments)
            await execute(client, command, arguments)
            await self._then()
            raise ExecInterruptedError("the answer is lost")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(QMPClient, "execute", between)
            yield


async def die() -> None:
    """End the driver's process, as far as the driver can tell."""
    raise Died
