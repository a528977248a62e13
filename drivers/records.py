"""What a hypervisor and an array say they hold: frozen records, no behaviour.

Identifiers are strings that are unique in one estate. Driver authors prefix what is unique only
inside one system with that system's identifier: ``vc-a/vm-1017``, ``array-1/lun-04``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from ..errors import StillframeError

VCenterId = str
ClusterId = str
HostId = str
VmId = str
DatastoreId = str
UnitId = str
ArrayId = str


class DatastoreKind(StrEnum):
    """The kind of file system that holds the virtual disks."""

    VMFS = "vmfs"
    NFS = "nfs"
    VVOL = "vvol"
    VSAN = "vsan"
    OTHER = "other"


class PowerState(StrEnum):
    """A VM's power state; only a running guest can be quiesced or stunned."""

    ON = "on"
    OFF = "off"
    SUSPENDED = "suspended"


class DiskMode(StrEnum):
    """How a virtual disk takes part in VM snapshots; independent disks do not."""

    PERSISTENT = "persistent"
    INDEPENDENT_PERSISTENT = "independent-persistent"
    INDEPENDENT_NONPERSISTENT = "independent-nonpersistent"


class DeviceKind(StrEnum):
    """The name space of a device identity."""

    NAA = "naa"
    EUI = "eui"
    T10 = "t10"
    UUID = "uuid"
    SERIAL = "serial"
    NFS = "nfs"
    FILE = "file"
    """A file or socket on the host that stands for a unit, such as one under a loop device."""
    LOCAL = "mpx"


_PREFIXED = re.compile(r"^(naa|eui|t10|uuid|serial|file|mpx)\.(.+)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, order=True)
class DeviceIdentity:
    """The name under which hosts know a storage unit: a page-83 identifier or an NFS export.

    ``value`` is normalised: hexadecimal identifiers in lower case, an export as ``server:/path``
    with the server in lower case and no trailing slash.
    """

    kind: DeviceKind
    value: str

    @classmethod
    def parse(cls, text: str) -> DeviceIdentity:
        """Read ``naa.6000…``, ``eui.…``, ``t10.…``, ``serial.…``, ``file./path`` or ``host:/path``.

        Raises
        ------
        StillframeError
            The text has none of these forms.
        """
        stripped = text.strip()
        match = _PREFIXED.match(stripped)
        if match is not None:
            kind = DeviceKind(match[1].lower())
            hexadecimal = kind in (DeviceKind.NAA, DeviceKind.EUI, DeviceKind.UUID)
            return cls(kind, match[2].lower() if hexadecimal else match[2])
        server, separator, path = stripped.partition(":/")
        if separator and server:
            return cls(DeviceKind.NFS, f"{server.lower()}:/{path.strip('/')}")
        raise StillframeError(
            f"device identity {text!r} has no known form",
            "write naa.…, eui.…, t10.…, serial.…, file./path or server:/export",
        )

    def __str__(self) -> str:
        return self.value if self.kind is DeviceKind.NFS else f"{self.kind}.{self.value}"


@dataclass(frozen=True, slots=True)
class VCenter:
    """One management server; limits on concurrent tasks apply to it."""

    id: VCenterId
    name: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster of hosts."""

    id: ClusterId
    vcenter_id: VCenterId
    name: str


@dataclass(frozen=True, slots=True)
class Host:
    """A hypervisor host; ``version`` decides the merge algorithm (ESXi 6.0U1 changed it)."""

    id: HostId
    vcenter_id: VCenterId
    name: str
    cluster_id: ClusterId | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Datastore:
    """A datastore and the devices under it: every VMFS extent, or the one NFS export."""

    id: DatastoreId
    vcenter_id: VCenterId
    name: str
    kind: DatastoreKind
    extents: tuple[DeviceIdentity, ...]
    capacity_bytes: int | None = None
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Disk:
    """A virtual disk. A raw device mapping names its device; its datastore holds the pointer."""

    key: int
    path: str
    datastore_id: DatastoreId | None
    capacity_bytes: int
    mode: DiskMode = DiskMode.PERSISTENT
    raw_device: DeviceIdentity | None = None
    raw_is_physical: bool = False

    @property
    def in_vm_snapshot(self) -> bool:
        """Whether a VM snapshot holds this disk still: not if independent or a physical RDM."""
        return self.mode is DiskMode.PERSISTENT and not self.raw_is_physical


@dataclass(frozen=True, slots=True)
class Vm:
    """A VM as the inventory knows it; where it lies may have changed since (see VmLocation)."""

    id: VmId
    vcenter_id: VCenterId
    name: str
    host_id: HostId | None
    power_state: PowerState
    home_datastore_id: DatastoreId | None
    disks: tuple[Disk, ...]
    folder: str = ""
    tags: tuple[str, ...] = ()
    is_template: bool = False
    guest_os: str = ""
    can_quiesce: bool | None = None
    """Whether guest tools are ready to quiesce; None when the source does not say."""
    snapshot_count: int = 0
    """Snapshots that already exist and are not ours to touch."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything one or several vCenters hold."""

    vcenters: tuple[VCenter, ...]
    clusters: tuple[Cluster, ...]
    hosts: tuple[Host, ...]
    datastores: tuple[Datastore, ...]
    vms: tuple[Vm, ...]


class UnitKind(StrEnum):
    """What an array snapshots: a block LUN or a file volume."""

    LUN = "lun"
    NFS_VOLUME = "nfs-volume"


@dataclass(frozen=True, slots=True)
class StorageUnit:
    """The thing an array snapshots, and every identity under which hosts may know it."""

    id: UnitId
    array_id: ArrayId
    name: str
    kind: UnitKind
    capacity_bytes: int
    devices: tuple[DeviceIdentity, ...]


@dataclass(frozen=True, slots=True)
class Array:
    """A storage array."""

    id: ArrayId
    name: str
    vendor: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Estate:
    """An inventory with the arrays and units that its devices resolve to."""

    inventory: Inventory
    arrays: tuple[Array, ...]
    units: tuple[StorageUnit, ...]
