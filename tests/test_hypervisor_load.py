"""Operations on one host that slow each other down, and merges that need time to get going."""

from __future__ import annotations

import asyncio
import math
import statistics
from typing import Any

import pytest
from support_world import GIB, STEADY, Bench, config, disk, estate, request, vm

from stillframe.drivers.contracts import GroupSnapshotRequest, MergeResult, VmSnapshot
from stillframe.sim.guest_rules import GuestRule, ParametricGuest
from stillframe.sim.profile_data import PROFILES
from stillframe.sim.profiles import HypervisorProfile, hypervisor_profile
from stillframe.sim.writers import FRESH_S

SLOPES = {"freeze": 0.5, "stun_create": 1.0, "thaw": 2.0, "merge": 0.25, "stun_remove": 3.0}
LOAD = {"per_operation": SLOPES}
SLOPES_IN_ORDER = ("freeze", "stun_create", "thaw", "stun_remove")
PLAIN = {"metadata_lock": 0, "delta_create": 0, "host_tasks": 99}
IDLE = {"profile": {**STEADY, "rate": 0}, "dirty_limit": 0}


def busy_bench(hypervisor: dict[str, Any], *, hosts: bool = False, vms: int = 3) -> Bench:
    """VMs a, b, c… with a disk each; on one host, or in turn on two."""
    machines = [
        vm(name, disk(1, "ds1", 10 * GIB), host_id=f"h{1 + (place % 2 if hosts else 0)}")
        for place, name in enumerate("abcdefgh"[:vms])
    ]
    return Bench(estate(*machines), config({**PLAIN, **hypervisor}, guest=IDLE))


def all_at_once(bench: Bench, names: str) -> list[tuple[VmSnapshot, MergeResult, float]]:
    """Snapshot and merge every VM, each phase of all of them at once; with the merge's length."""

    async def one(name: str, created: asyncio.Barrier) -> tuple[VmSnapshot, MergeResult, float]:
        answer = await bench.vc.create_snapshot(request(name))
        await created.wait()
        began_s = asyncio.get_running_loop().time()
        merged = await bench.vc.remove_snapshot(answer.ref)
        return answer, merged, asyncio.get_running_loop().time() - began_s

    async def main() -> list[tuple[VmSnapshot, MergeResult, float]]:
        created = asyncio.Barrier(len(names))
        return list(await asyncio.gather(*(one(name, created) for name in names)))

    result: list[tuple[VmSnapshot, MergeResult, float]] = bench.go(main)
    return result


def phases(answer: VmSnapshot, merged: MergeResult) -> list[float]:
    """Freeze, stun, thaw and the stop at the merge's end, in seconds."""
    assert answer.quiesce is not None
    assert answer.stun is not None
    assert merged.stun is not None
    return [
        answer.stun.start_s - answer.quiesce.start_s,
        answer.stun.duration_s,
        answer.quiesce.end_s - answer.stun.end_s,
        merged.stun.duration_s,
    ]


def test_every_other_operation_on_the_host_makes_each_phase_longer() -> None:
    alone = all_at_once(busy_bench({"under_load": LOAD}), "a")
    assert phases(*alone[0][:2]) == pytest.approx([0.1, 0.2, 0.02, 0.3])
    three = all_at_once(busy_bench({"under_load": LOAD}), "abc")
    for answer, merged, _ in three:
        assert phases(answer, merged) == pytest.approx([0.2, 0.6, 0.1, 2.1])


def test_operations_on_another_host_cost_nothing() -> None:
    answers = all_at_once(busy_bench({"under_load": LOAD}, hosts=True), "ab")
    assert phases(*answers[0][:2]) == pytest.approx([0.1, 0.2, 0.02, 0.3])


def test_without_a_load_nothing_depends_on_others() -> None:
    for name in PROFILES:
        assert hypervisor_profile(name).under_load is None
    three = all_at_once(busy_bench({}), "abc")
    assert phases(*three[2][:2]) == pytest.approx([0.1, 0.2, 0.02, 0.3])


