"""Drivers that keep everything in memory, with faults that a test orders one by one.

They run on any event loop: a call takes a few turns of the loop and no time, unless a test orders
a delay. What they hold (`snapshots`, `deltas`, `frozen`) is the truth that tests judge by.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stillframe.drivers.contracts import (
    ArrayCapabilities,
    ConsistencyLevel,
    FileLocation,
    FileRole,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
    HypervisorCapabilities,
    MergeResult,
    RawDevice,
    VmLocation,
    VmSnapshot,
    VmSnapshotRef,
    VmSnapshotRequest,
    VmSnapshotState,
    Window,
)
from stillframe.drivers.errors import BusyError, DriverError, NotFoundError
from stillframe.drivers.records import (
    Array,
    Datastore,
    DatastoreKind,
    DeviceIdentity,
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

GIB = 2**30


@dataclass
class Fault:
    """What happens at one visit of one site: ``before`` or ``after`` the effect.

    ``error`` is raised, ``delay_s`` is waited first, ``hang`` waits for ever; an operation whose
    caller has gone goes on and has its effect all the same. ``lost`` raises ``error`` at once,
    while the operation goes on.
    """

    error: DriverError | None = None
    after: bool = False
    delay_s: float = 0.0
    hang: bool = False
    lost: bool = False


@dataclass
class Faults:
    """Faults by (operation, object); each is used once, in order."""

    planned: dict[tuple[str, str], list[Fault]] = field(default_factory=dict)

    def add(self, operation: str, subject: str, *faults: Fault) -> None:
        """Order faults for the next visits of this site."""
        self.planned.setdefault((operation, subject), []).extend(faults)

    def take(self, operation: str, subject: str) -> Fault:
        """The fault for this visit; one that does nothing when none is ordered."""
        waiting = self.planned.get((operation, subject))
        return waiting.pop(0) if waiting else Fault()


class _Worker:
    """Carries operations out in tasks of their own, so that they survive their callers."""

    def __init__(self, faults: Faults, source: random.Random) -> None:
        self.faults = faults
        self.source = source
        self.running: dict[str, int] = {}
        self.most_running = 0
        self.tasks: list[asyncio.Task[object]] = []

    async def carry_out(self, operation: str, subject: str, effect: Callable[[], object]) -> object:
        fault = self.faults.take(operation, subject)
        turns = self.source.randrange(1, 6)
        task = asyncio.get_running_loop().create_task(self._do(subject, fault, turns, effect))
        self.tasks.append(task)
        if fault.lost and fault.error is not None:
            raise fault.error
        return await asyncio.shield(task)

    async def _do(
        self, subject: str, fault: Fault, turns: int, effect: Callable[[], object]
    ) -> object:
        self.running[subject] = self.running.get(subject, 0) + 1
        self.most_running = max(self.most_running, sum(self.running.values()))
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
            if fault.delay_s:
                await asyncio.sleep(fault.delay_s)
            if fault.hang:
                await asyncio.get_running_loop().create_future()
            if fault.error is not None and not fault.after and not fault.lost:
                raise fault.error
            answer = effect()
            if fault.error is not None and not fault.lost:
                raise fault.error
            return answer
        finally:
            self.running[subject] -= 1

    async def settle(self) -> None:
        """Wait for operations whose callers have gone; those that hang for ever are dropped."""
        for task in self.tasks:
            if not task.done():
                done, _ = await asyncio.wait([task], timeout=10_000)
                if not done:
                    task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class MemoryHypervisor:
    """A hypervisor over an inventory that tests may change while it runs."""

    def __init__(self, inventory: Inventory, faults: Faults, seed: int = 1) -> None:
        self.contents = inventory
        self.vms = {vm.id: vm for vm in inventory.vms}
        self.faults = faults
        self.worker = _Worker(faults, random.Random(seed))
        self.snapshots: dict[str, list[VmSnapshotRef]] = {vm_id: [] for vm_id in self.vms}
        self.loose_deltas: dict[str, int] = {}
        self.changed: list[str] = []
        self.on_created: Callable[[str], None] = lambda vm_id: None
        self.on_removed: Callable[[VmSnapshotRef], None] = lambda ref: None
        self.reports_running = True
        self.counts_moves = False
        self.moves: dict[str, int] = {}
        self._ids = 0

    @property
    def capabilities(self) -> HypervisorCapabilities:
        return HypervisorCapabilities(
            reports_quiesce=True, reports_stun=False, reports_delta=True, consolidates=True
        )

    async def inventory(self) -> Inventory:
        return replace(self.contents, vms=tuple(self.vms.values()))

    def add_foreign(self, vm_id: str, tag: str) -> None:
        """A snapshot that somebody else took."""
        self._ids += 1
        self.snapshots[vm_id].append(VmSnapshotRef(vm_id, f"snap-{self._ids}", tag))

    def move(self, vm_id: str, datastore_id: str, disk_key: int | None = None) -> None:
        """Move a disk, or the VM with all its disks, to another datastore."""
        vm = self.vms[vm_id]
        disks = tuple(
            replace(disk, datastore_id=datastore_id) if disk_key in (None, disk.key) else disk
            for disk in vm.disks
        )
        home = datastore_id if disk_key is None else vm.home_datastore_id
        self.vms[vm_id] = replace(vm, disks=disks, home_datastore_id=home)
        self.moves[vm_id] = self.moves.get(vm_id, 0) + 1

    def location(self, vm_id: str) -> VmLocation:
        vm = self.vms[vm_id]
        files = [FileLocation(f"{vm.name}.vmx", vm.home_datastore_id or "", FileRole.CONFIG)]
        raws = []
        for disk in vm.disks:
            role = FileRole.BASE if disk.mode is DiskMode.PERSISTENT else FileRole.LIVE
            files.append(FileLocation(disk.path, disk.datastore_id or "", role, disk.key))
            if disk.raw_device is not None:
                raws.append(RawDevice(disk.key, disk.raw_device, held=not disk.raw_is_physical))
        moves = self.moves.get(vm_id, 0) if self.counts_moves else None
        return VmLocation(tuple(files), tuple(raws), moves)

    async def create_snapshot(self, request: VmSnapshotRequest) -> VmSnapshot:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()

        def effect() -> VmSnapshot:
            self._ids += 1
            ref = VmSnapshotRef(request.vm_id, f"snap-{self._ids}", request.tag)
            self.snapshots[request.vm_id].append(ref)
            location = self.location(request.vm_id)
            level = ConsistencyLevel.FILESYSTEM if request.quiesce else ConsistencyLevel.CRASH
            window = Window(begun_s, loop.time()) if request.quiesce else None
            self.on_created(request.vm_id)
            return VmSnapshot(ref, level, location, loop.time(), quiesce=window)

        answer = await self.worker.carry_out("create", request.vm_id, effect)
        assert isinstance(answer, VmSnapshot)
        return answer

    async def list_snapshots(self, vm_ids: Sequence[str] | None = None) -> list[VmSnapshotState]:
        fault = self.faults.take("list", "")
        await asyncio.sleep(fault.delay_s)
        if fault.error is not None:
            raise fault.error
        return [
            VmSnapshotState(
                vm_id,
                self.location(vm_id),
                tuple(self.snapshots[vm_id]),
                needs_consolidation=vm_id in self.loose_deltas,
                operation_running=bool(self.worker.running.get(vm_id))
                if self.reports_running
                else None,
            )
            for vm_id in (self.vms if vm_ids is None else vm_ids)
            if vm_id in self.vms
        ]

    async def remove_snapshot(self, ref: VmSnapshotRef) -> MergeResult:
        def effect() -> MergeResult:
            if ref not in self.snapshots[ref.vm_id]:
                raise NotFoundError("remove_snapshot", ref.vm_id, "no such snapshot")
            self.snapshots[ref.vm_id].remove(ref)
            self.changed.append(ref.tag)
            self.on_removed(ref)
            return MergeResult(delta_bytes=4096, merged_bytes=4096, passes=1)

        answer = await self.worker.carry_out("remove", ref.vm_id, effect)
        assert isinstance(answer, MergeResult)
        return answer

    async def consolidate(self, vm_id: str) -> None:
        await self.worker.carry_out(
            "consolidate", vm_id, lambda: self.loose_deltas.pop(vm_id, None)
        )


class MemoryArray:
    """An array over given units."""

    def __init__(
        self,
        array_id: str,
        units: Sequence[StorageUnit],
        faults: Faults,
        capabilities: ArrayCapabilities | None = None,
        seed: int = 2,
    ) -> None:
        self.array_id = array_id
        self.units = {unit.id: unit for unit in units}
        self.worker = _Worker(faults, random.Random(seed))
        self.faults = faults
        self.snapshots: list[GroupSnapshot] = []
        self.touched: list[str] = []
        self.on_cut: Callable[[GroupSnapshotRequest], None] = lambda request: None
        self._capabilities = capabilities or ArrayCapabilities(atomic_groups=True)
        self._making: dict[str, asyncio.Task[object]] = {}
        self._ids = 0

    @property
    def capabilities(self) -> ArrayCapabilities:
        return self._capabilities

    async def resolve(
        self, devices: Sequence[DeviceIdentity]
    ) -> Mapping[DeviceIdentity, StorageUnit]:
        mine = {device: unit for unit in self.units.values() for device in unit.devices}
        return {device: mine[device] for device in devices if device in mine}

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        loop = asyncio.get_running_loop()
        making = self._making.get(request.tag)
        if making is not None and not making.done():
            raise BusyError("snapshot_group", self.array_id, f"{request.tag} is being made")

        def effect() -> GroupSnapshot:
            for snapshot in self.snapshots:
                if snapshot.ref.tag == request.tag:
                    return snapshot
            self._ids += 1
            ref = GroupSnapshotRef(self.array_id, f"gs-{self._ids}", request.tag)
            snapshot = GroupSnapshot(ref, request.unit_ids, cut_s=loop.time())
            self.touched.extend(request.unit_ids)
            self.snapshots.append(snapshot)
            self.on_cut(request)
            return snapshot

        call = loop.create_task(self.worker.carry_out("cut", self.array_id, effect))
        self._making[request.tag] = call
        # A caller who has gone does not fetch the error of a call that fails later.
        call.add_done_callback(lambda done: done.cancelled() or done.exception())
        answer = await asyncio.shield(call)
        assert isinstance(answer, GroupSnapshot)
        return answer

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        fault = self.faults.take("list", self.array_id)
        await asyncio.sleep(fault.delay_s)
        if fault.error is not None:
            raise fault.error
        return [one for one in self.snapshots if one.ref.tag.startswith(tag_prefix)]

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        def effect() -> None:
            if all(one.ref != ref for one in self.snapshots):
                raise NotFoundError("delete_snapshot", ref.snapshot_id, "no such snapshot")
            self.snapshots = [one for one in self.snapshots if one.ref != ref]

        await self.worker.carry_out("delete", self.array_id, effect)


def small_estate(
    vms: int = 6, datastores: int = 3, spanning: Sequence[tuple[int, int]] = ()
) -> Estate:
    """VMs over datastores of one unit each; ``spanning`` gives second disks as (VM, datastore)."""
    units = tuple(
        StorageUnit(
            f"a1/lun{i}",
            "a1",
            f"lun{i}",
            UnitKind.LUN,
            100 * GIB,
            (DeviceIdentity.parse(f"naa.60{i:030x}"),),
        )
        for i in range(datastores)
    )
    stores = tuple(
        Datastore(f"vc/ds{i}", "vc", f"ds{i}", DatastoreKind.VMFS, units[i].devices)
        for i in range(datastores)
    )
    second = dict(spanning)
    records = []
    for i in range(vms):
        home = f"vc/ds{i % datastores}"
        disks = [Disk(2000, f"[{home}] vm{i}/vm{i}.vmdk", home, 10 * GIB)]
        if i in second:
            other = f"vc/ds{second[i]}"
            disks.append(Disk(2001, f"[{other}] vm{i}/data.vmdk", other, 10 * GIB))
        records.append(Vm(f"vc/vm{i}", "vc", f"vm{i}", "vc/h0", PowerState.ON, home, tuple(disks)))
    inventory = Inventory(
        vcenters=(VCenter("vc", "vc"),),
        clusters=(),
        hosts=(Host("vc/h0", "vc", "h0"),),
        datastores=stores,
        vms=tuple(records),
    )
    return Estate(inventory, (Array("a1", "a1"),), units)
