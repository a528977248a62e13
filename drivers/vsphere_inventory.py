"""The inventory of one vCenter, read by named paths: hosts, datastores, VMs and their disks.

Two passes: a small one over everything, then the VMs with their devices in batches, so that no
answer is larger than a few megabytes however many VMs there are. A VM that goes away in between is
left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from .records import (
    Cluster,
    Datastore,
    DatastoreId,
    Disk,
    Host,
    Inventory,
    PowerState,
    VCenter,
    Vm,
)
from .vsphere_devices import Luns, datastore_kind, extents_of
from .vsphere_disks import DiskFacts, DiskFile, datastore_name, disks_of
from .vsphere_location import POWER, snapshot_nodes
from .vsphere_properties import BATCH, Found, Wanted, read_all, read_objects
from .vsphere_session import Session
from .vsphere_wire import text

T = TypeVar("T")
U = TypeVar("U")

Progress = Callable[[int, int], None]
"""Called with the number of VMs that have been read, and the number of all VMs."""

TOOLS_RUNNING = "guestToolsRunning"

_EVERYTHING = (
    Wanted("Datacenter", ("name", "parent")),
    Wanted("Folder", ("name", "parent")),
    Wanted("ClusterComputeResource", ("name",)),
    Wanted("HostSystem", ("name", "parent", "config.product.version")),
    Wanted(
        "Datastore",
        ("name", "summary.type", "summary.capacity", "summary.freeSpace", "info"),
    ),
    Wanted("VirtualMachine", ("name",)),
)
_VM = Wanted(
    "VirtualMachine",
    (
        "name",
        "parent",
        "datastore",
        "runtime.host",
        "runtime.powerState",
        "config.template",
        "config.guestFullName",
        "config.files.vmPathName",
        "config.hardware.device",
        "guest.toolsRunningStatus",
        "snapshot",
    ),
)


class InventoryReader:
    """Reads the whole inventory (blocks).

    Parameters
    ----------
    luns:
        Identities of LUNs, shared with whoever else needs them.
    """

    def __init__(self, session: Session, luns: Luns) -> None:
        self._session = session
        self._luns = luns
        self._prefix = f"{session.system_id}/"
        self._found: dict[str, dict[str, Found]] = {}
        self._folders: dict[str, str] = {}

    def read(self, progress: Progress | None = None) -> Inventory:
        """Everything that the user may see; raises what :func:`read_objects` raises."""
        self._found = {one.type: {} for one in _EVERYTHING}
        for one in read_all(self._session, _EVERYTHING):
            if one.type in self._found:
                self._found[one.type][one.id] = one
        session, own = self._session, self._session.system_id
        vcenter = VCenter(own, session.content.name or own, session.content.version)
        return Inventory(
            vcenters=(vcenter,),
            clusters=tuple(self._cluster(one) for one in self._all("ClusterComputeResource")),
            hosts=tuple(self._host(one) for one in self._all("HostSystem")),
            datastores=tuple(self._datastore(one) for one in self._all("Datastore")),
            vms=tuple(self._vms(progress)),
        )

    def _all(self, object_type: str) -> list[Found]:
        return sorted(self._found[object_type].values(), key=lambda one: (one.text("name"), one.id))

    def _id(self, moid: str) -> str | None:
        return self._prefix + moid if moid else None

    def _cluster(self, cluster: Found) -> Cluster:
        own = self._session.system_id
        return Cluster(self._prefix + cluster.id, own, _name(cluster))

    def _host(self, host: Found) -> Host:
        parent = host.text("parent")
        in_cluster = parent in self._found["ClusterComputeResource"]
        return Host(
            self._prefix + host.id,
            self._session.system_id,
            _name(host),
            cluster_id=self._id(parent) if in_cluster else None,
            version=host.text("config.product.version"),
        )

    def _datastore(self, store: Found) -> Datastore:
        return Datastore(
            self._prefix + store.id,
            self._session.system_id,
            store.text("name"),
            datastore_kind(store.text("summary.type")),
            extents_of(store.values.get("info")),
            _bytes(store.text("summary.capacity")),
            _bytes(store.text("summary.freeSpace")),
        )

    def _vms(self, progress: Progress | None) -> Iterable[Vm]:
        ids = [one.id for one in self._all("VirtualMachine")]
        if progress is not None:
            progress(0, len(ids))
        done = 0
        batches = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
        # What was parsed is let go of with each batch: it is many times the records' size.
        for vms in _ahead(lambda batch: read_objects(self._session, [_VM], batch), batches):
            yield from self._batch(vms)
            done += BATCH
            if progress is not None:
                progress(min(done, len(ids)), len(ids))

    def _batch(self, vms: Sequence[Found]) -> Iterable[Vm]:
        disks = {one.id: disks_of(one.values.get("config.hardware.device")) for one in vms}
        uuids = [disk.lun_uuid for one in vms for disk in disks[one.id] if disk.lun_uuid]
        if uuids:
            hosts = dict.fromkeys(
                one.text("runtime.host")
                for one in vms
                if any(disk.lun_uuid for disk in disks[one.id])
            )
            self._luns.learn(self._session, uuids, [host for host in hosts if host])
        for one in vms:
            yield self._vm(one, disks[one.id])

    def _vm(self, vm: Found, disks: Sequence[DiskFacts]) -> Vm:
        stores = self._stores(vm)
        power = POWER.get(vm.text("runtime.powerState"), PowerState.OFF)
        tools = vm.text("guest.toolsRunningStatus")
        known = power is PowerState.ON and bool(tools)
        return Vm(
            id=self._prefix + vm.id,
            vcenter_id=self._session.system_id,
            name=_name(vm),
            host_id=self._id(vm.text("runtime.host")),
            power_state=power,
            home_datastore_id=self._store(DiskFile(vm.text("config.files.vmPathName"), ""), stores),
            disks=tuple(self._disk(disk, stores) for disk in disks),
            folder=self._folder(vm.text("parent")),
            is_template=vm.text("config.template") == "true",
            guest_os=vm.text("config.guestFullName"),
            can_quiesce=tools == TOOLS_RUNNING if known else None,
            snapshot_count=sum(1 for _ in snapshot_nodes(vm.values.get("snapshot"))),
        )

    def _disk(self, disk: DiskFacts, stores: Mapping[str, str]) -> Disk:
        """The record of a disk; it lies where its base lies."""
        base = disk.chain[-1] if disk.chain else DiskFile("", "")
        return Disk(
            key=disk.key,
            path=base.path,
            datastore_id=self._store(base, stores),
            capacity_bytes=disk.capacity_bytes,
            mode=disk.mode,
            raw_device=self._luns.identity(disk.lun_uuid) if disk.lun_uuid else None,
            raw_is_physical=disk.lun_is_physical,
        )

    def _stores(self, vm: Found) -> dict[str, str]:
        """The VM's own datastores by name: names are unique in one datacenter only."""
        known = self._found["Datastore"]
        ids = [text(one) for one in vm.values.get("datastore", ())]
        return {known[one].text("name"): one for one in ids if one in known}

    def _store(self, file: DiskFile, stores: Mapping[str, str]) -> DatastoreId | None:
        if file.datastore:
            return self._prefix + file.datastore
        return self._id(stores.get(datastore_name(file.path), ""))

    def _folder(self, moid: str) -> str:
        """The path of a folder of VMs: ``/datacenter/folder/folder``.

        A datacenter keeps its VMs under a folder of its own that no client shows.
        """
        if not moid:
            return ""
        if moid not in self._folders:
            self._folders[moid] = self._folder_path(moid)
        return self._folders[moid]

    def _folder_path(self, moid: str) -> str:
        datacenters, folders = self._found["Datacenter"], self._found["Folder"]
        if moid in datacenters:
            found = datacenters[moid]
            return f"{self._folder(found.text('parent'))}/{_name(found)}"
        if moid not in folders:
            return ""
        found = folders[moid]
        parent = found.text("parent")
        if parent in datacenters:
            return self._folder(parent)
        above = self._folder(parent)
        return f"{above}/{_name(found)}" if parent in folders else above


def _name(found: Found) -> str:
    """An object's name as people know it: a vCenter keeps three characters of it escaped."""
    name = found.text("name")
    for escaped, plain in (("%2f", "/"), ("%5c", "\\"), ("%25", "%")):  # "%" last
        name = name.replace(escaped, plain).replace(escaped.upper(), plain)
    return name


def _bytes(number: str) -> int | None:
    return int(number) if number else None


def _ahead(function: Callable[[T], U], items: Iterable[T], depth: int = 2) -> Iterator[U]:
    """The function's answers in order; while one is worked on, the next are being asked for.

    The vCenter gathers one batch while the one before is parsed here.
    """
    with ThreadPoolExecutor(depth) as pool:
        asked: deque[Future[U]] = deque()
        for item in items:
            asked.append(pool.submit(function, item))
            if len(asked) > depth:
                yield asked.popleft().result()
        while asked:
            yield asked.popleft().result()
