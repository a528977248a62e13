"""One VM as the modelled hypervisor sees it: where it lies now, and its chain of snapshots."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Protocol

from ..drivers.contracts import (
    FileLocation,
    FileRole,
    RawDevice,
    VmLocation,
    VmSnapshotRef,
    VmSnapshotState,
)
from ..drivers.records import Datastore, DatastoreId, Disk, PowerState, Vm

_IN_DATASTORE = re.compile(r"^\s*\[[^\]]*\]\s*")


class Snapshot:
    """One snapshot in a VM's chain, and the delta that was started with it.

    The delta holds what was written from ``since_s`` until the next snapshot of the chain began,
    or until now if there is none. A ``loose`` delta has lost its snapshot: it can be consolidated
    and nothing else. ``number`` stands in the names of its files, which keep them whatever is
    merged below.
    """

    __slots__ = ("foreign", "loose", "number", "ref", "since_s")

    def __init__(
        self, ref: VmSnapshotRef, since_s: float, number: int = 1, *, foreign: bool
    ) -> None:
        self.ref = ref
        self.since_s = since_s
        self.number = number
        self.foreign = foreign
        self.loose = False


class Task(Protocol):
    """Whatever works on a VM."""

    def break_off(self) -> None:
        """End at once, as things stand: the VM's host is lost."""


