"""The monitor and the agent of a VM: who answers, who does not, and who comes back."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support_lab import needs_lab, short_folder
from support_qemu import SYSTEM, FakeHost, fake_host
from support_qemu_agent import FakeAgent

from stillframe.drivers.contracts import VmSnapshotRequest
from stillframe.drivers.errors import DidNotHappenError
from stillframe.drivers.qemu import QemuDriver, open_qemu
from stillframe.drivers.qemu_agent import AgentLostError, AgentRefusedError, talk_to
from stillframe.drivers.qemu_monitor import (
    Monitor,
    MonitorHeldError,
    MonitorLostError,
    RefusedError,
    VmOffError,
)
from stillframe.drivers.records import PowerState
from stillframe.errors import InputError


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for sockets."""
    with short_folder("m") as made:
        yield made


@pytest.fixture
def host() -> Iterator[FakeHost]:
    """A host without VMs."""
    with fake_host() as made:
        yield made


def with_monitor(path: Path, check: Callable[[Monitor], Awaitable[Any]]) -> None:
    """Run a check with a monitor."""

    async def main() -> None:
        monitor = Monitor(path, 0.3)
        try:
            await check(monitor)
        finally:
            await monitor.close()

    asyncio.run(main())


def test_a_socket_where_nobody_listens_is_a_vm_that_is_off(folder: Path) -> None:
    async def check(monitor: Monitor) -> None:
        assert not await monitor.is_on()
        with pytest.raises(VmOffError):
            await monitor.execute("query-status")

    with_monitor(folder / "none", check)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(folder / "stale"))
        with_monitor(folder / "stale", check)


def test_a_monitor_that_does_not_greet_is_held_by_another(folder: Path) -> None:
    async def check(monitor: Monitor) -> None:
        with pytest.raises(MonitorHeldError, match="another client holds it"):
            await monitor.execute("query-status")

    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(folder / "mute"))
        mute.listen(4)
        with_monitor(folder / "mute", check)


