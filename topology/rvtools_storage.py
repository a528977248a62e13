"""Datastores, devices, units and arrays out of the vDatastore and vMultiPath tabs.

An export knows devices but not arrays: one unit is made per device, and units are grouped into
arrays by vendor and model (LUNs) or by server (NFS), which the report says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..drivers.records import (
    Array,
    Datastore,
    DatastoreId,
    DatastoreKind,
    DeviceIdentity,
    DeviceKind,
    StorageUnit,
)
from .devices import UNKNOWN_ARRAY, DeviceFacts, device_sizes, group_devices, is_local
from .rvtools_compute import Compute, free_id
from .rvtools_read import Row, Table
from .rvtools_report import Tally
from .rvtools_values import device, device_in_vml, export, mebibytes, number, text, word

_KINDS = {
    "vmfs": DatastoreKind.VMFS,
    "nfs": DatastoreKind.NFS,
    "vsan": DatastoreKind.VSAN,
    "vvol": DatastoreKind.VVOL,
}


@dataclass(slots=True)
class _Store:
    """A datastore while it is being put together."""

    id: DatastoreId
    server: str
    name: str
    kind: DatastoreKind
    datacenters: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    listed: bool = True
    """It has a row in vDatastore; else it is known by its name in other tabs."""
    row: Row = field(default_factory=dict)
    devices: dict[DeviceIdentity, None] = field(default_factory=dict)
    unreadable: bool = False
    """One of its devices has a name that cannot be read, so its extents are not all known."""


class Storage:
    """Finds datastores and devices by what the tabs call them, and builds their records."""

    def __init__(self, tables: Mapping[str, Table], compute: Compute, tally: Tally) -> None:
        self._compute = compute
        self._tally = tally
        self._tables = tables
        self._stores: dict[DatastoreId, _Store] = {}
        self._named: dict[tuple[str, str], list[_Store]] = {}
        self._info: dict[DeviceIdentity, DeviceFacts] = {}
        self._raw: dict[DeviceIdentity, int] = {}
        self._read_datastores()
        self._read_paths()

    def _read_datastores(self) -> None:
        table = self._tables.get("vDatastore")
        for row in table.rows if table else ():
            name = text(row, "name")
            if not name:
                continue
            server = self._compute.server(row)
            names = text(row, "hosts").replace(";", ",").replace("\n", ",").split(",")
            hosts = frozenset(host.strip() for host in names if host.strip())
            datacenters = frozenset(
                found for host in hosts if (found := self._compute.datacenter_of(server, host))
            )
            object_id = text(row, "object_id")
            usual = f"{server}/{object_id or name}"
            if object_id and usual in self._stores:
                self._tally.add("datastore doubled", name)
                continue
            store = _Store(
                free_id(usual, self._stores), server, name, _kind(row), datacenters, hosts
            )
            store.row = row
            self._enter(store)

    def _enter(self, store: _Store) -> _Store:
        self._stores[store.id] = store
        self._named.setdefault((store.server, store.name), []).append(store)
        return store

    def locate(self, server: str, name: str, host: str, datacenter: str) -> DatastoreId | None:
        """The datastore that a host or a VM on that host knows under a name.

        A name is unique in a datacenter, not in a vCenter. None when it is ambiguous; a datastore
        that vDatastore does not list is entered by its name.
        """
        store = self._locate(server, name, host, datacenter)
        return store.id if store else None

    def _locate(self, server: str, name: str, host: str, datacenter: str) -> _Store | None:
        known = self._named.get((server, name), [])
        listed = [store for store in known if store.listed]
        if len(listed) > 1:
            near = [store for store in listed if host in store.hosts]
            near = near or [store for store in listed if datacenter in store.datacenters]
            return near[0] if len(near) == 1 else None
        if listed:
            return listed[0]
        for store in known:
            if datacenter in store.datacenters or "" in store.datacenters:
                return store
        if known and not datacenter:
            return known[0] if len(known) == 1 else None
        usual = f"{server}/{datacenter}/{name}" if datacenter else f"{server}/{name}"
        return self._enter(
            _Store(
                free_id(usual, self._stores),
                server,
                name,
                DatastoreKind.OTHER,
                frozenset((datacenter,)),
                listed=False,
            )
        )

    def _read_paths(self) -> None:
        table = self._tables.get("vMultiPath")
        for row in table.rows if table else ():
            name, disk = text(row, "datastore"), text(row, "disk")
            found = (device(disk) or device_in_vml(disk)) if disk else None
            if found is not None:
                self._describe(found, row)
            if not name or not disk:
                continue
            server, host = self._compute.server(row), text(row, "host")
            datacenter = text(row, "datacenter") or self._compute.datacenter_of(server, host)
            store = self._locate(server, name, host, datacenter)
            if store is None:
                self._tally.add("path ambiguous", name)
            elif found is None:
                store.unreadable = True
            else:
                store.devices.setdefault(found)

    def _describe(self, found: DeviceIdentity, row: Row) -> None:
        known = self._info.get(found)
        vendor = text(row, "vendor") or (known.vendor if known else "")
        model = text(row, "model") or (known.model if known else "")
        # ESXi calls a disk of the host itself "Local … Disk"; "ATA" is never an array's vendor.
        local = (
            found.kind is DeviceKind.LOCAL
            or text(row, "display").startswith("Local ")
            or vendor.upper() == "ATA"
            or bool(known and known.local)
        )
        self._info[found] = DeviceFacts(vendor, model, local)

    def raw_device(self, name: str, capacity_bytes: int) -> DeviceIdentity | None:
        """The device of a raw device mapping; remembered as a unit when it is certain.

        Parameters
        ----------
        name:
            The text of ``Raw LUN ID``.
        capacity_bytes:
            The size of the mapping.
        """
        found = device(name)
        if found is None:
            found = device_in_vml(name)
            if found is None:
                return None
            if found not in self._info:
                self._tally.add("raw unconfirmed", name)
                return found
        self._raw[found] = max(capacity_bytes, self._raw.get(found, 0))
        return found

    def records(self) -> tuple[tuple[Datastore, ...], tuple[Array, ...], tuple[StorageUnit, ...]]:
        """The datastores, arrays and units of everything that was located so far."""
        datastores = tuple(self._datastore(store) for store in self._stores.values())
        self._tell_datastores(datastores)
        sizes = device_sizes(datastores, self._raw)
        arrays, units = group_devices(sizes, self._info)
        self._tell_units(units, sizes, arrays)
        return datastores, arrays, tuple(units)

    def _datastore(self, store: _Store) -> Datastore:
        kind = store.kind
        if kind is DatastoreKind.OTHER and store.devices:
            # vMultiPath ties devices to datastores for VMFS only.
            kind = DatastoreKind.VMFS
        return Datastore(
            store.id,
            store.server,
            store.name,
            kind,
            self._extents(store),
            mebibytes(store.row, "capacity"),
            mebibytes(store.row, "free"),
        )

    def _extents(self, store: _Store) -> tuple[DeviceIdentity, ...]:
        """All devices of the datastore, or none: half of the extents would make a torn image."""
        address = text(store.row, "address")
        if store.kind is DatastoreKind.NFS:
            found = export(address) or export(text(store.row, "url"))
            return (found,) if found else ()
        if store.kind in (DatastoreKind.VSAN, DatastoreKind.VVOL) or store.unreadable:
            return ()
        devices = tuple(store.devices)
        if not devices:
            found = device(address)
            devices = (found,) if found else ()
        declared = number(store.row.get("extents"))
        return () if declared is not None and len(devices) < declared else devices

    def _tell_datastores(self, datastores: tuple[Datastore, ...]) -> None:
        for datastore in datastores:
            store = self._stores[datastore.id]
            topic = self._lack(store, datastore)
            if topic:
                self._tally.add(topic, store.name)
            declared = number(store.row.get("extents"))
            if not store.listed and "vDatastore" in self._tables:
                self._tally.add("datastore unlisted", store.name)
            if declared is not None and len(datastore.extents) > declared:
                self._tally.add("extents more", store.name)
            block = bool(datastore.extents) and datastore.kind is not DatastoreKind.NFS
            if block and declared is None and not store.devices:
                self._tally.add("extents guessed", store.name)

    def _lack(self, store: _Store, datastore: Datastore) -> str:
        """What keeps a datastore from being snapshotted by an array; empty when nothing does."""
        if datastore.kind in (DatastoreKind.VSAN, DatastoreKind.VVOL):
            return "no array below"
        if datastore.extents:
            local = any(is_local(found, self._info) for found in datastore.extents)
            return "local" if local else ""
        if datastore.kind is DatastoreKind.NFS:
            return "export unknown"
        if store.devices or store.unreadable or device(text(store.row, "address")):
            return "extents partial"
        return "device unknown" if store.listed else ""

    def _tell_units(
        self,
        units: list[StorageUnit],
        sizes: Mapping[DeviceIdentity, int | None],
        arrays: tuple[Array, ...],
    ) -> None:
        for array in arrays:
            if array.vendor or array.model:
                self._tally.add("array by model", array.name)
            elif array.id != UNKNOWN_ARRAY:
                self._tally.add("array by server", array.name)
        for unit in units:
            if unit.array_id == UNKNOWN_ARRAY:
                self._tally.add("array unknown", unit.name)
            if sizes[unit.devices[0]] is None:
                self._tally.add("unit capacity unknown", unit.name)
            elif unit.devices[0] not in self._raw:
                self._tally.add("unit capacity", unit.name)
        for found in self._info:
            if found not in sizes:
                self._tally.add("device idle", str(found))


def _kind(row: Row) -> DatastoreKind:
    name = word(row, "type")
    return next((kind for key, kind in _KINDS.items() if name.startswith(key)), DatastoreKind.OTHER)