class VmState:
    """A VM, its chain (oldest first) and what is being done to it.

    Attributes
    ----------
    vm:
        The record with the current host, placement and power state.
    guest:
        Its number among the guests.
    running:
        Whether there is a guest that can be frozen and vCPUs that can be stopped.
    is_windows:
        Whether the guest is frozen through VSS.
    held_disks:
        Disks that a VM snapshot holds still, each with a delta of its own.
    operation:
        What the hypervisor does to it now; empty when it is free. There is never more than one.
    deferred:
        Events of the world that wait for the operation to end.
    clean:
        A VM that is off was shut down by its guest, so that its file systems are whole.
    moves:
        How often it has arrived on another datastore.
    attempts:
        Operations so far; keys the draws.
    task:
        Who carries out the operation; None when it is free.
    unreachable:
        Its host is lost, and it has not been started elsewhere yet.
    """

    __slots__ = (
        "_located",
        "attempts",
        "chain",
        "clean",
        "deferred",
        "frozen",
        "guest",
        "held_disks",
        "is_windows",
        "moves",
        "operation",
        "running",
        "stunned",
        "task",
        "unreachable",
        "vm",
    )

    def __init__(self, vm: Vm, guest: int) -> None:
        self.vm = vm
        self.guest = guest
        self.chain: list[Snapshot] = [
            Snapshot(VmSnapshotRef(vm.id, f"{vm.id}/found-{n}", f"found-{n}"), 0.0, n, foreign=True)
            for n in range(1, vm.snapshot_count + 1)
        ]
        name = vm.guest_os.lower()
        self.is_windows = "windows" in name or name.startswith("win")
        self.running = vm.power_state is PowerState.ON
        self.held_disks = len([disk for disk in vm.disks if disk.in_vm_snapshot])
        self.operation = ""
        self.deferred: list[Callable[[], None]] | None = None
        self.frozen = False
        self.stunned = False
        self.clean = True
        self.moves = 0
        self.attempts = 0
        self.task: Task | None = None
        self.unreachable = False
        self._located: tuple[Vm, tuple[int, ...], VmLocation] | None = None

    def deltas_by_store(self, delta_store: DatastoreId | None) -> list[tuple[DatastoreId, int]]:
        """How many deltas a snapshot creates on each datastore, in the order of the disks."""
        disks = self.vm.disks
        if len(disks) == self.held_disks == 1:  # most VMs
            store_id = delta_store or disks[0].datastore_id
            return [(store_id, 1)] if store_id is not None else []
        counts: dict[DatastoreId, int] = {}
        for disk in disks:
            store_id = delta_store or disk.datastore_id
            if store_id is not None and disk.in_vm_snapshot:
                counts[store_id] = counts.get(store_id, 0) + 1
        return list(counts.items())

    def find(self, snapshot_id: str) -> int | None:
        """The place in the chain of a snapshot; None if it is not there (any more)."""
        for place, snapshot in enumerate(self.chain):
            if snapshot.ref.snapshot_id == snapshot_id and not snapshot.loose:
                return place
        return None

    def listing(
        self, datastores: Mapping[DatastoreId, Datastore], delta_store: DatastoreId | None
    ) -> VmSnapshotState:
        """What a client that lists snapshots is told."""
        refs = [snapshot.ref for snapshot in self.chain if not snapshot.loose]
        return VmSnapshotState(
            self.vm.id,
            self.location(datastores, delta_store),
            tuple(refs),
            len(refs) < len(self.chain),
            self.operation != "",
        )

    def location(
        self, datastores: Mapping[DatastoreId, Datastore], delta_store: DatastoreId | None
    ) -> VmLocation:
        """Every file of the VM where it lies now, and the devices of its raw mappings.

        The newest delta of each disk takes the writes; everything below it stands still. Without
        a snapshot the disks themselves are listed, as base.

        While a snapshot is open, callers who ask again get the same object until the VM has moved
        or its chain has changed; a VM without one is asked about once, and nothing is kept.
        """
        vm, located = self.vm, self._located
        numbers = tuple([snapshot.number for snapshot in self.chain])
        if located is not None and located[0] is vm and located[1] == numbers:
            return located[2]
        if located is not None and located[0] is vm and len(located[1]) == 1 and not numbers:
            # The only snapshot is gone, and with it the deltas; nothing else has changed.
            still = [file for file in located[2].files if file.role is not FileRole.DELTA]
            location = located[2]._replace(files=tuple(still))
        else:
            location = self._locate(vm, datastores, delta_store)
        self._located = (vm, numbers, location) if numbers else None
        return location

    def _locate(
        self, vm: Vm, datastores: Mapping[DatastoreId, Datastore], delta_store: DatastoreId | None
    ) -> VmLocation:
        files: list[FileLocation] = []
        raw: list[RawDevice] = []
        for disk in vm.disks:
            if disk.raw_device is not None:
                raw.append(RawDevice(disk.key, disk.raw_device, not disk.raw_is_physical))
            if disk.datastore_id is not None:
                self._add_disk(files, disk, disk.datastore_id, datastores, delta_store)
        home = vm.home_datastore_id
        if home is not None:
            store = datastores.get(home)
            path = f"[{store.name if store else home}] {vm.name}/{vm.name}.vmx"
            files.append(FileLocation(path, home, FileRole.CONFIG))
        return VmLocation(tuple(files), tuple(raw), self.moves)

    def _add_disk(
        self,
        files: list[FileLocation],
        disk: Disk,
        store_id: DatastoreId,
        datastores: Mapping[DatastoreId, Datastore],
        delta_store: DatastoreId | None,
    ) -> None:
        if disk.raw_is_physical:
            # Only a pointer: the data is on the device, which no VM snapshot holds.
            files.append(FileLocation(disk.path, store_id, FileRole.CONFIG))
            return
        if not disk.in_vm_snapshot:
            files.append(FileLocation(disk.path, store_id, FileRole.LIVE, disk.key))
            return
        files.append(FileLocation(disk.path, store_id, FileRole.BASE, disk.key))
        if not self.chain:
            return
        stem = _stem(disk.path)
        if delta_store is not None and delta_store != store_id:
            store = datastores.get(delta_store)
            stem = in_datastore(stem, store.name if store else delta_store)
            store_id = delta_store
        newest = self.chain[-1]
        for one in self.chain:
            role = FileRole.DELTA if one is newest else FileRole.BASE
            files.append(FileLocation(f"{stem}-{one.number:06}.vmdk", store_id, role, disk.key))


def _stem(path: str) -> str:
    """The path without ``.vmdk`` and, for a disk that is on a delta already, its number."""
    if path[-5:].lower() != ".vmdk":
        return path
    return path[:-12] if path[-12:-11] == "-" and path[-11:-5].isdecimal() else path[:-5]


def in_datastore(path: str, datastore_name: str) -> str:
    """The same folder and file in another datastore: ``[other] folder/file``."""
    return f"[{datastore_name}] {_IN_DATASTORE.sub('', path)}"
