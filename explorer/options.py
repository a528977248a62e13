"""What one exploration run does: everything that is drawn for it, and that a replay needs again."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from ..drivers.records import UnitId, VmId
from ..orchestrator.spec import OnVmFailure, QuiescePolicy, Section, StrategyName
from ..sim.faults import Faults

Steps = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]


class JournalKind(StrEnum):
    """What keeps the intents of a run."""

    MEMORY = "memory"
    SQLITE_MEMORY = "sqlite-memory"
    SQLITE_FILE = "sqlite-file"


class PlannedEvent(Section):
    """Something that happens to the world: fields as the scenario's events have them."""

    kind: Literal["vmotion", "storage-vmotion", "power", "host-lost", "snapshot-removed"]
    at_s: NonNegative
    vm: VmId = ""
    target: str = ""
    """A host, a datastore or a power state."""
    disks: tuple[int, ...] | None = None
    """Keys of the disks that move with a storage vMotion; all if None."""
    copy_bytes: Annotated[int, Field(ge=0)] | None = None
    """What a storage vMotion has to copy; None for the profile's share of the disks."""
    cut: bool = False
    on_event: str = ""
    """``kind#n``: it happens at the n-th event of this kind, if that comes, and not at ``at_s``."""


class PlantedSnapshot(Section):
    """An array snapshot that somebody else took; its tag is made to resemble the job's own."""

    array_id: str
    unit_ids: tuple[UnitId, ...]
    tag: str


class Rival(Section):
    """A second orchestrator that recovers while the first is not dead but stands still.

    The first stands still at step ``at_step``, or at ``at_event`` (``kind#n``) if that is given;
    ``after_s`` seconds later the second begins to recover. After ``its_steps`` steps (0: when it
    has finished) the first goes on.
    """

    at_step: Steps = 0
    at_event: str = ""
    after_s: NonNegative
    its_steps: Steps = 0


class Keep(Section):
    """A retention rule to prune by when all jobs have ended."""

    keep_last: Annotated[int, Field(ge=1)] | None = None
    keep_within_s: NonNegative | None = None
    snapshots_per_unit: Annotated[int, Field(ge=1)] | None = None


class RunOptions(Section):
    """Everything drawn for one run; each default means "as the scenario says" or "not at all".

    Times are seconds of virtual time. ``None`` leaves what the scenario says.

    Attributes
    ----------
    vms:
        The VMs that exist, with their hosts, datastores and units; all of the estate if None.
    excluded:
        VMs that exist and are taken out of the job's selection.
    foreign:
        VMs with snapshots that somebody else took, and how many.
    loose:
        Of these VMs the oldest snapshot from before is gone and has left its delta.
    planted:
        Array snapshots that somebody else took.
    limits, timeouts:
        Fields of :class:`Limits` and :class:`Timeouts` that differ from the scenario's.
    hypervisor, array:
        Numbers of the profiles that differ from the scenario's.
    cancel_s, cancel_again_s:
        When the job is cancelled, after its start, and how much later once more.
    ready_order, ties:
        Whether ready callbacks, and completions at one instant, come in an order of their own.
    crash_steps:
        For each incarnation (the job, then each recovery) the step at which it dies; 0 for never.
    barriers:
        For each incarnation the event at which it dies, as ``kind#n``; "" for never.
    downtime_s:
        From a death to the next incarnation.
    lose_tail:
        What was not yet durable is gone after a death.
    second_job, second_excluded:
        Another job runs when the first is over: over the same VMs, without these.
    """

    vms: tuple[VmId, ...] | None = None
    excluded: tuple[VmId, ...] = ()
    foreign: tuple[tuple[VmId, int], ...] = ()
    loose: tuple[VmId, ...] = ()
    planted: tuple[PlantedSnapshot, ...] = ()

    strategy: StrategyName | None = None
    chunk_vms: int | None = None
    policy: QuiescePolicy | None = None
    quiesce_timeout_s: float | None = None
    overrides: tuple[tuple[VmId, QuiescePolicy], ...] = ()
    limits: tuple[tuple[str, int | None], ...] = ()
    timeouts: tuple[tuple[str, float], ...] = ()
    attempts: int | None = None
    first_pause_s: float | None = None
    on_vm_failure: OnVmFailure | None = None
    recuts: int | None = None
    physical_raw_disks: bool | None = None
    independent_disks: bool | None = None
    plan_age_s: float | None = None

    events: tuple[PlannedEvent, ...] = ()
    cancel_s: float | None = None
    cancel_again_s: float | None = None
    faults: Faults = Faults()
    fidelity: Literal["flow", "block"] = "flow"
    hypervisor: tuple[tuple[str, float | int | str | None], ...] = ()
    array: tuple[tuple[str, float | int | str | None], ...] = ()

    ready_order: bool = False
    ties: bool = False
    crash_steps: tuple[Steps, ...] = ()
    barriers: tuple[str, ...] = ()
    downtime_s: NonNegative = 0.0
    rival: Rival | None = None
    journal: JournalKind = JournalKind.MEMORY
    lose_tail: bool = False
    lease_s: Annotated[float, Field(gt=0)] = 60.0
    second_job: bool = False
    second_excluded: tuple[VmId, ...] = ()
    prune: Keep | None = None

    def to_data(self) -> dict[str, Any]:
        """As plain data, for JSON; what stands at its default is left out."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> RunOptions:
        """From plain data.

        Raises
        ------
        pydantic.ValidationError
            It is not what :meth:`to_data` writes.
        """
        return cls.model_validate(data)
