"""What invariants are judged by: the world's ground truth, who called what, what is in the journal.

What the orchestrator believed is here only to be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from ..drivers.contracts import GroupSnapshotRef
from ..drivers.records import DatastoreId, Estate, UnitId, Vm, VmId
from ..orchestrator.events import Row
from ..orchestrator.job import Job
from ..orchestrator.journal import JobRecord, StoredEntry
from ..orchestrator.plan import Plan
from ..orchestrator.result import JobResult
from ..orchestrator.spec import JobSpec
from ..sim.array_calls import Held
from ..sim.vmstate import VmState
from ..sim.world import World
from .calls import Call
from .journals import Hand
from .options import RunOptions

PREFIX = "stillframe-"


class Lying(NamedTuple):
    """A VM as it lies at some instant; ``chain_store`` holds deltas of others that it stands on."""

    vm: Vm
    chain_store: DatastoreId | None


class Cut(NamedTuple):
    """An array cut units at an instant; ``vms`` are all VMs as they lay then."""

    at_s: float
    array_id: str
    unit_ids: tuple[UnitId, ...]
    vms: tuple[Lying, ...]

    def lying(self, vm_id: VmId) -> Lying:
        """How one VM lay."""
        return next(one for one in self.vms if one.vm.id == vm_id)


class Move(NamedTuple):
    """A VM came into being, or arrived where it lies from then on."""

    at_s: float
    lying: Lying


@dataclass
class JobStory:
    """One job: what it was asked, and how it ended.

    Attributes
    ----------
    life:
        The number of the process that ran it.
    result:
        None when its process died, or it ended by ``error``.
    truth_at_end:
        What the world really held of this job when it said that it was over: sentence and tag.
    kept_at_end:
        Its entries in the catalogue at that moment.
    """

    job_id: str
    life: int
    second: bool = False
    plan: Plan | None = None
    job: Job | None = None
    began_s: float | None = None
    ended_s: float | None = None
    result: JobResult | None = None
    error: BaseException | None = None
    cancelled: bool = False
    truth_at_end: list[tuple[str, str]] = field(default_factory=list)
    kept_at_end: list[StoredEntry] = field(default_factory=list)


@dataclass
class PruneStory:
    """One pruning: the catalogue before and after."""

    before: list[StoredEntry]
    after: list[StoredEntry]
    restorable_before: frozenset[str]
    """Tags of array snapshots that were held and complete before it."""
    ended_s: float


@dataclass
class Evidence:
    """Everything there is to know of a run that is over.

    Attributes
    ----------
    moves:
        Where each VM lay, from its beginning on, in order of time.
    cuts:
        Every cut that an array made during the run.
    planted:
        Array snapshots that were there before the run.
    foreign:
        Identifiers of the VM snapshots that were there before the run, by VM.
    loose:
        Those of them of which only the delta was there.
    hands:
        Who took which job, and who wrote to its journal, in order.
    unfinished:
        Jobs that are not over after the last round of recovery.
    trouble:
        Sentences: what ended otherwise than it may (a deadlock, an unexpected exception).
    """

    options: RunOptions
    spec: JobSpec
    estate: Estate
    world: World
    rows: Sequence[Row]
    calls: Sequence[Call]
    jobs: Sequence[JobStory]
    prunes: Sequence[PruneStory]
    hands: Sequence[Hand]
    cuts: Sequence[Cut]
    moves: Sequence[Move]
    planted: Sequence[GroupSnapshotRef]
    foreign: dict[VmId, tuple[str, ...]]
    loose: frozenset[str]
    entries: Sequence[StoredEntry]
    records: Sequence[JobRecord]
    unfinished: Sequence[str]
    trouble: Sequence[str]
    _calls_of: dict[tuple[str, ...], list[Call]] = field(default_factory=dict, init=False)
    _under: dict[tuple[int, DatastoreId | None], tuple[Vm, tuple[UnitId, ...]]] = field(
        default_factory=dict, init=False
    )

    @cached_property
    def states(self) -> dict[VmId, VmState]:
        """Every VM as the hypervisors have it now."""
        return {
            vm_id: state
            for hypervisor in self.world.hypervisors.values()
            for vm_id, state in hypervisor.states.items()
        }

    @cached_property
    def held(self) -> list[Held]:
        """Every group snapshot that an array holds now."""
        return [held for array in self.world.arrays.values() for held in array._held.values()]

    @cached_property
    def by_kind(self) -> dict[str, list[Row]]:
        """The rows of each kind, in order."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row[1], []).append(row)
        return found

    @cached_property
    def by_subject(self) -> dict[str, list[Row]]:
        """The rows about each VM, array or group, in order."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row[3], []).append(row)
        return found

    def of(self, *kinds: str) -> list[Row]:
        """Rows of these kinds, in order of kind and then of time."""
        return [row for kind in kinds for row in self.by_kind.get(kind, ())]

    @cached_property
    def job_ids(self) -> frozenset[str]:
        """The identifiers of the run's jobs."""
        return frozenset(story.job_id for story in self.jobs)

    def job_of(self, tag: str) -> str | None:
        """The job that a tag belongs to; None for a tag that is not of this run's jobs."""
        if not tag.startswith(PREFIX):
            return None
        job_id, _, number = tag[len(PREFIX) :].rpartition("-")
        return job_id if number.isdecimal() and job_id in self.job_ids else None

    def calls_of(self, *operations: str) -> list[Call]:
        """Calls of these operations, in order."""
        found = self._calls_of.get(operations)
        if found is None:
            found = [call for call in self.calls if call.operation in operations]
            self._calls_of[operations] = found
        return found

    @cached_property
    def cut_of(self) -> dict[GroupSnapshotRef, Cut]:
        """For each snapshot that an array holds, the instant at which it was cut."""
        by_place = {(cut.at_s, cut.array_id, cut.unit_ids): cut for cut in self.cuts}
        found = {}
        for held in self.held:
            snapshot = held.snapshot
            if snapshot.cut_s is not None:
                key = (snapshot.cut_s, snapshot.ref.array_id, snapshot.unit_ids)
                if key in by_place:
                    found[snapshot.ref] = by_place[key]
        return found

    @cached_property
    def selected(self) -> frozenset[VmId]:
        """VMs that the jobs of this run were to protect, and could."""
        plans = [story.plan for story in self.jobs if story.plan is not None]
        return frozenset(vm_id for plan in plans for group in plan.groups for vm_id in group.vm_ids)

    def units_under(self, lying: Lying) -> tuple[UnitId, ...]:
        """The units that hold what the job protects of a VM that lies like this.

        Worked out from the estate's records alone: home, disks that the job keeps, raw devices,
        and the deltas of snapshots that were there before.
        """
        # By identity, with the record kept, or another could come to have its address.
        place = (id(lying.vm), lying.chain_store)
        if place in self._under:
            return self._under[place][1]
        stores = self._units_of_store
        units = dict.fromkeys(_units(lying.vm, self.spec, self._unit_of, stores))
        if lying.chain_store is not None:
            units.update(dict.fromkeys(stores.get(lying.chain_store, ())))
        self._under[place] = lying.vm, tuple(units)
        return self._under[place][1]

    def units_of_pointers(self, lying: Lying) -> list[UnitId]:
        """Units that hold a pointer file of a physical mapping: no data, and yet a file of the VM.

        The VM does not start without it, so cutting them is not needless.
        """
        stores = (disk.datastore_id for disk in lying.vm.disks if disk.raw_is_physical)
        return [unit for store in stores for unit in self._units_of_store.get(store or "", ())]

    @cached_property
    def _unit_of(self) -> dict[object, UnitId]:
        return {device: unit.id for unit in self.estate.units for device in unit.devices}

    @cached_property
    def _units_of_store(self) -> dict[str, tuple[UnitId, ...]]:
        return {
            store.id: tuple(
                self._unit_of[device] for device in store.extents if device in self._unit_of
            )
            for store in self.estate.inventory.datastores
        }


def _units(
    vm: Vm,
    spec: JobSpec,
    unit_of: dict[object, UnitId],
    units_of_store: dict[str, tuple[UnitId, ...]],
) -> Iterable[UnitId]:
    if vm.home_datastore_id is not None:
        yield from units_of_store.get(vm.home_datastore_id, ())
    for disk in vm.disks:
        if disk.raw_device is not None:
            if disk.raw_is_physical and not spec.physical_raw_disks:
                continue
            unit = unit_of.get(disk.raw_device)
            if unit is not None:
                yield unit
            if disk.raw_is_physical:
                continue  # the pointer file holds no data of the guest
        elif not disk.in_vm_snapshot and not spec.independent_disks:
            continue
        if disk.datastore_id is not None:
            yield from units_of_store.get(disk.datastore_id, ())
