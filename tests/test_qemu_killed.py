"""QEMU or the driver's process is killed at each step of a merge or of a freeze.

However it ends, the files say what each disk holds, no acknowledged write is lost, nothing stays
held, and the next driver finishes the work.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from support_lab import needs_lab
from support_qemu import DISK_BYTES, SYSTEM, FakeHost, FakeVm, fake_host, until

from stillframe.drivers.contracts import VmSnapshotRequest
from stillframe.drivers.errors import DriverError, NotFoundError
from stillframe.drivers.qemu import QemuDriver
from stillframe.drivers.qemu_monitor import Monitor

pytestmark = needs_lab("qemu")
VM = f"{SYSTEM}/vm"
KIB64 = 1 << 16


@pytest.fixture
def host() -> Iterator[FakeHost]:
    """A host without VMs."""
    with fake_host() as made:
        yield made


async def with_delta(driver: QemuDriver, vm: FakeVm) -> Any:
    """A snapshot with writes under and over it, on each disk."""
    for disk in range(len(vm.disks)):
        await vm.write(1, 0, 2 * KIB64, disk)
    made = await driver.create_snapshot(VmSnapshotRequest(VM, "t1", True, 30.0))
    for disk in range(len(vm.disks)):
        await vm.write(2, KIB64, KIB64, disk)
    return made.ref


def assert_whole(vm: FakeVm) -> None:
    """Every acknowledged write is on the disks as the files tell them."""
    expected = b"\x01" * KIB64 + b"\x02" * KIB64 + bytes(DISK_BYTES - 2 * KIB64)
    for disk in range(len(vm.disks)):
        assert vm.content(disk) == expected


async def finish(driver: QemuDriver) -> None:
    """What recovery does: remove what is listed, merge what is left."""
    (state,) = await driver.list_snapshots([VM])
    assert state.operation_running is False
    for ref in state.snapshots:
        await driver.remove_snapshot(ref)
    (state,) = await driver.list_snapshots([VM])
    if state.needs_consolidation:
        await driver.consolidate(VM)
    (state,) = await driver.list_snapshots([VM])
    assert (state.snapshots, state.needs_consolidation) == ((), False)


def at(
    patch: pytest.MonkeyPatch, wanted: str, *, after: bool, act: Callable[[], Awaitable[None]]
) -> None:
    """Have something happen once, before or after a command to QEMU."""
    really_execute, done = Monitor.execute, []

    async def execute(self: Monitor, command: str, **arguments: Any) -> Any:
        ours = command == wanted and not done
        if ours:
            done.append(command)
        if ours and not after:
            await act()
        answer = await really_execute(self, command, **arguments)
        if ours and after:
            await act()
        return answer

    patch.setattr(Monitor, "execute", execute)


STEPS = [
    ("block-commit", False),
    ("block-commit", True),
    ("job-complete", False),
    ("job-complete", True),
    ("job-finalize", False),
    ("job-finalize", True),
    ("job-dismiss", False),
    ("job-dismiss", True),
]


@pytest.mark.parametrize("disks", [1, 2])
@pytest.mark.parametrize(("command", "after"), STEPS)
def test_qemu_is_killed_in_a_merge(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, command: str, after: bool, disks: int
) -> None:
    vm = host.add("vm", *["ds1", "ds2"][:disks])

    async def kill() -> None:
        vm.kill()

    async def check(driver: QemuDriver) -> None:
        ref = await with_delta(driver, vm)
        with monkeypatch.context() as patch:
            at(patch, command, after=after, act=kill)
            try:
                await driver.remove_snapshot(ref)
            except DriverError as error:
                assert not isinstance(error, NotFoundError)  # noqa: PT017
        assert_whole(vm)
        assert not (vm.folder / "frozen").exists()
        await finish(driver)
        assert_whole(vm)
        assert vm.overlays(0) == []
        assert vm.overlays(disks - 1) == []
        vm.start()
        await vm.ask("query-status")
        await driver.create_snapshot(VmSnapshotRequest(VM, "t2", True, 30.0))

    host.run(check)


def test_a_write_that_follows_the_merge_is_not_lost_when_qemu_dies_at_once(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = host.add("vm", "ds1")

    async def write_and_kill() -> None:  # over what the overlay holds
        await vm.write(3, KIB64, KIB64)
        vm.kill()

    async def check(driver: QemuDriver) -> None:
        ref = await with_delta(driver, vm)
        with monkeypatch.context() as patch:
            # The job has ended, and the overlay is not deleted yet.
            at(patch, "job-dismiss", after=False, act=write_and_kill)
            with pytest.raises(DriverError):
                await driver.remove_snapshot(ref)
        assert vm.content()[KIB64 : 2 * KIB64] == b"\x03" * KIB64
        await finish(driver)
        assert vm.content()[KIB64 : 2 * KIB64] == b"\x03" * KIB64
        assert vm.overlays() == []

    host.run(check)


@pytest.mark.parametrize(("command", "after"), STEPS)
def test_the_driver_loses_its_hold_of_a_merge_and_the_next_goes_on(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, command: str, after: bool
) -> None:
    vm = host.add("vm", "ds1", "ds2")

    class DeadError(BaseException):
        """Stands for the end of the process: no handler may catch it."""

    async def die() -> None:
        raise DeadError

    async def first(driver: QemuDriver) -> None:
        ref = await with_delta(driver, vm)
        with monkeypatch.context() as patch:
            at(patch, command, after=after, act=die)
            with pytest.raises(DeadError):
                await driver.remove_snapshot(ref)

    async def second(driver: QemuDriver) -> None:
        # With the first driver's end its switch has let go: the guest can write.
        await asyncio.wait_for(vm.write(3, 4 * KIB64, KIB64), 20)
        (state,) = await driver.list_snapshots([VM])
        for ref in state.snapshots:
            await driver.remove_snapshot(ref)
        await until(lambda: idle(driver))
        await finish(driver)
        vm.kill()
        assert vm.content()[:KIB64] == b"\x01" * KIB64
        assert vm.content()[KIB64 : 2 * KIB64] == b"\x02" * KIB64
        assert vm.content()[4 * KIB64 : 5 * KIB64] == b"\x03" * KIB64
        assert vm.overlays() == []

    host.run(first)
    host.run(second)


async def idle(driver: QemuDriver) -> bool:
    """Whether nothing goes on on the VM."""
    (state,) = await driver.list_snapshots([VM])
    return state.operation_running is False


PARENT = """
import asyncio, json, os, signal, sys
from pathlib import Path
from stillframe.drivers import qemu_merge
from stillframe.drivers.contracts import VmSnapshotRequest
from stillframe.drivers.hostfacts import HostFacts
from stillframe.drivers.qemu import open_qemu
from stillframe.drivers.qemu_monitor import Monitor