@needs_lab("qemu")
def test_a_qemu_that_ends_and_comes_back_is_connected_to_anew(
    host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    vm = host.add("vm", "ds1")

    async def check(driver: QemuDriver) -> None:
        monitor = driver._vms[f"{SYSTEM}/vm"].monitor
        with pytest.raises(RefusedError, match="no-such-command"):
            await monitor.execute("no-such-command")
        waiting = asyncio.create_task(monitor.wait_for_job("none-that-ends", "concluded"))
        assert await waiting is None
        vm.kill()
        with pytest.raises((MonitorLostError, VmOffError)):
            await monitor.execute("query-status")
        assert not await monitor.is_on()
        (state,) = await driver.list_snapshots()
        assert state.operation_running is False
        assert (await driver.inventory()).vms[0].power_state is PowerState.OFF
        vm.start()
        await vm.ask("query-status")
        assert await monitor.is_on()
        assert (await driver.inventory()).vms[0].power_state is PowerState.ON

    with caplog.at_level(logging.INFO):
        host.run(check)
    ours = [one for one in caplog.records if one.name.startswith("stillframe")]
    assert not ours, "the end of a connection is told by an error, not in the log"
    assert not [one for one in caplog.records if one.name == "asyncio" and one.levelno > 20]


@needs_lab("qemu")
def test_two_drivers_on_one_vm_are_told_of_each_other(host: FakeHost) -> None:
    vm = host.add("vm", "ds1")
    host.add("other", "ds1", on=False)

    async def check(driver: QemuDriver) -> None:
        await driver.inventory()
        settings = {"guests_folder": str(host.guests), "connect_timeout": 0.3}
        monitor = driver._vms[f"{SYSTEM}/vm"].monitor
        async with open_qemu(SYSTEM, settings, host.facts) as second:
            monitor.take()  # as a call of the first driver's does
            assert await monitor.is_on()
            request = VmSnapshotRequest(f"{SYSTEM}/vm", "t1", False, 30.0)
            with pytest.raises(DidNotHappenError, match="does not answer"):
                await second.create_snapshot(request)
            state = {one.vm_id: one for one in await second.list_snapshots()}
            assert state[f"{SYSTEM}/vm"].operation_running is None
            assert state[f"{SYSTEM}/other"].operation_running is False
            inventory = await second.inventory()
            held = next(one for one in inventory.vms if one.name == "vm")
            assert held.power_state is PowerState.ON
            assert held.can_quiesce is None
            monitor.give_back()
        assert vm.overlays() == []

    host.run(check)


@needs_lab("qemu")
def test_two_drivers_work_on_one_vm_in_turns(host: FakeHost) -> None:
    vm = host.add("vm", "ds1")

    async def check(driver: QemuDriver) -> None:
        request = VmSnapshotRequest(f"{SYSTEM}/vm", "t1", False, 30.0)
        settings = {"guests_folder": str(host.guests), "connect_timeout": 10.0}
        async with open_qemu(SYSTEM, settings, host.facts) as second:
            made = await driver.create_snapshot(request)
            (state,) = await second.list_snapshots()
            assert state.snapshots == (made.ref,)
            assert state.operation_running is False
            await second.remove_snapshot(made.ref)
            (state,) = await driver.list_snapshots()
            assert state.snapshots == ()
        assert vm.overlays() == []

    host.run(check)


@needs_lab("qemu")
def test_a_qemu_that_stops_answering_is_given_up(host: FakeHost) -> None:
    vm = host.add("vm", "ds1")

    async def check(driver: QemuDriver) -> None:
        await driver.inventory()
        assert vm.process is not None
        vm.process.send_signal(signal.SIGSTOP)
        try:
            request = VmSnapshotRequest(f"{SYSTEM}/vm", "t1", False, 30.0)
            with pytest.raises(DidNotHappenError, match="does not answer"):
                await driver.create_snapshot(request)
            monitor = driver._vms[f"{SYSTEM}/vm"].monitor
            with monitor.used():
                vm.process.send_signal(signal.SIGCONT)
                assert await monitor.is_on()
                vm.process.send_signal(signal.SIGSTOP)
                with pytest.raises(MonitorLostError, match="did not answer query-status in"):
                    await monitor.execute("query-status")
        finally:
            vm.process.send_signal(signal.SIGCONT)
        (state,) = await driver.list_snapshots()
        assert state.operation_running is False

    host.run(check, answer_timeout=0.2, connect_timeout=0.5)


def with_agent(path: Path, check: Callable[[], Awaitable[Any]]) -> None:
    """Run a check while an agent answers."""
    with FakeAgent(path):
        asyncio.run(check())


def test_an_agent_passes_over_what_was_meant_for_others(folder: Path) -> None:
    path = folder / "agent"

    async def check() -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"execute": "guest-fsfreeze-st')  # and dies in the middle of it
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        del reader
        async with talk_to(path, 5.0) as agent:
            assert await agent.call("fsfreeze-status") == "thawed"
            with pytest.raises(AgentRefusedError, match="no command"):
                await agent.call("no-such-command")
            await agent.synchronise()
            assert await agent.call("fsfreeze-freeze") == 1

    with_agent(path, check)


def test_an_agent_that_is_not_there_or_does_not_answer_is_lost(folder: Path) -> None:
    async def check(path: Path) -> None:
        async with talk_to(path, 0.1):
            raise AssertionError("nobody can have answered")

    with pytest.raises(AgentLostError, match="cannot be reached"):
        asyncio.run(check(folder / "none"))
    with (
        FakeAgent(folder / "agent", "silent"),
        pytest.raises(AgentLostError, match=r"did not answer in 0\.1 s"),
    ):
        asyncio.run(check(folder / "agent"))


@pytest.mark.parametrize(
    ("settings", "field", "problem"),
    [
        ({}, "guests_folder", "required"),
        ({"guests_folder": "/nonexistent"}, "guests_folder", "no folder"),
        ({"guests_folder": ".", "agent_timeout": "3"}, "agent_timeout", "not a duration"),
        ({"guests_folder": ".", "user": "x"}, "user", "not permitted"),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    settings: dict[str, Any], field: str, problem: str
) -> None:
    async def main() -> None:
        async with open_qemu(SYSTEM, settings):
            pass

    with pytest.raises(InputError, match=problem) as caught:
        asyncio.run(main())
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{name: a}", "qmp"),
        ("{name: a, qmp: q, disks: []}", "disks"),
        ("{name: [", "cannot be read"),
        ("{name: a, qmp: q, disks: [{node: n, file: f, size: 1, mode: rw}]}", "mode"),
    ],
)
def test_a_description_that_cannot_be_used_is_named(folder: Path, text: str, problem: str) -> None:
    (folder / "vm").mkdir()
    (folder / "vm" / "guest.yaml").write_text(text)

    async def main() -> None:
        async with open_qemu(SYSTEM, {"guests_folder": str(folder)}):
            pass

    with pytest.raises(InputError, match=problem):
        asyncio.run(main())


def test_two_guests_of_one_name_are_refused(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
        text = "{name: vm, qmp: q, disks: [{node: n, file: f, size: 1}]}"
        (folder / name / "guest.yaml").write_text(text)

    async def main() -> None:
        async with open_qemu(SYSTEM, {"guests_folder": str(folder)}):
            pass

    with pytest.raises(InputError, match="also the name of"):
        asyncio.run(main())


@needs_lab("qemu")
def test_a_connection_that_is_wanted_again_at_once_is_kept(host: FakeHost) -> None:
    host.add("vm", "ds1")

    async def check(driver: QemuDriver) -> None:
        await driver.inventory()
        monitor = driver._vms[f"{SYSTEM}/vm"].monitor
        for _ in range(20):
            with monitor.used():
                assert await monitor.is_on()
            assert (await monitor.execute("query-status"))["status"] == "prelaunch"

    host.run(check)
