"""Tasks on the modelled hypervisor wait in order, and their times depend on the seed alone."""

from __future__ import annotations

import asyncio

import pytest
from support_hypervisor import SILENT
from support_world import Bench, config, disk, estate, request, vm

from stillframe.drivers.contracts import VmSnapshot
from stillframe.orchestrator.events import EventLog
from stillframe.sim.config import WorldConfig


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
    faults = {"sites": {"quiesce-fails": 0.2, "late-create": 0.3}, "slow_task": 5}
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
