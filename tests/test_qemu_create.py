"""The QEMU driver's create: guests that freeze in every manner, and transactions that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from support_lab import needs_lab
from support_qemu import SYSTEM, FakeHost, FakeVm, fake_host, until

from stillframe.drivers.contracts import (
    ConsistencyLevel,
    FileRole,
    VmSnapshotRequest,
    VmSnapshotState,
)
from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    NeverWillError,
    QuiesceFailedError,
    QuiesceTimeoutError,
    UnknownOutcomeError,
)
from stillframe.drivers.qemu import QemuDriver
from stillframe.drivers.qemu_files import Marker
from stillframe.drivers.qemu_monitor import Monitor

pytestmark = needs_lab("qemu")


@pytest.fixture
def host() -> Iterator[FakeHost]:
    """A host without VMs."""
    with fake_host() as made:
        yield made


def asked(
    vm: FakeVm, tag: str = "t1", *, quiesce: bool = True, limit_s: float = 30.0
) -> VmSnapshotRequest:
    """A create as the orchestrator asks for it."""
    return VmSnapshotRequest(f"{SYSTEM}/{vm.name}", tag, quiesce, limit_s)


async def state_of(driver: QemuDriver, vm: FakeVm) -> VmSnapshotState:
    """What the driver lists."""
    (state,) = await driver.list_snapshots([f"{SYSTEM}/{vm.name}"])
    return state


async def is_idle(driver: QemuDriver, vm: FakeVm) -> bool:
    """Whether nothing goes on on the VM."""
    return (await state_of(driver, vm)).operation_running is False


def assert_untouched(vm: FakeVm, state: VmSnapshotState) -> None:
    """No snapshot, no file, no hold, and the guest is not frozen."""
    assert state.snapshots == ()
    assert not state.needs_consolidation
    assert vm.overlays() == []
    assert not list((vm.folder / "snapshots").glob("*"))
    assert not (vm.folder / "frozen").exists()
    assert not vm.agent.frozen


@pytest.mark.parametrize("manner", ["refuse", "part", "early", "silent"])
def test_a_guest_that_does_not_stand_still_is_left_as_it_was(host: FakeHost, manner: str) -> None:
    vm = host.add("vm", "ds1", "ds2", manner=manner)

    async def check(driver: QemuDriver) -> None:
        with pytest.raises(QuiesceFailedError):
            await driver.create_snapshot(asked(vm))
        assert_untouched(vm, await state_of(driver, vm))

    host.run(check)
    assert vm.agent.heard.count("thaw") == (0 if manner == "silent" else 1)


def test_a_guest_that_hangs_in_the_freeze_is_given_up_and_thawed_when_it_can(
    host: FakeHost,
) -> None:
    vm = host.add("vm", "ds1", manner="hang")

    async def check(driver: QemuDriver) -> None:
        with pytest.raises(QuiesceTimeoutError, match="not answered to a thaw yet"):
            await driver.create_snapshot(asked(vm, limit_s=2.0))
        state = await state_of(driver, vm)
        assert state.snapshots == ()
        assert state.operation_running is True
        assert (vm.folder / "frozen").exists()
        vm.agent.wake()
        await asyncio.to_thread(vm.agent.wait_until_thawed)
        await until(lambda: is_idle(driver, vm))
        assert_untouched(vm, await state_of(driver, vm))

    host.run(check, thaw_timeout=0.2)


def test_a_cancelled_freeze_is_thawed(host: FakeHost) -> None:
    vm = host.add("vm", "ds1", manner="hang")

    async def check(driver: QemuDriver) -> None:
        creating = asyncio.create_task(driver.create_snapshot(asked(vm)))
        await asyncio.to_thread(vm.agent.wait_until, "freeze")
        for _ in range(2):  # also one who is impatient waits until it is thawed
            creating.cancel()
            await asyncio.wait([creating], timeout=0.05)
            assert not creating.done()
        vm.agent.wake()
        with pytest.raises(asyncio.CancelledError):
            await creating
        assert not vm.agent.frozen
        assert_untouched(vm, await state_of(driver, vm))

    host.run(check)


def test_a_guest_is_thawed_when_the_transaction_fails(host: FakeHost) -> None:
    vm = host.add("vm", "ds1", "ds2")

    async def check(driver: QemuDriver) -> None:
        host.stores["ds2"].rename(host.folder / "gone")
        with pytest.raises(DidNotHappenError, match="QEMU refuses"):
            await driver.create_snapshot(asked(vm))
        (host.folder / "gone").rename(host.stores["ds2"])
        assert_untouched(vm, await state_of(driver, vm))
        assert vm.agent.heard[-1] == "thaw"

    host.run(check)


def test_a_guest_is_thawed_in_time_although_the_transaction_takes_longer(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = host.add("vm", "ds1")
    really_execute = Monitor.execute

    async def slow(self: Monitor, command: str, **arguments: Any) -> Any:
        if command == "transaction":
            await asyncio.to_thread(vm.agent.wait_until_thawed)
        return await really_execute(self, command, **arguments)

    monkeypatch.setattr(Monitor, "execute", slow)

    async def check(driver: QemuDriver) -> None:
        with pytest.raises(QuiesceTimeoutError, match="before QEMU had its overlays"):
            await driver.create_snapshot(asked(vm, limit_s=3.0))
        assert_untouched(vm, await state_of(driver, vm))

    vm.agent.frozen = True  # so that the wait in slow() is for the thaw
    host.run(check)


def test_a_guest_is_thawed_when_the_caller_gives_up_in_the_transaction(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = host.add("vm", "ds1")
    really_execute = Monitor.execute
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(self: Monitor, command: str, **arguments: Any) -> Any:
        if command == "transaction":
            begun.set()
            await go_on.wait()
        return await really_execute(self, command, **arguments)

    monkeypatch.setattr(Monitor, "execute", slow)

    async def check(driver: QemuDriver) -> None:
        creating = asyncio.create_task(driver.create_snapshot(asked(vm)))
        await begun.wait()
        assert vm.agent.frozen
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        assert not vm.agent.frozen
        assert (await state_of(driver, vm)).operation_running is True
        go_on.set()
        await until(lambda: is_idle(driver, vm))
        state = await state_of(driver, vm)
        assert [ref.tag for ref in state.snapshots] == ["t1"]  # a late success, found by its tag

    host.run(check)


def test_a_guest_that_does_not_say_that_it_is_thawed_is_no_success(host: FakeHost) -> None:
    vm = host.add("vm", "ds1", manner="stuck")

    async def check(driver: QemuDriver) -> None:
        with pytest.raises(UnknownOutcomeError, match="not said that it is thawed"):
            await driver.create_snapshot(asked(vm))
        state = await state_of(driver, vm)
        assert [ref.tag for ref in state.snapshots] == ["t1"]
        assert state.operation_running is True
        vm.agent.manner = ""
        await asyncio.to_thread(vm.agent.wait_until_thawed)

    host.run(check, thaw_timeout=0.2)


def test_a_vm_whose_qemu_dies_under_the_create_says_that_nobody_knows(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = host.add("vm", "ds1")
    other = host.add("other", "ds1")
    really_execute = Monitor.execute

    async def dies(self: Monitor, command: str, **arguments: Any) -> Any:
        work = asyncio.ensure_future(really_execute(self, command, **arguments))
        if command == "transaction":
            await asyncio.sleep(0)  # it is sent
            vm.kill()
        return await work

    async def check(driver: QemuDriver) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Monitor, "execute", dies)
            with pytest.raises((UnknownOutcomeError, DidNotHappenError)):
                await driver.create_snapshot(asked(vm))
        state = await state_of(driver, vm)
        assert state.operation_running is False
        made = await driver.create_snapshot(asked(other))
        assert made.level is ConsistencyLevel.FILESYSTEM
        for ref in state.snapshots:
            await driver.remove_snapshot(ref)
        vm.start()
        await vm.ask("query-status")
        made = await driver.create_snapshot(asked(vm, "t2"))
        assert made.quiesce is not None

    host.run(check)


def test_a_tag_that_exists_or_is_no_name_is_refused(host: FakeHost) -> None:
    vm = host.add("vm", "ds1", ("ds2", True))
    only = host.add("only", ("ds2", True))

    async def check(driver: QemuDriver) -> None:
        made = await driver.create_snapshot(asked(vm))
        with pytest.raises(NeverWillError, match="already"):
            await driver.create_snapshot(asked(vm))
        assert (await state_of(driver, vm)).snapshots == (made.ref,)
        with pytest.raises(NeverWillError, match="part of a file's name"):
            await driver.create_snapshot(asked(vm, "../t1"))
        with pytest.raises(NeverWillError, match="independent"):
            await driver.create_snapshot(asked(only))

    host.run(check)


def test_a_guest_that_another_process_holds_is_busy(host: FakeHost) -> None:
    vm = host.add("vm", "ds1")
    other = Marker(vm.folder)

    async def check(driver: QemuDriver) -> None:
        other.take()
        with pytest.raises(BusyError):
            await driver.create_snapshot(asked(vm))
        assert "freeze" not in vm.agent.heard
        other.drop()
        await driver.create_snapshot(asked(vm))

    host.run(check)


def test_the_home_is_where_the_description_lies_if_a_disk_lies_there(host: FakeHost) -> None:
    host.add("vm", "ds2", "ds1")

    async def check(driver: QemuDriver) -> None:
        inventory = await driver.inventory()
        (one,) = inventory.vms
        names = {store.id: store.name for store in inventory.datastores}
        assert names[one.home_datastore_id or ""] == "ds1"
        (state,) = await driver.list_snapshots()
        config = [file for file in state.location.files if file.role is FileRole.CONFIG]
        assert [file.datastore_id for file in config] == [one.home_datastore_id]

    host.run(check)
