"""What goes wrong on the modelled hypervisor ends as the contract says and hides nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support_faults import sure
from support_hypervisor import SILENT, WINDOWS, bench, create, refused
from support_world import Bench, config, disk, estate, request, vm

from stillframe.drivers.contracts import ConsistencyLevel, VmSnapshot, VmSnapshotRef
from stillframe.drivers.errors import (
    BusyError,
    DriverError,
    NeverWillError,
    NotFoundError,
    QuiesceFailedError,
    QuiesceTimeoutError,
    UnknownOutcomeError,
)
from stillframe.drivers.records import PowerState


def test_a_guest_that_refuses_to_freeze_is_thawed_and_nothing_is_left() -> None:
    b = bench(faults=sure("quiesce-fails"))
    refused(b, QuiesceFailedError)
    assert b.kinds("vc/a") == ["frozen", "world.fault", "thawed"]
    # Without a freeze there is nothing to refuse.
    create(b, quiesce=False)


@pytest.mark.parametrize(("timeout_s", "tools_s", "frozen_s"), [(7, 900, 7), (60, 20, 20)])
def test_a_guest_that_hangs_is_thawed_at_the_timeout(
    timeout_s: float, tools_s: float, frozen_s: float
) -> None:
    b = bench(faults=sure("quiesce-hangs"), hypervisor={"tools_timeout": tools_s})
    refused(b, QuiesceTimeoutError, timeout_s=timeout_s)
    assert b.times("world.vm.frozen") == pytest.approx([1.0])
    assert b.times("world.vm.thawed") == pytest.approx([1.0 + frozen_s])


def test_a_guest_that_hangs_is_thawed_though_its_caller_has_gone() -> None:
    b = bench(faults=sure("quiesce-hangs"))

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


def test_the_busy_fault_refuses_before_anything_happens() -> None:
    b = bench(faults=sure("hypervisor-busy"))
    refused(b, BusyError)
    assert b.kinds("vc/a") == ["world.fault"]


def test_a_create_that_its_caller_gave_up_on_succeeds_late() -> None:
    b = bench(faults=sure("late-create", slow_task=100))

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
    b = bench(faults=sure("lost-answer-create"))
    with pytest.raises(UnknownOutcomeError):
        create(b, tag="ours")
    [state] = b.go(b.vc.list_snapshots)
    assert [ref.tag for ref in state.snapshots] == ["ours"]
    assert b.world.leftovers() == ["VM vc/a still has snapshot ours"]
    b.go(lambda: b.vc.remove_snapshot(state.snapshots[0]))
    assert b.world.leftovers() == []
