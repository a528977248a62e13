"""Images are worth what is claimed of them, and a claim that does not hold is found out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support_block import BUSY, CRASH, FILESYSTEM, BlockBench
from support_world import INDEPENDENT, NAA, disk, request, vm

from stillframe.drivers.contracts import ConsistencyLevel
from stillframe.drivers.records import PowerState, Vm
from stillframe.errors import InputError
from stillframe.sim.block_guest import BlockGuest
from stillframe.sim.block_plane import BlockPlane
from stillframe.sim.block_verify import TORN, Verdict
from stillframe.sim.config import PowerEvent

APPLICATION, UNKNOWN = ConsistencyLevel.APPLICATION, ConsistencyLevel.UNKNOWN
SEEDS = range(12)
TWO_UNITS = vm("a", disk(2000, "ds1"), disk(2001, "ds2"))
WINDOWS = "Microsoft Windows Server 2022 (64-bit)"
METHODS = pytest.mark.parametrize("method", ["redirect-on-write", "copy-on-write"])


def held(what: Vm, *, quiesce: bool = True, **more: Any) -> tuple[BlockBench, Verdict, Any]:
    """Snapshot the VM, cut lun-1 and lun-2 at once, release; and what the cut holds."""
    bench = BlockBench(what, **more)
    hypervisor = bench.world.hypervisors["vc"]

    async def main() -> Any:
        await asyncio.sleep(20.0)
        made = await hypervisor.create_snapshot(request("a", quiesce=quiesce))
        await asyncio.sleep(5.0)
        cut = await bench.cut("a1", "lun-1", "lun-2")
        await hypervisor.remove_snapshot(made.ref)
        await asyncio.sleep(5.0)
        return made, cut

    made, cut = bench.go(main)
    return bench, bench.verdict(made, made.level, cut), made


@METHODS
@pytest.mark.parametrize(
    ("what", "quiesce", "level"),
    [
        (TWO_UNITS, True, FILESYSTEM),
        (TWO_UNITS, False, CRASH),
        (vm("a", disk(2000, "ds1"), disk(2001, "ds2"), guest_os=WINDOWS), True, APPLICATION),
        (vm("a", disk(2000, "ds1"), power_state=PowerState.OFF), True, FILESYSTEM),
        (vm("a", disk(2000, "ds1"), power_state=PowerState.SUSPENDED), True, CRASH),
        (vm("a", disk(2000, "ds1"), snapshot_count=3), True, FILESYSTEM),
    ],
    ids=["linux", "unquiesced", "windows", "off", "suspended", "foreign-snapshots"],
)
def test_a_held_vm_is_worth_what_its_snapshot_says(
    what: Vm, quiesce: bool, level: ConsistencyLevel, method: str
) -> None:
    for seed in SEEDS:
        bench, verdict, made = held(
            what, quiesce=quiesce, seed=seed, arrays={"default": {"method": method}}
        )
        assert made.level is level
        assert verdict == Verdict(True, level)
        assert not bench.world.lost_writes()


def test_a_vm_on_several_extents_and_arrays_is_put_together_from_its_cuts() -> None:
    bench = BlockBench(vm("a", disk(2000, "ds-wide"), disk(2001, "ds-nfs")))
    hypervisor = bench.world.hypervisors["vc"]

    async def main() -> Any:
        await asyncio.sleep(10.0)
        made = await hypervisor.create_snapshot(request("a"))
        one = await bench.cut("a1", "lun-2", "vol")
        await asyncio.sleep(3.0)
        two = await bench.cut("a2", "lun-3")
        await hypervisor.remove_snapshot(made.ref)
        return made, one, two

    made, one, two = bench.go(main)
    assert bench.verdict(made, FILESYSTEM, one, two) == Verdict(True, FILESYSTEM)
    missing = bench.verdict(made, FILESYSTEM, one)
    assert (missing.ok, missing.found) == (False, TORN)
    assert "disk 2000 lies on unit lun-3" in missing.problem


def live_cuts(seed: int, act: Callable[[BlockBench], Any]) -> Verdict:
    """Cut the units of a VM that nothing holds still."""
    bench = BlockBench(TWO_UNITS, seed=seed, arrays={"default": {"fence_per_unit": 0.5}})

    async def main() -> Any:
        await asyncio.sleep(10.0)
        return await act(bench)

    return bench.verdict("vc/a", CRASH, *bench.go(main))


@pytest.mark.parametrize(
    ("cut", "level"), [(False, FILESYSTEM), (True, CRASH)], ids=["shut-down", "power-cut"]
)
def test_a_vm_that_was_switched_off_is_worth_what_its_memory_became(
    cut: bool, level: ConsistencyLevel
) -> None:
    bench = BlockBench(TWO_UNITS)
    hypervisor = bench.world.hypervisors["vc"]
    bench.world.schedule([PowerEvent(at=5.0, vm="a", to="off", cut=cut)])

    async def main() -> Any:
        await asyncio.sleep(10.0)
        made = await hypervisor.create_snapshot(request("a"))
        return made, await bench.cut("a1", "lun-1", "lun-2")

    made, snapshot = bench.go(main)
    assert made.level is level
    assert bench.verdict(made, level, snapshot) == Verdict(True, level)
    assert bench.verdict(made, FILESYSTEM, snapshot).ok is not cut
    assert bool(bench.plane.guests[0].lost) is cut


def test_one_cut_of_all_units_leaves_what_a_power_cut_would() -> None:
    async def at_once(bench: BlockBench) -> Any:
        return [await bench.cut("a1", "lun-1", "lun-2")]

    assert {live_cuts(seed, at_once) for seed in SEEDS} == {Verdict(True, CRASH)}


def test_units_cut_one_after_the_other_are_torn() -> None:
    async def in_turn(bench: BlockBench) -> Any:
        return [await bench.cut("a1", "lun-1", tag="1"), await bench.cut("a1", "lun-2", tag="2")]

    verdicts = [live_cuts(seed, in_turn) for seed in SEEDS]
    assert sum(verdict.found == TORN for verdict in verdicts) > len(SEEDS) / 2
    assert all(not verdict.ok for verdict in verdicts if verdict.found == TORN)


def test_a_group_cut_without_a_fence_is_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fence is what holds a group together: without it, its units are cut one by one."""
    together = BlockPlane.cut

    def one_by_one(
        self: BlockPlane, array_id: str, number: int, snapshot_id: str, unit_ids: Any
    ) -> None:
        def next_one(waiting: list[str]) -> None:
            together(self, array_id, number, snapshot_id, [waiting.pop()])
            record = self._cuts[array_id, number]
            self._cuts[array_id, number] = record._replace(unit_ids=tuple(unit_ids))
            if waiting:
                self._env.after(0.2, next_one, waiting)

        next_one(list(unit_ids))

    async def at_once(bench: BlockBench) -> Any:
        return [await bench.cut("a1", "lun-1", "lun-2")]

    monkeypatch.setattr(BlockPlane, "cut", one_by_one)
    assert {live_cuts(seed, at_once) for seed in SEEDS} == {Verdict(True, CRASH)}
    monkeypatch.setattr(BlockPlane, "fence_begins", lambda *_: None)
    monkeypatch.setattr(BlockPlane, "fence_ends", lambda *_: None)
    found = [live_cuts(seed, at_once).found for seed in SEEDS]
    assert found.count(TORN) > len(SEEDS) / 2


