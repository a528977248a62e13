"""The target of the QEMU driver: real guests of a lab, whose disks lie on an array of its own.

A guest for each role but ``raw`` and ``apart``, which QEMU has not. What the hooks do is done by
real means: blocks are written by a program in the guest, freezes are told and refused by the
agent's own hook, an agent hangs because its process is stopped, a host crashes because its QEMUs
are killed. Docs/qemu.md says what is left untested.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from ...drivers.contracts import FileLocation, HypervisorDriver, Window
from ...drivers.qemu import open_qemu
from ...drivers.records import DeviceIdentity, DeviceKind
from ...errors import StillframeError
from ...lab.cache import Cache
from ...lab.file_flags import held_immutable, immutable
from ...lab.guests import running
from ...lab.host import run
from ...lab.keeper import keeper_program
from ...lab.lab import Lab, lab_up
from ...lab.machine import QEMU
from ...lab.spec import LabArray, LabSpec
from ...orchestrator.spec import Section
from ..hypervisor_target import (
    INDEPENDENT,
    KEPT,
    OFF,
    PLAIN,
    SECOND,
    TOOLLESS,
    WIDE,
    HypervisorTarget,
    ScratchVm,
)
from .qemu_guest import CertifiedGuest

_GUESTS = {
    PLAIN: "vm-0",
    SECOND: "vm-1",
    KEPT: "vm-2",
    TOOLLESS: "vm-3",
    OFF: "vm-4",
    WIDE: "vm-5",
    INDEPENDENT: "vm-6",
}
"""Which guest of the lab plays which role; the last two have two disks."""
_FOREIGN = "before-upgrade"
_DISK_BYTES = 32 << 20
_UNIT_BYTES = 512 << 20
_DRIVER_SETTINGS = {"connect_timeout": 3.0, "agent_timeout": 3.0, "answer_timeout": 20.0}
_COMMANDS = {
    "create_snapshot": "transaction",
    "remove_snapshot": "block-commit",
    "consolidate": "block-commit",
    "list_snapshots": "query-jobs",
    "inventory": "query-jobs",
}
"""The command of QEMU that a method of the driver is carried out by."""
_LAST_COMMANDS = _COMMANDS | {"remove_snapshot": "job-finalize", "consolidate": "job-finalize"}
"""The command after whose answer there is nothing left for QEMU to do."""


class QemuTargetSettings(Section):
    """What may be chosen of the lab.

    Attributes
    ----------
    array:
        What the guests' datastores lie on.
    """

    array: LabArray = LabArray.XFS


class QemuTarget(HypervisorTarget):
    """Seven QEMU guests on two datastores."""

    name = "QEMU"
    settings_model = QemuTargetSettings
    settings: QemuTargetSettings

    _lab: Lab
    _guests: dict[str, CertifiedGuest]

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        await self._stack.__aenter__()
        try:
            await self._bring_up()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _bring_up(self) -> None:
        spec = LabSpec(
            name="certify",
            array=self.settings.array,
            guests=len(_GUESTS),
            wide=2,
            datastores=2,
            units=2,
            disk_bytes=_DISK_BYTES,
            unit_bytes=_UNIT_BYTES,
            independent=(f"{_GUESTS[INDEPENDENT]}/disk1",),
            writer=None,
        )
        for part in ("s", "g"):
            (self.folder / part).mkdir()
        program = await keeper_program(Cache())
        self._lab = await self._stack.enter_async_context(lab_up(spec, self.folder / "l"))
        self._guests = {}
        for role, name in _GUESTS.items():
            guest = CertifiedGuest(
                self._lab, name, role, self.folder, program, has_agent=role != TOOLLESS
            )
            self._guests[role] = guest
            self._stack.push_async_callback(guest.close)
            guest.describe()
        await self._guests[KEPT].put_foreign_overlay(_FOREIGN)
        await self._lab.stop_guest(_GUESTS[OFF])
        running = [guest for role, guest in self._guests.items() if role != OFF]
        await asyncio.gather(*(guest.take_hold() for guest in running))

    def connect(self) -> AbstractAsyncContextManager[HypervisorDriver]:
        """The QEMU driver on this lab's guests."""
        settings = {"guests_folder": str(self.folder / "g"), **_DRIVER_SETTINGS}
        return open_qemu("host", settings)

    async def environment(self) -> Mapping[str, str]:
        """QEMU, the kernel of the host, and the array under the datastores."""
        version = (await run(QEMU, "--version")).splitlines()[0]
        return {
            "hypervisor": version,
            "host kernel": platform.release(),
            "datastores": f"ext4 on loop devices on {self.settings.array.value}",
            "guests": "Linux with qemu-ga, emulated (TCG)",
        }

    async def vms(self) -> Mapping[str, ScratchVm]:
        """The guests by role."""
        unit_of = dict(zip(self._lab.datastores, self._lab.units, strict=True))
        found = {}
        for role, name in _GUESTS.items():
            stores = [disk.datastore for disk in self._lab.guests[name].disks]
            found[role] = ScratchVm(
                role,
                tuple(store.name for store in stores),
                {
                    store.name: (DeviceIdentity(DeviceKind.FILE, str(unit_of[store])),)
                    for store in stores
                },
                foreign_snapshot=_FOREIGN if role == KEPT else None,
                capacities_bytes=(_DISK_BYTES,) * len(stores),
            )
        return found

    def _guest(self, vm: ScratchVm) -> CertifiedGuest:
        return self._guests[vm.name]

    # -- the guest -------------------------------------------------------------------------------

    async def write(self, vm: ScratchVm, disk: int, block: int, data: bytes) -> None:
        """A program in the guest writes to a file on this disk, past the cache and flushed."""
        await self._guest(vm).write(disk, block, data)

    async def read(self, vm: ScratchVm, disk: int, block: int) -> bytes:
        """The same program reads it back from the disk."""
        return await self._guest(vm).keeper.read(disk, block)

    async def frozen_spans(self, vm: ScratchVm, since_s: float) -> Sequence[Window]:
        """From the agent's hook before its first freeze to that after its last thaw.

        The agent waits for the hook, and the hook for us, so that both lie inside the calls that
        caused them.
        """
        return [span for span in self._guest(vm).spans() if span.end_s >= since_s]

    # -- the datastores --------------------------------------------------------------------------

    async def digest_of(self, vm: ScratchVm, file: FileLocation) -> str:
        """SHA-256 of the file's bytes, read on the host."""
        if file.path not in {path for _, path in await self.files_of(vm)}:
            raise StillframeError(f"{file.path} is no file of the VM {vm.name}")
        return await asyncio.to_thread(_digest, Path(file.path))

    async def files_of(self, vm: ScratchVm) -> frozenset[tuple[str, str]]:
        """Whatever lies in the folders of the VM's disks."""
        disks = self._guest(vm).guest.disks
        return frozenset(
            (disk.datastore.name, str(path))
            for disk in disks
            for path in disk.file.resolve().parent.iterdir()
        )

    # -- what may go wrong -----------------------------------------------------------------------

    @asynccontextmanager
    async def hung_agent(self, vm: ScratchVm) -> AsyncIterator[None]:
        """The agent's process in the guest is stopped (SIGSTOP)."""
        keeper = self._guest(vm).keeper
        await keeper.hang_agent()
        try:
            yield
        finally:
            await keeper.wake_agent()

    @asynccontextmanager
    async def failing_freeze(self, vm: ScratchVm) -> AsyncIterator[None]:
        """The agent's freeze hook fails, and with it the freeze."""
        guest = self._guest(vm)
        guest.refuses = True
        try:
            yield
        finally:
            guest.refuses = False

    @asynccontextmanager
    async def failing_create(self, vm: ScratchVm) -> AsyncIterator[None]:
        """The folder of its last disk is immutable: QEMU can make no overlay there."""
        disk = [disk for disk in self._guest(vm).guest.disks if not disk.independent][-1]
        with held_immutable(disk.file.parent):
            yield

    @asynccontextmanager
    async def failing_merge(self, vm: ScratchVm) -> AsyncIterator[None]:
        """When QEMU has merged, the overlay becomes immutable: its file cannot be deleted."""
        guest = self._guest(vm)
        touched: set[Path] = set()

        def seen() -> None:
            for disk in guest.guest.disks:
                for path in disk.file.parent.glob("*.merged"):
                    immutable(path, on=True)
                    touched.add(path)

        try:
            with guest.proxy.watching("job-finalize".__eq__, seen):
                yield
        finally:
            for path in touched:
                immutable(path, on=False)

    async def power_off(self, vm: ScratchVm) -> None:
        """Its QEMU is killed."""
        await self._guest(vm).kill()

    async def power_on(self, vm: ScratchVm) -> None:
        """A new QEMU on the newest files of its disks."""
        await self._guest(vm).start()

    async def restart(self) -> None:
        """Every QEMU that runs is killed and started again, as after a crash of the host."""
        on = [guest for guest in self._guests.values() if guest.is_on]
        await asyncio.gather(*(guest.crash() for guest in on))
        await asyncio.gather(*(guest.come_back() for guest in on))

    @asynccontextmanager
    async def lost_answers(self, operation: str) -> AsyncIterator[None]:
        """The monitor's connection breaks when QEMU has done it, before the driver hears of it."""
        command = _known(_LAST_COMMANDS, operation)
        with ExitStack() as stack:
            for guest in self._guests.values():
                stack.enter_context(guest.proxy.losing(command.__eq__))
            yield

    @asynccontextmanager
    async def slow_calls(self, operation: str, delay_s: float) -> AsyncIterator[None]:
        """The command reaches QEMU so much later, also when the driver has gone meanwhile."""
        command = _known(_COMMANDS, operation)
        with ExitStack() as stack:
            for guest in self._guests.values():
                stack.enter_context(guest.proxy.slowing(command.__eq__, delay_s))
            yield

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[None]:
        """Every QEMU is stopped (SIGSTOP)."""
        found = [running(guest.guest) for guest in self._guests.values()]
        stopped = [process.pid for process in found if process is not None]
        try:
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)


def _known(commands: Mapping[str, str], operation: str) -> str:
    if operation not in commands:
        raise StillframeError(f"the QEMU driver has no operation {operation!r}")
    return commands[operation]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