def test_a_merge_prepares_before_it_moves_and_both_take_longer_beside_others() -> None:
    slow = {"merge_start": 0.4, "merge_rate": 50e6}
    (_, merged, took_s), *_ = all_at_once(busy_bench(slow), "a")
    assert merged.merged_bytes == 0
    assert took_s == pytest.approx(1.0 + 0.4 + 0.3)
    slowed = {**slow, "under_load": {"per_operation": {"merge": 0.25}}}
    beside = all_at_once(busy_bench(slowed), "abc")
    assert [took for *_, took in beside] == pytest.approx([1.0 + 0.4 * 1.5 + 0.3] * 3)


def test_bytes_move_more_slowly_beside_others() -> None:
    machines = [vm(name, disk(1, "ds1", 10 * GIB)) for name in "ab"]
    how = {**PLAIN, "merge_rate": 50e6, "under_load": {"per_operation": {"merge": 1.0}}}
    answers = all_at_once(Bench(estate(*machines), config(how)), "ab")
    (_, merged, took_s), _ = answers
    assert merged.merged_bytes is not None
    assert merged.merged_bytes > 1e6
    assert took_s == pytest.approx(1.0 + merged.merged_bytes / 25e6 + 0.3, rel=1e-3)


def test_guests_that_write_make_each_phase_longer() -> None:
    """Two guests at the full rate count as 1 - 1/e each; the third is on another host."""
    rate = STEADY["rate"]
    load = {"per_writer": SLOPES, "full_write_rate": rate}
    machines = [vm(name, disk(1, "ds1", 10 * GIB)) for name in "ab"]
    machines.append(vm("c", disk(1, "ds1", 10 * GIB), host_id="h2"))
    wide = {"default": {"io_bandwidth": 1e15, "flow_bandwidth": None}}
    merge = {"merge_start": 1.0, "merge_rate": 1e15}
    how = config({**PLAIN, **merge, "under_load": load}, arrays=wide)
    writers = 2.0 * (1.0 - math.exp(-1.0))
    bench = Bench(estate(*machines), how.model_copy(update={"guests": (_writer(rate),)}))
    answer, merged, took_s = all_at_once(bench, "a")[0]
    found = phases(answer, merged)
    expected = [0.1, 0.2, 0.02, 0.3]
    for seconds, alone_s, phase in zip(found, expected, SLOPES_IN_ORDER, strict=True):
        assert seconds == pytest.approx(alone_s * (1.0 + SLOPES[phase] * writers))
    moving_s = took_s - found[3] - 1.0
    assert moving_s == pytest.approx(1.0 + SLOPES["merge"] * writers, rel=1e-3)


def test_operations_and_writers_multiply() -> None:
    rate, both = STEADY["rate"], {"freeze": 1.0}
    load = {"per_operation": both, "per_writer": both, "full_write_rate": rate}
    machines = [vm(name, disk(1, "ds1", 10 * GIB)) for name in "ab"]
    how = config({**PLAIN, "under_load": load}).model_copy(update={"guests": (_writer(rate),)})
    (answer, merged, _), _ = all_at_once(Bench(estate(*machines), how), "ab")
    writers = 2.0 * (1.0 - math.exp(-1.0))
    assert phases(answer, merged)[0] == pytest.approx(0.1 * 2.0 * (1.0 + writers))


def test_a_guest_that_is_switched_off_no_longer_counts() -> None:
    load = {"per_writer": {"freeze": 1.0}, "full_write_rate": 1.0}
    machines = [vm(name, disk(1, "ds1", 10 * GIB)) for name in "ab"]
    how = config({**PLAIN, "under_load": load}).model_copy(update={"guests": (_writer(10e6),)})
    bench = Bench(estate(*machines), how)

    async def main() -> list[float]:
        found = []
        for off in (False, True):
            if off:
                bench.world.guests.power(1, on=False, now_s=bench.env.now)
                await asyncio.sleep(FRESH_S)
            answer = await bench.vc.create_snapshot(request("a", str(off)))
            await bench.vc.remove_snapshot(answer.ref)
            found.append(answer.stun.start_s - answer.quiesce.start_s)
        return found

    assert bench.go(main) == pytest.approx([0.1 * 3.0, 0.1 * 2.0])