def test_without_the_flush_a_freeze_is_worth_no_more_than_a_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BlockGuest, "flush", lambda *_: None)
    for seed in SEEDS:
        _, verdict, made = held(TWO_UNITS, seed=seed)
        assert made.level is FILESYSTEM
        assert (verdict.ok, verdict.found) == (False, CRASH)
        assert "exactly what the guest had written" in verdict.problem


def test_a_guest_that_goes_on_writing_through_the_freeze_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BlockPlane, "frozen", lambda *_: None)
    verdicts = [held(TWO_UNITS, seed=seed)[1] for seed in SEEDS]
    assert not any(verdict.ok for verdict in verdicts)


@pytest.mark.parametrize("wait_s", [0.0, 5.0])
def test_a_cut_after_the_release_holds_nothing(wait_s: float) -> None:
    for seed in SEEDS:
        bench = BlockBench(TWO_UNITS, seed=seed)
        hypervisor = bench.world.hypervisors["vc"]

        async def main(bench: BlockBench = bench, hypervisor: Any = hypervisor) -> Any:
            await asyncio.sleep(10.0)
            made = await hypervisor.create_snapshot(request("a"))
            await asyncio.sleep(5.0)
            await hypervisor.remove_snapshot(made.ref)
            await asyncio.sleep(wait_s)
            return made, await bench.cut("a1", "lun-1", "lun-2")

        made, cut = bench.go(main)
        verdict = bench.verdict(made, FILESYSTEM, cut)
        assert (verdict.ok, verdict.found) == (False, CRASH)
        assert "no VM snapshot of ours was open" in verdict.problem


