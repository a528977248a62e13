"""A small estate and world for the tests of the model, and what they share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from support_simloop import run

from stillframe.drivers.contracts import VmSnapshotRequest
from stillframe.drivers.records import (
    Array,
    Datastore,
    DatastoreKind,
    DeviceIdentity,
    DeviceKind,
    Disk,
    DiskMode,
    Estate,
    Host,
    Inventory,
    PowerState,
    StorageUnit,
    UnitKind,
    VCenter,
    Vm,
)
from stillframe.orchestrator.events import EventLog
from stillframe.sim.config import WorldConfig
from stillframe.sim.env import SimEnv
from stillframe.sim.world import World

GIB = 1024**3
MIB = 1024**2
NAA = [DeviceIdentity(DeviceKind.NAA, f"6000{n:04}") for n in range(1, 5)]
EXPORT = DeviceIdentity(DeviceKind.NFS, "nfs-1:/vol")


def disk(key: int, store: str | None, size: int = 100 * GIB, **more: Any) -> Disk:
    return Disk(key, f"[{store}] vm/disk-{key}.vmdk", store, size, **more)


def vm(name: str, *disks: Disk, **more: Any) -> Vm:
    options: dict[str, Any] = {
        "host_id": "h1",
        "power_state": PowerState.ON,
        "home_datastore_id": disks[0].datastore_id if disks else "ds1",
        "guest_os": "Ubuntu Linux (64-bit)",
        "can_quiesce": True,
    }
    return Vm(f"vc/{name}", "vc", name, disks=disks, **(options | more))


def estate(*vms: Vm, versions: tuple[str, str] = ("8.0.2", "8.0.2")) -> Estate:
    """ds1, ds2 and ds-nfs on array a1 (lun-1, lun-2, vol), ds3 on array a2, ds-local on none.

    ds-wide lies on one unit of each array.
    """

    def store(name: str, kind: DatastoreKind, *extents: DeviceIdentity) -> Datastore:
        return Datastore(name, "vc", name, kind, extents)

    vmfs = DatastoreKind.VMFS
    stores = (
        store("ds1", vmfs, NAA[0]),
        store("ds2", vmfs, NAA[1]),
        store("ds3", vmfs, NAA[2]),
        store("ds-wide", vmfs, NAA[1], NAA[2]),
        store("ds-nfs", DatastoreKind.NFS, EXPORT),
        store("ds-local", vmfs, DeviceIdentity(DeviceKind.LOCAL, "vmhba0")),
    )
    hosts = tuple(
        Host(f"h{n}", "vc", f"esx-{n}", version=version) for n, version in enumerate(versions, 1)
    )
    inventory = Inventory((VCenter("vc", "vc"),), (), hosts, stores, tuple(vms))
    lun = UnitKind.LUN
    units = (
        StorageUnit("lun-1", "a1", "lun-1", lun, 10 * 1024 * GIB, (NAA[0],)),
        StorageUnit("lun-2", "a1", "lun-2", lun, 10 * 1024 * GIB, (NAA[1],)),
        StorageUnit("lun-3", "a2", "lun-3", lun, 30 * 1024 * GIB, (NAA[2],)),
        StorageUnit("lun-raw", "a2", "lun-raw", lun, GIB, (NAA[3],)),
        StorageUnit("vol", "a1", "vol", UnitKind.NFS_VOLUME, 10 * 1024 * GIB, (EXPORT,)),
    )
    return Estate(inventory, (Array("a1", "one"), Array("a2", "two")), units)


STEADY = {"rate": 10e6, "working_set": 10**15, "write_size": 4096}
"""A guest whose delta is simply rate × time: it never writes to a place twice."""

FIXED: dict[str, Any] = {
    "task_latency": 1.0,
    "task_latency_sigma": 0,
    "linux_freeze": 0.1,
    "windows_freeze": 0.5,
    "freeze_sigma": 0,
    "flush_rate": 100e6,
    "thaw_call": 0.02,
    "metadata_lock": 0.05,
    "delta_create": 0.01,
    "stun_create": 0.2,
    "stun_create_sigma": 0,
    "stun_create_per_disk": 0.03,
    "merge_rate": 50e6,
    "stun_remove": 0.3,
    "stun_remove_sigma": 0,
    "stun_remove_per_disk": 0.04,
    "storage_vmotion_rate": 50e6,
}
"""A hypervisor without jitter, with round numbers."""


def config(
    hypervisor: dict[str, Any] | None = None,
    guest: dict[str, Any] | None = None,
    **more: Any,
) -> WorldConfig:
    rule = {"profile": STEADY, "scale_median": 1, "scale_sigma": 0, **(guest or {})}
    return WorldConfig.model_validate(
        {"hypervisor": {**FIXED, **(hypervisor or {})}, "guests": [rule], **more}
    )


class Bench:
    """A world with its clock and log; ``go`` runs a coroutine function in it."""

    def __init__(self, what: Estate, how: WorldConfig | None = None, seed: int = 1) -> None:
        self.env = SimEnv()
        self.log = EventLog()
        self.world = World(self.env, what, how or config(), seed=seed, log=self.log)
        self.vc = self.world.hypervisors.get("vc")

    def go(self, main: Callable[[], Awaitable[Any]]) -> Any:
        return run(lambda _: main(), self.env)

    def times(self, kind: str, vm_id: str | None = None) -> list[float]:
        return [row[0] for row in self.log.of(kind) if vm_id in (None, row[3])]

    def kinds(self, vm_id: str) -> list[str]:
        return [row[1].removeprefix("world.vm.") for row in self.log.rows if row[3] == vm_id]


def request(
    name: str = "a", tag: str = "t", *, quiesce: bool = True, timeout_s: float = 60.0
) -> VmSnapshotRequest:
    return VmSnapshotRequest(f"vc/{name}", tag, quiesce, timeout_s)


INDEPENDENT = DiskMode.INDEPENDENT_PERSISTENT
