"""What the modelled hypervisor shows: its inventory, running operations and open deltas."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from support_hypervisor import bench
from support_world import Bench, config, disk, estate, request, vm

from stillframe.drivers.contracts import FileRole, VmLocation
from stillframe.drivers.records import DiskMode
from stillframe.orchestrator.events import EventLog
from stillframe.sim.config import WorldConfig
from stillframe.sim.env import SimEnv
from stillframe.sim.world import World


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


def test_a_listing_says_whether_something_is_under_way() -> None:
    b = bench()

    async def watch() -> list[bool | None]:
        call = asyncio.ensure_future(b.vc.create_snapshot(request()))
        await asyncio.sleep(0)
        during = (await b.vc.list_snapshots())[0].operation_running
        await call
        return [during, (await b.vc.list_snapshots())[0].operation_running]

    assert b.go(watch) == [True, False]


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


@pytest.mark.parametrize("elsewhere", [False, True])
def test_locations_are_the_same_object_until_something_changes(*, elsewhere: bool) -> None:
    where = [{"match": "*", "datastore": "ds2"}] if elsewhere else []
    disks = (disk(1, "ds1"), disk(2, "ds3", mode=DiskMode.INDEPENDENT_PERSISTENT), disk(3, "ds3"))
    b = Bench(estate(vm("a", *disks)), config(working_directories=where))

    async def main() -> None:
        async def location() -> VmLocation:
            return (await b.vc.list_snapshots())[0].location

        before = await location()
        first = await b.vc.create_snapshot(request(tag="1"))
        assert await location() is first.location
        assert {file.role for file in first.location.files} > {FileRole.DELTA, FileRole.BASE}
        second = await b.vc.create_snapshot(request(tag="2"))
        assert await location() is second.location != first.location
        await b.vc.remove_snapshot(second.ref)
        assert await location() == first.location
        await b.vc.remove_snapshot(first.ref)
        assert await location() == before
        refs = [(await b.vc.create_snapshot(request(tag=tag))).ref for tag in ("3", "4")]
        await location()
        for ref in refs:
            await b.vc.remove_snapshot(ref)
        assert await location() == before

    b.go(main)
