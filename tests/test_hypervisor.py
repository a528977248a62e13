"""The modelled hypervisor keeps the contract, and its times are those of its profile."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError
from support_world import (
    INDEPENDENT,
    NAA,
    Bench,
    config,
    disk,
    estate,
    request,
    vm,
)

from stillframe.drivers.contracts import (
    ConsistencyLevel,
    FileRole,
    HypervisorDriver,
    VmSnapshot,
    VmSnapshotRef,
    Window,
)
from stillframe.drivers.errors import (
    BusyError,
    DriverError,
    HappenedError,
    NeverWillError,
    NotFoundError,
    QuiesceFailedError,
    QuiesceTimeoutError,
    UnknownOutcomeError,
)
from stillframe.drivers.records import PowerState
from stillframe.errors import InputError
from stillframe.orchestrator.events import EventLog
from stillframe.sim.config import WorldConfig
from stillframe.sim.env import SimEnv
from stillframe.sim.profile_data import PROFILES, SOURCES
from stillframe.sim.profiles import (
    HypervisorProfile,
    MergeAlgorithm,
    algorithm_for,
    hypervisor_profile,
    profile_sources_table,
)
from stillframe.sim.world import World

SILENT = {"dirty_age": 0}
"""A guest rule: nothing dirty, so that a freeze is its call alone."""
WINDOWS = "Microsoft Windows Server 2022 (64-bit)"


def bench(*, guest_os: str = "Linux", guest: dict[str, Any] | None = None, **how: Any) -> Bench:
    return Bench(
        estate(vm("a", disk(1, "ds1"), guest_os=guest_os)), config(guest=guest or SILENT, **how)
    )


def create(b: Bench, **more: Any) -> VmSnapshot:
    answer: VmSnapshot = b.go(lambda: b.vc.create_snapshot(request(**more)))
    return answer


def refused(b: Bench, kind: type[DriverError], **more: Any) -> DriverError:
    """A create that fails in this way and leaves nothing behind."""
    with pytest.raises(kind) as caught:
        create(b, **more)
    assert b.world.leftovers() == []
    assert b.world.in_flight == 0
    return caught.value


# -- create -------------------------------------------------------------------------------------


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


# -- what goes wrong ----------------------------------------------------------------------------


def test_a_guest_that_refuses_to_freeze_is_thawed_and_nothing_is_left() -> None:
    b = bench(faults={"quiesce_fail_probability": 1})
    refused(b, QuiesceFailedError)
    assert b.kinds("vc/a") == ["frozen", "world.fault", "thawed"]
    # Without a freeze there is nothing to refuse.
    create(b, quiesce=False)


@pytest.mark.parametrize(("timeout_s", "tools_s", "frozen_s"), [(7, 900, 7), (60, 20, 20)])
def test_a_guest_that_hangs_is_thawed_at_the_timeout(
    timeout_s: float, tools_s: float, frozen_s: float
) -> None:
    b = bench(faults={"quiesce_hang_probability": 1}, hypervisor={"tools_timeout": tools_s})
    refused(b, QuiesceTimeoutError, timeout_s=timeout_s)
    assert b.times("world.vm.frozen") == pytest.approx([1.0])
    assert b.times("world.vm.thawed") == pytest.approx([1.0 + frozen_s])


def test_a_guest_that_hangs_is_thawed_though_its_caller_has_gone() -> None:
    b = bench(faults={"quiesce_hang_probability": 1})

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await b.vc.create_snapshot(request(timeout_s=10))
        assert b.world.leftovers() != []
        await asyncio.sleep(20)

    b.go(give_up)
    assert b.times("world.vm.thawed") == pytest.approx([11.0])
    assert b.world.leftovers() == []


def test_a_flush_that_outlives_the_timeout_is_cut_off() -> None:
    b = bench(guest={"dirty_age": "30 s"})
    refused(b, QuiesceTimeoutError, timeout_s=2.5)
    assert b.times("world.vm.thawed") == pytest.approx([3.5])


@pytest.mark.parametrize(
    ("guest_os", "timeout_s", "kind"),
    [
        ("Linux", 60.0, None),
        (WINDOWS, 60.0, QuiesceFailedError),
        (WINDOWS, 4.0, QuiesceTimeoutError),
    ],
)
def test_windows_lets_go_of_its_writes_after_ten_seconds(
    guest_os: str, timeout_s: float, kind: type[DriverError] | None
) -> None:
    b = bench(guest_os=guest_os, hypervisor={"metadata_lock": 11})
    if kind is None:
        create(b, timeout_s=timeout_s)
        return
    refused(b, kind, timeout_s=timeout_s)
    # Counted from the end of the flush (0.5 s freeze), the timeout from the freeze.
    thaw_s = 1.5 + 10 if timeout_s > 10 else 1.0 + timeout_s
    assert b.times("world.vm.thawed") == pytest.approx([thaw_s])
    assert b.times("world.vm.stunned") == []


def test_windows_writers_stay_frozen_for_a_minute_at_most() -> None:
    b = bench(guest_os=WINDOWS, hypervisor={"windows_freeze": 55, "metadata_lock": 8})
    refused(b, QuiesceFailedError, timeout_s=900)
    assert b.times("world.vm.thawed") == pytest.approx([61.0])


def test_who_gives_up_in_the_queue_for_the_metadata_holds_up_nobody() -> None:
    names = "abcd"
    vms = [vm(n, disk(1, "ds1"), guest_os=WINDOWS) for n in names]
    b = Bench(estate(*vms), config({"metadata_lock": 4}, guest=SILENT))

    async def all_at_once() -> list[Any]:
        calls = (b.vc.create_snapshot(request(n)) for n in names)
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = b.go(all_at_once)
    # 4 and 8 s fit into ten, 12 and 16 do not, and the fourth does not wait behind the third.
    assert [type(answer) for answer in answers] == [
        VmSnapshot,
        VmSnapshot,
        QuiesceFailedError,
        QuiesceFailedError,
    ]

    async def then() -> VmSnapshot:
        answer: VmSnapshot = await b.vc.create_snapshot(request("c", "again"))
        return answer

    start_s = b.env.now
    assert b.go(then).created_s == pytest.approx(start_s + 1 + 0.5 + 4 + 0.2)


@pytest.mark.parametrize("without", ["refuse", "ignore"])
def test_a_guest_without_tools_is_refused_or_honestly_crash_consistent(without: str) -> None:
    b = Bench(
        estate(vm("a", disk(1, "ds1"), can_quiesce=False)), config({"without_tools": without})
    )
    if without == "refuse":
        refused(b, QuiesceFailedError)
        assert b.log.rows == []
        create(b, quiesce=False)
    else:
        answer = create(b)
        assert (answer.level, answer.quiesce) == (ConsistencyLevel.CRASH, None)


def test_templates_full_chains_and_unknown_vms_are_refused_for_good() -> None:
    b = Bench(
        estate(
            vm("a", disk(1, "ds1"), is_template=True, power_state=PowerState.OFF),
            vm("full", disk(1, "ds1"), snapshot_count=31),
            vm("last", disk(1, "ds1"), snapshot_count=30),
        )
    )
    refused(b, NeverWillError)
    refused(b, NeverWillError, name="full")
    refused(b, NotFoundError, name="nobody")
    create(b, name="last")


def test_a_second_operation_on_a_vm_finds_it_busy() -> None:
    b = bench()

    async def twice() -> list[Any]:
        return await asyncio.gather(
            b.vc.create_snapshot(request(tag="one")),
            b.vc.create_snapshot(request(tag="two")),
            b.vc.consolidate("vc/a"),
            b.vc.remove_snapshot(VmSnapshotRef("vc/a", "x", "x")),
            return_exceptions=True,
        )

    first, *others = b.go(twice)
    assert isinstance(first, VmSnapshot)
    assert [type(other) for other in others] == [BusyError] * 3
    assert others[0].retry_after_s == 5.0
    [state] = b.go(b.vc.list_snapshots)
    assert [ref.tag for ref in state.snapshots] == ["one"]


def test_a_listing_says_whether_something_is_under_way() -> None:
    b = bench()

    async def watch() -> list[bool | None]:
        call = asyncio.ensure_future(b.vc.create_snapshot(request()))
        await asyncio.sleep(0)
        during = (await b.vc.list_snapshots())[0].operation_running
        await call
        return [during, (await b.vc.list_snapshots())[0].operation_running]

    assert b.go(watch) == [True, False]


def test_the_busy_fault_refuses_before_anything_happens() -> None:
    b = bench(faults={"busy_probability": 1})
    refused(b, BusyError)
    assert b.log.rows == []


def test_a_create_that_its_caller_gave_up_on_succeeds_late() -> None:
    b = bench(faults={"slow_task_probability": 1, "slow_task": 100, "until": 1})

    async def give_up() -> list[str]:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await b.vc.create_snapshot(request(tag="late"))
        before = await b.vc.list_snapshots(["vc/a"])
        assert before[0].snapshots == ()
        assert b.world.in_flight == 1
        await asyncio.sleep(100)
        assert b.world.in_flight == 0
        [state] = await b.vc.list_snapshots(["vc/a"])
        await b.vc.remove_snapshot(state.snapshots[0])
        return [ref.tag for ref in state.snapshots]

    assert b.go(give_up) == ["late"]
    assert b.world.leftovers() == []


def test_a_lost_answer_leaves_the_snapshot_to_be_found() -> None:
    b = bench(faults={"lost_answer_probability": 1, "until": 1.5})
    with pytest.raises(UnknownOutcomeError):
        create(b, tag="ours")
    [state] = b.go(b.vc.list_snapshots)
    assert [ref.tag for ref in state.snapshots] == ["ours"]
    assert b.world.leftovers() == ["VM vc/a still has snapshot ours"]
    b.go(lambda: b.vc.remove_snapshot(state.snapshots[0]))
    assert b.world.leftovers() == []


def test_a_removal_can_leave_a_delta_that_consolidation_merges() -> None:
    b = bench(faults={"consolidation_probability": 1})
    ref = create(b).ref
    with pytest.raises(HappenedError):
        b.go(lambda: b.vc.remove_snapshot(ref))
    [state] = b.go(b.vc.list_snapshots)
    assert (state.snapshots, state.needs_consolidation) == ((), True)
    assert [f.role for f in state.location.files if f.disk_key] == [FileRole.BASE, FileRole.DELTA]
    assert b.world.leftovers() == ["VM vc/a has a delta left of snapshot t"]
    with pytest.raises(NotFoundError):
        b.go(lambda: b.vc.remove_snapshot(ref))
    b.go(lambda: b.vc.consolidate("vc/a"))
    [state] = b.go(b.vc.list_snapshots)
    assert not state.needs_consolidation
    assert b.world.leftovers() == []
    assert len(b.times("world.vm.merged")) == 1


def test_consolidating_what_needs_none_is_success_and_takes_no_time() -> None:
    b = bench()
    b.go(lambda: b.vc.consolidate("vc/a"))
    assert b.env.now == 0.0
    assert b.world.in_flight == 0


# -- remove -------------------------------------------------------------------------------------


def test_a_removal_merges_what_was_written_since_the_snapshot() -> None:
    b = bench()

    async def there_and_back() -> Any:
        answer = await b.vc.create_snapshot(request())
        await asyncio.sleep(100 - b.env.now)
        return answer.created_s, await b.vc.remove_snapshot(answer.ref)

    created_s, result = b.go(there_and_back)
    # The merge starts after the task latency of 1 s; 10 MB/s grew until then, 50 MB/s merge.
    delta = 10e6 * (101 - created_s)
    assert result.delta_bytes == pytest.approx(delta, rel=1e-6)
    assert (result.merged_bytes, result.passes) == (result.delta_bytes, 1)
    assert result.stun.start_s == pytest.approx(101 + delta / 50e6)
    assert result.stun.duration_s == pytest.approx(0.3)
    assert [result.stun.start_s, result.stun.end_s] == [
        b.times("world.vm.stunned")[-1],
        b.times("world.vm.unstunned")[-1],
    ]
    assert b.env.now == result.stun.end_s
    assert b.world.leftovers() == []


@pytest.mark.parametrize(("rate", "passes"), [(10e6, 2), (100e6, 10)])
def test_an_old_host_merges_again_and_again_and_stops_the_vm_for_the_rest(
    rate: float, passes: int
) -> None:
    profile = {"rate": rate, "working_set": 10**15, "write_size": 4096}
    b = bench(
        guest={"profile": profile, "dirty_age": 0},
        hypervisor={"merge": "iterative", "merge_stun_below": 0.5},
    )

    async def there_and_back() -> Any:
        answer = await b.vc.create_snapshot(request())
        return answer.created_s, b.env.now + 1.0, await b.vc.remove_snapshot(answer.ref)

    created_s, start_s, result = b.go(there_and_back)
    pieces = [rate * (start_s - created_s)]
    while len(pieces) < passes:
        pieces.append(pieces[-1] * rate / 50e6)
    assert result.passes == passes
    assert result.delta_bytes == pytest.approx(pieces[0], rel=1e-6)
    # The profile's working set is finite, which 50 GB begin to feel.
    assert result.merged_bytes == pytest.approx(sum(pieces), rel=1e-4)
    # The rest and the switch, both with the VM stopped.
    assert result.stun.duration_s == pytest.approx(pieces[-1] / 50e6 + 0.3, rel=1e-4)


def test_a_merge_gets_what_guests_leave_of_the_array() -> None:
    b = bench(arrays={"default": {"io_bandwidth": 30e6}})

    async def there_and_back() -> Any:
        answer = await b.vc.create_snapshot(request())
        await asyncio.sleep(20)
        return b.env.now + 1.0, await b.vc.remove_snapshot(answer.ref)

    start_s, result = b.go(there_and_back)
    # The guest itself takes 10 MB/s of the 30.
    assert result.stun.start_s - start_s == pytest.approx(result.delta_bytes / 20e6, rel=1e-4)


def test_one_stream_is_no_faster_than_the_hypervisor_or_the_array() -> None:
    arrays = {"default": {"flow_bandwidth": 90e6}, "a2": {"flow_bandwidth": 20e6}}
    b = bench(arrays=arrays, hypervisor={"storage_vmotion_rate": 60e6})
    flows = [array.profile.flow_bandwidth for array in b.world.arrays.values()]
    assert flows == [60e6, 20e6]


def test_a_snapshot_below_another_one_stands_still() -> None:
    b = bench()

    async def two() -> list[Any]:
        lower = await b.vc.create_snapshot(request(tag="lower"))
        await asyncio.sleep(50)
        upper = await b.vc.create_snapshot(request(tag="upper"))
        await asyncio.sleep(500)
        return [lower, upper, await b.vc.remove_snapshot(lower.ref)]

    lower, upper, result = b.go(two)
    assert result.delta_bytes == pytest.approx(10e6 * (upper.created_s - lower.created_s), rel=1e-6)
    [state] = b.go(b.vc.list_snapshots)
    assert [ref.tag for ref in state.snapshots] == ["upper"]


def test_a_snapshot_stays_listed_until_it_is_merged_and_cannot_be_removed_twice() -> None:
    b = bench()

    async def watch() -> list[int]:
        answer = await b.vc.create_snapshot(request())
        call = asyncio.ensure_future(b.vc.remove_snapshot(answer.ref))
        await asyncio.sleep(0)
        during = await b.vc.list_snapshots(["vc/a", "vc/unknown"])
        await call
        after = await b.vc.list_snapshots(["vc/a"])
        with pytest.raises(NotFoundError):
            await b.vc.remove_snapshot(answer.ref)
        return [len(state.snapshots) for state in (*during, *after)]

    assert b.go(watch) == [1, 0]


def test_snapshots_from_before_are_listed_and_stay() -> None:
    b = Bench(estate(vm("a", disk(1, "ds1"), snapshot_count=2)), config(guest=SILENT))
    answer = create(b, tag="ours")
    roles = [(f.path[-11:], f.role) for f in answer.location.files if f.disk_key]
    assert roles == [
        ("disk-1.vmdk", FileRole.BASE),
        ("000001.vmdk", FileRole.BASE),
        ("000002.vmdk", FileRole.BASE),
        ("000003.vmdk", FileRole.DELTA),
    ]
    [state] = b.go(b.vc.list_snapshots)
    assert [ref.tag for ref in state.snapshots] == ["found-1", "found-2", "ours"]
    b.go(lambda: b.vc.remove_snapshot(answer.ref))
    assert b.world.leftovers() == []
    # The model does as it is told, and tells on who told it.
    b.go(lambda: b.vc.remove_snapshot(state.snapshots[0]))
    assert b.world.leftovers() == ["VM vc/a has lost 1 of its 2 snapshots from before"]


# -- queues, draws, inventory ---------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"host_tasks": 2}, {"vcenter_tasks": 2}])
def test_tasks_wait_in_order_of_arrival_and_no_limit_is_exceeded(limit: dict[str, int]) -> None:
    names = "abcdefg"
    b = Bench(estate(*(vm(n, disk(1, "ds-nfs")) for n in names)), config(limit, guest=SILENT))

    async def all_at_once() -> None:
        await asyncio.gather(*(b.vc.create_snapshot(request(n)) for n in names))

    b.go(all_at_once)
    # Each task takes 1.33 s: two at a time.
    turns = [1.0 + 1.33 * (n // 2) for n in range(len(names))]
    assert b.times("world.vm.frozen") == pytest.approx(turns)
    assert [row[3][-1] for row in b.log.of("world.vm.frozen")] == list(names)
    slots = b.vc.tasks if "vcenter_tasks" in limit else b.vc.host_tasks["h1"]
    assert (slots.peak, slots.used, slots.waiting) == (2, 0, 0)


def test_hosts_have_limits_of_their_own() -> None:
    vms = [vm(n, disk(1, "ds-nfs"), host_id="h1" if n in "ab" else "h2") for n in "abc"]
    vms.append(vm("lost", disk(1, "ds-nfs"), host_id=None))
    b = Bench(estate(*vms), config({"host_tasks": 1}, guest=SILENT))

    async def all_at_once() -> None:
        names = ("a", "b", "c", "lost")
        await asyncio.gather(*(b.vc.create_snapshot(request(n)) for n in names))

    b.go(all_at_once)
    frozen = {row[3]: row[0] for row in b.log.of("world.vm.frozen")}
    assert [frozen[f"vc/{n}"] for n in ("a", "c", "lost", "b")] == pytest.approx([1, 1, 1, 2.33])


def job(seed: int, order: str = "abcd") -> EventLog:
    faults = {"quiesce_fail_probability": 0.2, "slow_task_probability": 0.3, "slow_task": 5}
    how = WorldConfig.model_validate({"faults": faults})
    b = Bench(estate(*(vm(n, disk(1, "ds1")) for n in "abcd")), how, seed)

    async def main() -> None:
        calls = {n: b.vc.create_snapshot(request(n, n)) for n in order}
        answers = await asyncio.gather(*calls.values(), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, VmSnapshot):
                await b.vc.remove_snapshot(answer.ref)

    b.go(main)
    return b.log


def test_equal_seeds_give_equal_logs_and_others_do_not() -> None:
    hashes = [job(seed).trace_hash() for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_times_of_one_vm_do_not_depend_on_the_order_of_calls() -> None:
    one, other = job(3), job(3, order="dcba")
    frozen = [sorted((row[3], row[0]) for row in log.of("world.vm.frozen")) for log in (one, other)]
    assert frozen[0] == frozen[1]


def test_the_log_is_in_order_of_time() -> None:
    times = [row[0] for row in job(5).rows]
    assert times == sorted(times)


def test_the_inventory_is_that_of_one_vcenter_and_of_now() -> None:
    b = bench()
    first = b.go(b.vc.inventory)
    assert [found.id for found in first.vms] == ["vc/a"]
    assert b.env.now == pytest.approx(0.2)
    one = estate(vm("a", disk(1, "ds1")))
    other = replace(one.inventory.vcenters[0], id="other")
    inventory = replace(one.inventory, vcenters=(*one.inventory.vcenters, other))
    world = World(
        SimEnv(), replace(one, inventory=inventory), WorldConfig(), seed=1, log=EventLog()
    )
    assert list(world.hypervisors) == ["vc", "other"]
    assert world.hypervisors["other"].states == {}


def test_open_deltas_are_sampled_from_what_happened() -> None:
    b = Bench(estate(vm("a", disk(1, "ds1"), disk(2, "ds-nfs", 300 * 2**30))), config())

    async def main() -> None:
        first = await b.vc.create_snapshot(request(quiesce=False))
        await asyncio.sleep(100)
        await b.vc.remove_snapshot(first.ref)

    b.go(main)
    b.world.sample_deltas(10.0)
    created_s = b.times("world.vm.snapshot")[0]
    merged_s = b.times("world.vm.merged")[0]
    on_ds1 = list(b.world.series.of("delta.open_bytes", "ds1"))
    assert on_ds1[0] == (created_s, 0.0)
    assert on_ds1[5] == pytest.approx((created_s + 50, 0.25 * 500e6), rel=1e-6)
    assert on_ds1[-1][1] == 0.0
    assert on_ds1[-1][0] >= merged_s > on_ds1[-2][0]
    on_nfs = dict(b.world.series.of("delta.open_bytes", "ds-nfs"))
    assert on_nfs[on_ds1[5][0]] == pytest.approx(0.75 * 500e6, rel=1e-6)


# -- profiles and configuration -----------------------------------------------------------------


def test_every_number_of_every_profile_names_its_source() -> None:
    fields = set(HypervisorProfile.model_fields) - {"profile", "sources"}
    for name in PROFILES:
        profile = hypervisor_profile(name)
        assert set(SOURCES[name]) == fields == set(PROFILES[name])
        assert all(profile.sources[field] for field in fields)
    rows = profile_sources_table()
    assert len(rows) == len(PROFILES) * len(fields)
    assert ("esxi-8", "vss_hold", "10 s", SOURCES["esxi-8"]["vss_hold"]) in rows


def test_an_override_replaces_one_number_and_its_source() -> None:
    context = {"units_required": True}
    profile = HypervisorProfile.model_validate(
        {"profile": "esxi-5.5", "stun_create": "2 s"}, context=context
    )
    assert profile.stun_create == 2.0
    assert profile.sources["stun_create"] == "set in the configuration"
    assert profile.merge is MergeAlgorithm.ITERATIVE
    assert profile.sources["merge"] == SOURCES["esxi-5.5"]["merge"]
    again = HypervisorProfile.model_validate(profile.model_dump())
    assert again == profile


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"profile": "esx-9"}, "no hypervisor profile 'esx-9'; there are esxi-8"),
        ({"stun": "1 s"}, "stun"),
        ({"merge_rate": "0 MB/s"}, "greater than 0"),
        ({"stun_create": 3}, "no unit"),
    ],
)
def test_a_bad_profile_is_refused(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        HypervisorProfile.model_validate(bad, context={"units_required": True})


@pytest.mark.parametrize(
    ("version", "algorithm"),
    [
        ("VMware ESXi 5.5.0 build-1331820", MergeAlgorithm.ITERATIVE),
        ("VMware ESXi 6.0.0 build-2494585", MergeAlgorithm.ITERATIVE),
        ("VMware ESXi 6.0.0 build-3029758", MergeAlgorithm.MIRROR),
        ("6.0.0", MergeAlgorithm.MIRROR),
        ("6.7.0", MergeAlgorithm.MIRROR),
        ("VMware ESXi 8.0.2 build-22380479", MergeAlgorithm.MIRROR),
        ("", MergeAlgorithm.MIRROR),
    ],
)
def test_the_version_of_the_host_decides_the_algorithm(
    version: str, algorithm: MergeAlgorithm
) -> None:
    assert algorithm_for(hypervisor_profile("vsphere-mixed"), version) is algorithm
    assert algorithm_for(hypervisor_profile("esxi-5.5"), version) is MergeAlgorithm.ITERATIVE


def test_a_mixed_estate_merges_as_each_host_does() -> None:
    vms = [vm("old", disk(1, "ds1")), vm("new", disk(1, "ds1"), host_id="h2")]
    how = config({"merge": "by-host-version", "merge_stun_below": 0}, guest=SILENT)
    b = Bench(estate(*vms, versions=("5.5.0", "8.0.2")), how)

    async def main() -> list[int]:
        passes = []
        for name in ("old", "new"):
            answer = await b.vc.create_snapshot(request(name))
            passes.append((await b.vc.remove_snapshot(answer.ref)).passes)
        return passes

    assert b.go(main) == [10, 1]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"arrays": {"a9": {}}}, r"arrays\.a9: no such array \(there are a1, a2\)"),
        (
            {"working_directories": [{"match": "*", "datastore": "ds9"}]},
            r"working_directories\[0\]: the estate has no 'ds9'",
        ),
        ({"guests": [{"profile": "nothing"}]}, "'nothing' is not known"),
    ],
)
def test_a_world_that_the_estate_does_not_fit_is_refused(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Bench(estate(vm("a", disk(1, "ds1"))), WorldConfig.model_validate(bad))


def test_arrays_have_profiles_by_identifier_by_name_and_by_default() -> None:
    arrays = {
        "default": {"management_calls": 3},
        "a1": {"management_calls": 4},
        "two": {"management_calls": 5},
    }
    b = Bench(estate(), WorldConfig.model_validate({"arrays": arrays}))
    assert b.world.arrays["a1"].profile.management_calls == 4
    assert b.world.arrays["a2"].profile.management_calls == 5
    only_one = WorldConfig.model_validate({"arrays": {"a1": {}, "default": arrays["default"]}})
    assert only_one.array_profile("a2", "two").management_calls == 3
