"""The QEMU driver's remove and consolidate: data, chains, half-done work, cancellation."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support_lab import needs_lab
from support_qemu import DISK_BYTES, SYSTEM, FakeHost, FakeVm, fake_host, until

from stillframe.drivers import qemu_merge, qemu_offline
from stillframe.drivers.contracts import (
    FileRole,
    VmSnapshotRef,
    VmSnapshotRequest,
    VmSnapshotState,
)
from stillframe.drivers.deadman import DeadMan
from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    HappenedError,
    NotFoundError,
)
from stillframe.drivers.qemu import QemuDriver
from stillframe.drivers.qemu_files import Marker
from stillframe.errors import StillframeError

pytestmark = needs_lab("qemu")
VM = f"{SYSTEM}/vm"
KIB64 = 1 << 16


@pytest.fixture
def host() -> Iterator[FakeHost]:
    """A host without VMs."""
    with fake_host() as made:
        yield made


async def snapshot(driver: QemuDriver, tag: str = "t1") -> VmSnapshotRef:
    """A snapshot of the VM."""
    return (await driver.create_snapshot(VmSnapshotRequest(VM, tag, True, 30.0))).ref


async def state_of(driver: QemuDriver) -> VmSnapshotState:
    """What the driver lists."""
    (state,) = await driver.list_snapshots([VM])
    return state


def tags(state: VmSnapshotState) -> list[str]:
    """The names of a VM's snapshots."""
    return [ref.tag for ref in state.snapshots]


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("order", [("t1", "t2", "t3"), ("t3", "t2", "t1"), ("t2", "t3", "t1")])
def test_snapshots_may_be_removed_in_any_order_and_all_data_stays(
    host: FakeHost, order: tuple[str, ...], on: bool
) -> None:
    vm = host.add("vm", "ds1", "ds2", on=on)

    def put(pattern: int, place: int) -> None:
        words = ["qemu-io", "-f", "raw", "-c", f"write -P {pattern} {place * KIB64} {KIB64}"]
        subprocess.run([*words, vm.disks[1]], check=True, stdout=subprocess.DEVNULL)

    async def check(driver: QemuDriver) -> None:
        refs = {}
        if not on:
            put(9, 9)
        for number, tag in enumerate(("t1", "t2", "t3"), 1):
            refs[tag] = await snapshot(driver, tag)
            if on:
                await vm.write(number, number * KIB64, KIB64, 1)
                await vm.write(number, 0, KIB64, 1)
        left = ["t1", "t2", "t3"]
        for tag in order:
            merged = await driver.remove_snapshot(refs[tag])
            left.remove(tag)
            assert tags(await state_of(driver)) == left
            assert (merged.merged_bytes is not None) is (on and tag == max([*left, tag]))
            assert merged.delta_bytes is not None
            assert merged.delta_bytes > 0
        vm.kill()
        found = vm.content(1)
        if on:
            assert found[: 4 * KIB64 : KIB64] == bytes((3, 1, 2, 3))
        else:
            assert found[9 * KIB64] == 9
        assert vm.overlays(0) == vm.overlays(1) == []

    host.run(check)


def test_merged_bytes_are_those_that_the_guest_wrote(host: FakeHost) -> None:
    vm = host.add("vm", "ds1")

    async def check(driver: QemuDriver) -> None:
        ref = await snapshot(driver)
        await vm.write(1, 0, 3 * KIB64)
        merged = await driver.remove_snapshot(ref)
        assert merged.merged_bytes == 3 * KIB64
        assert merged.delta_bytes is not None
        assert 3 * KIB64 <= merged.delta_bytes < DISK_BYTES
        assert merged.stun is not None
        assert not merged.stun.exact

    host.run(check)


