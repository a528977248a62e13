"""The modelled hypervisor creates snapshots in the order and time of its profile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support_hypervisor import SILENT, WINDOWS, bench, create
from support_world import INDEPENDENT, NAA, Bench, config, disk, estate, request, vm

from stillframe.drivers.contracts import ConsistencyLevel, FileRole, HypervisorDriver, Window
from stillframe.drivers.records import PowerState


def test_it_is_a_hypervisor_driver() -> None:
    b = bench()
    assert isinstance(b.vc, HypervisorDriver)
    assert b.vc.capabilities.reports_quiesce


def test_a_create_takes_task_freeze_lock_stun_and_thaw_in_this_order() -> None:
    b = bench()
    answer = create(b)
    # 1 s task, 0.1 s freeze call, 0.05 s metadata lock, 0.2 s stun, 0.02 s thaw
    assert b.kinds("vc/a") == ["frozen", "stunned", "unstunned", "snapshot", "thawed"]
    assert answer.created_s == pytest.approx(1.35)
    assert answer.quiesce is not None
    assert answer.stun is not None
    assert answer.quiesce.start_s == pytest.approx(1.0)
    assert answer.quiesce.end_s == pytest.approx(1.37)
    assert (answer.stun.start_s, answer.stun.end_s) == pytest.approx((1.15, 1.35))
    assert answer.quiesce.exact
    assert answer.quiesce.start_s == b.times("world.vm.frozen")[0]
    assert answer.quiesce.end_s == b.times("world.vm.thawed")[0]
    assert answer.stun == Window(b.times("world.vm.stunned")[0], b.times("world.vm.unstunned")[0])


def test_dirty_data_lengthens_the_freeze() -> None:
    # 10 MB/s for 30 s, flushed at 100 MB/s
    answer = create(bench(guest={"dirty_age": "30 s"}))
    assert answer.quiesce is not None
    assert answer.quiesce.duration_s == pytest.approx(0.37 + 3.0, rel=1e-6)


def test_every_further_disk_lengthens_lock_and_stun() -> None:
    b = Bench(estate(vm("a", disk(1, "ds1"), disk(2, "ds1"), disk(3, "ds-nfs"))), config())
    answer = create(b, quiesce=False)
    assert answer.stun is not None
    assert answer.stun.duration_s == pytest.approx(0.2 + 2 * 0.03)
    # two deltas under the lock of ds1, one on NFS
    assert answer.stun.start_s == pytest.approx(1.0 + 2 * 0.05 + 0.01)


@pytest.mark.parametrize(
    ("store", "starts"), [("ds1", [1.05, 1.10, 1.15]), ("ds-nfs", [1.01, 1.01, 1.01])]
)
def test_vmfs_metadata_is_locked_by_one_at_a_time_and_nfs_is_not(
    store: str, starts: list[float]
) -> None:
    b = Bench(estate(*(vm(name, disk(1, store)) for name in "abc")), config())

    async def all_at_once() -> None:
        await asyncio.gather(*(b.vc.create_snapshot(request(n, quiesce=False)) for n in "abc"))

    b.go(all_at_once)
    assert b.times("world.vm.stunned") == pytest.approx(starts)


@pytest.mark.parametrize(
    ("vm_options", "quiesce", "level"),
    [
        ({"guest_os": WINDOWS}, True, ConsistencyLevel.APPLICATION),
        ({"guest_os": "windows2019srv_64Guest"}, True, ConsistencyLevel.APPLICATION),
        ({"guest_os": "Ubuntu Linux"}, True, ConsistencyLevel.FILESYSTEM),
        ({"guest_os": "Apple macOS (darwin)"}, True, ConsistencyLevel.FILESYSTEM),
        ({"can_quiesce": None}, True, ConsistencyLevel.FILESYSTEM),
        ({"guest_os": WINDOWS}, False, ConsistencyLevel.CRASH),
        ({"power_state": PowerState.OFF}, True, ConsistencyLevel.FILESYSTEM),
        ({"power_state": PowerState.OFF, "can_quiesce": False}, True, ConsistencyLevel.FILESYSTEM),
        ({"power_state": PowerState.SUSPENDED}, True, ConsistencyLevel.CRASH),
    ],
)
def test_the_level_is_what_was_reached(
    vm_options: dict[str, Any], quiesce: bool, level: ConsistencyLevel
) -> None:
    b = Bench(estate(vm("a", disk(1, "ds1"), **vm_options)), config(guest=SILENT))
    assert create(b, quiesce=quiesce).level is level


def test_a_vm_that_does_not_run_is_neither_frozen_nor_stopped() -> None:
    b = Bench(estate(vm("a", disk(1, "ds1"), power_state=PowerState.OFF)), config())
    answer = create(b)
    assert (answer.quiesce, answer.stun) == (None, None)
    assert b.kinds("vc/a") == ["snapshot"]
    result = b.go(lambda: b.vc.remove_snapshot(answer.ref))
    assert (result.stun, result.delta_bytes) == (None, 0)
    assert b.kinds("vc/a") == ["snapshot", "merged"]


def test_the_answer_says_where_each_file_lies() -> None:
    raw = {"raw_device": NAA[3]}
    b = Bench(
        estate(
            vm(
                "a",
                disk(1, "ds1"),
                disk(2, "ds-nfs", mode=INDEPENDENT),
                disk(3, "ds1", **raw),
                disk(4, "ds1", **raw, raw_is_physical=True),
                home_datastore_id="ds2",
            )
        )
    )
    location = create(b).location
    listed = [(f.path, f.datastore_id, f.role, f.disk_key) for f in location.files]
    assert listed == [
        ("[ds1] vm/disk-1.vmdk", "ds1", FileRole.BASE, 1),
        ("[ds1] vm/disk-1-000001.vmdk", "ds1", FileRole.DELTA, 1),
        ("[ds-nfs] vm/disk-2.vmdk", "ds-nfs", FileRole.LIVE, 2),
        ("[ds1] vm/disk-3.vmdk", "ds1", FileRole.BASE, 3),
        ("[ds1] vm/disk-3-000001.vmdk", "ds1", FileRole.DELTA, 3),
        ("[ds1] vm/disk-4.vmdk", "ds1", FileRole.CONFIG, None),
        ("[ds2] a/a.vmx", "ds2", FileRole.CONFIG, None),
    ]
    assert [(r.disk_key, r.device, r.held) for r in location.raw_devices] == [
        (3, NAA[3], True),
        (4, NAA[3], False),
    ]


def test_deltas_can_lie_in_a_working_directory_elsewhere() -> None:
    how = config(guest=SILENT, working_directories=[{"match": "A*", "datastore": "ds-nfs"}])
    b = Bench(estate(vm("a", disk(1, "ds1")), vm("b", disk(1, "ds1"))), how)
    files = create(b).location.files
    assert [(f.path, f.datastore_id) for f in files if f.role is FileRole.DELTA] == [
        ("[ds-nfs] vm/disk-1-000001.vmdk", "ds-nfs")
    ]
    # No metadata lock where the delta is created.
    assert b.times("world.vm.stunned") == pytest.approx([1.11])
