"""vMotion, storage vMotion and power events in the modelled world."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import TypeAdapter
from support_world import GIB, NAA, Bench, config, disk, estate, request, vm

from stillframe.drivers.contracts import ConsistencyLevel, FileRole
from stillframe.drivers.errors import BusyError
from stillframe.drivers.records import PowerState, Vm
from stillframe.errors import InputError
from stillframe.sim.config import WorldEvent

EVENTS: TypeAdapter[tuple[WorldEvent, ...]] = TypeAdapter(tuple[WorldEvent, ...])
SILENT = {"dirty_age": 0}


def bench(*vms: Vm, events: list[dict[str, Any]], **how: Any) -> Bench:
    b = Bench(estate(*vms), config(guest=SILENT, **how))
    b.world.schedule(EVENTS.validate_python(events))
    return b


def relocate(at: float, store: str = "ds3", copy: float = 500e6, **more: Any) -> dict[str, Any]:
    event = {"kind": "storage-vmotion", "at": at, "vm": "a", "datastore": store, "copy_size": copy}
    return event | more


def sleep(b: Bench, until_s: float) -> None:
    b.go(lambda: asyncio.sleep(until_s - b.env.now))


def placement(b: Bench) -> list[str | None]:
    state = b.vc.states["vc/a"]
    return [d.datastore_id for d in state.vm.disks] + [state.vm.home_datastore_id]


def test_vmotion_copies_stops_and_changes_the_host() -> None:
    move = {"kind": "vmotion", "at": 5, "vm": "vc/a", "host": "esx-2"}
    b = bench(vm("a", disk(1, "ds1")), events=[move])
    sleep(b, 60)
    assert [(row[0], row[1], row[4]) for row in b.log.rows] == [
        (5.0, "world.vm.migrating", "h2"),
        (25.0, "world.vm.stunned", ""),
        (25.5, "world.vm.unstunned", ""),
        (25.5, "world.vm.migrated", "h2"),
    ]
    inventory = b.go(b.vc.inventory)
    assert inventory.vms[0].host_id == "h2"
    assert b.world.in_flight == 0


def test_a_vm_that_is_off_changes_its_host_without_a_stop() -> None:
    move = {"kind": "vmotion", "at": 5, "vm": "a", "host": "h2"}
    b = bench(vm("a", disk(1, "ds1"), power_state=PowerState.OFF), events=[move])
    sleep(b, 6)
    assert b.kinds("vc/a") == ["migrating", "migrated"]


def test_storage_vmotion_copies_at_its_rate_and_then_switches() -> None:
    b = bench(vm("a", disk(1, "ds1")), events=[relocate(2.0)])
    sleep(b, 11.9)
    assert placement(b) == ["ds1", "ds1"]
    sleep(b, 60)
    assert placement(b) == ["ds3", "ds3"]
    # 500 MB at 50 MB/s, then the switchover of 0.5 s
    assert b.times("world.vm.relocated") == pytest.approx([12.5])
    assert b.vc.states["vc/a"].vm.disks[0].path == "[ds3] vm/disk-1.vmdk"
    for array in b.world.arrays.values():
        assert array.io.done_bytes == pytest.approx(500e6)


def test_a_copy_within_one_array_goes_through_it_once() -> None:
    b = bench(vm("a", disk(1, "ds1")), events=[relocate(2.0, "ds2")])
    sleep(b, 60)
    assert b.world.arrays["a1"].io.done_bytes == pytest.approx(500e6)
    assert b.world.arrays["a2"].io.done_bytes == 0.0


def test_without_a_size_the_allocated_share_is_copied() -> None:
    event = relocate(0.0)
    del event["copy_size"]
    b = bench(vm("a", disk(1, "ds1", 2 * GIB), disk(2, "ds2", 6 * GIB)), events=[event])
    sleep(b, 1000)
    # half of 8 GiB at 50 MB/s
    assert b.times("world.vm.relocated") == pytest.approx([4 * GIB / 50e6 + 0.5])


def test_guest_writes_follow_and_the_copy_counts_as_overwriting() -> None:
    b = bench(vm("a", disk(1, "ds1")), events=[relocate(2.0)])
    sleep(b, 100)
    guests = b.world.guests
    moved_s = b.times("world.vm.relocated")[0]
    assert guests.overwritten_bytes("lun-1", 0.0, 100.0, 4096) == pytest.approx(
        10e6 * moved_s, rel=1e-6
    )
    assert guests.overwritten_bytes("lun-3", 0.0, 100.0, 4096) == pytest.approx(
        500e6 + 10e6 * (100 - moved_s), rel=1e-6
    )


def test_a_snapshot_asked_for_during_the_move_is_refused_and_then_lies_at_the_new_place() -> None:
    b = bench(vm("a", disk(1, "ds1")), events=[relocate(2.0)])

    async def ask() -> Any:
        await asyncio.sleep(5)
        with pytest.raises(BusyError, match="storage-vmotion is in progress"):
            await b.vc.create_snapshot(request())
        assert b.world.in_flight == 1
        await asyncio.sleep(10)
        return await b.vc.create_snapshot(request())

    location = b.go(ask).location
    assert {f.datastore_id for f in location.files} == {"ds3"}


def test_an_open_snapshot_moves_along_with_its_chain() -> None:
    b = bench(vm("a", disk(1, "ds1"), snapshot_count=1), events=[relocate(20.0)])

    async def main() -> Any:
        answer = await b.vc.create_snapshot(request())
        await asyncio.sleep(50)
        [state] = await b.vc.list_snapshots(["vc/a"])
        return answer, state, await b.vc.remove_snapshot(answer.ref)

    answer, state, result = b.go(main)
    assert {f.datastore_id for f in answer.location.files} == {"ds1"}
    assert [(f.path, f.datastore_id, f.role) for f in state.location.files] == [
        ("[ds3] vm/disk-1.vmdk", "ds3", FileRole.BASE),
        ("[ds3] vm/disk-1-000001.vmdk", "ds3", FileRole.BASE),
        ("[ds3] vm/disk-1-000002.vmdk", "ds3", FileRole.DELTA),
        ("[ds3] a/a.vmx", "ds3", FileRole.CONFIG),
    ]
    assert state.snapshots[-1] == answer.ref
    # The delta has the writes from before and after the move, and is merged where it is now.
    start_s = result.stun.start_s - result.delta_bytes / 50e6
    assert result.delta_bytes == pytest.approx(10e6 * (start_s - answer.created_s), rel=1e-4)
    assert b.world.arrays["a2"].io.done_bytes == pytest.approx(500e6 + result.delta_bytes)
    assert b.world.leftovers() == []


def test_a_move_waits_for_the_operation_on_its_vm_to_end() -> None:
    events = [relocate(0.5), {"kind": "power", "at": 0.6, "vm": "a", "to": "off"}]
    b = bench(vm("a", disk(1, "ds1")), events=events)

    async def main() -> Any:
        answer = await b.vc.create_snapshot(request())
        done_s = b.env.now
        await asyncio.sleep(30)
        return answer, done_s

    answer, done_s = b.go(main)
    assert {f.datastore_id for f in answer.location.files} == {"ds1"}
    assert b.times("world.vm.deferred") == [0.5, 0.6]
    assert b.times("world.vm.relocating") == [done_s]
    # The second event waits for the first as well.
    assert b.kinds("vc/a")[-4:] == ["stunned", "unstunned", "relocated", "power"]


def test_single_disks_can_move_and_home_and_raw_devices_stay() -> None:
    a = vm("a", disk(1, "ds1"), disk(2, "ds1"), disk(3, "ds1", GIB, raw_device=NAA[3]))
    b = bench(a, events=[relocate(0.0, disks=[2])])
    sleep(b, 60)
    assert placement(b) == ["ds1", "ds3", "ds1", "ds1"]
    shares = dict(b.world.guests.shares[0])
    assert shares == pytest.approx({"lun-1": 100 / 201, "lun-3": 100 / 201, "lun-raw": 1 / 201})


def test_a_datastore_over_several_units_spreads_the_writes_by_their_size() -> None:
    b = bench(vm("a", disk(1, "ds-wide")), vm("b", disk(1, "ds-local")), events=[])
    assert dict(b.world.guests.shares[0]) == pytest.approx({"lun-2": 0.25, "lun-3": 0.75})
    assert b.world.guests.shares[1] == ()


def test_deltas_of_a_working_directory_move_with_the_home() -> None:
    rule = [{"match": "*", "datastore": "ds-nfs"}]
    b = bench(vm("a", disk(1, "ds1")), events=[relocate(0.0)], working_directories=rule)
    sleep(b, 60)
    answer = b.go(lambda: b.vc.create_snapshot(request()))
    assert {f.datastore_id for f in answer.location.files} == {"ds3"}


def test_power_events_start_and_end_writing_and_decide_the_level() -> None:
    def power(at: float, to: str, **more: Any) -> dict[str, Any]:
        return {"kind": "power", "at": at, "vm": "a", "to": to, **more}

    events = [power(10, "off"), power(20, "on"), power(30, "off", cut=True), power(31, "off")]
    b = bench(vm("a", disk(1, "ds1")), events=events)

    async def level_at(at_s: float) -> ConsistencyLevel:
        await asyncio.sleep(at_s - b.env.now)
        answer = await b.vc.create_snapshot(request())
        await b.vc.remove_snapshot(answer.ref)
        level: ConsistencyLevel = answer.level
        return level

    async def main() -> list[ConsistencyLevel]:
        return [await level_at(12), await level_at(21), await level_at(40)]

    assert b.go(main) == [
        ConsistencyLevel.FILESYSTEM,
        ConsistencyLevel.FILESYSTEM,
        ConsistencyLevel.CRASH,
    ]
    assert [row[4] for row in b.log.of("world.vm.power")] == ["off", "on", "cut"]
    assert b.world.guests.overwritten_bytes("lun-1", 10.0, 19.0, 4096) < 1
    assert b.go(b.vc.inventory).vms[0].power_state is PowerState.OFF


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({"kind": "power", "at": 0, "vm": "x", "to": "off"}, r"events\[1\]\.vm: .* no 'x'"),
        (relocate(0, "ds9"), r"events\[1\]\.datastore: .* no 'ds9'"),
        ({"kind": "vmotion", "at": 0, "vm": "a", "host": "h9"}, r"events\[1\]\.host: .* no 'h9'"),
        (relocate(0, disks=[7]), r"events\[1\]\.disks: vc/a has no disk 7 \(it has 1\)"),
        ({"kind": "power", "at": 0, "vm": "twin", "to": "off"}, "2 are called 'twin'"),
    ],
)
def test_an_event_that_does_not_fit_is_refused_with_all_others(
    event: dict[str, Any], says: str
) -> None:
    twin = vm("twin", disk(1, "ds1"))
    other = Vm("vc/twin-2", "vc", "twin", "h1", PowerState.ON, "ds1", ())
    b = bench(vm("a", disk(1, "ds1")), twin, other, events=[])
    with pytest.raises(InputError, match=says):
        b.world.schedule(EVENTS.validate_python([relocate(0), event]))
    sleep(b, 100)
    assert b.log.rows == []
