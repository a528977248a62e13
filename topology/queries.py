"""What a selection of VMs means for storage: groups, targets, bystanders, obstacles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..drivers.records import ArrayId, UnitId, VmId
from .graph import Topology
from .obstacles import Obstacle, ObstacleKind, protectability
from .ties import Tie, ties

__all__ = [
    "Component",
    "Obstacle",
    "ObstacleKind",
    "Targeting",
    "Tie",
    "collateral",
    "components",
    "protectability",
    "targeting_ratio",
    "ties",
]


@dataclass(frozen=True, slots=True)
class Component:
    """Selected VMs that hang together through units, and which must be cut at one point in time.

    All three fields are in estate order. A VM without any known unit is a component of its own,
    with no units.
    """

    vm_ids: tuple[VmId, ...]
    unit_ids: tuple[UnitId, ...]
    array_ids: tuple[ArrayId, ...]


@dataclass(frozen=True, slots=True)
class Targeting:
    """How much of the estate's storage a set of units is: counts and bytes of capacity."""

    units: int
    units_total: int
    bytes: int
    bytes_total: int

    @property
    def ratio(self) -> float | None:
        """Share of the capacity that is targeted, 0 to 1; None when no capacity is known."""
        return self.bytes / self.bytes_total if self.bytes_total else None


def components(
    topology: Topology,
    vm_ids: Iterable[VmId],
    *,
    physical_raw: bool = True,
    independent: bool = False,
) -> list[Component]:
    """The connected components of the VM–unit graph, restricted to a selection.

    Parameters
    ----------
    topology:
        The estate.
    vm_ids:
        The selected VMs; repetitions count once.
    physical_raw, independent:
        What counts as lying on a unit (see :meth:`Topology.units_of_vm`).

    Returns
    -------
    list[Component]
        In estate order of the first VM of each.

    Raises
    ------
    StillframeError
        A VM is not in the estate.
    """
    selected = topology.in_vm_order(vm_ids)
    parent: dict[UnitId, UnitId] = {}
    anchors: list[UnitId | None] = []
    for vm_id in selected:
        units = topology.units_of_vm(vm_id, physical_raw=physical_raw, independent=independent)
        for unit_id in units:
            parent.setdefault(unit_id, unit_id)
        for unit_id in units[1:]:
            parent[_root(parent, unit_id)] = _root(parent, units[0])
        anchors.append(units[0] if units else None)
    vms: dict[object, list[VmId]] = {}
    for vm_id, anchor in zip(selected, anchors, strict=True):
        # A VM without units gets a key that no unit has: a tuple.
        key: object = (vm_id,) if anchor is None else _root(parent, anchor)
        vms.setdefault(key, []).append(vm_id)
    units_of: dict[object, list[UnitId]] = {}
    for unit_id in topology.in_unit_order(parent):
        units_of.setdefault(_root(parent, unit_id), []).append(unit_id)
    return [_component(topology, members, units_of.get(key, [])) for key, members in vms.items()]


def _component(topology: Topology, vm_ids: list[VmId], unit_ids: list[UnitId]) -> Component:
    used = {topology.unit(unit_id).array_id for unit_id in unit_ids}
    arrays = tuple(array.id for array in topology.estate.arrays if array.id in used)
    return Component(tuple(vm_ids), tuple(unit_ids), arrays)


def _root(parent: dict[UnitId, UnitId], unit_id: UnitId) -> UnitId:
    root = unit_id
    while parent[root] != root:
        root = parent[root]
    while parent[unit_id] != root:
        parent[unit_id], unit_id = root, parent[unit_id]
    return root


def collateral(
    topology: Topology, vm_ids: Iterable[VmId], unit_ids: Iterable[UnitId]
) -> tuple[VmId, ...]:
    """The VMs that were not selected but have something on a targeted unit, in estate order.

    Raises
    ------
    StillframeError
        A unit is not in the estate.
    """
    selected = set(vm_ids)
    touched = (vm_id for unit_id in unit_ids for vm_id in topology.vms_of_unit(unit_id))
    return tuple(topology.in_vm_order(vm_id for vm_id in touched if vm_id not in selected))


def targeting_ratio(topology: Topology, unit_ids: Iterable[UnitId]) -> Targeting:
    """How many units, and how many bytes of capacity, of all units these are.

    Raises
    ------
    StillframeError
        A unit is not in the estate.
    """
    units = [topology.unit(unit_id) for unit_id in dict.fromkeys(unit_ids)]
    every = topology.estate.units
    return Targeting(
        units=len(units),
        units_total=len(every),
        bytes=sum(unit.capacity_bytes for unit in units),
        bytes_total=sum(unit.capacity_bytes for unit in every),
    )
