"""Device identities: what lies under datastores and raw device mappings.

A VMFS extent is named by its device's canonical name, which is the page-83 identity. A raw device
mapping is named by the LUN's uuid, which only the hosts' lists of LUNs translate.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element

from ..errors import StillframeError
from .records import DatastoreKind, DeviceIdentity, DeviceKind
from .vsphere_properties import Wanted, read_all, read_objects
from .vsphere_session import Session
from .vsphere_wire import child, children, flag, kind, text

_LUNS = "config.storageDevice.scsiLun"
_KINDS = {
    "vmfs": DatastoreKind.VMFS,
    "nfs": DatastoreKind.NFS,
    "nfs41": DatastoreKind.NFS,
    "vvol": DatastoreKind.VVOL,
    "vsan": DatastoreKind.VSAN,
}


def device_named(name: str) -> DeviceIdentity:
    """The identity in a canonical name; a name without a known form is local to its host."""
    try:
        return DeviceIdentity.parse(name)
    except StillframeError:
        return DeviceIdentity(DeviceKind.LOCAL, name)


def datastore_kind(summary_type: str) -> DatastoreKind:
    """The kind in a datastore's ``summary.type``."""
    return _KINDS.get(summary_type.lower(), DatastoreKind.OTHER)


def extents_of(info: Element | None) -> tuple[DeviceIdentity, ...]:
    """What a datastore lies on, from its ``info``: every VMFS extent, or the NFS export.

    An NFS 4.1 server with several addresses is known by the first; they all lead to one export.
    """
    if kind(info) == "VmfsDatastoreInfo":
        names = [text(extent, "diskName") for extent in children(info, "vmfs/extent")]
        return tuple(device_named(name) for name in dict.fromkeys(names) if name)
    if kind(info) == "NasDatastoreInfo":
        nas = child(info, "nas")
        path = text(nas, "remotePath")
        addresses = [text(one) for one in children(nas, "remoteHostNames")]
        addresses += text(nas, "remoteHost").split(",")
        server = next((address.strip() for address in addresses if address.strip()), "")
        if server and path:
            return (DeviceIdentity.parse(f"{server}:/{path.strip('/')}"),)
    return ()


def lun_identity(lun: Element) -> DeviceIdentity:
    """The identity of a LUN: canonical name, else serial number, else uuid."""
    name = text(lun, "canonicalName")
    if name:
        return device_named(name)
    serial = text(lun, "serialNumber").strip()
    if serial:
        return DeviceIdentity(DeviceKind.SERIAL, serial)
    return DeviceIdentity(DeviceKind.UUID, text(lun, "uuid").lower())


def device_facts(session: Session) -> dict[DeviceIdentity, tuple[str, str, bool]]:
    """Vendor, model, and whether it is local to a host, of all LUNs that hosts see (blocks)."""
    facts: dict[DeviceIdentity, tuple[str, str, bool]] = {}
    for host in read_all(session, [Wanted("HostSystem", (_LUNS,))]):
        for lun in host.values.get(_LUNS, ()):
            if text(lun, "lunType") == "disk":
                facts.setdefault(
                    lun_identity(lun),
                    (
                        text(lun, "vendor").strip(),
                        text(lun, "model").strip(),
                        flag(lun, "localDisk"),
                    ),
                )
    return facts


class Luns:
    """The identities of LUNs by their uuid, read from the hosts that see them when first needed.

    A LUN's uuid names the same device for ever, so that what is known stays known.
    """

    def __init__(self) -> None:
        self._known: dict[str, DeviceIdentity] = {}
        self._lock = threading.Lock()

    def learn(self, session: Session, uuids: Iterable[str], host_ids: Sequence[str]) -> None:
        """Read the LUNs of these hosts, if one of ``uuids`` is not known yet (blocks)."""
        with self._lock:
            if all(uuid.lower() in self._known for uuid in uuids):
                return
            for host in read_objects(session, [Wanted("HostSystem", (_LUNS,))], host_ids):
                for lun in host.values.get(_LUNS, ()):
                    uuid = text(lun, "uuid").lower()
                    if uuid:
                        self._known[uuid] = lun_identity(lun)

    def identity(self, uuid: str) -> DeviceIdentity:
        """The LUN's identity; by its uuid if no host has told another."""
        key = uuid.lower()
        return self._known.get(key, DeviceIdentity(DeviceKind.UUID, key))
