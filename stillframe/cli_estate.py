"""``stillframe estate``: what an estate holds, and what an export does not say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_common import (
    console,
    count,
    emit_json,
    listed,
    may_write,
    print_table,
    progress,
    say,
    table,
)
from .cli_plan import worth_telling
from .drivers.records import DatastoreId, Estate, VmId
from .orchestrator.spec import JobSpec
from .quantity import format_bytes
from .topology.graph import Topology
from .topology.queries import components, protectability, ties

if TYPE_CHECKING:
    from .topology.queries import Component
    from .topology.rvtools import RvtoolsImport

_ROWS = 25


@dataclass(frozen=True, slots=True)
class EstateView:
    """An estate, and the job that a scenario has for it (all VMs, unless a scenario says)."""

    name: str
    topology: Topology
    spec: JobSpec
    vm_ids: tuple[VmId, ...]


def open_estate(source: str) -> EstateView:
    """The estate in a scenario (shipped or file), an estate file, or an RVTools export.

    Raises
    ------
    InputError
        It is none of these, or cannot be used.
    """
    from .scenarios.schema import LIBRARY, find_scenario, scenario_from_data
    from .topology.yamlfile import load_yaml

    path = Path(source)
    # A folder of results is often called like its scenario: the scenario is meant.
    is_folder = path.is_dir() and not (LIBRARY / f"{source}.yaml").is_file()
    if path.suffix.lower() == ".xlsx" or is_folder:
        from .topology.rvtools import import_rvtools

        return _whole(path.stem, import_rvtools(path).estate)
    path = find_scenario(source)
    data = load_yaml(path)
    if "estate" not in data:
        from .topology.estate import estate_from_data

        return _whole(path.stem, estate_from_data(data, str(path)))
    from .orchestrator.select import select

    scenario = scenario_from_data(data, path)
    topology = Topology(scenario.build_estate())
    chosen = tuple(vm.id for vm in select(topology, scenario.job.select))
    return EstateView(scenario.name, topology, scenario.job, chosen)


def _whole(name: str, estate: Estate) -> EstateView:
    topology = Topology(estate)
    return EstateView(name, topology, JobSpec(), topology.vm_ids)


def import_command(export: Path, out: Path | None, *, force: bool, as_json: bool) -> None:
    """Read an export, say what it lacks, and keep the estate if asked."""
    from .topology.estate import dump_estate
    from .topology.rvtools import import_rvtools

    if out is not None:
        may_write(out, force=force)
    with progress("Importing") as show:
        show("reading the export", None)
        found = import_rvtools(export)
    if out is not None:
        out.write_text(dump_estate(found.estate), encoding="utf-8")
    if as_json:
        emit_json(
            {
                "export": str(export),
                "estate": None if out is None else str(out),
                "statistics": found.statistics,
                "findings": [
                    {
                        "severity": finding.severity.value,
                        "tab": finding.tab,
                        "column": finding.column,
                        "count": finding.count,
                        "sentence": finding.sentence,
                    }
                    for finding in found.findings
                ],
            }
        )
        return
    _print_import(found)
    if out is not None:
        say(f"Estate: {out}")


def _print_import(found: RvtoolsImport) -> None:
    numbers = found.statistics
    out = console()
    out.print(
        f"{count(numbers['vms'], 'VM')} with {count(numbers['disks'], 'disk')} on "
        f"{count(numbers['datastores'], 'datastore')}; {count(numbers['units'], 'unit')} on "
        f"{count(numbers['arrays'], 'array')}; {numbers['protectable_vms']:,} VMs can be protected "
        "by array snapshots.",
        style="bold",
    )
    rows = table("What the export does not say", ("severity", "where", "finding"))
    for finding in found.findings:
        place = f"{finding.tab} {finding.column}".strip()
        rows.add_row(finding.severity.value, place, finding.sentence)
    print_table(rows)


def show_command(source: str, out: Path | None, *, force: bool, as_json: bool) -> None:
    """Summarise an estate, and draw it if asked."""
    if out is not None:
        may_write(out, force=force, suffix=".png")
    view = open_estate(source)
    if out is not None:
        _draw(view, out)
    if as_json:
        emit_json(estate_json(view))
        return
    print_estate(view)
    if out is not None:
        say(f"Picture: {out}")


def _draw(view: EstateView, out: Path) -> None:
    """The topology as a picture, coloured by the components of what a job would select."""
    from .orchestrator.plan import make_plan
    from .placements import placement_rows
    from .reports.fig_topology import topology as topology_figure
    from .reports.rundata import SCHEMAS, RunData
    from .reports.rundata import table as frame

    plan = make_plan(view.topology, view.spec)
    targeting = plan.targeting
    frames = {name: frame((), schema) for name, schema in SCHEMAS.items()}
    frames["placements"] = frame(placement_rows(view.topology, plan), SCHEMAS["placements"])
    job = {
        "selected": len(plan.selected),
        "targeted_units": targeting.units,
        "targeted_bytes": targeting.bytes,
        "estate_units": targeting.units_total,
        "estate_bytes": targeting.bytes_total,
        "collateral": len(plan.collateral),
    }
    figure = topology_figure(RunData(meta={"name": view.name, "job": job}, **frames))
    figure.savefig(out)


def estate_json(view: EstateView) -> dict[str, Any]:
    """A summary of an estate as plain data."""
    topology = view.topology
    inventory = topology.estate.inventory
    homes = _vms_by_datastore(topology)
    found = components(topology, view.vm_ids)
    return {
        "name": view.name,
        "counts": {
            "vcenters": len(inventory.vcenters),
            "clusters": len(inventory.clusters),
            "hosts": len(inventory.hosts),
            "vms": len(inventory.vms),
            "datastores": len(inventory.datastores),
            "arrays": len(topology.estate.arrays),
            "units": len(topology.estate.units),
            "selected": len(view.vm_ids),
        },
        "arrays": [
            {"id": array.id, "name": array.name, "units": units, "bytes": size}
            for array, units, size in _arrays(topology)
        ],
        "units": [
            {
                "id": unit.id,
                "array": unit.array_id,
                "kind": unit.kind.value,
                "bytes": unit.capacity_bytes,
                "vms": len(topology.vms_of_unit(unit.id)),
            }
            for unit in topology.estate.units
        ],
        "datastores": [
            {
                "id": store.id,
                "name": store.name,
                "kind": store.kind.value,
                "units": list(topology.units_of_datastore(store.id)),
                "bytes": store.capacity_bytes,
                "vms": homes[store.id],
            }
            for store in inventory.datastores
        ],
        "components": [
            {
                "vms": list(component.vm_ids),
                "units": list(component.unit_ids),
                "ties": [tie.sentence for tie in ties(topology, component)],
            }
            for component in found
        ],
        "unresolved_devices": [str(device) for device in topology.unresolved],
    }


def print_estate(view: EstateView) -> None:
    """A summary of an estate for people, on stdout."""
    topology, out = view.topology, console()
    inventory = topology.estate.inventory
    out.print(
        f"{view.name}: {count(len(inventory.vms), 'VM')} on "
        f"{count(len(inventory.datastores), 'datastore')}, "
        f"{count(len(inventory.hosts), 'host')}, "
        f"{count(len(topology.estate.units), 'unit')} of "
        f"{count(len(topology.estate.arrays), 'array')}",
        style="bold",
    )
    rows = table("Arrays", ("array", "units", "size"), right=(1, 2))
    for array, units, size in _arrays(topology):
        rows.add_row(array.id, str(units), format_bytes(size))
    print_table(rows)
    _print_units(topology)
    _print_datastores(topology)
    _print_components(view)
    _print_obstacles(view)


def _print_units(topology: Topology) -> None:
    rows = table("Units", ("unit", "kind", "size", "VMs"), right=(2, 3))
    units = topology.estate.units
    for unit in units[:_ROWS]:
        rows.add_row(
            unit.id,
            unit.kind.value,
            format_bytes(unit.capacity_bytes),
            str(len(topology.vms_of_unit(unit.id))),
        )
    print_table(rows, len(units), _ROWS)


def _print_datastores(topology: Topology) -> None:
    homes = _vms_by_datastore(topology)
    rows = table("Datastores", ("datastore", "kind", "units", "size", "VMs"), right=(3, 4))
    stores = topology.estate.inventory.datastores
    for store in stores[:_ROWS]:
        units = topology.units_of_datastore(store.id)
        rows.add_row(
            store.name,
            store.kind.value,
            listed(units, 3) or "none known",
            format_bytes(store.capacity_bytes),
            str(homes[store.id]),
        )
    print_table(rows, len(stores), _ROWS)


def _print_components(view: EstateView) -> None:
    found = sorted(
        components(view.topology, view.vm_ids), key=lambda part: len(part.vm_ids), reverse=True
    )
    scope = "all VMs" if len(view.vm_ids) == len(view.topology.vm_ids) else "selected VMs"
    rows = table(
        f"Components of {scope}: what must be cut at one point in time",
        ("VMs", "units", "arrays", "tied together by"),
        right=(0, 1, 2),
    )
    for component in found[:_ROWS]:
        rows.add_row(
            str(len(component.vm_ids)),
            str(len(component.unit_ids)),
            str(len(component.array_ids)),
            _tie_text(view.topology, component),
        )
    print_table(rows, len(found), _ROWS)


def _tie_text(topology: Topology, component: Component) -> str:
    if len(component.unit_ids) < 2:
        return ""
    found = worth_telling(ties(topology, component), component)
    if found:
        return found[0].sentence
    extents = [
        set(topology.units_of_datastore(store.id)) for store in topology.estate.inventory.datastores
    ]
    one_datastore = any(set(component.unit_ids) <= units for units in extents)
    return "the extents of one datastore" if one_datastore else "no single disk or VM"


def _print_obstacles(view: EstateView) -> None:
    obstacles = [
        obstacle
        for found in protectability(view.topology, view.vm_ids).values()
        for obstacle in found
    ]
    if not obstacles:
        return
    kinds = Counter((obstacle.kind, obstacle.blocks) for obstacle in obstacles)
    examples = {
        (obstacle.kind, obstacle.blocks): obstacle.sentence for obstacle in reversed(obstacles)
    }
    rows = table("What array snapshots cannot hold", ("count", "blocks the VM", "example"), (0,))
    for key, number in kinds.most_common():
        rows.add_row(str(number), "yes" if key[1] else "no", examples[key])
    print_table(rows)


def _arrays(topology: Topology) -> list[tuple[Any, int, int]]:
    return [
        (
            array,
            sum(unit.array_id == array.id for unit in topology.estate.units),
            sum(unit.capacity_bytes for unit in topology.estate.units if unit.array_id == array.id),
        )
        for array in topology.estate.arrays
    ]


def _vms_by_datastore(topology: Topology) -> Counter[DatastoreId]:
    """How many VMs have their home or a disk on each datastore."""
    found: Counter[DatastoreId] = Counter()
    for vm in topology.estate.inventory.vms:
        places: Sequence[DatastoreId | None] = (
            vm.home_datastore_id,
            *(disk.datastore_id for disk in vm.disks),
        )
        found.update({place for place in places if place is not None})
    return found
