"""Where VMs lie and which snapshots they have, read for many VMs at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from .contracts import FileLocation, FileRole, RawDevice, VmLocation
from .records import DatastoreId, PowerState
from .vsphere_devices import Luns
from .vsphere_disks import DiskFacts, DiskFile, datastore_name, disks_of
from .vsphere_properties import Found, Step, Wanted, read_objects
from .vsphere_session import Session
from .vsphere_wire import children, flag, text

_VM = Wanted(
    "VirtualMachine",
    (
        "config.files.vmPathName",
        "config.hardware.device",
        "datastore",
        "layoutEx.file",
        "runtime.consolidationNeeded",
        "runtime.host",
        "runtime.powerState",
        "snapshot",
    ),
)
_STORE = Wanted("Datastore", ("name",))
_TO_STORES = Step("VirtualMachine", "datastore")

POWER = {
    "poweredOn": PowerState.ON,
    "poweredOff": PowerState.OFF,
    "suspended": PowerState.SUSPENDED,
}

_CONFIG_FILES = frozenset(
    (
        "config",
        "extendedConfig",
        "nvram",
        "snapshotList",
        "snapshotData",
        "snapshotManifestList",
        "snapshotMemory",
        "suspend",
        "suspendMemory",
        "digestDescriptor",
        "dataSetsDiskModeStore",
        "dataSetsVmModeStore",
    )
)
"""Types of ``layoutEx`` files that a restored VM needs. Swap and logs are made anew; counting
them would tie a VM to the local disk that its swap may lie on."""


class SnapshotNode(NamedTuple):
    """One snapshot in a VM's tree."""

    id: str
    name: str
    quiesced: bool


class VmFacts(NamedTuple):
    """What one VM looks like at the moment of the answer; identifiers are the vCenter's own."""

    id: str
    power_state: PowerState
    snapshots: tuple[SnapshotNode, ...]
    needs_consolidation: bool
    location: VmLocation


def snapshot_nodes(info: Element | None) -> Iterator[SnapshotNode]:
    """All snapshots in a VM's ``snapshot`` property, parents before children."""
    todo = list(children(info, "rootSnapshotList"))
    while todo:
        node = todo.pop(0)
        yield SnapshotNode(text(node, "snapshot"), text(node, "name"), flag(node, "quiesced"))
        todo[:0] = children(node, "childSnapshotList")


class Locator:
    """Reads where VMs lie (blocks).

    Parameters
    ----------
    system_id:
        Prefix of the identifiers that go into records.
    """

    def __init__(self, session: Session, luns: Luns) -> None:
        self._session = session
        self._luns = luns
        self._prefix = f"{session.system_id}/"

    def read(self, vm_ids: Sequence[str]) -> dict[str, VmFacts]:
        """The VMs that exist, by the vCenter's identifier; one request per batch.

        Datastore names come with the same answer: a path names its datastore only by name, and
        names change.

        Raises
        ------
        MethodFault
            Also when a property is kept from this user.
        """
        found = read_objects(self._session, [_VM, _STORE], vm_ids, steps=[_TO_STORES])
        names = {one.id: one.text("name") for one in found if one.type == "Datastore"}
        vms = [one for one in found if one.type == "VirtualMachine"]
        for one in vms:
            one.check()
        disks = {one.id: disks_of(one.values.get("config.hardware.device")) for one in vms}
        self._learn_luns(vms, disks)
        return {one.id: self._facts(one, disks[one.id], names) for one in vms}

    def _learn_luns(self, vms: Sequence[Found], disks: Mapping[str, tuple[DiskFacts, ...]]) -> None:
        uuids = {one.id: [d.lun_uuid for d in disks[one.id] if d.lun_uuid] for one in vms}
        mapped = [one for one in vms if uuids[one.id]]
        if mapped:
            hosts = dict.fromkeys(one.text("runtime.host") for one in mapped)
            wanted = [uuid for one in mapped for uuid in uuids[one.id]]
            self._luns.learn(self._session, wanted, [host for host in hosts if host])

    def _facts(self, vm: Found, disks: Sequence[DiskFacts], names: Mapping[str, str]) -> VmFacts:
        # Two datacenters may each have a datastore of one name: only the VM's own count.
        stores = {names.get(text(one), ""): text(one) for one in vm.values.get("datastore", ())}
        files: list[FileLocation] = []
        raw: list[RawDevice] = []
        for disk in disks:
            self._add_disk(files, disk, stores)
            if disk.lun_uuid:
                identity = self._luns.identity(disk.lun_uuid)
                raw.append(RawDevice(disk.key, identity, not disk.lun_is_physical))
        files += self._home(vm, stores)
        return VmFacts(
            vm.id,
            POWER.get(vm.text("runtime.powerState"), PowerState.OFF),
            tuple(snapshot_nodes(vm.values.get("snapshot"))),
            vm.text("runtime.consolidationNeeded") == "true",
            VmLocation(tuple(files), tuple(raw)),
        )

    def _add_disk(
        self, files: list[FileLocation], disk: DiskFacts, stores: Mapping[str, str]
    ) -> None:
        chain = disk.chain
        for place, file in enumerate(chain):
            key: int | None = disk.key
            if disk.lun_is_physical:
                role, key = FileRole.CONFIG, None  # a pointer; the device takes the writes
            elif not disk.in_vm_snapshot:
                role = FileRole.LIVE
            elif place == 0 and len(chain) > 1:
                role = FileRole.DELTA
            else:
                role = FileRole.BASE
            files.append(FileLocation(file.path, self._store(file, stores), role, key))

    def _home(self, vm: Found, stores: Mapping[str, str]) -> Iterator[FileLocation]:
        paths = dict.fromkeys([vm.text("config.files.vmPathName")])
        for file in vm.values.get("layoutEx.file", ()):
            if text(file, "type") in _CONFIG_FILES:
                paths[text(file, "name")] = None
        for path in paths:
            if path:
                store = self._store(DiskFile(path, ""), stores)
                yield FileLocation(path, store, FileRole.CONFIG)

    def _store(self, file: DiskFile, stores: Mapping[str, str]) -> DatastoreId:
        """The datastore of a file; one that the VM does not list keeps its name in brackets."""
        name = datastore_name(file.path)
        return self._prefix + (file.datastore or stores.get(name) or f"[{name}]")
