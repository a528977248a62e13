"""Somebody at the console removes a VM's newest snapshot: the event ``snapshot-removed``."""

from __future__ import annotations

import asyncio

import pytest
from support_world import Bench, config, disk, estate, request, vm

from stillframe.drivers.errors import NotFoundError
from stillframe.sim.config import SnapshotRemovedEvent


def bench(at_s: float, fidelity: str, foreign: int = 0) -> Bench:
    b = Bench(estate(vm("a", disk(1, "ds1"), snapshot_count=foreign)), config(fidelity=fidelity))
    b.world.schedule((SnapshotRemovedEvent(at=at_s, vm="a"),))
    return b


@pytest.mark.parametrize("fidelity", ["flow", "block"])
def test_it_leaves_the_list_at_once_and_its_delta_is_merged(fidelity: str) -> None:
    b = bench(60.0, fidelity)

    async def main() -> None:
        made = await b.vc.create_snapshot(request("a", quiesce=False))
        await asyncio.sleep(60.0 - b.env.now + 0.1)
        (state,) = await b.vc.list_snapshots()
        assert state.snapshots == ()
        assert state.needs_consolidation
        assert state.operation_running
        await asyncio.sleep(600.0)
        (state,) = await b.vc.list_snapshots()
        assert not state.needs_consolidation
        with pytest.raises(NotFoundError):
            await b.vc.remove_snapshot(made.ref)

    b.go(main)
    assert b.times("world.vm.snapshot-removed") == [60.0]
    assert len(b.times("world.vm.merged")) == 1
    assert b.world.in_flight == 0
    if fidelity == "block":
        assert b.world.lost_writes() == []


def test_what_was_there_before_stays() -> None:
    b = bench(5.0, "flow", foreign=2)

    async def main() -> None:
        await asyncio.sleep(100.0)
        (state,) = await b.vc.list_snapshots()
        assert len(state.snapshots) == 2

    b.go(main)
    assert b.times("world.vm.snapshot-removed") == []
