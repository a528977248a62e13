"""What an estate file may hold (see :mod:`stillframe.topology.estate` for what it means)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StrictBool, WithJsonSchema
from pydantic.types import StrictInt

from ..drivers.records import DatastoreKind, DeviceIdentity, DiskMode, PowerState, UnitKind
from ..errors import StillframeError
from ..quantity import Bytes


def _device(value: object) -> DeviceIdentity:
    if isinstance(value, DeviceIdentity):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a device identity; put it in quotes")
    try:
        return DeviceIdentity.parse(value)
    except StillframeError as error:
        raise ValueError(str(error)) from None


def _export(value: object) -> DeviceIdentity:
    device = _device(value)
    if device.kind.value != "nfs":
        raise ValueError(f"{value!r} is not an NFS export; write server:/path")
    return device


Device = Annotated[
    DeviceIdentity,
    PlainValidator(_device),
    WithJsonSchema(
        {
            "type": "string",
            "description": "a device as hosts name it: naa.…, eui.…, t10.… or server:/export",
            "examples": ["naa.600a098038304479363f4c4870455267"],
        }
    ),
]
Export = Annotated[
    DeviceIdentity,
    PlainValidator(_export),
    WithJsonSchema({"type": "string", "examples": ["nas-1:/vol/vm01"]}),
]
Name = Annotated[str, Field(min_length=1)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VCenterEntry(_Entry):
    """A management server."""

    name: Name
    id: Name | None = Field(None, description="default: the name")
    version: str = ""


class ClusterEntry(_Entry):
    """A cluster of hosts."""

    name: Name
    id: Name | None = Field(None, description="default: vCenter id/name")
    vcenter: Name | None = Field(None, description="default: the only vCenter")


class HostEntry(_Entry):
    """A hypervisor host."""

    name: Name
    id: Name | None = Field(None, description="default: vCenter id/name")
    vcenter: Name | None = Field(None, description="default: the cluster's, else the only one")
    cluster: Name | None = None
    version: str = Field("", description="decides the merge algorithm", examples=["8.0.2"])


class UnitEntry(_Entry):
    """A LUN or volume of an array: what an array snapshot is taken of."""

    name: Name
    id: Name | None = Field(None, description="default: array id/name")
    kind: UnitKind = Field(UnitKind.LUN, description="default: lun")
    capacity: Bytes
    devices: tuple[Device, ...] = Field((), description="every name under which hosts know it")


class LooseUnitEntry(UnitEntry):
    """A unit written beside the arrays instead of under its own."""

    array: Name


class ArrayEntry(_Entry):
    """A storage array and its units."""

    name: Name
    id: Name | None = Field(None, description="default: the name")
    vendor: str = ""
    model: str = ""
    units: tuple[UnitEntry, ...] = ()


class DatastoreEntry(_Entry):
    """A datastore: VMFS on one or several extents, or an NFS export."""

    name: Name
    id: Name | None = Field(None, description="default: vCenter id/name")
    vcenter: Name | None = Field(None, description="default: the only vCenter")
    kind: DatastoreKind | None = Field(None, description="default: nfs with an export, else vmfs")
    extents: tuple[Device, ...] = Field((), description="the devices, in order")
    export: Export | None = Field(None, description="the NFS export, instead of extents")
    capacity: Bytes | None = None
    free: Bytes | None = None


class RawEntry(_Entry):
    """A raw device mapping."""

    device: Device | None = Field(None, description="absent when it is not known")
    physical: StrictBool = Field(False, description="physical compatibility: no VM snapshots")


class DiskEntry(_Entry):
    """A virtual disk."""

    datastore: Name | None = Field(None, description="where its file lies; absent: not known")
    size: Bytes
    mode: DiskMode = Field(DiskMode.PERSISTENT, description="default: persistent")
    rdm: RawEntry | None = None
    key: StrictInt | None = Field(None, description="default: 2000 and up, in order")
    path: str | None = Field(None, description="default: [datastore] vm/vm.vmdk")


class VmEntry(_Entry):
    """A virtual machine."""

    name: Name
    id: Name | None = Field(None, description="default: vCenter id/name")
    vcenter: Name | None = Field(None, description="default: the host's, else the only one")
    host: Name | None = None
    power: PowerState = Field(PowerState.ON, description="default: on")
    home: Name | None = Field(
        None, description="datastore of the configuration; default: that of the first disk"
    )
    disks: tuple[DiskEntry, ...] = ()
    folder: str = ""
    tags: tuple[str, ...] = ()
    template: StrictBool = False
    guest_os: str = ""
    can_quiesce: StrictBool | None = None
    snapshots: Annotated[StrictInt, Field(ge=0)] = Field(
        0, description="snapshots that exist already"
    )


class EstateFile(_Entry):
    """An estate: what the vCenters hold and what the arrays below them hold."""

    vcenters: tuple[VCenterEntry, ...] = ()
    clusters: tuple[ClusterEntry, ...] = ()
    hosts: tuple[HostEntry, ...] = ()
    arrays: tuple[ArrayEntry, ...] = ()
    units: tuple[LooseUnitEntry, ...] = Field(
        (), description="units that are not listed under their array"
    )
    datastores: tuple[DatastoreEntry, ...] = ()
    vms: tuple[VmEntry, ...] = ()
