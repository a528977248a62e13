"""The modelled hypervisor removes and consolidates: what is merged, how long, and who waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support_faults import sure
from support_hypervisor import SILENT, bench, create
from support_world import Bench, config, disk, estate, request, vm

from stillframe.drivers.contracts import FileRole
from stillframe.drivers.errors import HappenedError, NotFoundError


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


def test_a_removal_can_leave_a_delta_that_consolidation_merges() -> None:
    b = bench(faults=sure("consolidation-needed"))
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
