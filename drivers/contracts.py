"""The two contracts that the orchestrator works through.

A driver is any class with these methods; it need not inherit. All times are seconds on the clock
of the running event loop (``asyncio.get_running_loop().time()``), all sizes bytes. A quantity that
a driver cannot see is ``None``, never zero. Cancelling a call means that the caller stopped
waiting, not that the system stopped working: a driver makes no promise about the outcome of a
cancelled call, and the orchestrator looks for its tag afterwards. A question that stays without
an answer (``inventory``, ``resolve``, ``list_snapshots``) ends in some ``DriverError`` in bounded
time.

Records that pass by once or more per VM are named tuples: a frozen dataclass of five fields takes
two to three times as long to make, and a run makes a dozen for each VM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from .records import (
    ArrayId,
    DatastoreId,
    DeviceIdentity,
    Inventory,
    StorageUnit,
    UnitId,
    VmId,
)


class ConsistencyLevel(StrEnum):
    """What a restored image is worth, strongest first; ``UNKNOWN`` claims nothing."""

    APPLICATION = "application"
    FILESYSTEM = "filesystem"
    CRASH = "crash"
    UNKNOWN = "unknown"

    @property
    def rank(self) -> int:
        """0 for the strongest level; the level of a whole is that of its weakest part."""
        return _RANKS[self]


_RANKS = {level: rank for rank, level in enumerate(ConsistencyLevel)}


class Window(NamedTuple):
    """A span of time on the loop's clock; not ``exact`` when it is only an upper bound."""

    start_s: float
    end_s: float
    exact: bool = True

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s


class FileRole(StrEnum):
    """What a file of a VM is to a snapshot of it."""

    BASE = "base"
    """Stands still while the VM snapshot is open: base disks, earlier deltas of the chain."""
    DELTA = "delta"
    """Takes the writes that come after the VM snapshot."""
    CONFIG = "config"
    """The VM's home: configuration, NVRAM, snapshot state."""
    LIVE = "live"
    """A disk that no VM snapshot holds still (independent): the guest goes on writing to it."""


class FileLocation(NamedTuple):
    """One file of a VM and the datastore it lies on."""

    path: str
    datastore_id: DatastoreId
    role: FileRole
    disk_key: int | None = None


class RawDevice(NamedTuple):
    """The device behind a raw device mapping.

    ``held`` says whether a VM snapshot holds it still: in virtual compatibility mode it does, in
    physical mode the guest goes on writing to it.
    """

    disk_key: int
    device: DeviceIdentity
    held: bool


class VmLocation(NamedTuple):
    """Where a VM lies at the moment of the answer that carries this.

    ``files`` are all files of the VM, those of raw device mappings (pointers) included;
    ``raw_devices`` are the devices behind the mappings. ``moves`` counts how often its files were
    moved, from any beginning on: a VM that was moved away and back lies where it lay, and yet was
    not there all the time. None when the driver cannot tell.
    """

    files: tuple[FileLocation, ...]
    raw_devices: tuple[RawDevice, ...] = ()
    moves: int | None = None


class VmSnapshotRef(NamedTuple):
    """Our handle on one VM snapshot. ``snapshot_id`` is the hypervisor's, ``tag`` is ours."""

    vm_id: VmId
    snapshot_id: str
    tag: str


class VmSnapshotRequest(NamedTuple):
    """A VM snapshot to take; ``tag`` is unique per attempt and ends up in the snapshot's name."""

    vm_id: VmId
    tag: str
    quiesce: bool
    quiesce_timeout_s: float


class VmSnapshot(NamedTuple):
    """The answer to a create: what was reached, where the VM lies now, what it cost the guest."""

    ref: VmSnapshotRef
    level: ConsistencyLevel
    location: VmLocation
    created_s: float
    quiesce: Window | None = None
    stun: Window | None = None


class MergeResult(NamedTuple):
    """The answer to a remove: the delta is merged and gone."""

    delta_bytes: int | None = None
    merged_bytes: int | None = None
    passes: int | None = None
    stun: Window | None = None


class VmSnapshotState(NamedTuple):
    """What a VM's snapshots look like now.

    ``snapshots`` are all of them, foreign ones included (their tag is their name);
    ``needs_consolidation`` says that delta files are left without a snapshot above them;
    ``operation_running`` whether some operation on the VM is queued or under way, None when the
    driver cannot tell. A tag that is not listed while nothing runs will never appear.
    """

    vm_id: VmId
    location: VmLocation
    snapshots: tuple[VmSnapshotRef, ...]
    needs_consolidation: bool = False
    operation_running: bool | None = None


@dataclass(frozen=True, slots=True)
class HypervisorCapabilities:
    """What a hypervisor driver can do; the defaults promise the least.

    Attributes
    ----------
    reports_quiesce:
        It sees when guests froze and thawed, so that ``quiesce`` windows are exact.
    reports_stun:
        It sees when vCPUs stopped and ran again.
    reports_delta:
        It knows how many bytes a delta held when it was merged.
    consolidates:
        It can merge delta files that have no snapshot above them.
    """

    reports_quiesce: bool = False
    reports_stun: bool = False
    reports_delta: bool = False
    consolidates: bool = False


