"""Where everything lies, as rows for reports: VM by VM, with its part in the job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .drivers.records import DeviceIdentity, UnitId, VmId
from .orchestrator.plan import Plan
from .topology.graph import Placement, Topology

Row = tuple[str, str, str | None, str, str | None, str | None, int | None, int | None, str]


def placement_rows(topology: Topology, plan: Plan) -> list[Row]:
    """One row for each unit under each disk or VM home, in the order of ``reports`` placements.

    ``role`` is ``selected``, ``collateral`` or ``other``; ``component`` numbers the connected
    components of the selection from 1, and is the targeting component for collateral VMs too.
    """
    selected = dict.fromkeys(plan.selected)
    collateral = dict.fromkeys(plan.collateral)
    component_of: dict[UnitId, int] = {
        unit_id: number
        for number, component in enumerate(plan.components, start=1)
        for unit_id in component.unit_ids
    }
    rows: list[Row] = []
    for vm_id in topology.vm_ids:
        role = "selected" if vm_id in selected else "other"
        if vm_id in collateral:
            role = "collateral"
        rows.extend(_rows_of_vm(topology, vm_id, role, component_of))
    return rows


def _rows_of_vm(
    topology: Topology, vm_id: VmId, role: str, component_of: Mapping[UnitId, int]
) -> Iterator[Row]:
    name = topology.vm(vm_id).name
    for placement in topology.placements(vm_id, physical_raw=True, independent=True):
        store_id, kind = _store(topology, placement)
        for unit_id, array_id in _units(topology, placement.units):
            component = component_of.get(unit_id) if unit_id is not None else None
            yield (
                vm_id,
                name,
                store_id,
                kind,
                unit_id,
                array_id,
                placement.disk_key,
                component,
                role,
            )


def _store(topology: Topology, placement: Placement) -> tuple[str | None, str]:
    if isinstance(placement.place, DeviceIdentity):
        return None, "raw"
    return placement.place, topology.datastore(placement.place).kind.value


def _units(
    topology: Topology, unit_ids: Sequence[UnitId]
) -> list[tuple[UnitId | None, str | None]]:
    if not unit_ids:
        return [(None, None)]
    return [(unit_id, topology.unit(unit_id).array_id) for unit_id in unit_ids]
