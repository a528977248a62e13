"""The topology's indexes: against brute force, against the graph, and on bad estates."""

from __future__ import annotations

from dataclasses import replace

import networkx
import pytest
from hypothesis import given
from support_topology import disk, estates, lun, machine, naa, slow_units, small_estate, vmfs

from stillframe.drivers.records import (
    Array,
    Cluster,
    DatastoreKind,
    DiskMode,
    Estate,
    Host,
    Inventory,
    VCenter,
)
from stillframe.errors import StillframeError
from stillframe.topology.graph import Topology
from stillframe.topology.network import EdgeKind, NodeKind, disk_node


@given(estates())
def test_units_of_vm_agree_with_brute_force(estate: Estate) -> None:
    topology = Topology(estate)
    for vm in estate.inventory.vms:
        for physical_raw in (False, True):
            for independent in (False, True):
                options = {"physical_raw": physical_raw, "independent": independent}
                units = topology.units_of_vm(vm.id, **options)
                assert len(set(units)) == len(units)
                assert set(units) == slow_units(estate, vm, **options)
                parts = topology.placements(vm.id, **options)
                assert {unit for part in parts for unit in part.units} == set(units)


@given(estates())
def test_vms_of_unit_are_the_vm_ancestors_of_the_unit_in_the_graph(estate: Estate) -> None:
    topology = Topology(estate)
    order = [vm.id for vm in estate.inventory.vms]
    for unit in estate.units:
        above = networkx.ancestors(topology.graph, (NodeKind.UNIT, unit.id))
        expected = [vm_id for vm_id in order if (NodeKind.VM, vm_id) in above]
        assert list(topology.vms_of_unit(unit.id)) == expected


@given(estates())
def test_device_and_datastore_indexes_agree_with_brute_force(estate: Estate) -> None:
    topology = Topology(estate)
    owner = {device: unit.id for unit in estate.units for device in unit.devices}
    for datastore in estate.inventory.datastores:
        units = [owner[device] for device in datastore.extents if device in owner]
        assert topology.units_of_datastore(datastore.id) == tuple(dict.fromkeys(units))
        missing = tuple(device for device in datastore.extents if device not in owner)
        assert topology.missing_devices(datastore.id) == missing
        assert set(missing) <= set(topology.unresolved)
        for device in datastore.extents:
            assert topology.unit_of_device(device) == owner.get(device)
    assert not set(topology.unresolved) & set(owner)


@given(estates())
def test_every_node_and_edge_of_the_graph_has_a_kind(estate: Estate) -> None:
    graph = Topology(estate).graph
    assert networkx.is_directed_acyclic_graph(graph)
    for node, data in graph.nodes(data=True):
        assert data["kind"] is node[0]
        assert isinstance(data["name"], str)
    assert all(isinstance(kind, EdgeKind) for _, _, kind in graph.edges(data="kind"))


def test_units_of_vm_come_in_the_order_of_home_and_disks() -> None:
    estate = small_estate(
        [vmfs("one", 1), vmfs("two", 3, 2), vmfs("three", 4)],
        [machine("a", "two", disk(2000, "three"), disk(2001, "one"), disk(2002, "two"))],
        [lun(number) for number in range(1, 5)],
    )
    units = Topology(estate).units_of_vm("vc/a")
    assert units == ("array-1/lun-3", "array-1/lun-2", "array-1/lun-4", "array-1/lun-1")


def test_independent_disks_and_raw_mappings_count_as_asked() -> None:
    raw = {"raw_device": naa(4)}
    estate = small_estate(
        [vmfs("home", 1), vmfs("indep", 2), vmfs("pointer", 3)],
        [
            machine(
                "a",
                "home",
                disk(2000, "indep", mode=DiskMode.INDEPENDENT_PERSISTENT),
                # vSphere shows a physical mapping as independent all the same.
                disk(
                    2001,
                    "pointer",
                    raw_is_physical=True,
                    mode=DiskMode.INDEPENDENT_PERSISTENT,
                    **raw,
                ),
            ),
            machine("b", "home", disk(2000, "pointer", **raw)),
        ],
        [lun(number) for number in range(1, 5)],
    )
    topology = Topology(estate)

    def units(vm_id: str, **options: bool) -> list[str]:
        return [
            unit.removeprefix("array-1/lun-") for unit in topology.units_of_vm(vm_id, **options)
        ]

    assert units("vc/a") == ["1", "4"]
    assert units("vc/a", physical_raw=False) == ["1"]
    assert units("vc/a", independent=True) == ["1", "2", "4"]
    assert units("vc/a", physical_raw=False, independent=True) == ["1", "2"]
    assert units("vc/b") == ["1", "3", "4"]
    for unit in "124":
        assert "vc/a" in topology.vms_of_unit(f"array-1/lun-{unit}")
    assert topology.vms_of_unit("array-1/lun-3") == ("vc/a", "vc/b")