@runtime_checkable
class HypervisorDriver(Protocol):
    """One vCenter, or anything that plays its part."""

    @property
    def capabilities(self) -> HypervisorCapabilities:
        """What this driver can do."""
        ...

    async def inventory(self) -> Inventory:
        """Everything this system holds, now."""
        ...

    async def create_snapshot(self, request: VmSnapshotRequest) -> VmSnapshot:
        """Quiesce if asked, snapshot the VM, thaw.

        When it returns, the base stands still. When it raises DidNotHappenError or
        NeverWillError, no snapshot is left and the guest is thawed.
        """
        ...

    async def list_snapshots(self, vm_ids: Sequence[VmId] | None = None) -> list[VmSnapshotState]:
        """The snapshots and locations of these VMs (of all, if None); unknown VMs are left out."""
        ...

    async def remove_snapshot(self, ref: VmSnapshotRef) -> MergeResult:
        """Remove this snapshot and merge its delta; returns when the merge is finished.

        Raises NotFoundError when it is already gone, HappenedError when the snapshot is gone but
        its delta is not merged (then ``consolidate`` finishes the work).
        """
        ...

    async def consolidate(self, vm_id: VmId) -> None:
        """Merge delta files that no snapshot owns; nothing to do is success."""
        ...


class SnapshotMethod(StrEnum):
    """How an array keeps the old data of a snapshot."""

    REDIRECT_ON_WRITE = "redirect-on-write"
    COPY_ON_WRITE = "copy-on-write"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class GroupSnapshotRequest:
    """Units of one array to snapshot at one point in time, and the tag to do it under.

    ``fence_timeout_s`` is the longest that writes to the units may be held for it: a snapshot that
    would take longer is given up with DidNotHappenError, and nothing of it is left.
    """

    unit_ids: tuple[UnitId, ...]
    tag: str
    fence_timeout_s: float


@dataclass(frozen=True, slots=True)
class GroupSnapshotRef:
    """Our handle on a group snapshot. ``snapshot_id`` is the array's, ``tag`` is ours."""

    array_id: ArrayId
    snapshot_id: str
    tag: str


@dataclass(frozen=True, slots=True)
class GroupSnapshot:
    """A complete snapshot of every unit in ``unit_ids``.

    ``cut_s`` is the point in time that the images show, as close as the driver can tell;
    ``fence`` the time for which writes to the group were held.
    """

    ref: GroupSnapshotRef
    unit_ids: tuple[UnitId, ...]
    cut_s: float | None = None
    fence: Window | None = None


@dataclass(frozen=True, slots=True)
class ArrayCapabilities:
    """What an array driver can do; the defaults promise the least.

    Attributes
    ----------
    method:
        How old data is kept.
    atomic_groups:
        A group call cuts all its units at one point in time.
    holds_writes:
        It does so by holding the writes of the datastores on the units, not by itself: they stand
        still for the length of the fence, and writes that reach a unit in another way are not held.
    units_per_group:
        Most units in one group call; None when there is no limit.
    snapshots_per_unit:
        Most snapshots that one unit can carry; None when there is no limit.
    group_operations:
        Group calls that may run at the same time on the array.
    reads_back:
        The driver also has ``read_back``.
    clones:
        The driver also has ``clone`` and ``discard``.
    """

    method: SnapshotMethod = SnapshotMethod.UNKNOWN
    atomic_groups: bool = False
    holds_writes: bool = False
    units_per_group: int | None = None
    snapshots_per_unit: int | None = None
    group_operations: int = 1
    reads_back: bool = False
    clones: bool = False


@runtime_checkable
class ArrayDriver(Protocol):
    """One storage array."""

    @property
    def capabilities(self) -> ArrayCapabilities:
        """What this driver can do."""
        ...

    async def resolve(
        self, devices: Sequence[DeviceIdentity]
    ) -> Mapping[DeviceIdentity, StorageUnit]:
        """The unit behind each device identity; devices of other arrays are left out."""
        ...

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """Snapshot all these units; returns when the array says that it is complete.

        Either every unit is in the snapshot or none is. A tag never names two snapshots: calling
        again with the tag of one that exists returns it, and with the tag of one that is being
        made raises BusyError. Without that, a call that was repeated after a lost answer could
        complete twice, and the second time after everyone has stopped looking.
        """
        ...

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        """The group snapshots whose tag starts with this, complete ones only."""
        ...

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """Delete a group snapshot; raises NotFoundError when it is already gone."""
        ...


@runtime_checkable
class ReadableArrayDriver(ArrayDriver, Protocol):
    """An array whose snapshots can be read and cloned through the driver (optional)."""

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: UnitId, offset_bytes: int, length_bytes: int
    ) -> bytes:
        """Bytes of a unit as the snapshot holds them, as many as were asked for.

        What does not lie within the unit is refused (NeverWillError or DidNotHappenError).
        """
        ...

    async def clone(self, ref: GroupSnapshotRef, unit_id: UnitId, name: str) -> StorageUnit:
        """A writable copy of a unit as the snapshot holds it; writes do not reach the parent.

        Its ``devices`` say where a host finds it. While it exists, deleting the snapshot may raise
        BusyError.
        """
        ...

    async def discard(self, unit_id: UnitId) -> None:
        """Delete a copy that ``clone`` made; raises NotFoundError when there is none."""
        ...