def test_a_removal_that_is_cancelled_leaves_the_snapshot_whole(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = host.add("vm", "ds1", "ds2")
    waiting = asyncio.Event()

    async def never(*_: Any) -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def check(driver: QemuDriver) -> None:
        ref = await snapshot(driver)
        await vm.write(1, 0, KIB64)
        with monkeypatch.context() as patch:
            patch.setattr(qemu_merge, "_ready", never)
            removing = asyncio.create_task(driver.remove_snapshot(ref))
            await waiting.wait()
            assert (await state_of(driver)).operation_running is True
            removing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await removing
        state = await state_of(driver)
        assert tags(state) == ["t1"]
        assert state.operation_running is False
        assert not state.needs_consolidation
        assert await vm.ask("query-jobs") == []
        await vm.write(2, KIB64, KIB64)
        await driver.remove_snapshot(ref)
        vm.kill()
        assert vm.content()[: 2 * KIB64 : KIB64] == b"\x01\x02"

    host.run(check)


@pytest.mark.parametrize("switch", ["held elsewhere", "broken"])
def test_a_merge_that_may_not_hold_the_guest_is_given_up(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    vm = host.add("vm", "ds1")

    async def broken(_: DeadMan) -> None:
        raise StillframeError("the dead man's switch cannot be started")

    async def check(driver: QemuDriver) -> None:
        ref = await snapshot(driver)
        other = Marker(vm.folder)
        with monkeypatch.context() as patch:
            if switch == "broken":
                patch.setattr(DeadMan, "start", broken)
            else:
                other.take()
            with pytest.raises(DidNotHappenError, match=r"switch|another process"):
                await driver.remove_snapshot(ref)
        other.drop()
        assert await vm.ask("query-jobs") == []
        assert tags(await state_of(driver)) == ["t1"]
        await driver.remove_snapshot(ref)

    host.run(check)


def test_a_merge_is_one_for_all_disks_or_for_none(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = host.add("vm", "ds1", "ds2")
    really_ready = qemu_merge._ready

    async def fails(monitor: Any, one: Any) -> None:
        await really_ready(monitor, one)
        if "disk1" in one.overlay.name:
            raise qemu_merge.MergeFailedError("no space left on device")

    async def check(driver: QemuDriver) -> None:
        ref = await snapshot(driver)
        with monkeypatch.context() as patch:
            patch.setattr(qemu_merge, "_ready", fails)
            with pytest.raises(DidNotHappenError, match="no space"):
                await driver.remove_snapshot(ref)
        state = await state_of(driver)
        assert tags(state) == ["t1"]
        assert state.operation_running is False
        await driver.remove_snapshot(ref)

    host.run(check)
    assert vm.overlays() == []


def test_a_removal_that_did_one_of_two_disks_says_so_and_is_consolidated(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = host.add("vm", "ds1", "ds2")
    really_retire = qemu_merge.retire

    def fails(overlay: Path) -> Path:
        if "disk1" in overlay.name:
            raise OSError("input/output error")
        return really_retire(overlay)

    async def check(driver: QemuDriver) -> None:
        before = (await state_of(driver)).location
        ref = await snapshot(driver)
        await vm.write(1, 0, KIB64, 1)
        with monkeypatch.context() as patch:
            patch.setattr(qemu_merge, "retire", fails)
            with pytest.raises(HappenedError, match=r"a part is merged.*input/output error"):
                await driver.remove_snapshot(ref)
        await vm.write(2, KIB64, KIB64, 1)
        state = await state_of(driver)
        assert tags(state) == []
        assert state.needs_consolidation
        roles = [file.role for file in state.location.files if file.disk_key is not None]
        assert roles.count(FileRole.DELTA) == 1
        await driver.consolidate(VM)
        after = await state_of(driver)
        assert not after.needs_consolidation
        assert after.location == before
        with pytest.raises(NotFoundError):
            await driver.remove_snapshot(ref)
        vm.kill()
        assert vm.content(1)[: 2 * KIB64 : KIB64] == b"\x01\x02"
        assert vm.overlays(0) == vm.overlays(1) == []

    host.run(check)


def test_an_overlay_that_qemu_keeps_after_all_gets_its_name_back(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = host.add("vm", "ds1")

    async def check(driver: QemuDriver) -> None:
        ref = await snapshot(driver)
        monitor = driver._vms[VM].monitor
        really_execute = monitor.execute

        async def breaks(command: str, **arguments: Any) -> Any:
            if command == "job-finalize":  # as a job ends whose last step QEMU cannot do
                await really_execute("job-cancel", **arguments)
                raise qemu_merge.RefusedError("permission conflict")
            return await really_execute(command, **arguments)

        with monkeypatch.context() as patch:
            patch.setattr(monitor, "execute", breaks)
            with pytest.raises(DidNotHappenError, match="permission conflict"):
                await driver.remove_snapshot(ref)
        await vm.write(1, 0, KIB64)
        vm.kill()
        assert vm.content()[0] == 1
        await driver.remove_snapshot(ref)
        assert vm.content()[0] == 1

    host.run(check)


def test_overlays_of_others_are_listed_and_left_alone(host: FakeHost) -> None:
    vm = host.add("vm", "ds1", "ds2", overlay="before-upgrade")

    async def check(driver: QemuDriver) -> None:
        assert tags(await state_of(driver)) == ["before-upgrade"]
        ref = await snapshot(driver)
        assert tags(await state_of(driver)) == ["before-upgrade", "t1"]
        await driver.consolidate(VM)
        await driver.remove_snapshot(ref)
        state = await state_of(driver)
        assert tags(state) == ["before-upgrade"]  # on one disk of two, and yet no leftover
        assert not state.needs_consolidation
        assert vm.overlays() == ["vm-disk0.before-upgrade.qcow2"]

    host.run(check)


def test_a_vm_that_is_off_and_is_not_off_is_not_touched(host: FakeHost) -> None:
    vm = host.add("vm", "ds1")

    async def check(driver: QemuDriver) -> None:
        ref = await snapshot(driver)
        (vm.folder / "qmp.sock").rename(vm.folder / "lost.sock")
        await driver._vms[VM].close()
        with pytest.raises(DidNotHappenError, match="open"):
            await snapshot(driver, "t2")
        with pytest.raises(BusyError, match="lock"):
            await driver.remove_snapshot(ref)
        (vm.folder / "lost.sock").rename(vm.folder / "qmp.sock")
        assert tags(await state_of(driver)) == ["t1"]
        await driver.remove_snapshot(ref)

    host.run(check)


def test_a_vm_may_be_switched_off_and_on_under_its_snapshot(host: FakeHost) -> None:
    vm = host.add("vm", "ds1", "ds2")

    async def check(driver: QemuDriver) -> None:
        first = await snapshot(driver)
        await vm.write(1, 0, KIB64)
        vm.kill()
        assert tags(await state_of(driver)) == ["t1"]
        second = await snapshot(driver, "t2")
        vm.start()
        await vm.ask("query-status")
        await vm.write(2, KIB64, KIB64)
        assert tags(await state_of(driver)) == ["t1", "t2"]
        await driver.remove_snapshot(first)
        third = await snapshot(driver, "t3")
        await driver.remove_snapshot(third)
        nodes = await vm.ask("query-named-block-nodes", flat=True)
        assert not [
            node["file"] for node in nodes if node["file"].endswith((".t1.qcow2", ".t3.qcow2"))
        ]
        vm.kill()
        await driver.remove_snapshot(second)
        assert vm.content()[: 2 * KIB64 : KIB64] == b"\x01\x02"
        assert vm.overlays(0) == vm.overlays(1) == []

    host.run(check)


def test_a_snapshot_that_was_half_made_is_found_by_its_tag_and_removed(host: FakeHost) -> None:
    vm = host.add("vm", "ds1", "ds2", on=False)

    async def check(driver: QemuDriver) -> None:
        ref = await snapshot(driver)
        vm.disks[1].with_name("vm-disk1.t1.qcow2").unlink()  # as if it had never been made
        assert (await state_of(driver)).snapshots == (ref,)
        await driver.remove_snapshot(ref)
        assert tags(await state_of(driver)) == []
        assert vm.overlays(0) == vm.overlays(1) == []

    host.run(check)


def test_what_a_create_that_died_left_on_a_disk_is_cleared_away(host: FakeHost) -> None:
    vm: FakeVm = host.add("vm", "ds1")

    async def check(driver: QemuDriver) -> None:
        ref = await snapshot(driver)
        record = next((vm.folder / "snapshots").glob("*.json")).read_bytes()
        await driver.remove_snapshot(ref)
        (vm.folder / "snapshots" / "t1.json").write_bytes(record)
        vm.disks[0].with_name("vm-disk0.t1.qcow2").write_bytes(b"QFI\xfb, and no more")
        state = await state_of(driver)
        assert tags(state) == []
        assert state.needs_consolidation
        await driver.consolidate(VM)
        assert vm.overlays() == []
        await until(lambda: is_clean(driver))

    host.run(check)


async def is_clean(driver: QemuDriver) -> bool:
    """Whether there is nothing to consolidate."""
    return not (await state_of(driver)).needs_consolidation


def test_a_guest_that_starts_on_an_overlay_while_it_is_merged_keeps_it(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = host.add("vm", "ds1", on=False)
    opened: list[Any] = []
    really_retire = qemu_offline.retire

    def retire(overlay: Path) -> Path:
        opened.append(overlay.open("r+b"))  # as a QEMU does that was started just now
        return really_retire(overlay)

    async def check(driver: QemuDriver) -> None:
        ref = await snapshot(driver)
        monkeypatch.setattr(qemu_offline, "retire", retire)
        with pytest.raises(BusyError, match="opened when it had been merged"):
            await driver.remove_snapshot(ref)
        assert tags(await state_of(driver)) == ["t1"]
        assert vm.overlays() == ["vm-disk0.t1.qcow2"]
        opened.pop().close()
        monkeypatch.setattr(qemu_offline, "retire", really_retire)
        await driver.remove_snapshot(ref)
        assert vm.overlays() == []

    host.run(check)
