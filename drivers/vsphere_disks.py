"""A VM's virtual disks as ``config.hardware.device`` describes them.

The order of a chain comes from ``backing.parent``, which leads from the file that takes the writes
down to the base; the keys and the order in ``layoutEx`` change with every snapshot removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from xml.etree.ElementTree import Element

from .records import DiskMode
from .vsphere_wire import child, kind, text

_MODES = {
    "independent_persistent": DiskMode.INDEPENDENT_PERSISTENT,
    "independent_nonpersistent": DiskMode.INDEPENDENT_NONPERSISTENT,
    "nonpersistent": DiskMode.INDEPENDENT_NONPERSISTENT,
}


class DiskFile(NamedTuple):
    """One file of a disk's chain; ``datastore`` is empty when only the path names it."""

    path: str
    datastore: str


class DiskFacts(NamedTuple):
    """One virtual disk; ``chain`` begins with the file that takes the writes."""

    key: int
    capacity_bytes: int
    mode: DiskMode
    chain: tuple[DiskFile, ...]
    lun_uuid: str = ""
    lun_is_physical: bool = False

    @property
    def in_vm_snapshot(self) -> bool:
        """Whether a VM snapshot holds it still."""
        return self.mode is DiskMode.PERSISTENT and not self.lun_is_physical


def disks_of(devices: Element | None) -> tuple[DiskFacts, ...]:
    """The virtual disks among a VM's devices, in their order."""
    if devices is None:
        return ()
    return tuple(_disk(device) for device in devices if kind(device) == "VirtualDisk")


def _disk(device: Element) -> DiskFacts:
    backing = child(device, "backing")
    size = text(device, "capacityInBytes")
    lun = next((text(one, "lunUuid") for one in _chain(backing) if text(one, "lunUuid")), "")
    return DiskFacts(
        key=int(text(device, "key")),
        capacity_bytes=int(size) if size else 1024 * int(text(device, "capacityInKB") or 0),
        mode=_MODES.get(text(backing, "diskMode").lower(), DiskMode.PERSISTENT),
        chain=tuple(
            DiskFile(text(one, "fileName"), text(one, "datastore"))
            for one in _chain(backing)
            if text(one, "fileName")
        ),
        lun_uuid=lun,
        lun_is_physical=bool(lun) and text(backing, "compatibilityMode") == "physicalMode",
    )


def _chain(backing: Element | None) -> Iterator[Element]:
    while backing is not None:
        yield backing
        backing = child(backing, "parent")


def datastore_name(path: str) -> str:
    """The datastore in a path like ``[name] folder/file``; empty if there is none."""
    head, bracket, _ = path.partition("] ")
    if not bracket and path.endswith("]"):
        head, bracket = path[:-1], "]"
    return head[1:] if bracket and head.startswith("[") else ""
