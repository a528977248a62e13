"""What a job hands back: per VM, per array call, per group, and for the whole.

A quantity that a driver could not see is ``None``. Times are seconds on the loop's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from ..drivers.contracts import ConsistencyLevel, FileLocation, GroupSnapshotRef, Window
from ..drivers.records import ArrayId, DatastoreId, UnitId, VmId
from .events import EventLog


class JobStatus(StrEnum):
    """How a job ended as a whole."""

    PROTECTED = "protected"
    PARTLY = "partly-protected"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NOTHING_SELECTED = "nothing-selected"


class VmStatus(StrEnum):
    """How a job ended for one VM."""

    PENDING = "pending"
    PROTECTED = "protected"
    UNPROTECTED = "unprotected"


@dataclass(slots=True)
class VmOutcome:
    """One VM's way through the job, filled in as it goes.

    ``opened_s`` is when the VM snapshot existed, ``removal_s`` when its removal began (first
    attempt), ``merged_s`` when its delta was merged. ``wait_s`` is time spent waiting for limits.
    """

    vm_id: VmId
    name: str
    group_id: str
    status: VmStatus = VmStatus.PENDING
    reason: str = ""
    level: ConsistencyLevel = ConsistencyLevel.UNKNOWN
    quiesce: Window | None = None
    stun_create: Window | None = None
    stun_remove: Window | None = None
    requested_s: float | None = None
    opened_s: float | None = None
    removal_s: float | None = None
    merged_s: float | None = None
    delta_bytes: int | None = None
    merged_bytes: int | None = None
    passes: int | None = None
    attempts: int = 0
    degraded: bool = False
    moved: bool = False
    wait_s: float = 0.0
    unit_ids: tuple[UnitId, ...] = ()
    datastore_ids: tuple[DatastoreId, ...] = ()
    disk_levels: tuple[tuple[int, ConsistencyLevel], ...] = ()
    """Per disk key the level that the array's snapshot holds."""
    excluded_disks: tuple[int, ...] = ()
    """Keys of disks that are in no snapshot (independent disks, unless asked for)."""
    image_files: tuple[FileLocation, ...] = ()
    """The files of its image, as the metadata of its snapshot named them: what a restore reads."""
    left_behind: bool = False
    """Our snapshot or its delta could not be removed: an orphan that the job reports."""


@dataclass(slots=True, eq=False)
class ArrayCall:
    """One group snapshot call to one array, with its retries."""

    array_id: ArrayId
    group_id: str
    tag: str
    unit_ids: tuple[UnitId, ...]
    requested_s: float
    completed_s: float | None = None
    cut_s: float | None = None
    fence: Window | None = None
    attempts: int = 0
    error: str = ""
    ref: GroupSnapshotRef | None = None
    wait_s: float = 0.0


@dataclass(slots=True)
class GroupOutcome:
    """One group of the plan: which VMs it held and when it ran."""

    group_id: str
    vm_ids: tuple[VmId, ...]
    started_s: float | None = None
    finished_s: float | None = None
    error: str = ""


class CatalogueEntry(NamedTuple):
    """A VM that can be restored: from which unit snapshots, at which level, cut when.

    ``cuts`` are the array group snapshots; a VM on several arrays has one for each, taken while
    its VM snapshot held the base disks still.
    """

    vm_id: VmId
    level: ConsistencyLevel
    point_in_time_s: float
    cuts: tuple[GroupSnapshotRef, ...]
    unit_ids: tuple[UnitId, ...]
    vm_name: str = ""


@dataclass(slots=True)
class LimiterWaits:
    """How long calls waited for one limit."""

    name: str
    calls: int = 0
    waited: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0


@dataclass(slots=True)
class JobResult:
    """Everything one job did and measured.

    ``targeted`` and ``estate`` units and bytes give the targeting ratio; ``collateral`` are VMs on
    a snapshotted unit that nobody selected; ``skew_s`` is the span between the first and last cut.
    """

    job_id: str
    strategy: str
    status: JobStatus
    started_s: float
    finished_s: float
    vms: list[VmOutcome]
    groups: list[GroupOutcome]
    calls: list[ArrayCall]
    catalogue: list[CatalogueEntry]
    collateral: tuple[VmId, ...]
    targeted_units: int
    targeted_bytes: int
    estate_units: int
    estate_bytes: int
    retries: int
    fallbacks: int
    orphans: list[str]
    waits: list[LimiterWaits]
    events: EventLog = field(repr=False)

    @property
    def makespan_s(self) -> float:
        """Job start to job end, releases included, in seconds."""
        return self.finished_s - self.started_s

    @property
    def skew_s(self) -> float | None:
        """Seconds between the first and the last point in time that array snapshots show."""
        cuts = [call.cut_s for call in self.calls if call.cut_s is not None]
        return max(cuts) - min(cuts) if cuts else None

    @property
    def protected(self) -> int:
        """VMs that can be restored from this job."""
        return sum(vm.status is VmStatus.PROTECTED for vm in self.vms)
