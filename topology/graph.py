"""The topology of an estate: which VM lies on which storage unit, and the other way round.

Built once from an :class:`~stillframe.drivers.records.Estate`. What the orchestrator asks in its
hot path is answered from plain dictionaries; the same estate as a NetworkX graph is there for
pictures and exploration and is built when first asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import starmap
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..drivers.records import (
    Array,
    ArrayId,
    Cluster,
    ClusterId,
    Datastore,
    DatastoreId,
    DeviceIdentity,
    Disk,
    DiskMode,
    Estate,
    Host,
    HostId,
    StorageUnit,
    UnitId,
    VCenter,
    VCenterId,
    Vm,
    VmId,
)
from ..errors import StillframeError
from .check import check_estate
from .network import Node, build_network

if TYPE_CHECKING:
    import networkx

_Record = TypeVar("_Record")
_Placement = tuple[int | None, DatastoreId | DeviceIdentity, tuple[UnitId, ...]]
"""The fields of a :class:`Placement`, for those who only pass by."""


class Placement(NamedTuple):
    """One thing of a VM that lies somewhere: its home, a virtual disk, or a raw device.

    Attributes
    ----------
    disk_key:
        The disk's key; None for the VM's home.
    place:
        The datastore's id or, for the data of a raw device mapping, the device.
    units:
        The units under the place; empty when none of its devices is known.
    """

    disk_key: int | None
    place: DatastoreId | DeviceIdentity
    units: tuple[UnitId, ...]


class Topology:
    """An estate with the indexes that select, map and group VMs and units.

    Parameters
    ----------
    estate:
        The records to index.

    Raises
    ------
    StillframeError
        The estate contradicts itself (see :func:`~stillframe.topology.check.check_estate`).
    """

    def __init__(self, estate: Estate) -> None:
        check_estate(estate)
        self.estate = estate
        inventory = estate.inventory
        self._vcenters = {record.id: record for record in inventory.vcenters}
        self._clusters = {record.id: record for record in inventory.clusters}
        self._hosts = {record.id: record for record in inventory.hosts}
        self._datastores = {record.id: record for record in inventory.datastores}
        self._vms = {record.id: record for record in inventory.vms}
        self._units = {record.id: record for record in estate.units}
        self._arrays = {record.id: record for record in estate.arrays}
        self._unit_of_device = {device: unit.id for unit in estate.units for device in unit.devices}
        self._units_of_datastore = {
            datastore.id: self._units_of_devices(datastore.extents)
            for datastore in inventory.datastores
        }
        self._vm_rank = {vm_id: rank for rank, vm_id in enumerate(self._vms)}
        self._unit_rank = {unit_id: rank for rank, unit_id in enumerate(self._units)}
        self._index_vms()

    def _index_vms(self) -> None:
        # VMs of one datastore share one tuple, which keeps 50,000 of them small.
        shared: dict[tuple[UnitId, ...], tuple[UnitId, ...]] = {}
        self._units_of_vm: dict[VmId, tuple[UnitId, ...]] = {}
        # For other questions than the usual one: filled as they are asked.
        self._other_units_of_vm: dict[tuple[VmId, bool, bool], tuple[UnitId, ...]] = {}
        holders: dict[UnitId, list[VmId]] = {unit_id: [] for unit_id in self._units}
        for vm in self.estate.inventory.vms:
            units = self._union_of(vm, True, False)
            self._units_of_vm[vm.id] = shared.setdefault(units, units)
            for unit_id in self._everything(vm, units):
                holders[unit_id].append(vm.id)
        self._vms_of_unit = {unit_id: tuple(vms) for unit_id, vms in holders.items()}

    def _units_of_devices(self, devices: Iterable[DeviceIdentity]) -> tuple[UnitId, ...]:
        units = (self._unit_of_device.get(device) for device in devices)
        return tuple(dict.fromkeys(unit_id for unit_id in units if unit_id is not None))

    def _placements(self, vm: Vm, physical_raw: bool, independent: bool) -> Iterator[_Placement]:
        if vm.home_datastore_id is not None:
            place = vm.home_datastore_id
            yield None, place, self._units_of_datastore[place]
        for disk in vm.disks:
            if not _counts(disk, physical_raw, independent):
                continue
            # The pointer file of a physical mapping holds no data of the guest.
            if disk.datastore_id is not None and not disk.raw_is_physical:
                place = disk.datastore_id
                yield disk.key, place, self._units_of_datastore[place]
            if disk.raw_device is not None:
                device = disk.raw_device
                yield disk.key, device, self._units_of_devices((device,))

    def _union_of(self, vm: Vm, physical_raw: bool, independent: bool) -> tuple[UnitId, ...]:
        return _union(units for _, _, units in self._placements(vm, physical_raw, independent))

    def _everything(self, vm: Vm, known: tuple[UnitId, ...]) -> tuple[UnitId, ...]:
        """``known`` and the units of all that a VM snapshot leaves out, pointer files included."""
        left_out = [disk for disk in vm.disks if not disk.in_vm_snapshot]
        if not left_out:
            return known
        places = (disk.datastore_id for disk in left_out)
        stores = (self._units_of_datastore[place] for place in places if place is not None)
        devices = (disk.raw_device for disk in left_out)
        raw = self._units_of_devices(device for device in devices if device is not None)
        return _union((known, *stores, raw))

    @cached_property
    def graph(self) -> networkx.DiGraph[Node]:
        """The estate as a typed directed graph (see :mod:`stillframe.topology.network`)."""
        return build_network(self.estate)

    @property
    def vm_ids(self) -> tuple[VmId, ...]:
        """Every VM, in estate order."""
        return tuple(self._vms)

    @property
    def unit_ids(self) -> tuple[UnitId, ...]:
        """Every storage unit, in estate order."""
        return tuple(self._units)

    @cached_property
    def unresolved(self) -> tuple[DeviceIdentity, ...]:
        """Devices of datastores and raw mappings that no unit claims, in estate order."""
        inventory = self.estate.inventory
        devices = [device for datastore in inventory.datastores for device in datastore.extents]
        raw = (disk.raw_device for vm in inventory.vms for disk in vm.disks)
        devices.extend(device for device in raw if device is not None)
        return tuple(
            device for device in dict.fromkeys(devices) if device not in self._unit_of_device
        )

    def vcenter(self, vcenter_id: VCenterId) -> VCenter:
        """The vCenter with this id; StillframeError when there is none."""
        return _find(self._vcenters, "vCenter", vcenter_id)

    def cluster(self, cluster_id: ClusterId) -> Cluster:
        """The cluster with this id; StillframeError when there is none."""
        return _find(self._clusters, "cluster", cluster_id)

    def host(self, host_id: HostId) -> Host:
        """The host with this id; StillframeError when there is none."""
        return _find(self._hosts, "host", host_id)

    def vm(self, vm_id: VmId) -> Vm:
        """The VM with this id; StillframeError when there is none."""
        return _find(self._vms, "VM", vm_id)

    def datastore(self, datastore_id: DatastoreId) -> Datastore:
        """The datastore with this id; StillframeError when there is none."""
        return _find(self._datastores, "datastore", datastore_id)

    def unit(self, unit_id: UnitId) -> StorageUnit:
        """The storage unit with this id; StillframeError when there is none."""
        return _find(self._units, "storage unit", unit_id)

    def array(self, array_id: ArrayId) -> Array:
        """The array with this id; StillframeError when there is none."""
        return _find(self._arrays, "array", array_id)

    def has_vm(self, vm_id: VmId) -> bool:
        """Whether the estate holds this VM."""
        return vm_id in self._vms

    def has_datastore(self, datastore_id: DatastoreId) -> bool:
        """Whether the estate holds this datastore."""
        return datastore_id in self._datastores

    def has_unit(self, unit_id: UnitId) -> bool:
        """Whether the estate holds this storage unit."""
        return unit_id in self._units

    def unit_of_device(self, device: DeviceIdentity) -> UnitId | None:
        """The unit that hosts know under this identity; None when no array claims it."""
        return self._unit_of_device.get(device)

    def units_of_datastore(self, datastore_id: DatastoreId) -> tuple[UnitId, ...]:
        """The units under all extents whose device is known, in the order of the extents."""
        return _find(self._units_of_datastore, "datastore", datastore_id)

    def missing_devices(self, datastore_id: DatastoreId) -> tuple[DeviceIdentity, ...]:
        """The datastore's devices that no unit claims; an array snapshot would miss them."""
        extents = self.datastore(datastore_id).extents
        return tuple(device for device in extents if device not in self._unit_of_device)

    def units_of_vm(
        self, vm_id: VmId, *, physical_raw: bool = True, independent: bool = False
    ) -> tuple[UnitId, ...]:
        """The units to snapshot for a VM, in the order of its home and then its disks.

        The home counts always. A virtual raw device mapping counts with its device and its
        pointer file.

        Parameters
        ----------
        vm_id:
            The VM; StillframeError when there is none with this id.
        physical_raw:
            Whether the devices of physical raw device mappings count.
        independent:
            Whether disks count that a VM snapshot leaves out because they are independent.
        """
        if physical_raw and not independent:
            return _find(self._units_of_vm, "VM", vm_id)
        asked = (vm_id, physical_raw, independent)
        units = self._other_units_of_vm.get(asked)
        if units is None:
            units = self._union_of(self.vm(vm_id), physical_raw, independent)
            self._other_units_of_vm[asked] = units
        return units

    def placements(
        self, vm_id: VmId, *, physical_raw: bool = True, independent: bool = False
    ) -> tuple[Placement, ...]:
        """What of a VM lies where; the union of its units is :meth:`units_of_vm`."""
        return tuple(
            starmap(Placement, self._placements(self.vm(vm_id), physical_raw, independent))
        )

    def vms_of_unit(self, unit_id: UnitId) -> tuple[VmId, ...]:
        """Every VM with anything at all on the unit, in estate order (its blast radius).

        Independent disks, raw device mappings and pointer files count.
        """
        return _find(self._vms_of_unit, "storage unit", unit_id)

    def in_vm_order(self, vm_ids: Iterable[VmId]) -> list[VmId]:
        """These VMs without repetitions, in estate order; StillframeError for an unknown one."""
        try:
            return sorted(dict.fromkeys(vm_ids), key=self._vm_rank.__getitem__)
        except KeyError as error:
            raise _unknown("VM", error.args[0]) from None

    def in_unit_order(self, unit_ids: Iterable[UnitId]) -> list[UnitId]:
        """These units without repetitions, in estate order; StillframeError for an unknown one."""
        try:
            return sorted(dict.fromkeys(unit_ids), key=self._unit_rank.__getitem__)
        except KeyError as error:
            raise _unknown("storage unit", error.args[0]) from None


def _counts(disk: Disk, physical_raw: bool, independent: bool) -> bool:
    # vSphere shows a physical mapping as independent; what decides is that it is raw.
    if disk.raw_is_physical:
        return physical_raw
    return independent or disk.mode is DiskMode.PERSISTENT


def _union(parts: Iterable[tuple[UnitId, ...]]) -> tuple[UnitId, ...]:
    """All units of the parts in order of first appearance; a single part is handed through."""
    result: tuple[UnitId, ...] = ()
    for units in parts:
        if not result:
            result = units
        elif units is not result:
            extra = tuple(unit_id for unit_id in units if unit_id not in result)
            result = result + extra if extra else result
    return result


def _find(records: Mapping[str, _Record], kind: str, identifier: str) -> _Record:
    try:
        return records[identifier]
    except KeyError:
        raise _unknown(kind, identifier) from None


def _unknown(kind: str, identifier: str) -> StillframeError:
    return StillframeError(f"the estate holds no {kind} {identifier!r}")
