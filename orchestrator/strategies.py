"""How selected VMs are divided into groups: each group is opened, cut and released together.

Few large groups need few array snapshots but keep every VM's snapshot open for as long as the
slowest VM takes; many small groups keep windows short and pay with array snapshots. A strategy is
a function; these four ship, and a Python caller may pass another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..drivers.records import UnitId, Vm, VmId
from ..topology.graph import Topology
from ..topology.queries import components
from .spec import JobSpec, StrategyName


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """VMs that are cut together, and the units the inventory says they need.

    The units are what a dry run shows; the job takes them from snapshot metadata.
    """

    group_id: str
    vm_ids: tuple[VmId, ...]
    unit_ids: tuple[UnitId, ...]


Strategy = Callable[[Topology, Sequence[Vm], JobSpec], list[PlannedGroup]]


def all_at_once(topology: Topology, vms: Sequence[Vm], spec: JobSpec) -> list[PlannedGroup]:
    """One group: one point in time for all, the longest windows."""
    return _named(topology, spec, [[vm.id for vm in vms]])


def per_component(topology: Topology, vms: Sequence[Vm], spec: JobSpec) -> list[PlannedGroup]:
    """One group for each connected component of the VM–unit graph; no VM is ever torn apart."""
    found = components(
        topology,
        [vm.id for vm in vms],
        physical_raw=spec.physical_raw_disks,
        independent=spec.independent_disks,
    )
    return _named(topology, spec, [component.vm_ids for component in found])


def chunks(topology: Topology, vms: Sequence[Vm], spec: JobSpec) -> list[PlannedGroup]:
    """Components cut into groups of at most ``chunk_vms`` VMs: short windows, more snapshots."""
    pieces: list[Sequence[VmId]] = []
    for group in per_component(topology, vms, spec):
        members = group.vm_ids
        pieces.extend(
            members[start : start + spec.chunk_vms]
            for start in range(0, len(members), spec.chunk_vms)
        )
    return _named(topology, spec, pieces)


def per_datastore(topology: Topology, vms: Sequence[Vm], spec: JobSpec) -> list[PlannedGroup]:
    """One group for each home datastore; a VM that spans datastores goes with its home."""
    by_home: dict[str, list[VmId]] = {}
    for vm in vms:
        by_home.setdefault(vm.home_datastore_id or "", []).append(vm.id)
    return _named(topology, spec, by_home.values())


STRATEGIES: dict[StrategyName, Strategy] = {
    StrategyName.ALL_AT_ONCE: all_at_once,
    StrategyName.PER_COMPONENT: per_component,
    StrategyName.CHUNKS: chunks,
    StrategyName.PER_DATASTORE: per_datastore,
}


def _named(
    topology: Topology, spec: JobSpec, members: Iterable[Sequence[VmId]]
) -> list[PlannedGroup]:
    groups = []
    for number, vm_ids in enumerate((ids for ids in members if ids), start=1):
        units: dict[UnitId, None] = {}
        for vm_id in vm_ids:
            units.update(
                dict.fromkeys(
                    topology.units_of_vm(
                        vm_id,
                        physical_raw=spec.physical_raw_disks,
                        independent=spec.independent_disks,
                    )
                )
            )
        groups.append(PlannedGroup(f"g{number:04d}", tuple(vm_ids), tuple(units)))
    return groups
