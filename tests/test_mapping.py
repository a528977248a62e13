"""From snapshot metadata to units, and what the images of different disks are worth."""

from __future__ import annotations

from dataclasses import replace

from support_memory import small_estate

from stillframe.drivers.contracts import (
    ConsistencyLevel,
    FileLocation,
    FileRole,
    RawDevice,
    VmLocation,
)
from stillframe.drivers.records import DeviceIdentity
from stillframe.orchestrator.arraycalls import batches
from stillframe.orchestrator.mapping import Mapper, Needs, levels_of
from stillframe.orchestrator.spec import JobSpec
from stillframe.topology.graph import Topology

SPEC = JobSpec()


def topology(*, extents: int = 1) -> Topology:
    """Four datastores; the first one has ``extents`` extents (units from the last ones)."""
    estate = small_estate(4, 4)
    first, *others = estate.inventory.datastores
    more = tuple(device for unit in estate.units[:extents] for device in unit.devices)
    stores = (replace(first, extents=more), *others)
    return Topology(replace(estate, inventory=replace(estate.inventory, datastores=stores)))


def at(*files: tuple[str, FileRole, int | None]) -> VmLocation:
    """A location with files on these datastores."""
    return VmLocation(tuple(FileLocation("f", store, role, key) for store, role, key in files))


def needs_of(topology: Topology, location: VmLocation, spec: JobSpec) -> Needs:
    """What a fresh mapper says; asked twice, it must say the same."""
    mapper = Mapper(topology, spec)
    needs = mapper.needs_of(location)
    assert mapper.needs_of(location) == needs
    return needs


def device(number: int) -> DeviceIdentity:
    """The identity of a unit of :func:`small_estate`."""
    return DeviceIdentity.parse(f"naa.60{number:030x}")


def test_base_and_home_count_and_deltas_do_not() -> None:
    location = at(
        ("vc/ds0", FileRole.CONFIG, None),
        ("vc/ds1", FileRole.BASE, 2000),
        ("vc/ds2", FileRole.DELTA, 2000),
    )
    needs = needs_of(topology(), location, SPEC)
    assert needs.unit_ids == ("a1/lun0", "a1/lun1")
    assert needs.held == (2000,)
    assert not needs.problem


def test_every_extent_counts() -> None:
    needs = needs_of(topology(extents=3), at(("vc/ds0", FileRole.BASE, 1)), SPEC)
    assert needs.unit_ids == ("a1/lun0", "a1/lun1", "a1/lun2")


def test_independent_disks_are_left_out_unless_asked_for() -> None:
    location = at(("vc/ds0", FileRole.BASE, 1), ("vc/ds1", FileRole.LIVE, 2))
    without = needs_of(topology(), location, SPEC)
    assert (without.unit_ids, without.excluded, without.live) == (("a1/lun0",), (2,), ())
    with_them = needs_of(topology(), location, JobSpec(independent_disks=True))
    assert with_them.unit_ids == ("a1/lun0", "a1/lun1")
    assert (with_them.excluded, with_them.live) == ((), (2,))
    assert with_them.live_units == ("a1/lun1",)


def test_a_vm_whose_every_disk_is_left_out_is_not_protected_by_its_home() -> None:
    location = at(("vc/ds0", FileRole.CONFIG, None), ("vc/ds1", FileRole.LIVE, 2))
    assert (
        needs_of(topology(), location, SPEC).problem == "all of its disks are left out of snapshots"
    )
    assert not needs_of(topology(), location, JobSpec(independent_disks=True)).problem


def test_a_physical_raw_disk_is_live_and_its_pointer_file_is_not_the_disk() -> None:
    location = at(("vc/ds0", FileRole.BASE, 1), ("vc/ds0", FileRole.BASE, 2))._replace(
        raw_devices=(RawDevice(2, device(3), held=False),)
    )
    needs = needs_of(topology(), location, SPEC)
    assert needs.unit_ids == ("a1/lun0", "a1/lun3")
    assert (needs.held, needs.live, needs.live_units) == ((1,), (2,), ("a1/lun3",))
    left_out = needs_of(topology(), location, JobSpec(physical_raw_disks=False))
    assert left_out.unit_ids == ("a1/lun0",)
    assert (left_out.held, left_out.excluded) == ((1,), (2,))


def test_a_virtual_raw_disk_is_held() -> None:
    location = at(("vc/ds0", FileRole.BASE, 1))._replace(
        raw_devices=(RawDevice(1, device(2), held=True),)
    )
    needs = needs_of(topology(), location, SPEC)
    assert (needs.unit_ids, needs.held, needs.live) == (("a1/lun0", "a1/lun2"), (1,), ())


def test_what_cannot_be_mapped_is_named() -> None:
    unknown_store = needs_of(topology(), at(("vc/ds9", FileRole.BASE, 1)), SPEC)
    assert unknown_store.unknown_datastores == ("vc/ds9",)
    assert "vc/ds9" in unknown_store.problem
    raw = VmLocation((), (RawDevice(7, DeviceIdentity.parse("naa.ff"), held=True),))
    assert "naa.ff of disk 7" in needs_of(topology(), raw, SPEC).problem
    assert "names no file" in needs_of(topology(), VmLocation(()), SPEC).problem


def test_held_disks_keep_the_level_of_the_freeze() -> None:
    needs = needs_of(topology(), at(("vc/ds0", FileRole.BASE, 1)), SPEC)
    level, disks = levels_of(needs, ConsistencyLevel.APPLICATION, live_cut_at_once=True)
    assert level is ConsistencyLevel.APPLICATION
    assert disks == ((1, ConsistencyLevel.APPLICATION),)


def test_held_and_live_disks_together_show_two_points_in_time() -> None:
    location = at(("vc/ds0", FileRole.BASE, 1), ("vc/ds1", FileRole.LIVE, 2))
    needs = needs_of(topology(), location, JobSpec(independent_disks=True))
    level, disks = levels_of(needs, ConsistencyLevel.FILESYSTEM, live_cut_at_once=True)
    assert level is ConsistencyLevel.UNKNOWN
    assert dict(disks) == {1: ConsistencyLevel.FILESYSTEM, 2: ConsistencyLevel.CRASH}


def test_live_disks_cut_one_after_the_other_are_worth_nothing() -> None:
    location = at(("vc/ds0", FileRole.LIVE, 1), ("vc/ds1", FileRole.LIVE, 2))
    needs = needs_of(topology(), location, JobSpec(independent_disks=True))
    assert levels_of(needs, ConsistencyLevel.CRASH, live_cut_at_once=True)[0] is (
        ConsistencyLevel.CRASH
    )
    assert levels_of(needs, ConsistencyLevel.CRASH, live_cut_at_once=False)[0] is (
        ConsistencyLevel.UNKNOWN
    )


def test_batches_keep_a_vms_units_together_where_the_limit_allows() -> None:
    units = ["u0", "u1", "u2", "u3"]
    assert batches([["u0", "u2"]], units, None) == [units]
    assert batches([["u0", "u2"]], units, 2) == [["u0", "u2"], ["u1", "u3"]]
    assert batches([["u0", "u1", "u2"]], units, 2) == [["u0", "u1"], ["u2", "u3"]]