@pytest.mark.parametrize("merge", ["mirror", "iterative"])
def test_a_cut_in_the_middle_of_the_merge_holds_nothing(merge: str) -> None:
    """The base has some of the later blocks already: from the mirror, or from the passes."""
    bench = BlockBench(TWO_UNITS, hypervisor={"merge_rate": 3e5, "merge": merge})
    hypervisor = bench.world.hypervisors["vc"]

    async def main() -> Any:
        await asyncio.sleep(10.0)
        made = await hypervisor.create_snapshot(request("a"))
        await asyncio.sleep(30.0)
        release = asyncio.ensure_future(hypervisor.remove_snapshot(made.ref))
        await asyncio.sleep(2.0)
        cut = await bench.cut("a1", "lun-1", "lun-2")
        assert not release.done()
        await release
        return made, cut

    made, cut = bench.go(main)
    verdict = bench.verdict(made, FILESYSTEM, cut)
    assert (verdict.ok, verdict.found) == (False, TORN)


LIVE = vm(
    "a",
    disk(2000, "ds1"),
    disk(2001, "ds2", mode=INDEPENDENT),
    disk(2002, "ds1", raw_device=NAA[1], raw_is_physical=True),
)


def test_held_and_live_disks_are_each_worth_their_own_and_nothing_together() -> None:
    for seed in SEEDS:
        bench, _, made = held(LIVE, seed=seed)
        cut = next(iter(bench.world.arrays["a1"]._held.values())).snapshot
        parts = ((2000, FILESYSTEM), (2001, CRASH), (2002, CRASH))
        assert bench.verdict(made, UNKNOWN, cut, disk_levels=parts).ok
        assert not bench.verdict(made, CRASH, cut, disk_levels=parts).ok
        too_much = ((2000, FILESYSTEM), (2001, FILESYSTEM), (2002, FILESYSTEM))
        verdict = bench.verdict(made, UNKNOWN, cut, disk_levels=too_much)
        assert not verdict.ok
        assert verdict.problem.startswith("disks 2001, 2002: claimed filesystem, found crash")
        # Only what is claimed is judged: disks that are left out do no harm.
        assert bench.verdict(made, FILESYSTEM, cut, disk_levels=parts[:1]).ok


def test_a_virtual_raw_disk_is_held_with_the_others() -> None:
    raw = vm("a", disk(2000, "ds1"), disk(2001, "ds1", raw_device=NAA[1]))
    assert held(raw)[1] == Verdict(True, FILESYSTEM)


def test_a_group_snapshot_that_is_gone_is_worth_nothing() -> None:
    bench, _, made = held(TWO_UNITS)
    array = bench.world.arrays["a1"]
    cut = next(iter(array._held.values())).snapshot
    bench.go(lambda: array.delete_snapshot(cut.ref))
    verdict = bench.verdict(made, CRASH, cut)
    assert (verdict.ok, verdict.found) == (False, TORN)
    assert "is gone" in verdict.problem


def test_flow_fidelity_and_unknown_vms_are_refused() -> None:
    flow = BlockBench(TWO_UNITS)
    with pytest.raises(InputError, match="no VM 'vc/zz'"):
        flow.world.verify("vc/zz", [], CRASH)
    flow.world.plane = None
    with pytest.raises(InputError, match="follows no single write"):
        flow.world.lost_writes()


def test_an_image_older_than_the_claim_is_found_out() -> None:
    """A cut that was taken before the VM snapshot is consistent, and not what was claimed."""
    bench = BlockBench(vm("a", disk(2000, "ds1")), guest={"profile": BUSY})
    hypervisor = bench.world.hypervisors["vc"]

    async def main() -> Any:
        await asyncio.sleep(10.0)
        cut = await bench.cut("a1", "lun-1")
        made = await hypervisor.create_snapshot(request("a"))
        await hypervisor.remove_snapshot(made.ref)
        return made, cut

    made, cut = bench.go(main)
    verdict = bench.verdict(made, FILESYSTEM, cut)
    assert (verdict.ok, verdict.found) == (False, CRASH)


def test_an_array_that_hands_out_an_older_image_is_found_out() -> None:
    """Consistent in itself, and without writes that were durable when the VM was snapshotted."""
    bench = BlockBench(vm("a", disk(2000, "ds1")))
    hypervisor = bench.world.hypervisors["vc"]

    async def main() -> Any:
        await asyncio.sleep(10.0)
        before = await bench.cut("a1", "lun-1", tag="before")
        made = await hypervisor.create_snapshot(request("a", quiesce=False))
        return made, before, await bench.cut("a1", "lun-1")

    made, _, cut = bench.go(main)
    assert bench.verdict(made, CRASH, cut) == Verdict(True, CRASH)
    cuts = bench.plane._cuts
    cuts["a1", 2] = cuts["a1", 2]._replace(number=1)
    verdict = bench.verdict(made, CRASH, cut)
    assert (verdict.ok, verdict.found) == (False, CRASH)
    assert "too old: durable write" in verdict.problem