def test_an_array_snapshot_takes_longer_beside_guests_that_write() -> None:
    array = {
        "management_latency": 0,
        "snapshot_base": 1.0,
        "snapshot_per_unit": 0.5,
        "snapshot_sigma": 0,
        "fence_base": 0.2,
        "fence_per_unit": 0.1,
        "fence_sigma": 0,
        "snapshot_per_writer": 2.0,
    }
    machines = [vm("a", disk(1, "ds1", 10 * GIB)), vm("b", disk(1, "ds3", 10 * GIB))]
    load = {"full_write_rate": 10e6}
    how = config({"under_load": load}, arrays={"default": array})
    bench = Bench(estate(*machines), how.model_copy(update={"guests": (_writer(10e6),)}))

    async def main() -> tuple[float, Any]:
        asked = GroupSnapshotRequest(("lun-1",), "t", 60.0)
        taken = await bench.world.arrays["a1"].snapshot_group(asked)
        return bench.env.now, taken

    took_s, taken = bench.go(main)
    slower = 1.0 + 2.0 * (1.0 - math.exp(-1.0))
    assert took_s == pytest.approx((1.0 + 0.5 + 0.2 + 0.1) * slower)
    assert taken.fence.duration_s == pytest.approx(0.3 * slower)


def _writer(rate: float) -> GuestRule:
    writer = ParametricGuest(rate=rate, working_set=10**15)
    return GuestRule(profile=writer, scale_median=1.0, scale_sigma=0.0, dirty_limit=0)


def test_a_create_prepares_before_it_freezes_and_a_delta_has_a_base() -> None:
    prepared = busy_bench({"create_start": 0.7, "delta_base": 1000})
    answer, merged, _ = all_at_once(prepared, "a")[0]
    assert answer.quiesce is not None
    assert answer.quiesce.start_s == pytest.approx(1.0 + 0.7)
    assert merged.delta_bytes == 1000
    assert merged.merged_bytes == 1000


def test_thaw_and_merge_vary_as_their_sigmas_say() -> None:
    how = {"thaw_sigma": 0.3, "merge_start": 1.0, "merge_sigma": 0.2, "task_latency": 0}
    thaws, starts = [], []
    for seed in range(60):
        machines = [vm("a", disk(1, "ds1"))]
        bench = Bench(estate(*machines), config({**PLAIN, **how}, guest=IDLE), seed=seed)
        answer, merged, took_s = all_at_once(bench, "a")[0]
        thaws.append(phases(answer, merged)[2])
        starts.append(took_s - phases(answer, merged)[3])
    assert statistics.median(thaws) == pytest.approx(0.02, rel=0.15)
    assert statistics.median(starts) == pytest.approx(1.0, rel=0.1)
    for times, sigma in ((thaws, 0.3), (starts, 0.2)):
        middle = statistics.median(times)
        found = statistics.pstdev([value / middle for value in times])
        assert found == pytest.approx(sigma, rel=0.35)


def test_a_thaw_that_would_come_too_late_is_known_before_the_deltas_are_made() -> None:
    """The slowed thaw counts against the caller's limit as any other."""
    bench = busy_bench({"under_load": {"per_operation": {"thaw": 100.0}}}, vms=2)

    async def main() -> list[Any]:
        calls = (bench.vc.create_snapshot(request(name, timeout_s=1.0)) for name in "ab")
        return list(await asyncio.gather(*calls, return_exceptions=True))

    late = bench.go(main)
    assert [type(error).__name__ for error in late] == ["QuiesceTimeoutError"] * 2
    assert not bench.times("world.vm.snapshot")


def test_a_load_in_a_file_is_checked() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        HypervisorProfile.model_validate({"under_load": {"per_operation": {"freeze": -1}}})