def test_a_datastore_in_two_vcenters_is_one_unit() -> None:
    second = replace(vmfs("ds", 1), id="vc2/ds", vcenter_id="vc2")
    vm = machine("a", "ds")
    other = replace(vm, id="vc2/a", vcenter_id="vc2", home_datastore_id="vc2/ds")
    estate = small_estate([vmfs("ds", 1), second], [vm, other], [lun(1)])
    vcenters = (*estate.inventory.vcenters, VCenter("vc2", "vc2"))
    estate = replace(estate, inventory=replace(estate.inventory, vcenters=vcenters))
    assert Topology(estate).vms_of_unit("array-1/lun-1") == ("vc/a", "vc2/a")


def test_the_graph_shows_the_path_from_vcenter_to_array() -> None:
    estate = small_estate([vmfs("ds", 1)], [machine("a", "ds", disk(2000, "ds"))], [lun(1)])
    inventory = replace(
        estate.inventory,
        clusters=(Cluster("c", "vc", "c"),),
        hosts=(Host("h", "vc", "h", "c"),),
        vms=(replace(estate.inventory.vms[0], host_id="h"),),
    )
    graph = Topology(replace(estate, inventory=inventory)).graph
    path = [
        (NodeKind.VCENTER, "vc"),
        (NodeKind.CLUSTER, "c"),
        (NodeKind.HOST, "h"),
        (NodeKind.VM, "vc/a"),
        disk_node("vc/a", 2000),
        (NodeKind.DATASTORE, "vc/ds"),
        (NodeKind.EXTENT, str(naa(1))),
        (NodeKind.UNIT, "array-1/lun-1"),
        (NodeKind.ARRAY, "array-1"),
    ]
    assert networkx.is_path(graph, path)
    assert graph.edges[path[3], path[5]]["kind"] is EdgeKind.HOME
    assert len(graph) == len(path)


VALID = small_estate(
    [vmfs("ds", 1, 2)], [machine("a", "ds", disk(2000, "ds"))], [lun(1), lun(2, "array-2")]
)


def with_inventory(**fields: object) -> Estate:
    return replace(VALID, inventory=replace(VALID.inventory, **fields))


def with_vm(**fields: object) -> Estate:
    return with_inventory(vms=(replace(VALID.inventory.vms[0], **fields),))


VC = VALID.inventory.vcenters[0]
DS = VALID.inventory.datastores[0]
VM = VALID.inventory.vms[0]
ELSEWHERE = VCenter("vc2", "vc2")
BROKEN = {
    "vCenter id 'vc' is used twice": with_inventory(vcenters=(VC, VC)),
    "datastore id 'vc/ds' is used twice": with_inventory(datastores=(DS, DS)),
    "VM id 'vc/a' is used twice": with_inventory(vms=(VM, VM)),
    "unit id 'array-1/lun-1' is used twice": replace(VALID, units=(lun(1), lun(1))),
    "array id 'array-1' is used twice": replace(VALID, arrays=(Array("array-1", "x"),) * 2),
    "cluster id 'c' is used twice": with_inventory(clusters=(Cluster("c", "vc", "c"),) * 2),
    "host id 'h' is used twice": with_inventory(hosts=(Host("h", "vc", "h"),) * 2),
    "unit 'array-9/lun-3' names array 'array-9', which does not exist": replace(
        VALID, units=(lun(3, "array-9"),)
    ),
    "is claimed by units 'array-1/lun-1' and 'array-2/lun-9'": replace(
        VALID, units=(lun(1), replace(lun(9, "array-2"), devices=(naa(1),)))
    ),
    "datastore 'vc/ds' lists one extent twice": with_inventory(
        datastores=(replace(DS, extents=(naa(1), naa(1))),)
    ),
    "datastore 'vc/ds' names vCenter 'vc2', which does not exist": with_inventory(
        datastores=(replace(DS, vcenter_id="vc2"),)
    ),
    "cluster 'c' names vCenter 'vc2', which does not exist": with_inventory(
        clusters=(Cluster("c", "vc2", "c"),)
    ),
    "host 'h' names vCenter 'vc2', which does not exist": with_inventory(
        hosts=(Host("h", "vc2", "h"),)
    ),
    "host 'h' names cluster 'c', which does not exist": with_inventory(
        hosts=(Host("h", "vc", "h", "c"),)
    ),
    "host 'h' of vCenter 'vc' names cluster 'c' of vCenter 'vc2'": with_inventory(
        vcenters=(VC, ELSEWHERE),
        clusters=(Cluster("c", "vc2", "c"),),
        hosts=(Host("h", "vc", "h", "c"),),
    ),
    "VM 'vc/a' names vCenter 'vc9', which does not exist": with_vm(vcenter_id="vc9"),
    "VM 'vc/a' names host 'h', which does not exist": with_vm(host_id="h"),
    "home of VM 'vc/a' names datastore 'vc/x', which does not exist": with_vm(
        home_datastore_id="vc/x"
    ),
    "disk 2001 of VM 'vc/a' names datastore 'vc/x', which does not exist": with_vm(
        disks=(disk(2000, "ds"), disk(2001, "x"))
    ),
    "VM 'vc/a' has two disks with key 2000": with_vm(disks=(disk(2000, "ds"), disk(2000, "ds"))),
    "VM 'vc/a' of vCenter 'vc' names datastore 'vc2/ds' of vCenter 'vc2'": with_inventory(
        vcenters=(VC, ELSEWHERE),
        datastores=(DS, replace(DS, id="vc2/ds", vcenter_id="vc2")),
        vms=(replace(VM, disks=(disk(2000, None, datastore_id="vc2/ds"),)),),
    ),
}


