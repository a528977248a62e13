"""Components, bystanders, targeting and obstacles."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_topology import (
    GIB,
    disk,
    estates,
    lun,
    machine,
    naa,
    slow_components,
    small_estate,
    spread,
    vmfs,
)

from stillframe.drivers.records import DatastoreKind, DeviceIdentity, DiskMode, Estate
from stillframe.errors import StillframeError
from stillframe.topology.graph import Topology
from stillframe.topology.queries import (
    Component,
    ObstacleKind,
    Targeting,
    collateral,
    components,
    protectability,
    targeting_ratio,
)


@given(estates(), st.data())
def test_components_agree_with_brute_force(estate: Estate, data: st.DataObject) -> None:
    topology = Topology(estate)
    vms = list(estate.inventory.vms)
    selected = data.draw(st.lists(st.sampled_from(vms), max_size=12)) if vms else []
    options = {
        "physical_raw": data.draw(st.booleans()),
        "independent": data.draw(st.booleans()),
    }
    found = components(topology, [vm.id for vm in selected], **options)
    distinct = [vm for vm in vms if vm in selected]
    expected = slow_components(estate, distinct, **options)
    assert {(frozenset(c.vm_ids), frozenset(c.unit_ids)) for c in found} == {
        (frozenset(ids), frozenset(units)) for ids, units in expected
    }
    assert sum(len(c.vm_ids) for c in found) == len(distinct)
    # In estate order, inside and among each other.
    vm_rank = {vm.id: rank for rank, vm in enumerate(vms)}
    unit_rank = {unit.id: rank for rank, unit in enumerate(estate.units)}
    array_of = {unit.id: unit.array_id for unit in estate.units}
    array_rank = {array.id: rank for rank, array in enumerate(estate.arrays)}
    firsts = [vm_rank[component.vm_ids[0]] for component in found]
    assert firsts == sorted(firsts)
    for component in found:
        assert list(component.vm_ids) == sorted(component.vm_ids, key=vm_rank.__getitem__)
        assert list(component.unit_ids) == sorted(component.unit_ids, key=unit_rank.__getitem__)
        arrays = {array_of[unit_id] for unit_id in component.unit_ids}
        assert list(component.array_ids) == sorted(arrays, key=array_rank.__getitem__)


@given(estates(), st.data())
def test_collateral_agrees_with_brute_force(estate: Estate, data: st.DataObject) -> None:
    topology = Topology(estate)
    ids = [vm.id for vm in estate.inventory.vms]
    units = [unit.id for unit in estate.units]
    selected = data.draw(st.lists(st.sampled_from(ids))) if ids else []
    targeted = data.draw(st.lists(st.sampled_from(units))) if units else []
    expected = [
        vm_id
        for vm_id in ids
        if vm_id not in selected and any(vm_id in topology.vms_of_unit(u) for u in targeted)
    ]
    assert list(collateral(topology, selected, targeted)) == expected


def test_a_spanning_vm_joins_groups_and_a_multi_extent_datastore_is_one() -> None:
    estate = small_estate(
        [vmfs("a", 1), vmfs("b", 2), vmfs("c", 3, 4)],
        [spread("v1", "a"), spread("v2", "b"), spread("v3", "c"), spread("v4", "a", "b")],
        [lun(1), lun(2, "array-2"), lun(3), lun(4, "array-2")],
    )
    topology = Topology(estate)
    one = Component(
        ("vc/v1", "vc/v2", "vc/v4"),
        ("array-1/lun-1", "array-2/lun-2"),
        ("array-1", "array-2"),
    )
    two = Component(("vc/v3",), ("array-1/lun-3", "array-2/lun-4"), ("array-1", "array-2"))
    assert components(topology, topology.vm_ids) == [one, two]
    apart = components(topology, ["vc/v3", "vc/v2", "vc/v1", "vc/v2"])
    assert [component.vm_ids for component in apart] == [("vc/v1",), ("vc/v2",), ("vc/v3",)]
    assert components(topology, []) == []


def test_a_vm_without_units_is_a_component_of_its_own() -> None:
    estate = small_estate([vmfs("x")], [machine("a", "x"), machine("b", "x")], [])
    topology = Topology(estate)
    assert components(topology, topology.vm_ids) == [
        Component(("vc/a",), (), ()),
        Component(("vc/b",), (), ()),
    ]


def test_unknown_vms_and_units_are_refused() -> None:
    topology = Topology(small_estate([], [], []))
    for call in (
        lambda: components(topology, ["x"]),
        lambda: collateral(topology, [], ["x"]),
        lambda: targeting_ratio(topology, ["x"]),
        lambda: protectability(topology, ["x"]),
    ):
        with pytest.raises(StillframeError, match="'x'"):
            call()


def test_targeting_counts_units_and_bytes_once() -> None:
    units = [lun(1, size=GIB), lun(2, size=2 * GIB), lun(3, "array-2", size=5 * GIB)]
    topology = Topology(small_estate([], [], units))
    found = targeting_ratio(topology, ["array-1/lun-2", "array-1/lun-1", "array-1/lun-2"])
    assert found == Targeting(2, 3, 3 * GIB, 8 * GIB)
    assert found.ratio == 3 / 8
    assert Targeting(0, 0, 0, 0).ratio is None


def obstacles_of(vm, *datastores, units=(), **options):
    topology = Topology(small_estate(datastores, [vm], units))
    return protectability(topology, [vm.id], **options)[vm.id]


LOCAL = replace(vmfs("d"), extents=(DeviceIdentity.parse("mpx.vmhba0:C0:T0:L0"),))
ON_D = disk(2000, "d")
PHYSICAL = {"raw_is_physical": True, "mode": DiskMode.INDEPENDENT_PERSISTENT}
BLOCKED = {
    ObstacleKind.TEMPLATE: (machine("a", "d", ON_D, is_template=True), vmfs("d", 1)),
    ObstacleKind.NO_DISKS: (machine("a", "d"), vmfs("d", 1)),
    ObstacleKind.HOME_UNKNOWN: (machine("a", None, ON_D), vmfs("d", 1)),
    ObstacleKind.DISK_LOCATION_UNKNOWN: (machine("a", "d", disk(1, None)), vmfs("d", 1)),
    ObstacleKind.RAW_DEVICE_UNKNOWN: (machine("a", "d", disk(1, "d", **PHYSICAL)), vmfs("d", 1)),
    ObstacleKind.VSAN: (machine("a", "d", ON_D), vmfs("d", 1, kind=DatastoreKind.VSAN)),
    ObstacleKind.VVOL: (machine("a", "d", ON_D), vmfs("d", 1, kind=DatastoreKind.VVOL)),
    ObstacleKind.LOCAL: (machine("a", "d", ON_D), LOCAL),
    ObstacleKind.NO_DEVICES: (machine("a", "d", ON_D), vmfs("d")),
    ObstacleKind.UNRESOLVED_DEVICE: (machine("a", "d", ON_D), vmfs("d", 1, 9)),
}


@pytest.mark.parametrize("kind", BLOCKED)
def test_every_reason_against_array_protection_is_found(kind: ObstacleKind) -> None:
    vm, datastore = BLOCKED[kind]
    found = obstacles_of(vm, datastore, units=[lun(1)])
    assert [obstacle.kind for obstacle in found] == [kind]
    assert found[0].blocks
    assert found[0].vm_id == "vc/a"
    assert "VM a" in found[0].sentence


def test_a_vm_on_known_units_has_no_obstacle() -> None:
    raw = disk(2001, "d", raw_device=naa(2), **PHYSICAL)
    vm = machine("a", "d", ON_D, raw)
    assert obstacles_of(vm, vmfs("d", 1), units=[lun(1), lun(2)]) == ()
    (missing,) = obstacles_of(vm, vmfs("d", 1), units=[lun(1)])
    assert missing.kind is ObstacleKind.UNRESOLVED_DEVICE
    assert str(naa(2)) in missing.sentence


def test_what_is_left_out_on_purpose_does_not_block() -> None:
    vm = machine(
        "a",
        "d",
        ON_D,
        disk(2001, "far", mode=DiskMode.INDEPENDENT_PERSISTENT),
        disk(2002, "far", raw_device=naa(9), **PHYSICAL),
    )
    stores = (vmfs("d", 1), vmfs("far", 8))
    found = obstacles_of(vm, *stores, units=[lun(1)], physical_raw=False)
    assert [(obstacle.kind, obstacle.blocks) for obstacle in found] == [
        (ObstacleKind.INDEPENDENT_DISK, False),
        (ObstacleKind.PHYSICAL_RAW, False),
    ]
    asked = obstacles_of(vm, *stores, units=[lun(1)], independent=True)
    assert [(obstacle.kind, obstacle.blocks) for obstacle in asked] == [
        (ObstacleKind.UNRESOLVED_DEVICE, True),
        (ObstacleKind.UNRESOLVED_DEVICE, True),
    ]


def test_a_vm_of_which_every_disk_is_left_out_is_blocked() -> None:
    vm = machine("a", "d", disk(2001, "d", mode=DiskMode.INDEPENDENT_PERSISTENT))
    found = obstacles_of(vm, vmfs("d", 1), units=[lun(1)])
    assert [(obstacle.kind, obstacle.blocks) for obstacle in found] == [
        (ObstacleKind.INDEPENDENT_DISK, False),
        (ObstacleKind.NO_DISKS, True),
    ]
    assert obstacles_of(vm, vmfs("d", 1), units=[lun(1)], independent=True) == ()


def test_one_bad_datastore_is_reported_once_per_vm() -> None:
    vm = machine("a", "d", ON_D, disk(2001, "d"))
    (found,) = obstacles_of(vm, vmfs("d", 1))
    assert found.sentence == (
        f"the home of VM a lies on datastore d, of which no known array holds {naa(1)}"
    )


@given(estates())
def test_a_vm_without_blocking_obstacles_is_fully_on_known_units(estate: Estate) -> None:
    topology = Topology(estate)
    found = protectability(topology, topology.vm_ids)
    assert list(found) == list(topology.vm_ids)
    for vm_id, obstacles in found.items():
        if any(obstacle.blocks for obstacle in obstacles):
            continue
        vm = topology.vm(vm_id)
        assert vm.home_datastore_id is not None
        assert topology.placements(vm_id)
        for part in topology.placements(vm_id):
            assert part.units
            if isinstance(part.place, str):
                assert not topology.missing_devices(part.place)
