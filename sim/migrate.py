"""What happens to VMs beside the job: vMotion, storage vMotion, power.

An event that finds its VM busy waits for the operation to end (the log says so), as a vCenter
queues it; while a migration runs, the VM is busy for everyone else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..drivers.records import DatastoreId, Disk, HostId, PowerState, Vm
from .breakoff import drop_work_of
from .fabric import Fabric, Routes
from .merge import Transfer
from .operation import occupy, vacate
from .vmstate import VmState, in_datastore


def _log(fabric: Fabric, state: VmState, kind: str, detail: str = "") -> None:
    fabric.log.add(fabric.env.now, kind, "", state.vm.id, detail)


def when_free(fabric: Fabric, state: VmState, act: Callable[[], None], what: str) -> None:
    """Do it now, or when the operation on the VM and whatever waits already are done."""
    if not state.operation:
        act()
        return
    if state.deferred is None:
        state.deferred = []
    state.deferred.append(act)
    _log(fabric, state, "world.vm.deferred", what)


def if_reachable(fabric: Fabric, state: VmState, act: Callable[[], None], what: str) -> None:
    """Do it, unless the VM's host is lost: the vCenter refuses it then."""
    if state.unreachable:
        _log(fabric, state, "world.vm.refused", what)
    else:
        act()


class Vmotion:
    """Moves a VM to another host: memory is copied while it runs, then it stops for the switch."""

    def __init__(self, fabric: Fabric, state: VmState, host_id: HostId) -> None:
        self._fabric = fabric
        self._state = state
        self._host_id = host_id

    def start(self) -> None:
        """Begin; the VM is free."""
        fabric = self._fabric
        occupy(fabric, self._state, "vmotion", self)
        _log(fabric, self._state, "world.vm.migrating", self._host_id)
        # A VM that is off has no memory to copy, only its registration moves.
        copy_s = fabric.profile.vmotion if self._state.running else 0.0
        fabric.env.after(copy_s, self._switch)

    def _switch(self) -> None:
        stop(self._fabric, self._state, self._arrive)

    def _arrive(self) -> None:
        fabric, state = self._fabric, self._state
        if self._host_id in fabric.lost_hosts:
            _fail(fabric, state)
            return
        state.vm = replace(state.vm, host_id=self._host_id)
        _log(fabric, state, "world.vm.migrated", self._host_id)
        vacate(fabric, state)

    def break_off(self) -> None:
        """The host is lost: the VM stays registered on it."""
        drop_work_of(self._fabric, self)
        _fail(self._fabric, self._state)


