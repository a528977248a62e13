"""A host is lost: nothing stays frozen, stopped or busy, and nobody is told what nobody knows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from support_array import outcome
from support_faulty_job import run
from support_hypervisor import SILENT
from support_world import Bench, config, disk, estate, request, vm

from stillframe.drivers.contracts import MergeResult, VmSnapshot
from stillframe.drivers.errors import BusyError, DidNotHappenError, UnknownOutcomeError
from stillframe.drivers.records import Cluster, Estate, PowerState
from stillframe.errors import InputError
from stillframe.sim.config import HostLostEvent, StorageVmotionEvent, VmotionEvent, WorldEvent


def clustered(*vms: Any) -> Estate:
    """The estate of support_world with its two hosts in one cluster."""
    plain = estate(*vms)
    hosts = tuple(replace(host, cluster_id="c1") for host in plain.inventory.hosts)
    clusters = (Cluster("c1", "vc", "c1"),)
    return replace(plain, inventory=replace(plain.inventory, hosts=hosts, clusters=clusters))


def lost(at_s: float, host: str = "h1", restart_s: float = 60.0) -> HostLostEvent:
    return HostLostEvent(at=at_s, host=host, restart_after=restart_s)


def bench(*events: WorldEvent, seed: int = 1, disks: int = 1, **how: Any) -> Bench:
    names = ("a", "b")
    vms = [vm(n, *(disk(d, "ds1") for d in range(1, disks + 1))) for n in names]
    b = Bench(clustered(*vms, vm("else", disk(1, "ds1"), host_id="h2")), config(**how), seed)
    b.world.schedule(events)
    return b


def after(b: Bench, call: Any, at_s: float) -> Any:
    """The outcome of a call, with the world gone on until a time after it."""

    async def main() -> Any:
        answer = await outcome(call())
        told_s = asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, at_s - told_s))
        return answer, told_s

    return b.go(main)


def state_of(b: Bench, name: str = "a") -> Any:
    (state,) = b.go(lambda: b.vc.list_snapshots([f"vc/{name}"]))
    return state


# Task latency 1 s; then freeze 0.1 s, metadata 0.05 s, stun 0.2 s, thaw 0.02 s.
@pytest.mark.parametrize(
    ("at_s", "was"),
    [(0.5, []), (1.05, ["frozen", "thawed"]), (1.3, ["frozen", "stunned", "thawed", "unstunned"])],
)
def test_a_create_breaks_off_and_its_caller_learns_nothing(at_s: float, was: list[str]) -> None:
    b = bench(lost(at_s), guest=SILENT)
    answer, told_s = after(b, lambda: b.vc.create_snapshot(request()), 100)
    assert isinstance(answer, UnknownOutcomeError)
    assert told_s == pytest.approx(at_s), "at once, not when the guest is started elsewhere"
    held = [
        kind for kind in b.kinds("vc/a") if kind in ("frozen", "stunned", "thawed", "unstunned")
    ]
    assert sorted(held) == was
    found = [ref.tag for ref in state_of(b).snapshots]
    assert found in ([], ["t"]) if at_s > 1.1 else found == []
    assert b.world.in_flight == 0
    if found:
        b.go(lambda: b.vc.remove_snapshot(state_of(b).snapshots[0]))
    assert b.world.leftovers() == []
    assert isinstance(b.go(lambda: b.vc.create_snapshot(request(tag="again"))), VmSnapshot)


def test_a_create_that_had_not_begun_leaves_nothing_in_any_run() -> None:
    for seed in range(12):
        b = bench(lost(0.5 + 0.05 * seed), seed=seed, guest=SILENT)
        after(b, lambda b=b: b.vc.create_snapshot(request()), 100)
        assert state_of(b).snapshots == ()


def test_a_half_made_snapshot_is_there_in_some_runs_and_not_in_others() -> None:
    found = []
    for seed in range(20):
        b = bench(lost(1.3), seed=seed, guest=SILENT)
        after(b, lambda b=b: b.vc.create_snapshot(request()), 100)
        found.append(len(state_of(b).snapshots))
        assert len(b.times("world.vm.snapshot")) == found[-1]
    assert 4 < sum(found) < 16


@pytest.mark.parametrize("at_s", [31.5, 35.0])
def test_a_merge_breaks_off_and_can_be_done_again(at_s: float) -> None:
    outcomes = set()
    for seed in range(12):
        b = bench(lost(at_s), seed=seed)
        made = b.go(lambda b=b: b.vc.create_snapshot(request()))
        b.go(lambda b=b: asyncio.sleep(30 - b.env.now))
        flows = b.world.arrays["a1"].io.flows
        answer, told_s = after(b, lambda b=b, made=made: b.vc.remove_snapshot(made.ref), 100)
        assert isinstance(answer, UnknownOutcomeError)
        assert told_s == pytest.approx(at_s)
        assert b.world.arrays["a1"].io.flows == flows, "its transfer is over, too"
        state = state_of(b)
        outcomes.add((len(state.snapshots), state.needs_consolidation))
        if state.needs_consolidation:
            b.go(lambda b=b: b.vc.consolidate("vc/a"))
        else:
            again = b.go(lambda b=b, made=made: b.vc.remove_snapshot(made.ref))
            assert isinstance(again, MergeResult)
        assert b.world.leftovers() == []
    assert outcomes == {(1, False), (0, True)}


def test_who_waits_in_line_leaves_it_and_the_others_get_their_turn() -> None:
    b = bench(lost(0.5), hypervisor={"vcenter_tasks": 1}, guest=SILENT)

    async def main() -> list[Any]:
        calls = [b.vc.create_snapshot(request(name)) for name in ("a", "b", "else")]
        return list(await asyncio.gather(*map(outcome, calls)))

    first, second, elsewhere = b.go(main)
    assert isinstance(first, UnknownOutcomeError)
    assert isinstance(second, UnknownOutcomeError)
    assert isinstance(elsewhere, VmSnapshot)
    slots = [b.vc.tasks, *b.vc.host_tasks.values()]
    assert [(one.used, one.waiting) for one in slots] == [(0, 0)] * 3


def test_who_waits_for_the_vcenter_leaves_the_line_too() -> None:
    b = bench(lost(0.5), hypervisor={"vcenter_tasks": 1}, guest=SILENT)

    async def main() -> list[Any]:
        calls = [b.vc.create_snapshot(request(name)) for name in ("else", "a", "b")]
        answers = await asyncio.gather(*map(outcome, calls))
        await asyncio.sleep(100)
        return [*answers, await b.vc.create_snapshot(request("a", "again"))]

    elsewhere, first, second, again = b.go(main)
    assert [type(one) for one in (first, second)] == [UnknownOutcomeError] * 2
    assert [type(one) for one in (elsewhere, again)] == [VmSnapshot] * 2
    slots = [b.vc.tasks, *b.vc.host_tasks.values()]
    assert [(one.used, one.waiting) for one in slots] == [(0, 0)] * 3


def test_its_vms_run_elsewhere_after_a_while_and_are_refused_until_then() -> None:
    b = bench(lost(10.0, restart_s=60.0))

    async def main() -> list[Any]:
        await asyncio.sleep(20)
        down = await b.vc.inventory()
        refused = await outcome(b.vc.create_snapshot(request()))
        await asyncio.sleep(60)
        return [down, refused, await b.vc.inventory(), await b.vc.create_snapshot(request())]

    down, refused, up, made = b.go(main)
    assert [one.power_state for one in down.vms] == [PowerState.OFF] * 2 + [PowerState.ON]
    assert [one.host_id for one in down.vms] == ["h1", "h1", "h2"], "still registered there"
    assert type(refused) is DidNotHappenError
    assert not isinstance(refused, BusyError)
    assert [(one.power_state, one.host_id) for one in up.vms] == [(PowerState.ON, "h2")] * 3
    assert made.quiesce is not None, "the guest runs and can be frozen"
    assert b.times("world.host.lost") == [10.0]
    assert b.times("world.vm.restarted") == [70.0] * 2


def test_a_vm_that_was_off_is_moved_and_stays_off() -> None:
    b = Bench(clustered(vm("a", disk(1, "ds1"), power_state=PowerState.OFF)))
    b.world.schedule([lost(1.0)])
    after(b, b.vc.inventory, 100)
    (one,) = b.go(b.vc.inventory).vms
    assert (one.power_state, one.host_id) == (PowerState.OFF, "h2")
    assert b.times("world.vm.power") == []


def test_a_host_without_others_is_back_itself() -> None:
    b = Bench(estate(vm("a", disk(1, "ds1"))))  # no cluster
    b.world.schedule([lost(1.0), lost(2.0), lost(100.0)])
    after(b, b.vc.inventory, 300)
    (one,) = b.go(b.vc.inventory).vms
    assert (one.power_state, one.host_id) == (PowerState.ON, "h1")
    assert b.times("world.host.lost") == [1.0, 100.0], "a host that is lost cannot be lost again"


def test_the_last_hosts_of_a_cluster_are_lost_one_after_the_other() -> None:
    b = bench(lost(1.0, "h1", 10.0), lost(5.0, "h2", 10.0))
    after(b, b.vc.inventory, 100)
    inventory = b.go(b.vc.inventory)
    assert [one.power_state for one in inventory.vms] == [PowerState.ON] * 3
    assert b.world.leftovers() == []


@pytest.mark.parametrize(
    "event",
    [
        VmotionEvent(at=1.0, vm="a", host="h2"),
        StorageVmotionEvent(at=1.0, vm="a", datastore="ds2", copy_size=10**10),
    ],
    ids=["vmotion", "storage-vmotion"],
)
@pytest.mark.parametrize("at_s", [2.0, "switch"])
def test_a_migration_fails_and_the_vm_stays_where_it_was(event: Any, at_s: Any) -> None:
    how = {"hypervisor": {"vmotion": 8.0, "vmotion_switchover": 1.0}}
    if at_s == "switch":
        first = bench(event, **how)
        after(first, first.vc.inventory, 300)
        (at_s,) = [time_s + 0.5 for time_s in first.times("world.vm.stunned")]
    b = bench(event, lost(at_s), **how)
    after(b, b.vc.inventory, 500)
    (one, *_) = b.go(b.vc.inventory).vms
    assert {part.datastore_id for part in one.disks} == {"ds1"}
    assert len(b.times("world.vm.migration-failed")) == 1
    assert b.times("world.vm.migrated") == b.times("world.vm.relocated") == []
    assert b.world.leftovers() == []
    assert b.world.in_flight == 0
    assert all(array.io.flows == 0 for array in b.world.arrays.values())


def test_a_vmotion_to_a_lost_host_fails() -> None:
    b = bench(VmotionEvent(at=1.0, vm="a", host="h2"), lost(2.0, "h2"))
    after(b, b.vc.inventory, 300)
    (one, *_) = b.go(b.vc.inventory).vms
    assert one.host_id == "h1"
    assert len(b.times("world.vm.migration-failed")) == 1


def test_what_waits_for_a_broken_task_is_refused() -> None:
    b = bench(VmotionEvent(at=1.1, vm="a", host="h2"), lost(1.2), guest=SILENT)
    after(b, lambda: b.vc.create_snapshot(request()), 100)
    assert len(b.times("world.vm.deferred")) == len(b.times("world.vm.refused")) == 1
    assert b.times("world.vm.migrating") == []


def test_an_unknown_host_is_refused_before_anything_is_scheduled() -> None:
    b = bench()
    with pytest.raises(InputError, match=r"events\[1\].host"):
        b.world.schedule([lost(1.0), lost(2.0, "nowhere")])
    after(b, b.vc.inventory, 10)
    assert b.times("world.host.lost") == []


def test_a_job_survives_a_lost_host_at_any_moment() -> None:
    """Every half second of a job of 8 s: in the creates, at the cut, in the merges."""
    for step in range(24):
        at_s = 10.0 + 0.5 * step
        event = {"at": at_s, "kind": "host-lost", "host": "esx-1", "restart_after": 90.0}
        done = run({}, step, events=[event], observe=300.0)
        assert done.world.leftovers() == []
        assert done.result.orphans == []
        assert len(done.result.events.of("world.vm.restarted")) == 3
        assert not done.world.in_flight
