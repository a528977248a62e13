"""The estate file: a YAML description of vCenters, hosts, arrays, datastores and VMs.

Things are named as people name them. A reference (``host: esx-01``) is an id or, when it is not
ambiguous, a name. Ids may be left out: a vCenter's and an array's is its name, a unit's is
``array/name``, and that of everything else is ``vCenter/name``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..drivers.records import (
    Array,
    Cluster,
    Datastore,
    DatastoreKind,
    DeviceIdentity,
    Disk,
    Estate,
    Host,
    Inventory,
    StorageUnit,
    VCenter,
    Vm,
)
from ..errors import InputError, StillframeError
from .check import check_estate
from .estate_dump import dump_estate
from .estate_names import FIRST_DISK_KEY, Names, default_disk_path, default_id
from .estate_schema import DatastoreEntry, DiskEntry, EstateFile, UnitEntry, VmEntry
from .yamlfile import load_yaml, validate

__all__ = ["dump_estate", "estate_from_data", "estate_json_schema", "load_estate"]


def load_estate(path: Path | str) -> Estate:
    """The estate in a YAML file.

    Parameters
    ----------
    path:
        The file.

    Raises
    ------
    InputError
        It cannot be read, is not YAML, does not follow the schema, or contradicts itself; the
        error names the file, the field (``vms[3].disks[0].datastore``) and the value.
    """
    return estate_from_data(load_yaml(path), str(path))


def estate_from_data(data: dict[str, Any], source: str) -> Estate:
    """The estate in data that was read already; ``source`` is what errors call it.

    Raises
    ------
    InputError
        As :func:`load_estate`.
    """
    estate = _Reader(validate(EstateFile, data, source), source).estate()
    try:
        check_estate(estate)
    except StillframeError as error:
        raise InputError(source, "", error.what, error.advice) from None
    return estate


def estate_json_schema() -> dict[str, Any]:
    """The JSON Schema of estate files, for editors that complete and check as one types."""
    schema = EstateFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


class _Reader:
    """Turns entries into records and resolves their references, remembering where each stood."""

    def __init__(self, file: EstateFile, source: str) -> None:
        self._file = file
        self._source = source
        self._names: dict[str, Names] = {}

    def estate(self) -> Estate:
        vcenters = tuple(
            VCenter(entry.id or entry.name, entry.name, entry.version)
            for entry in self._file.vcenters
        )
        ids = (vcenter.id for vcenter in vcenters)
        self._register("vcenters", ((vc_id, e, None) for vc_id, e in self._pair(ids, "vcenters")))
        clusters = self._clusters()
        hosts = self._hosts({cluster.id: cluster for cluster in clusters})
        arrays, units = self._arrays()
        datastores = self._datastores()
        vms = self._vms(
            {host.id: host for host in hosts}, {store.id: store for store in datastores}
        )
        return Estate(Inventory(vcenters, clusters, hosts, datastores, vms), arrays, units)

    def _pair(self, ids: Iterable[str], section: str) -> Iterable[tuple[str, Any]]:
        return zip(ids, getattr(self._file, section), strict=True)

    def _register(self, section: str, items: Iterable[tuple[str, Any, str | None]]) -> None:
        names = self._names[section] = Names()
        first: dict[str, int] = {}
        for index, (identifier, entry, vcenter_id) in enumerate(items):
            if identifier in first:
                field = f"{section}[{index}].{'name' if entry.id is None else 'id'}"
                problem = f"id {identifier!r} is that of {section}[{first[identifier]}] already"
                advice = "give one of them an id of its own" if entry.id is None else ""
                raise InputError(self._source, field, problem, advice)
            first[identifier] = index
            names.add(identifier, entry.name, vcenter_id)

    def _refer(self, section: str, text: str, field: str, vcenter_id: str | None = None) -> str:
        names = self._names[section]
        found = names.find(text, vcenter_id)
        if len(found) == 1:
            return found[0]
        kind = _SINGULAR[section]
        if found:
            advice = f"write one of the ids {', '.join(map(repr, found[:4]))}"
            problem = f"{kind} {text!r} is ambiguous: {len(found)} have this name"
            raise InputError(self._source, field, problem, advice)
        near = difflib.get_close_matches(text, names.all_names(), n=1)
        advice = f"did you mean {near[0]!r}?" if near else ""
        raise InputError(self._source, field, f"there is no {kind} {text!r}", advice)

    def _vcenter(self, text: str | None, field: str) -> str:
        if text is not None:
            return self._refer("vcenters", text, field)
        vcenters = self._file.vcenters
        if len(vcenters) == 1:
            return vcenters[0].id or vcenters[0].name
        problem = "is missing"
        advice = f"it can be left out when there is one vCenter, but there are {len(vcenters)}"
        raise InputError(self._source, field, problem, advice)

    def _clusters(self) -> tuple[Cluster, ...]:
        found = []
        for index, entry in enumerate(self._file.clusters):
            vcenter_id = self._vcenter(entry.vcenter, f"clusters[{index}].vcenter")
            identifier = entry.id or default_id(vcenter_id, entry.name)
            found.append(Cluster(identifier, vcenter_id, entry.name))
        pairs = zip(found, self._file.clusters, strict=True)
        self._register("clusters", ((c.id, entry, c.vcenter_id) for c, entry in pairs))
        return tuple(found)

    def _hosts(self, clusters: dict[str, Cluster]) -> tuple[Host, ...]:
        found = []
        for index, entry in enumerate(self._file.hosts):
            place = f"hosts[{index}]"
            given = entry.vcenter
            vcenter_id = None if given is None else self._vcenter(given, f"{place}.vcenter")
            cluster_id = None
            if entry.cluster is not None:
                cluster_id = self._refer("clusters", entry.cluster, f"{place}.cluster", vcenter_id)
                vcenter_id = vcenter_id or clusters[cluster_id].vcenter_id
            vcenter_id = vcenter_id or self._vcenter(None, f"{place}.vcenter")
            identifier = entry.id or default_id(vcenter_id, entry.name)
            found.append(Host(identifier, vcenter_id, entry.name, cluster_id, entry.version))
        pairs = zip(found, self._file.hosts, strict=True)
        self._register("hosts", ((host.id, entry, host.vcenter_id) for host, entry in pairs))
        return tuple(found)

    def _arrays(self) -> tuple[tuple[Array, ...], tuple[StorageUnit, ...]]:
        arrays = tuple(
            Array(entry.id or entry.name, entry.name, entry.vendor, entry.model)
            for entry in self._file.arrays
        )
        pairs = zip(arrays, self._file.arrays, strict=True)
        self._register("arrays", ((array.id, entry, None) for array, entry in pairs))
        listed = [
            (array.id, unit, f"arrays[{index}].units[{number}]")
            for index, array in enumerate(arrays)
            for number, unit in enumerate(self._file.arrays[index].units)
        ]
        for index, loose in enumerate(self._file.units):
            place = f"units[{index}]"
            listed.append((self._refer("arrays", loose.array, f"{place}.array"), loose, place))
        return arrays, self._units(listed)

    def _units(self, listed: list[tuple[str, UnitEntry, str]]) -> tuple[StorageUnit, ...]:
        units: list[StorageUnit] = []
        claimed: dict[DeviceIdentity, tuple[str, str]] = {}
        taken: dict[str, str] = {}
        for array_id, entry, place in listed:
            identifier = entry.id or default_id(array_id, entry.name)
            other = taken.setdefault(identifier, place)
            if other != place:
                field = f"{place}.{'id' if entry.id else 'name'}"
                raise InputError(
                    self._source, field, f"id {identifier!r} is that of {other} already"
                )
            self._claim(entry.devices, identifier, place, claimed)
            units.append(
                StorageUnit(
                    identifier, array_id, entry.name, entry.kind, entry.capacity, entry.devices
                )
            )
        return tuple(units)

    def _claim(
        self,
        devices: tuple[DeviceIdentity, ...],
        unit_id: str,
        place: str,
        claimed: dict[DeviceIdentity, tuple[str, str]],
    ) -> None:
        for number, device in enumerate(devices):
            field = f"{place}.devices[{number}]"
            owner, where = claimed.setdefault(device, (unit_id, field))
            if owner != unit_id:
                problem = f"device {str(device)!r} is claimed by unit {owner!r} at {where} already"
                raise InputError(self._source, field, problem)

    def _datastores(self) -> tuple[Datastore, ...]:
        found = []
        for index, entry in enumerate(self._file.datastores):
            place = f"datastores[{index}]"
            vcenter_id = self._vcenter(entry.vcenter, f"{place}.vcenter")
            found.append(
                Datastore(
                    id=entry.id or default_id(vcenter_id, entry.name),
                    vcenter_id=vcenter_id,
                    name=entry.name,
                    kind=entry.kind or (DatastoreKind.NFS if entry.export else DatastoreKind.VMFS),
                    extents=self._extents(entry, place),
                    capacity_bytes=entry.capacity,
                    free_bytes=entry.free,
                )
            )
        pairs = zip(found, self._file.datastores, strict=True)
        self._register("datastores", ((ds.id, entry, ds.vcenter_id) for ds, entry in pairs))
        return tuple(found)

    def _extents(self, entry: DatastoreEntry, place: str) -> tuple[DeviceIdentity, ...]:
        if entry.export is not None:
            if entry.extents:
                problem = "has extents as well"
                raise InputError(self._source, f"{place}.export", problem, "write one of the two")
            return (entry.export,)
        for number, device in enumerate(entry.extents):
            if device in entry.extents[:number]:
                problem = f"device {str(device)!r} is listed twice"
                raise InputError(self._source, f"{place}.extents[{number}]", problem)
        return entry.extents

    def _vms(self, hosts: dict[str, Host], datastores: dict[str, Datastore]) -> tuple[Vm, ...]:
        found = [
            self._vm(entry, f"vms[{index}]", hosts, datastores)
            for index, entry in enumerate(self._file.vms)
        ]
        pairs = zip(found, self._file.vms, strict=True)
        self._register("vms", ((vm.id, entry, vm.vcenter_id) for vm, entry in pairs))
        return tuple(found)

    def _vm(
        self,
        entry: VmEntry,
        place: str,
        hosts: dict[str, Host],
        datastores: dict[str, Datastore],
    ) -> Vm:
        given = entry.vcenter
        vcenter_id = None if given is None else self._vcenter(given, f"{place}.vcenter")
        host_id = None
        if entry.host is not None:
            host_id = self._refer("hosts", entry.host, f"{place}.host", vcenter_id)
            vcenter_id = vcenter_id or hosts[host_id].vcenter_id
        vcenter_id = vcenter_id or self._vcenter(None, f"{place}.vcenter")
        disks = self._disks(entry, place, vcenter_id, datastores)
        home_id = None
        if entry.home is not None:
            home_id = self._refer("datastores", entry.home, f"{place}.home", vcenter_id)
        elif "home" not in entry.model_fields_set and disks:
            home_id = disks[0].datastore_id
        return Vm(
            id=entry.id or default_id(vcenter_id, entry.name),
            vcenter_id=vcenter_id,
            name=entry.name,
            host_id=host_id,
            power_state=entry.power,
            home_datastore_id=home_id,
            disks=disks,
            folder=entry.folder,
            tags=entry.tags,
            is_template=entry.template,
            guest_os=entry.guest_os,
            can_quiesce=entry.can_quiesce,
            snapshot_count=entry.snapshots,
        )

    def _disks(
        self, entry: VmEntry, place: str, vcenter_id: str, datastores: dict[str, Datastore]
    ) -> tuple[Disk, ...]:
        disks: list[Disk] = []
        keys: set[int] = set()
        for index, disk in enumerate(entry.disks):
            field = f"{place}.disks[{index}]"
            key = FIRST_DISK_KEY + index if disk.key is None else disk.key
            if key in keys:
                raise InputError(self._source, f"{field}.key", f"{key} is used twice in this VM")
            keys.add(key)
            disks.append(self._disk(entry, disk, key, index, field, vcenter_id, datastores))
        return tuple(disks)

    def _disk(
        self,
        vm: VmEntry,
        entry: DiskEntry,
        key: int,
        index: int,
        field: str,
        vcenter_id: str,
        datastores: dict[str, Datastore],
    ) -> Disk:
        datastore = None
        if entry.datastore is not None:
            found = self._refer("datastores", entry.datastore, f"{field}.datastore", vcenter_id)
            datastore = datastores[found]
        raw = entry.rdm
        if raw is not None and raw.device is None and not raw.physical:
            problem = "names no device"
            raise InputError(self._source, f"{field}.rdm", problem, "write device: naa.…")
        path = entry.path
        if path is None:
            path = default_disk_path(datastore.name if datastore else None, vm.name, index)
        return Disk(
            key=key,
            path=path,
            datastore_id=datastore.id if datastore else None,
            capacity_bytes=entry.size,
            mode=entry.mode,
            raw_device=raw.device if raw else None,
            raw_is_physical=bool(raw and raw.physical),
        )


_SINGULAR = {
    "vcenters": "vCenter",
    "clusters": "cluster",
    "hosts": "host",
    "arrays": "array",
    "datastores": "datastore",
    "vms": "VM",
}