class StorageVmotion:
    """Copies disks to another datastore while the VM runs, then switches; its chain goes along.

    Parameters
    ----------
    fabric, state:
        The surroundings and the VM.
    datastore_id:
        Where to.
    disk_keys:
        Which disks; None for all of them and the VM's home.
    copy_bytes:
        What has to be copied; None for the profile's allocated share of the disks' capacity.

    Raw devices stay what they are; of a mapping only the pointer moves.
    """

    def __init__(
        self,
        fabric: Fabric,
        state: VmState,
        datastore_id: DatastoreId,
        disk_keys: tuple[int, ...] | None,
        copy_bytes: int | None,
    ) -> None:
        self._fabric = fabric
        self._state = state
        self._target = datastore_id
        self._keys = disk_keys
        self._copy_bytes = copy_bytes
        self._size = 0.0

    def start(self) -> None:
        """Begin; the VM is free."""
        fabric, state = self._fabric, self._state
        occupy(fabric, state, "storage-vmotion", self)
        self._size = self._copy_size()
        _log(fabric, state, "world.vm.relocating", f"{self._target} {self._size:.0f}")
        if fabric.plane is not None:
            elsewhere = None if self._keys is None else fabric.delta_store.get(state.guest)
            fabric.plane.relocation_begins(state.guest, self._moved(), elsewhere)
        rate = fabric.profile.storage_vmotion_rate
        Transfer(fabric.env, self._routes(), self._size, rate, self._switch)

    def _copy_size(self) -> float:
        if self._copy_bytes is not None:
            return float(self._copy_bytes)
        capacity = sum(disk.capacity_bytes for disk in self._moving() if disk.raw_device is None)
        return capacity * self._fabric.profile.storage_vmotion_share

    def _moving(self) -> list[Disk]:
        keys = self._keys
        return [
            disk
            for disk in self._state.vm.disks
            if disk.datastore_id not in (None, self._target) and (keys is None or disk.key in keys)
        ]

    def _routes(self) -> Routes:
        """Read there and written here: the same bytes go through both, once through one array."""
        fabric, vm = self._fabric, self._state.vm
        moving = tuple(disk for disk in self._moving() if disk.raw_device is None)
        source = fabric.routes(fabric.storage.shares(replace(vm, disks=moving)))
        there = tuple(replace(disk, datastore_id=self._target) for disk in moving)
        target = fabric.routes(fabric.storage.shares(replace(vm, disks=there)))
        servers = {id(server) for server, _ in source}
        return source + tuple(route for route in target if id(route[0]) not in servers)

    def _switch(self) -> None:
        stop(self._fabric, self._state, self._arrive)

    def _moved(self) -> Vm:
        """The VM's record when it has arrived."""
        vm = self._state.vm
        store = self._fabric.storage.datastores.get(self._target)
        name = store.name if store else self._target
        moving = {disk.key for disk in self._moving()}
        disks = tuple(
            replace(disk, datastore_id=self._target, path=in_datastore(disk.path, name))
            if disk.key in moving
            else disk
            for disk in vm.disks
        )
        home = self._target if self._keys is None else vm.home_datastore_id
        return replace(vm, disks=disks, home_datastore_id=home)

    def _arrive(self) -> None:
        fabric, state, guests = self._fabric, self._state, self._fabric.guests
        moving = {disk.key for disk in self._moving()}
        state.vm = vm = self._moved()
        state.moves += 1
        if fabric.plane is not None:
            fabric.plane.relocated(state.guest)
        if self._keys is None:
            # The working directory moves with the home.
            fabric.delta_store.pop(state.guest, None)
        copied = fabric.storage.shares(
            replace(vm, disks=tuple(d for d in vm.disks if d.key in moving and not d.raw_device))
        )
        guests.wrote_to(copied, self._size, fabric.env.now)
        guests.place(state.guest, fabric.storage.shares(state.vm), fabric.env.now)
        _log(fabric, state, "world.vm.relocated", self._target)
        vacate(fabric, state)

    def break_off(self) -> None:
        """The host is lost: the VM stays where it lies, the copy is discarded."""
        drop_work_of(self._fabric, self)
        if self._fabric.plane is not None:
            self._fabric.plane.relocation_broken(self._state.guest)
        _fail(self._fabric, self._state)


def _fail(fabric: Fabric, state: VmState) -> None:
    _log(fabric, state, "world.vm.migration-failed", state.operation)
    vacate(fabric, state)


def stop(fabric: Fabric, state: VmState, then: Callable[[], None]) -> None:
    """Stop a running VM's vCPUs for the switchover, and go on; at once if it does not run."""
    if not state.running:
        then()
        return
    state.stunned = True
    if fabric.plane is not None:
        fabric.plane.stunned(state.guest)
    _log(fabric, state, "world.vm.stunned")
    fabric.env.after(fabric.profile.vmotion_switchover, _run_again, fabric, state, then)


def _run_again(fabric: Fabric, state: VmState, then: Callable[[], None]) -> None:
    state.stunned = False
    if fabric.plane is not None:
        fabric.plane.unstunned(state.guest)
    _log(fabric, state, "world.vm.unstunned")
    then()


def power(fabric: Fabric, state: VmState, to: PowerState, *, clean: bool) -> None:
    """Change the power state of a VM that is free; no change is no event."""
    if state.vm.power_state is to:
        return
    state.vm = replace(state.vm, power_state=to)
    state.running = to is PowerState.ON
    state.clean = clean
    fabric.guests.power(state.guest, on=to is PowerState.ON, now_s=fabric.env.now)
    if fabric.plane is not None:
        suspended = to is PowerState.SUSPENDED
        fabric.plane.powered(state.guest, on=state.running, memory=suspended, clean=clean)
    _log(fabric, state, "world.vm.power", to if clean or to is not PowerState.OFF else "cut")
