"""Writing an estate as a YAML file that reads back to exactly the same records."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from ..drivers.records import (
    Datastore,
    DatastoreKind,
    DeviceKind,
    Disk,
    DiskMode,
    Estate,
    PowerState,
    StorageUnit,
    UnitKind,
    Vm,
)
from ..quantity import dump_bytes
from .estate_names import FIRST_DISK_KEY, Names, default_disk_path, default_id
from .yamlfile import CORE_SCHEMA

_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):  # type: ignore[misc]
    """The safe dumper that quotes what either YAML 1.1 or 1.2 would not read as text."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


for _tag, _pattern, _first in CORE_SCHEMA:
    _starts = ["" if character == "\0" else character for character in _first]
    _Dumper.add_implicit_resolver(_tag, re.compile(_pattern), _starts)


def dump_estate(estate: Estate) -> str:
    """The estate as YAML; ``load_estate`` reads back an equal estate.

    What follows from a default is left out, and references are names where those are unambiguous.

    Parameters
    ----------
    estate:
        An estate that :func:`~stillframe.topology.check.check_estate` accepts, with non-empty
        names and device identities in their normal form.
    """
    text: str = yaml.dump(
        _Writer(estate).file(),
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
        width=100,
    )
    return text


class _Writer:
    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        inventory = estate.inventory
        self._vcenters = _names((v.id, v.name, None) for v in inventory.vcenters)
        self._clusters = _names((c.id, c.name, c.vcenter_id) for c in inventory.clusters)
        self._hosts = _names((h.id, h.name, h.vcenter_id) for h in inventory.hosts)
        self._datastores = _names((d.id, d.name, d.vcenter_id) for d in inventory.datastores)
        self._names_of = {
            "vcenter": {record.id: record.name for record in inventory.vcenters},
            "cluster": {record.id: record.name for record in inventory.clusters},
            "host": {record.id: record.name for record in inventory.hosts},
            "datastore": {record.id: record.name for record in inventory.datastores},
        }
        alone = len(inventory.vcenters) == 1
        self._only_vcenter = inventory.vcenters[0].id if alone else None

    def file(self) -> dict[str, Any]:
        inventory = self._estate.inventory
        sections: dict[str, list[dict[str, Any]]] = {
            "vcenters": [
                _entry(vc.id, vc.name, vc.name, version=vc.version or None)
                for vc in inventory.vcenters
            ],
            "clusters": [
                _entry(
                    c.id,
                    c.name,
                    default_id(c.vcenter_id, c.name),
                    vcenter=self._vcenter(c.vcenter_id),
                )
                for c in inventory.clusters
            ],
            "hosts": [
                _entry(
                    host.id,
                    host.name,
                    default_id(host.vcenter_id, host.name),
                    vcenter=None if host.cluster_id else self._vcenter(host.vcenter_id),
                    cluster=self._cluster(host.cluster_id),
                    version=host.version or None,
                )
                for host in inventory.hosts
            ],
            "arrays": self._arrays(),
            "units": [] if self._units_nest() else self._units(self._estate.units, nested=False),
            "datastores": [self._datastore(datastore) for datastore in inventory.datastores],
            "vms": [self._vm(vm) for vm in inventory.vms],
        }
        return {name: entries for name, entries in sections.items() if entries} or {"vms": []}

    def _vcenter(self, vcenter_id: str) -> str | None:
        if vcenter_id == self._only_vcenter:
            return None
        return self._vcenters.shortest(vcenter_id, self._names_of["vcenter"][vcenter_id], None)

    def _cluster(self, cluster_id: str | None) -> str | None:
        # Without a vCenter beside it, a cluster's name has to be the only one of its kind.
        if cluster_id is None:
            return None
        return self._clusters.shortest(cluster_id, self._names_of["cluster"][cluster_id], None)

    def _store(self, datastore_id: str, vcenter_id: str) -> str:
        name = self._names_of["datastore"][datastore_id]
        return self._datastores.shortest(datastore_id, name, vcenter_id)

    def _units_nest(self) -> bool:
        """Whether units under their arrays come in the order that the estate has them in."""
        rank = {array.id: position for position, array in enumerate(self._estate.arrays)}
        order = [rank[unit.array_id] for unit in self._estate.units]
        return order == sorted(order)

    def _arrays(self) -> list[dict[str, Any]]:
        units: dict[str, list[StorageUnit]] = {array.id: [] for array in self._estate.arrays}
        if self._units_nest():
            for unit in self._estate.units:
                units[unit.array_id].append(unit)
        return [
            _entry(
                array.id,
                array.name,
                array.name,
                vendor=array.vendor or None,
                model=array.model or None,
                units=self._units(units[array.id], nested=True) or None,
            )
            for array in self._estate.arrays
        ]

    def _units(self, units: Iterable[StorageUnit], nested: bool) -> list[dict[str, Any]]:
        return [
            _entry(
                unit.id,
                unit.name,
                default_id(unit.array_id, unit.name),
                array=None if nested else unit.array_id,
                kind=None if unit.kind is UnitKind.LUN else unit.kind.value,
                capacity=dump_bytes(unit.capacity_bytes),
                devices=[str(device) for device in unit.devices] or None,
            )
            for unit in units
        ]

    def _datastore(self, datastore: Datastore) -> dict[str, Any]:
        extents = datastore.extents
        export = len(extents) == 1 and extents[0].kind is DeviceKind.NFS
        assumed = DatastoreKind.NFS if export else DatastoreKind.VMFS
        return _entry(
            datastore.id,
            datastore.name,
            default_id(datastore.vcenter_id, datastore.name),
            vcenter=self._vcenter(datastore.vcenter_id),
            kind=None if datastore.kind is assumed else datastore.kind.value,
            extents=[str(device) for device in extents] if extents and not export else None,
            export=str(extents[0]) if export else None,
            capacity=_bytes(datastore.capacity_bytes),
            free=_bytes(datastore.free_bytes),
        )

    def _vm(self, vm: Vm) -> dict[str, Any]:
        host = None
        if vm.host_id is not None:
            host = self._hosts.shortest(vm.host_id, self._names_of["host"][vm.host_id], None)
        entry = _entry(
            vm.id,
            vm.name,
            default_id(vm.vcenter_id, vm.name),
            vcenter=None if host else self._vcenter(vm.vcenter_id),
            host=host,
            power=None if vm.power_state is PowerState.ON else vm.power_state.value,
        )
        if vm.home_datastore_id != (vm.disks[0].datastore_id if vm.disks else None):
            home = vm.home_datastore_id
            # An explicit null says "not known", which leaving the key out does not.
            entry["home"] = None if home is None else self._store(home, vm.vcenter_id)
        rest = {
            "disks": [self._disk(vm, disk, index) for index, disk in enumerate(vm.disks)],
            "folder": vm.folder,
            "tags": list(vm.tags),
            "template": vm.is_template,
            "guest_os": vm.guest_os,
            "snapshots": vm.snapshot_count,
        }
        entry.update((key, value) for key, value in rest.items() if value)
        if vm.can_quiesce is not None:
            entry["can_quiesce"] = vm.can_quiesce
        return entry

    def _disk(self, vm: Vm, disk: Disk, index: int) -> dict[str, Any]:
        entry: dict[str, Any] = {}
        name = None
        if disk.datastore_id is not None:
            entry["datastore"] = self._store(disk.datastore_id, vm.vcenter_id)
            name = self._names_of["datastore"][disk.datastore_id]
        entry["size"] = dump_bytes(disk.capacity_bytes)
        if disk.mode is not DiskMode.PERSISTENT:
            entry["mode"] = disk.mode.value
        if disk.raw_device is not None or disk.raw_is_physical:
            entry["rdm"] = {"device": str(disk.raw_device)} if disk.raw_device else {}
            if disk.raw_is_physical:
                entry["rdm"]["physical"] = True
        if disk.key != FIRST_DISK_KEY + index:
            entry["key"] = disk.key
        if disk.path != default_disk_path(name, vm.name, index):
            entry["path"] = disk.path
        return entry


def _names(items: Iterable[tuple[str, str, str | None]]) -> Names:
    names = Names()
    for identifier, name, vcenter_id in items:
        names.add(identifier, name, vcenter_id)
    return names


def _entry(identifier: str, name: str, usual_id: str, **fields: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name}
    if identifier != usual_id:
        entry["id"] = identifier
    entry.update((key, value) for key, value in fields.items() if value is not None)
    return entry


def _bytes(value: int | None) -> str | None:
    return None if value is None else dump_bytes(value)
