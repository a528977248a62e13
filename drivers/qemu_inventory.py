"""The inventory of a QEMU host: its guests, and the file systems their disks lie on."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .hostfacts import HostFacts, Mount, mount_of
from .qemu_agent import AgentLostError, talk_to
from .qemu_settings import QemuSettings
from .qemu_vm import Look, QemuVm
from .records import (
    Datastore,
    DatastoreId,
    DatastoreKind,
    Disk,
    DiskMode,
    Host,
    Inventory,
    PowerState,
    VCenter,
    Vm,
)


async def read_inventory(
    system_id: str, vms: Sequence[QemuVm], settings: QemuSettings, facts: HostFacts
) -> Inventory:
    """All guests of the host as one system with one host.

    Raises
    ------
    MonitorLostError
        A QEMU comes and goes: look again later.
    """
    mounts = facts.mounts()
    host = Host(f"{system_id}/{socket.gethostname()}", system_id, socket.gethostname())
    looks = await asyncio.gather(*(vm.look() for vm in vms))
    agents = await asyncio.gather(
        *(_answers(vm, look, settings) for vm, look in zip(vms, looks, strict=True))
    )
    records = tuple(
        _vm(vm, look, can_quiesce, host, mounts)
        for vm, look, can_quiesce in zip(vms, looks, agents, strict=True)
    )
    under = {
        vm.datastore_of(disk.file, mounts): mount_of(disk.file, mounts)
        for vm in vms
        for disk in vm.guest.disks
    }
    return Inventory(
        vcenters=(VCenter(system_id, system_id),),
        clusters=(),
        hosts=(host,),
        datastores=await asyncio.to_thread(_datastores, system_id, under, facts),
        vms=records,
    )


async def _answers(vm: QemuVm, look: Look, settings: QemuSettings) -> bool | None:
    """Whether the guest's agent is there; None when it is not to be asked."""
    if not look.is_on or vm.is_busy:
        return None
    if vm.guest.agent is None:
        return False
    try:
        async with vm.lock, talk_to(vm.guest.agent, settings.agent_timeout):
            return True
    except AgentLostError:
        return False


def _vm(
    vm: QemuVm, look: Look, can_quiesce: bool | None, host: Host, mounts: Sequence[Mount]
) -> Vm:
    guest = vm.guest
    disks = tuple(
        Disk(
            guest.key_of(number),
            str(disk.file),
            vm.datastore_of(disk.file, mounts),
            disk.size,
            DiskMode.INDEPENDENT_PERSISTENT if disk.independent else DiskMode.PERSISTENT,
        )
        for number, disk in enumerate(guest.disks)
    )
    return Vm(
        id=vm.id,
        vcenter_id=host.vcenter_id,
        name=guest.name,
        host_id=host.id,
        power_state=PowerState.OFF if look.is_on is False else PowerState.ON,
        home_datastore_id=vm.home(mounts) or disks[0].datastore_id,
        disks=disks,
        can_quiesce=can_quiesce,
        snapshot_count=len(vm.snapshots(look)),
    )


def _datastores(
    system_id: str, under: dict[DatastoreId, Mount], facts: HostFacts
) -> tuple[Datastore, ...]:
    # The last part of a mount point is what people call it, where no other is called the same.
    called = Counter(Path(mount.point).name for mount in under.values())
    found = []
    for store_id, mount in sorted(under.items()):
        name = Path(mount.point).name
        size = os.statvfs(mount.point)
        found.append(
            Datastore(
                id=store_id,
                vcenter_id=system_id,
                name=name if name and called[name] == 1 else mount.point,
                kind=DatastoreKind.NFS if mount.kind.startswith("nfs") else DatastoreKind.OTHER,
                extents=facts.devices_under(mount),
                capacity_bytes=size.f_blocks * size.f_frsize,
                free_bytes=size.f_bavail * size.f_frsize,
            )
        )
    return tuple(found)