settings, facts, step, lone = json.loads(sys.argv[1])
really = Monitor.execute

def die(*_):
    if lone:
        os.kill(driver._deadman.pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)

async def execute(self, command, **arguments):
    if command == step:
        die()
    return await really(self, command, **arguments)

async def main():
    global driver
    async with open_qemu("host", settings, HostFacts(*map(Path, facts))) as driver:
        Monitor.execute = execute
        if step == "rename":
            qemu_merge._retire = die
        made = await driver.create_snapshot(VmSnapshotRequest("host/vm", "t1", True, 30.0))
        for words in ("write -P 2 0 65536", "flush"):
            line = f'qemu-io -d /machine/peripheral/dev0/virtio-backend "{words}"'
            monitor = driver._vms["host/vm"].monitor
            await monitor.execute("human-monitor-command", command_line=line)
        await driver.remove_snapshot(made.ref)

asyncio.run(main())
"""


def killed_at(host: FakeHost, step: str, *, lone: bool = False) -> None:
    """A process with a driver of this host that is killed before it sends a command to QEMU."""
    settings = {"guests_folder": str(host.guests)}
    facts = [str(host.facts.mount_table), str(host.facts.sys_root)]
    words = [sys.executable, "-c", PARENT, json.dumps([settings, facts, step, lone])]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL


def test_a_guest_whose_orchestrator_is_killed_while_it_is_frozen_is_thawed(
    host: FakeHost,
) -> None:
    vm = host.add("vm", "ds1")
    host.run(nothing)
    killed_at(host, "transaction")
    vm.agent.wait_until_thawed()
    assert "thaw" in vm.agent.heard
    host.run(finish)
    assert not (vm.folder / "frozen").exists()


def test_with_the_switch_killed_too_the_next_driver_thaws(host: FakeHost) -> None:
    vm = host.add("vm", "ds1")
    host.run(nothing)
    killed_at(host, "transaction", lone=True)
    assert vm.agent.frozen
    assert "thaw" not in vm.agent.heard
    host.run(finish)
    assert not vm.agent.frozen
    assert not (vm.folder / "frozen").exists()


@pytest.mark.parametrize("lone", [False, True])
@pytest.mark.parametrize("step", ["rename", "job-finalize"])
def test_writes_that_a_killed_orchestrator_holds_are_let_go_and_not_lost(
    host: FakeHost, step: str, lone: bool
) -> None:
    vm = host.add("vm", "ds1")
    host.run(nothing)
    killed_at(host, step, lone=lone)

    async def check(driver: QemuDriver) -> None:
        # Over what the overlay holds: whoever reads the wrong file sees the older write.
        await asyncio.wait_for(vm.write(3, 0, KIB64), 20)
        vm.kill()  # and what was acknowledged is where the files say
        assert vm.content()[:KIB64] == b"\x03" * KIB64
        await finish(driver)
        assert vm.content()[:KIB64] == b"\x03" * KIB64
        assert vm.overlays() == []

    host.run(check)


async def nothing(_: QemuDriver) -> None:
    """Only wait until the host is up."""
