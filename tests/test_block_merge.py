"""No write is lost by a snapshot, a merge, a move or a lost host; and lost ones are found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support_block import FILESYSTEM, BlockBench
from support_world import NAA, disk, request, vm

from stillframe.drivers.errors import DriverError
from stillframe.drivers.records import Vm
from stillframe.sim.block_chain import DiskChains, _DiskMerge
from stillframe.sim.block_guest import Stop
from stillframe.sim.block_verify import Verdict
from stillframe.sim.config import HostLostEvent, PowerEvent, StorageVmotionEvent, VmotionEvent

SEEDS = range(6)
ONE = vm("a", disk(2000, "ds1"), disk(2001, "ds2"))
SLOW = {"merge_rate": 1e6}
ITERATIVE = {"merge_rate": 1e6, "merge": "iterative", "merge_stun_below": 0.3}


def released(seed: int, what: Vm = ONE, *, events: Any = (), **more: Any) -> BlockBench:
    """A world in which the VM was snapshotted, held, released if it could be, and went on."""
    bench = BlockBench(what, seed=seed, **more)
    hypervisor = bench.world.hypervisors["vc"]
    bench.world.schedule(events)

    async def main() -> None:
        await asyncio.sleep(10.0)
        try:
            made = await hypervisor.create_snapshot(request("a"))
            await asyncio.sleep(20.0)
            await hypervisor.remove_snapshot(made.ref)
        except DriverError:
            await asyncio.sleep(400.0)
        await asyncio.sleep(10.0)

    bench.go(main)
    return bench


@pytest.mark.parametrize("hypervisor", [SLOW, ITERATIVE], ids=["mirror", "iterative"])
@pytest.mark.parametrize(
    "what",
    [
        ONE,
        vm("a", disk(2000, "ds-wide"), disk(2001, "ds-nfs")),
        vm("a", disk(2000, "ds1"), snapshot_count=2),
        vm("a", disk(2000, "ds1", raw_device=NAA[1]), disk(2001, "ds-local")),
    ],
    ids=["two-disks", "extents-and-nfs", "foreign", "raw-and-local"],
)
def test_a_merge_loses_nothing(what: Vm, hypervisor: dict[str, Any]) -> None:
    for seed in SEEDS:
        bench = released(seed, what, hypervisor=hypervisor)
        assert bench.times("world.vm.merged")
        assert not bench.world.lost_writes()
        chains = bench.plane.chains[0]
        assert {len(chain) for chain in chains.layout.files} == {1 + what.snapshot_count}


def test_deltas_elsewhere_and_loose_ones_are_merged_as_well() -> None:
    bench = BlockBench(
        ONE,
        working_directories=[{"match": "a", "datastore": "ds3"}],
        faults={"sites": {"consolidation-needed": {"fire": 1.0, "most": 1}}},
    )
    hypervisor = bench.world.hypervisors["vc"]

    async def main() -> Any:
        await asyncio.sleep(10.0)
        first = await hypervisor.create_snapshot(request("a", "1"))
        await asyncio.sleep(10.0)
        with pytest.raises(DriverError):
            await hypervisor.remove_snapshot(first.ref)
        loose = [
            await bench.cut("a1", "lun-1", "lun-2", tag="1"),
            await bench.cut("a2", "lun-3", tag="2"),
        ]
        await asyncio.sleep(10.0)
        second = await hypervisor.create_snapshot(request("a", "2"))
        await asyncio.sleep(10.0)
        cut = [await bench.cut("a1", "lun-1", "lun-2"), await bench.cut("a2", "lun-3")]
        await hypervisor.remove_snapshot(second.ref)
        await asyncio.sleep(10.0)
        await hypervisor.consolidate("vc/a")
        await asyncio.sleep(10.0)
        return second, cut, loose

    second, cut, loose = bench.go(main)
    # A snapshot that is lost holds nothing, though its base stands still.
    assert not bench.verdict("vc/a", FILESYSTEM, *loose).ok
    assert bench.verdict(second, FILESYSTEM, *cut) == Verdict(True, FILESYSTEM)
    assert not bench.world.lost_writes()
    assert not bench.world.leftovers()


@pytest.mark.parametrize(
    "event",
    [
        StorageVmotionEvent(at=5.0, vm="a", datastore="ds3", copy_size=10**9),
        StorageVmotionEvent(at=5.0, vm="a", datastore="ds-nfs", disks=(2001,), copy_size=10**9),
        VmotionEvent(at=15.0, vm="a", host="h2"),
        PowerEvent(at=20.0, vm="a", to="off", cut=True),
        PowerEvent(at=20.0, vm="a", to="off"),
        PowerEvent(at=20.0, vm="a", to="suspended"),
        HostLostEvent(at=20.0, host="h1"),
        HostLostEvent(at=10.9, host="h1"),
        HostLostEvent(at=34.0, host="h1"),
        HostLostEvent(at=8.0, host="h1"),
    ],
    ids=str,
)
def test_whatever_happens_meanwhile_nothing_is_lost(event: Any) -> None:
    start = StorageVmotionEvent(at=5.0, vm="a", datastore="ds3", copy_size=10**9)
    events = [event] if event.at != 8.0 else [start, event]
    for seed in SEEDS:
        bench = released(seed, events=events, hypervisor={**SLOW, "storage_vmotion_rate": 1e8})
        assert not bench.world.lost_writes()
        chains = bench.plane.chains[0]
        assert chains.merging is None
        assert not chains.is_moving


def test_a_snapshot_taken_after_a_move_is_on_the_new_units() -> None:
    bench = BlockBench(ONE, hypervisor={"storage_vmotion_rate": 1e8})
    hypervisor = bench.world.hypervisors["vc"]
    move = StorageVmotionEvent(at=5.0, vm="a", datastore="ds3", copy_size=10**9)
    bench.world.schedule([move])

    async def main() -> Any:
        await asyncio.sleep(30.0)
        made = await hypervisor.create_snapshot(request("a"))
        old, new = await bench.cut("a1", "lun-1", "lun-2"), await bench.cut("a2", "lun-3")
        await hypervisor.remove_snapshot(made.ref)
        return made, old, new

    made, old, new = bench.go(main)
    assert bench.verdict(made, FILESYSTEM, new) == Verdict(True, FILESYSTEM)
    wrong = bench.verdict(made, FILESYSTEM, old)
    assert not wrong.ok
    assert "none of its files" in wrong.problem


def _losing(monkeypatch: pytest.MonkeyPatch, run: Callable[[int], BlockBench]) -> int:
    found = 0
    for seed in SEEDS:
        lost = run(seed).world.lost_writes()
        assert all("of them acknowledged" in sentence for sentence in lost)
        found += bool(lost)
    return found


@pytest.mark.parametrize(
    ("hypervisor", "removed"),
    [
        (ITERATIVE, (DiskChains, "copy_rest")),
        (ITERATIVE, (_DiskMerge, "next_pass")),
        (SLOW, (DiskChains, "copy_rest")),
    ],
    ids=["last-pass", "every-pass", "mirror"],
)
def test_a_merge_that_skips_a_pass_loses_writes(
    monkeypatch: pytest.MonkeyPatch, hypervisor: dict[str, Any], removed: tuple[type, str]
) -> None:
    monkeypatch.setattr(*removed, lambda *_: None)
    assert _losing(monkeypatch, lambda seed: released(seed, hypervisor=hypervisor)) == len(SEEDS)


def test_a_merge_whose_mirror_is_broken_loses_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = DiskChains.begin_merge

    def unmirrored(self: DiskChains, place: int, now_s: float, *, mirrored: bool) -> None:
        begin(self, place, now_s, mirrored=mirrored)
        self._aim()

    monkeypatch.setattr(DiskChains, "begin_merge", unmirrored)
    assert _losing(monkeypatch, lambda seed: released(seed, hypervisor=SLOW)) == len(SEEDS)


def test_a_move_whose_mirror_is_broken_loses_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = DiskChains.begin_move

    def unmirrored(self: DiskChains, place: Any) -> None:
        begin(self, place)
        self._aim()

    monkeypatch.setattr(DiskChains, "begin_move", unmirrored)
    move = StorageVmotionEvent(at=5.0, vm="a", datastore="ds3", copy_size=10**9)
    run = _losing(
        monkeypatch,
        lambda seed: released(seed, events=[move], hypervisor={"storage_vmotion_rate": 1e8}),
    )
    assert run == len(SEEDS)


@pytest.mark.parametrize(
    "event",
    [
        VmotionEvent(at=1.0, vm="a", host="h2"),
        StorageVmotionEvent(at=1.0, vm="a", datastore="ds3", copy_size=10**8),
        PowerEvent(at=13.0, vm="a", to="off"),
        HostLostEvent(at=12.2, host="h1", restart_after=5.0),
        HostLostEvent(at=2.0, host="h1", restart_after=5.0),
    ],
    ids=str,
)
def test_the_data_plane_knows_whether_the_guest_stands_still(event: Any) -> None:
    """Every place where the model freezes, stops or switches a guest tells the plane."""
    slow = {"stun_create": 0.6, "stun_remove": 0.6, "linux_freeze": 0.5, "vmotion": 0.5}
    bench = BlockBench(ONE, hypervisor=slow)
    hypervisor = bench.world.hypervisors["vc"]
    bench.world.schedule([event])
    state = hypervisor.states["vc/a"]
    seen = set()

    async def work() -> None:
        await asyncio.sleep(10.0)
        made = await hypervisor.create_snapshot(request("a"))
        await hypervisor.remove_snapshot(made.ref)

    async def main() -> None:
        task = asyncio.ensure_future(work())
        for _ in range(400):
            await asyncio.sleep(0.05)
            stop = bench.plane.guests[0].stop
            told = (Stop.FROZEN in stop, Stop.STUNNED in stop, Stop.OFF not in stop)
            assert told == (state.frozen, state.stunned, state.running)
            seen.add(told)
        await asyncio.gather(task, return_exceptions=True)

    bench.go(main)
    assert len(seen) > 1


def test_a_loss_is_looked_for_soon_after_the_last_event_however_late_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late(seed: int) -> BlockBench:
        bench = released(seed)
        bench.env.run(until=bench.env.now + 1e5)
        return bench

    assert not late(0).world.lost_writes()
    asked = late(0)
    before_s = asked.plane.guests[0].seen_s
    asked.world.lost_writes()
    assert asked.plane.guests[0].seen_s == before_s + 60.0 < asked.env.now
    end_merge = DiskChains.end_merge

    def astray(chains: DiskChains) -> None:
        before = [targets[:1] for targets in chains._targets]
        end_merge(chains)
        chains._targets = before

    monkeypatch.setattr(DiskChains, "end_merge", astray)
    assert late(0).world.lost_writes()
