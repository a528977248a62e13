"""The VMs of the modelled hypervisor: one of every role, called by it."""

from __future__ import annotations

from ...drivers.records import (
    Cluster,
    Datastore,
    DatastoreKind,
    DeviceIdentity,
    Disk,
    DiskMode,
    Host,
    Inventory,
    PowerState,
    VCenter,
    Vm,
)
from ..hypervisor_target import (
    APART,
    INDEPENDENT,
    KEPT,
    OFF,
    PLAIN,
    RAW,
    SECOND,
    TOOLLESS,
    WIDE,
    ScratchVm,
)

_MIB = 1 << 20
_VCENTER = "modelled"
_RAW_DEVICE = DeviceIdentity.parse("naa.6000c29000000000000000000000aaaa")
_EXTENTS = {
    name: tuple(map(DeviceIdentity.parse, devices))
    for name, devices in {
        "store-1": ("naa.6000c290000000000000000000000001",),
        "store-2": (
            "naa.6000c290000000000000000000000002",
            "naa.6000c290000000000000000000000003",
        ),
        "store-3": ("naa.6000c290000000000000000000000004",),
        "store-nfs": ("filer-1.example:/exports/vms",),
    }.items()
}
_DISKS: dict[str, tuple[tuple[str | None, int], ...]] = {
    PLAIN: (("store-1", 64 * _MIB),),
    SECOND: (("store-nfs", 64 * _MIB),),
    WIDE: (("store-1", 64 * _MIB), ("store-2", 96 * _MIB)),
    OFF: (("store-1", 64 * _MIB),),
    TOOLLESS: (("store-2", 64 * _MIB),),
    INDEPENDENT: (("store-1", 64 * _MIB), ("store-2", 32 * _MIB)),
    RAW: (("store-1", 64 * _MIB), (None, 128 * _MIB)),
    KEPT: (("store-2", 64 * _MIB),),
    APART: (("store-1", 64 * _MIB),),
}
"""Per disk its datastore (None for the raw device) and its size."""
_FOUND = "found-1"
"""What the model calls the first snapshot that was there before."""


def id_of(name: str) -> str:
    """The identifier of anything of this name."""
    return f"{_VCENTER}/{name}"


def _scratch(role: str) -> ScratchVm:
    return ScratchVm(
        role,
        tuple(store for store, _ in _DISKS[role]),
        _EXTENTS,
        _RAW_DEVICE if role == RAW else None,
        _FOUND if role == KEPT else None,
        DELTAS_ELSEWHERE.get(role),
        tuple(size for _, size in _DISKS[role]),
    )


DELTAS_ELSEWHERE = {APART: "store-3"}
"""VMs with a working directory of their own, and the datastore that it is on."""
VMS = {role: _scratch(role) for role in _DISKS}


def inventory() -> Inventory:
    """What the vCenter holds at the beginning."""
    stores = tuple(
        Datastore(
            id_of(name),
            _VCENTER,
            name,
            DatastoreKind.NFS if name == "store-nfs" else DatastoreKind.VMFS,
            devices,
        )
        for name, devices in _EXTENTS.items()
    )
    hosts = tuple(
        Host(id_of(name), _VCENTER, name, id_of("cluster"), "8.0.2")
        for name in ("host-1", "host-2")
    )
    return Inventory(
        (VCenter(_VCENTER, _VCENTER, "8.0.2"),),
        (Cluster(id_of("cluster"), _VCENTER, "cluster"),),
        hosts,
        stores,
        tuple(_vm(role, hosts[number % 2].id) for number, role in enumerate(_DISKS)),
    )


def _vm(role: str, host_id: str) -> Vm:
    home = _DISKS[role][0][0] or ""
    disks = tuple(_disk(role, n, *one, home) for n, one in enumerate(_DISKS[role]))
    return Vm(
        id_of(role),
        _VCENTER,
        role,
        host_id,
        PowerState.OFF if role == OFF else PowerState.ON,
        id_of(home),
        disks,
        guest_os="Microsoft Windows Server 2022" if role == SECOND else "Debian GNU/Linux 12",
        can_quiesce=role != TOOLLESS,
        snapshot_count=1 if role == KEPT else 0,
    )


def _disk(role: str, number: int, store: str | None, size_bytes: int, home: str) -> Disk:
    name = role if not number else f"{role}_{number}"
    independent = role == INDEPENDENT and number == 1
    return Disk(
        2000 + number,
        f"[{store or home}] {role}/{name}.vmdk",
        id_of(store or home),
        size_bytes,
        DiskMode.INDEPENDENT_PERSISTENT if independent else DiskMode.PERSISTENT,
        None if store else _RAW_DEVICE,
        store is None,
    )
