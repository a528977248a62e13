"""The estate as a typed NetworkX graph: for pictures, exploration and as a cross-check.

Every edge points from what depends to what it depends on, so ``networkx.descendants`` of a VM are
the things it lies on, and ``networkx.ancestors`` of a unit are everything that the unit carries.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from ..drivers.records import Estate, Inventory, Vm

if TYPE_CHECKING:
    import networkx


class NodeKind(StrEnum):
    """What a node stands for; the value of its ``kind`` attribute."""

    VCENTER = "vcenter"
    CLUSTER = "cluster"
    HOST = "host"
    VM = "vm"
    DISK = "disk"
    DATASTORE = "datastore"
    EXTENT = "extent"
    UNIT = "unit"
    ARRAY = "array"


class EdgeKind(StrEnum):
    """Why one node depends on another; the value of the edge's ``kind`` attribute."""

    MANAGES = "manages"
    """vCenter to cluster, lone host, VM without a host."""
    MEMBER = "member"
    """Cluster to host."""
    RUNS = "runs"
    """Host to VM."""
    HOME = "home"
    """VM to the datastore of its configuration files."""
    HAS_DISK = "has-disk"
    """VM to disk."""
    LIES_ON = "lies-on"
    """Disk to the datastore of its file or, of a raw device mapping, of its pointer."""
    RAW = "raw"
    """Disk to the device that a raw device mapping hands through."""
    EXTENT = "extent"
    """Datastore to each of its devices."""
    RESOLVES_TO = "resolves-to"
    """Device to storage unit."""
    PART_OF = "part-of"
    """Storage unit to array."""


Node = tuple[NodeKind, str]
"""A node of the graph. The kind is part of it, since ids are unique within a kind only."""


def disk_node(vm_id: str, key: int) -> Node:
    """The node of a VM's disk."""
    return (NodeKind.DISK, f"{vm_id}:{key}")


def build_network(estate: Estate) -> networkx.DiGraph[Node]:
    """A directed graph of a checked estate; nodes carry ``kind`` and ``name``, edges ``kind``."""
    import networkx

    graph: networkx.DiGraph[Node] = networkx.DiGraph()
    _add_compute(graph, estate.inventory)
    for array in estate.arrays:
        graph.add_node((NodeKind.ARRAY, array.id), kind=NodeKind.ARRAY, name=array.name)
    for unit in estate.units:
        node = (NodeKind.UNIT, unit.id)
        graph.add_node(node, kind=NodeKind.UNIT, name=unit.name)
        graph.add_edge(node, (NodeKind.ARRAY, unit.array_id), kind=EdgeKind.PART_OF)
        for device in unit.devices:
            graph.add_edge(
                _extent(graph, str(device)),
                node,
                kind=EdgeKind.RESOLVES_TO,
            )
    for datastore in estate.inventory.datastores:
        node = (NodeKind.DATASTORE, datastore.id)
        graph.add_node(node, kind=NodeKind.DATASTORE, name=datastore.name)
        for device in datastore.extents:
            graph.add_edge(node, _extent(graph, str(device)), kind=EdgeKind.EXTENT)
    for vm in estate.inventory.vms:
        _add_vm(graph, vm)
    return graph


def _extent(graph: networkx.DiGraph[Node], device: str) -> Node:
    node = (NodeKind.EXTENT, device)
    if node not in graph:
        graph.add_node(node, kind=NodeKind.EXTENT, name=device)
    return node


def _add_compute(graph: networkx.DiGraph[Node], inventory: Inventory) -> None:
    for vcenter in inventory.vcenters:
        graph.add_node((NodeKind.VCENTER, vcenter.id), kind=NodeKind.VCENTER, name=vcenter.name)
    for cluster in inventory.clusters:
        node = (NodeKind.CLUSTER, cluster.id)
        graph.add_node(node, kind=NodeKind.CLUSTER, name=cluster.name)
        graph.add_edge((NodeKind.VCENTER, cluster.vcenter_id), node, kind=EdgeKind.MANAGES)
    for host in inventory.hosts:
        node = (NodeKind.HOST, host.id)
        graph.add_node(node, kind=NodeKind.HOST, name=host.name)
        if host.cluster_id is None:
            graph.add_edge((NodeKind.VCENTER, host.vcenter_id), node, kind=EdgeKind.MANAGES)
        else:
            graph.add_edge((NodeKind.CLUSTER, host.cluster_id), node, kind=EdgeKind.MEMBER)


def _add_vm(graph: networkx.DiGraph[Node], vm: Vm) -> None:
    node = (NodeKind.VM, vm.id)
    graph.add_node(node, kind=NodeKind.VM, name=vm.name)
    if vm.host_id is None:
        graph.add_edge((NodeKind.VCENTER, vm.vcenter_id), node, kind=EdgeKind.MANAGES)
    else:
        graph.add_edge((NodeKind.HOST, vm.host_id), node, kind=EdgeKind.RUNS)
    if vm.home_datastore_id is not None:
        graph.add_edge(node, (NodeKind.DATASTORE, vm.home_datastore_id), kind=EdgeKind.HOME)
    for disk in vm.disks:
        leaf = disk_node(vm.id, disk.key)
        graph.add_node(leaf, kind=NodeKind.DISK, name=disk.path)
        graph.add_edge(node, leaf, kind=EdgeKind.HAS_DISK)
        if disk.datastore_id is not None:
            graph.add_edge(leaf, (NodeKind.DATASTORE, disk.datastore_id), kind=EdgeKind.LIES_ON)
        if disk.raw_device is not None:
            graph.add_edge(leaf, _extent(graph, str(disk.raw_device)), kind=EdgeKind.RAW)