@pytest.mark.parametrize("text", BROKEN)
def test_an_estate_that_contradicts_itself_is_refused(text: str) -> None:
    Topology(VALID)
    with pytest.raises(StillframeError) as error:
        Topology(BROKEN[text])
    assert text in str(error.value)


def test_records_are_found_by_id_and_unknown_ids_are_named() -> None:
    topology = Topology(VALID)
    assert topology.vm("vc/a") is VM
    assert topology.datastore("vc/ds") is DS
    assert topology.unit("array-1/lun-1") == lun(1)
    assert topology.array("array-2").name == "array-2"
    assert topology.vcenter("vc") is VC
    assert topology.has_vm("vc/a")
    assert not topology.has_vm("vc/b")
    assert topology.has_unit("array-1/lun-1")
    assert not topology.has_unit("lun-1")
    assert topology.has_datastore("vc/ds")
    assert not topology.has_datastore("ds")
    assert topology.unit_ids == ("array-1/lun-1", "array-2/lun-2")
    assert topology.vm_ids == ("vc/a",)
    for lookup in (
        topology.vm,
        topology.host,
        topology.cluster,
        topology.unit,
        topology.array,
        topology.datastore,
        topology.vcenter,
        topology.units_of_vm,
        topology.vms_of_unit,
        topology.units_of_datastore,
        topology.missing_devices,
    ):
        with pytest.raises(StillframeError, match="'nothing'"):
            lookup("nothing")
    with pytest.raises(StillframeError, match="no VM 'nothing'"):
        topology.in_vm_order(["nothing"])
    with pytest.raises(StillframeError, match="no storage unit 'nothing'"):
        topology.in_unit_order(["nothing"])


def test_an_empty_estate_has_a_topology() -> None:
    topology = Topology(Estate(Inventory((), (), (), (), ()), (), ()))
    assert topology.vm_ids == topology.unit_ids == topology.unresolved == ()
    assert len(topology.graph) == 0


def test_vms_of_one_datastore_share_their_tuple_of_units() -> None:
    vms = [machine(f"vm{number}", "ds", disk(2000, "ds")) for number in range(3)]
    topology = Topology(small_estate([vmfs("ds", 1, 2)], vms, [lun(1), lun(2)]))
    first, *rest = [topology.units_of_vm(vm.id) for vm in vms]
    assert all(units is first for units in rest)


def test_a_datastore_of_an_unknown_kind_of_storage_has_no_units() -> None:
    estate = small_estate([vmfs("v", kind=DatastoreKind.VSAN)], [machine("a", "v")], [lun(1)])
    topology = Topology(estate)
    assert topology.units_of_datastore("vc/v") == ()
    assert topology.units_of_vm("vc/a") == ()
    assert topology.vms_of_unit("array-1/lun-1") == ()
