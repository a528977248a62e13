"""An estate out of inventories that were read from live systems, with what they do not say.

A vCenter knows devices but not arrays. Units that no array driver claims are made from devices, as
for an export (see :mod:`.devices`), and the findings say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..drivers.records import (
    Array,
    Datastore,
    DatastoreKind,
    DeviceIdentity,
    DeviceKind,
    DiskMode,
    Estate,
    Inventory,
    StorageUnit,
)
from .counts import counts_of
from .devices import UNKNOWN_ARRAY, Facts, device_sizes, group_devices, is_local
from .graph import Topology
from .obstacles import protectability
from .rvtools_report import Finding, Report, Severity, many

DATASTORES, DEVICES, VMS = "datastores", "devices", "VMs"


@dataclass(frozen=True, slots=True)
class PulledEstate:
    """What was read, what could not be known, and counts as an import has them."""

    estate: Estate
    findings: tuple[Finding, ...]
    statistics: dict[str, int]


def estate_from_inventory(
    inventory: Inventory,
    facts: Facts,
    arrays: Sequence[Array] = (),
    units: Sequence[StorageUnit] = (),
) -> PulledEstate:
    """The estate of an inventory whose arrays are not, or not all, known.

    Parameters
    ----------
    facts:
        What hosts say about block devices; may be empty.
    arrays, units:
        What array drivers claimed; their devices are left to them.

    Raises
    ------
    StillframeError
        The records contradict each other.
    """
    claimed = {device for unit in units for device in unit.devices}
    sizes = device_sizes(inventory.datastores, _raw_sizes(inventory))
    open_sizes = {device: size for device, size in sizes.items() if device not in claimed}
    made_arrays, made_units = group_devices(open_sizes, facts)
    estate = Estate(inventory, (*arrays, *made_arrays), (*units, *made_units))
    topology = Topology(estate)
    report = Report()
    _report_datastores(inventory.datastores, facts, report)
    _report_units(made_arrays, made_units, open_sizes, report)
    _report_vms(inventory, report)
    obstacles = protectability(topology, topology.vm_ids)
    protectable = sum(not any(one.blocks for one in found) for found in obstacles.values())
    vms = len(inventory.vms)
    severity = Severity.NOTE if protectable else Severity.CANNOT
    sentence = f"{protectable} of {many(vms, 'VM')} can be protected by array snapshots"
    report.add(severity, VMS, "", sentence, protectable)
    sentence = "how much guests write is not known; whoever models them chooses a profile"
    report.add(Severity.ASSUMED, VMS, "", sentence)
    return PulledEstate(estate, report.findings(), counts_of(estate, protectable))


def _raw_sizes(inventory: Inventory) -> dict[DeviceIdentity, int]:
    sizes: dict[DeviceIdentity, int] = {}
    for vm in inventory.vms:
        for disk in vm.disks:
            if disk.raw_device is not None:
                known = sizes.get(disk.raw_device, 0)
                sizes[disk.raw_device] = max(known, disk.capacity_bytes)
    return sizes


def _report_datastores(datastores: Sequence[Datastore], facts: Facts, report: Report) -> None:
    below = (DatastoreKind.VSAN, DatastoreKind.VVOL)
    named: dict[str, list[str]] = {"below": [], "unknown": [], "local": []}
    for store in datastores:
        if store.kind in below:
            named["below"].append(store.name)
        elif not store.extents:
            named["unknown"].append(store.name)
        elif any(is_local(device, facts) for device in store.extents):
            named["local"].append(store.name)
    for topic, sentence in (
        ("below", "vSAN or vVols, no array unit lies below; VMs on them cannot be protected"),
        ("unknown", "the devices below are not known; VMs on them cannot be protected"),
        ("local", "on disks of a host itself; VMs on them cannot be protected"),
    ):
        report.about(Severity.CANNOT, DATASTORES, "", named[topic], "datastore", sentence)


def _report_units(
    arrays: Sequence[Array],
    units: Sequence[StorageUnit],
    sizes: Mapping[DeviceIdentity, int | None],
    report: Report,
) -> None:
    def about(names: list[str], noun: str, sentence: str) -> None:
        report.about(Severity.ASSUMED, DEVICES, "", names, noun, sentence)

    about(
        [array.name for array in arrays if array.vendor or array.model],
        "array",
        "LUNs of the same vendor and model count as one array; a vCenter does not know arrays",
    )
    servers = dict.fromkeys(u.array_id for u in units if u.devices[0].kind is DeviceKind.NFS)
    about(
        [array.name for array in arrays if array.id in servers],
        "NFS server",
        "each counts as an array of its own, and each export as a volume of its own",
    )
    about(
        [unit.name for unit in units if unit.array_id == UNKNOWN_ARRAY],
        "device",
        "vendor and model are not known; all of these count as units of one unknown array",
    )
    about(
        [unit.name for unit in units if sizes[unit.devices[0]] is not None],
        "unit",
        "capacity taken from the datastore, in equal parts for each of its extents, or from the "
        "raw device mapping",
    )
    about(
        [unit.name for unit in units if sizes[unit.devices[0]] is None],
        "unit",
        "capacity not known, counted as 0; a modelled array has no snapshot space for them",
    )


def _report_vms(inventory: Inventory, report: Report) -> None:
    def about(names: list[str], noun: str, sentence: str) -> None:
        report.about(Severity.NOTE, VMS, "", names, noun, sentence)

    vms = inventory.vms
    about(
        [vm.name for vm in vms if vm.snapshot_count],
        "VM",
        "have snapshots already, which a job leaves alone",
    )
    about(
        [vm.name for vm in vms if vm.can_quiesce is False],
        "VM",
        "the guest cannot be quiesced; under policy degrade it is taken crash-consistent",
    )
    physical = [vm.name for vm in vms for disk in vm.disks if disk.raw_is_physical]
    about(physical, "physical raw device mapping", "no VM snapshot holds it still")
    independent = [
        vm.name
        for vm in vms
        for disk in vm.disks
        if disk.mode is not DiskMode.PERSISTENT and not disk.raw_is_physical
    ]
    about(independent, "independent disk", "no VM snapshot holds it still")
