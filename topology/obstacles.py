"""Why a VM cannot be protected by array snapshots, or not with all of its disks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from ..drivers.records import (
    Datastore,
    DatastoreId,
    DatastoreKind,
    DeviceKind,
    Disk,
    DiskMode,
    Vm,
    VmId,
)
from .graph import Topology


class ObstacleKind(StrEnum):
    """What stands between a VM and an array snapshot of it."""

    TEMPLATE = "template"
    NO_DISKS = "no-disks"
    HOME_UNKNOWN = "home-unknown"
    DISK_LOCATION_UNKNOWN = "disk-location-unknown"
    RAW_DEVICE_UNKNOWN = "raw-device-unknown"
    VSAN = "vsan"
    VVOL = "vvol"
    LOCAL = "local"
    NO_DEVICES = "no-devices"
    UNRESOLVED_DEVICE = "unresolved-device"
    INDEPENDENT_DISK = "independent-disk"
    PHYSICAL_RAW = "physical-raw"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One reason, and one sentence that names the VM and the thing it is about.

    ``blocks`` is False when the VM can be protected all the same, but not with everything it has.
    """

    kind: ObstacleKind
    vm_id: VmId
    sentence: str
    blocks: bool = True


_Fault = tuple[ObstacleKind, str]


def protectability(
    topology: Topology,
    vm_ids: Iterable[VmId],
    *,
    physical_raw: bool = True,
    independent: bool = False,
) -> dict[VmId, tuple[Obstacle, ...]]:
    """The obstacles of every VM asked for, in estate order; an empty tuple means none.

    Parameters
    ----------
    topology:
        The estate.
    vm_ids:
        The VMs to judge.
    physical_raw, independent:
        What is to be protected (see :meth:`Topology.units_of_vm`). What is left out is reported
        as an obstacle that does not block.

    Raises
    ------
    StillframeError
        A VM is not in the estate.
    """
    faults: dict[DatastoreId, _Fault | None] = {}
    return {
        vm_id: tuple(_obstacles(topology, topology.vm(vm_id), faults, physical_raw, independent))
        for vm_id in topology.in_vm_order(vm_ids)
    }


def _obstacles(
    topology: Topology,
    vm: Vm,
    faults: dict[DatastoreId, _Fault | None],
    physical_raw: bool,
    independent: bool,
) -> Iterator[Obstacle]:
    if vm.is_template:
        text = f"VM {vm.name} is a template, of which no VM snapshot can be taken"
        yield Obstacle(ObstacleKind.TEMPLATE, vm.id, text)
    if not vm.disks:
        yield Obstacle(ObstacleKind.NO_DISKS, vm.id, f"VM {vm.name} has no disks")
    places: dict[DatastoreId, str] = {}
    if vm.home_datastore_id is None:
        text = f"the datastore of the home of VM {vm.name} is not known"
        yield Obstacle(ObstacleKind.HOME_UNKNOWN, vm.id, text)
    else:
        places[vm.home_datastore_id] = "the home"
    kept = False
    for disk in vm.disks:
        if disk.raw_is_physical and not physical_raw:
            text = f"disk {disk.key} of VM {vm.name} is a physical raw mapping and is left out"
            yield Obstacle(ObstacleKind.PHYSICAL_RAW, vm.id, text, blocks=False)
        elif not disk.raw_is_physical and disk.mode is not DiskMode.PERSISTENT and not independent:
            text = f"disk {disk.key} of VM {vm.name} is {disk.mode} and is left out"
            yield Obstacle(ObstacleKind.INDEPENDENT_DISK, vm.id, text, blocks=False)
        else:
            kept = True
            yield from _disk_obstacles(topology, vm, disk)
            if disk.datastore_id is not None and not disk.raw_is_physical:
                places.setdefault(disk.datastore_id, f"disk {disk.key}")
    if vm.disks and not kept:
        text = f"no disk of VM {vm.name} would be in the snapshot"
        yield Obstacle(ObstacleKind.NO_DISKS, vm.id, text)
    for datastore_id, what in places.items():
        if datastore_id not in faults:
            faults[datastore_id] = _fault(topology, topology.datastore(datastore_id))
        fault = faults[datastore_id]
        if fault is not None:
            yield Obstacle(fault[0], vm.id, f"{what} of VM {vm.name} lies on {fault[1]}")


def _disk_obstacles(topology: Topology, vm: Vm, disk: Disk) -> Iterator[Obstacle]:
    who = f"disk {disk.key} of VM {vm.name}"
    device = disk.raw_device
    if device is not None:
        if topology.unit_of_device(device) is None:
            text = f"{who} maps device {device}, which no known array holds"
            yield Obstacle(ObstacleKind.UNRESOLVED_DEVICE, vm.id, text)
    elif disk.raw_is_physical:
        text = f"{who} is a physical raw mapping of an unknown device"
        yield Obstacle(ObstacleKind.RAW_DEVICE_UNKNOWN, vm.id, text)
    elif disk.datastore_id is None:
        text = f"the datastore of {who} is not known"
        yield Obstacle(ObstacleKind.DISK_LOCATION_UNKNOWN, vm.id, text)


def _fault(topology: Topology, datastore: Datastore) -> _Fault | None:
    """Why nothing on this datastore can be protected by its array; None when it can."""
    name = f"datastore {datastore.name}"
    if datastore.kind is DatastoreKind.VSAN:
        return ObstacleKind.VSAN, f"{name}, which is vSAN: there is no array below it"
    if datastore.kind is DatastoreKind.VVOL:
        return ObstacleKind.VVOL, f"{name}, which is vVol: a unit per disk, not one to target"
    if not datastore.extents:
        return ObstacleKind.NO_DEVICES, f"{name}, whose devices are not known"
    missing = topology.missing_devices(datastore.id)
    if not missing:
        return None
    listed = ", ".join(str(device) for device in missing)
    if all(device.kind is DeviceKind.LOCAL for device in missing):
        return ObstacleKind.LOCAL, f"{name}, which is on disks local to a host ({listed})"
    return ObstacleKind.UNRESOLVED_DEVICE, f"{name}, of which no known array holds {listed}"
