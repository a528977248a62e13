"""What the merge relies on: a pending commit job holds writes, and the disk below is whole then.

Seen with QEMU 7.2, from a writer over NBD and from guests. A client of an NBD export that
*connects* while a job is pending is not held (its write is acknowledged and lost), so nobody may
attach one to a disk that is being merged; a guest's device is there all the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support_lab import needs_lab, short_folder
from support_qemu import SYSTEM, FakeHost, fake_host

from stillframe.drivers import qemu_merge
from stillframe.drivers.contracts import ConsistencyLevel, VmSnapshotRequest
from stillframe.drivers.qemu import QemuDriver, open_qemu
from stillframe.drivers.qemu_files import chains
from stillframe.lab.lab import Lab, lab_up
from stillframe.lab.spec import LabSpec

VM = f"{SYSTEM}/vm"
KIB64 = 1 << 16
HELD_S = 0.3
"""For so long writes are held here, where a merge does it for some milliseconds."""


@pytest.fixture
def host() -> Iterator[FakeHost]:
    """A host without VMs."""
    with fake_host() as made:
        yield made


@needs_lab("qemu")
def test_a_write_during_pending_is_acknowledged_when_it_is_on_the_disk_below(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = host.add("vm", "ds1")

    async def check(driver: QemuDriver) -> None:
        writer = await vm.writer()
        made = await driver.create_snapshot(VmSnapshotRequest(VM, "t1", True, 30.0))
        await writer.write(2, KIB64, KIB64)
        monitor = driver._vms[VM].monitor
        really_execute = monitor.execute
        writing: list[asyncio.Task[None]] = []

        async def execute(command: str, **arguments: object) -> object:
            if command == "job-finalize":
                assert chains(vm.disks[0]) == [vm.disks]  # the overlay is renamed
                assert vm.disks[0].read_bytes()[KIB64 : 2 * KIB64] == b"\x02" * KIB64
                writing.append(asyncio.create_task(writer.write(3, 4 * KIB64, KIB64)))
                await asyncio.wait(writing, timeout=HELD_S)
                assert not writing[0].done(), "acknowledged while the job is pending"
                jobs = await really_execute("query-jobs")
                assert [job["status"] for job in jobs] == ["pending"]
            return await really_execute(command, **arguments)

        with monkeypatch.context() as patch:
            patch.setattr(monitor, "execute", execute)
            await driver.remove_snapshot(made.ref)
        await writing[0]
        await writer.close()
        vm.kill()
        assert vm.content()[4 * KIB64 : 5 * KIB64] == b"\x03" * KIB64
        assert vm.content()[KIB64 : 2 * KIB64] == b"\x02" * KIB64

    host.run(check)


@asynccontextmanager
async def one_guest() -> AsyncIterator[tuple[Lab, QemuDriver]]:
    """A lab with one guest that writes to two disks, and a driver of it."""
    with short_folder("p") as folder:
        spec = LabSpec(array="xfs", guests=1, datastores=2, units=2, wide=1)
        async with lab_up(spec, folder / "lab") as lab:
            settings = {"guests_folder": str(folder / "lab" / "guests")}
            async with open_qemu(SYSTEM, settings) as driver:
                yield lab, driver


@needs_lab("root", "qemu", "xfs", "loop")
def test_a_real_guest_is_frozen_snapshotted_merged_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    really_retire = qemu_merge._retire

    async def main() -> None:
        async with one_guest() as (lab, driver):
            (vm,) = (await driver.inventory()).vms
            assert vm.can_quiesce
            made = await driver.create_snapshot(VmSnapshotRequest(vm.id, "t1", True, 30.0))
            assert made.level is ConsistencyLevel.FILESYSTEM
            assert made.quiesce is not None
            await next_ack(lab, vm.name)
            with monkeypatch.context() as patch:
                patch.setattr(qemu_merge, "_retire", slowly)
                merged = await driver.remove_snapshot(made.ref)
            assert merged.stun is not None
            assert merged.merged_bytes
            await next_ack(lab, vm.name)
            held = [
                ack.seq
                for ack in lab.acks(vm.name)
                if renamed_s[0] + 0.1 < ack.t_s < renamed_s[0] + HELD_S
            ]
            assert held == [], "acknowledged while the job is pending"
            await lab.stop_writer(vm.name)
            last = lab.acks(vm.name)[-1].seq
            for report in await lab.check_in_guest(vm.name):
                assert (report.bad, report.missing) == (0, 0)
                assert report.max_seq >= last
            assert not list(Path(vm.disks[0].path).parent.glob("*.qcow2*"))

    renamed_s: list[float] = []

    def slowly(one: qemu_merge.Merging) -> None:

        really_retire(one)
        renamed_s.append(time.monotonic())
        time.sleep(HELD_S)

    asyncio.run(main())


async def next_ack(lab: Lab, name: str) -> None:
    """Wait until the guest has written another record."""
    before = lab.acks(name)[-1].seq
    for _ in range(2000):
        if lab.acks(name)[-1].seq > before:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the guest does not write")
