"""Removing what an earlier job left behind, because somebody asked for that job by its result.

Nothing here looks for jobs: another orchestrator may be at work on the same systems, and its open
snapshots look like leftovers. What is removed carries a tag of the one job that is named, and no
catalogue entry of that job needs it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..drivers.contracts import (
    ArrayDriver,
    ConsistencyLevel,
    HypervisorDriver,
    VmSnapshot,
    VmSnapshotRef,
    VmSnapshotState,
)
from ..drivers.records import ArrayId, VCenterId, VmId
from ..topology.graph import Topology
from .arraycalls import delete_array_snapshot, list_array_patiently
from .context import Context, VmWork, WorkFactory
from .crew import in_turn
from .events import EventLog, Kind
from .journal import MemoryJournal
from .result import VmOutcome
from .spec import JobSpec
from .sweep import FIRST_PAUSE_S, LONGEST_PAUSE_S
from .vmcalls import list_patiently, release_vm, tidy_vm

CLEARING = "clearing"
LISTED_AT_ONCE = 200
"""VMs in one call for snapshots: an estate in one call would outlast the time limit of a query."""


@dataclass(frozen=True, slots=True)
class EarlierJob:
    """A job that has ended, as its result tells of it.

    Attributes
    ----------
    kept_tags:
        Tags of the array snapshots that its catalogue names; they stay.
    unsettled:
        VMs of which it asked for a snapshot and never saw the end of the merge: what they have
        under way is waited for, and a delta that lies about on them is merged.
    """

    job_id: str
    kept_tags: frozenset[str] = frozenset()
    unsettled: frozenset[VmId] = frozenset()


@dataclass(slots=True)
class Clearance:
    """Sentences: what was ``removed``, and what is ``left`` and why."""

    removed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


async def clear_leftovers(
    earlier: EarlierJob,
    spec: JobSpec,
    topology: Topology,
    hypervisors: Mapping[VCenterId, HypervisorDriver],
    arrays: Mapping[ArrayId, ArrayDriver],
    *,
    random: random.Random,
    tell: Callable[[str], None] = lambda _sentence: None,
) -> Clearance:
    """Remove what is left of an earlier job; doing it again finds nothing and changes nothing.

    VM snapshots are removed and their deltas merged, array snapshots outside ``kept_tags``
    deleted, under the limits, time limits and retries of ``spec``. Operations that are still
    under way on its unsettled VMs are waited for, ``timeouts.settle`` seconds at most.

    Parameters
    ----------
    topology:
        Every VM of every hypervisor, as they are now.
    random:
        The source of jitter between repetitions.
    tell:
        Hears each sentence of the answer when it becomes true.

    Raises
    ------
    asyncio.CancelledError
        The caller was cancelled; the next call goes on where this one stopped.
    """
    context = Context(
        job_id=earlier.job_id,
        spec=spec,
        hypervisors=hypervisors,
        arrays=arrays,
        topology=topology,
        random=random,
        log=EventLog(),
        journal=MemoryJournal(),
    )
    context.now_s = asyncio.get_running_loop().time
    clearing = _Clearing(context, earlier, tell)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(clearing.clear_vms())
        for array_id in arrays:
            tasks.create_task(clearing.clear_array(array_id))
    return clearing.clearance


class _Clearing:
    """One clearing: what it has found, done and not managed."""

    def __init__(self, context: Context, earlier: EarlierJob, tell: Callable[[str], None]) -> None:
        self._context = context
        self._earlier = earlier
        self._tell = tell
        self._factory = WorkFactory(context)
        self._works: dict[VmId, VmWork] = {}
        self._ours: dict[VmId, list[VmSnapshotRef]] = {}
        self._states: dict[VmId, VmSnapshotState] = {}
        self._silent: dict[VCenterId, None] = {}
        self._failed: dict[VmId, None] = {}
        self.clearance = Clearance()

    def _removed(self, sentence: str) -> None:
        self.clearance.removed.append(sentence)
        self._tell(sentence)

    def _left(self, sentence: str) -> None:
        self.clearance.left.append(sentence)
        self._tell(sentence)

    async def clear_vms(self) -> None:
        """Remove every VM snapshot of the job, and merge what their removal left."""
        context = self._context
        everything = context.topology.vm_ids
        unsettled = [vm_id for vm_id in everything if vm_id in self._earlier.unsettled]
        deadline_s = context.now_s() + context.spec.timeouts.settle
        pause_s = FIRST_PAUSE_S
        wanted: Sequence[VmId] = everything
        while True:
            await self._look(wanted)
            touched = await self._remove()
            await self._look(self._not_failed(dict.fromkeys([*touched, *unsettled])))
            await self._tidy()
            unsettled = wanted = [vm_id for vm_id in unsettled if self._may_yet_change(vm_id)]
            remaining_s = deadline_s - context.now_s()
            if not wanted or remaining_s <= 0:
                break
            await asyncio.sleep(min(pause_s, remaining_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        for vm_id in unsettled:
            self._left(f"an operation on {vm_id} goes on, and a snapshot may yet come of it")

    def _not_failed(self, vm_ids: Iterable[VmId]) -> list[VmId]:
        return [vm_id for vm_id in vm_ids if vm_id not in self._failed]

    def _may_yet_change(self, vm_id: VmId) -> bool:
        """Whether a snapshot of the job may still appear; a driver that cannot tell says no.

        The job itself has waited for its lost creates before it wrote its result.
        """
        state = self._states.get(vm_id)
        return state is not None and (bool(state.operation_running) or bool(self._refs(state)))

    def _refs(self, state: VmSnapshotState) -> list[VmSnapshotRef]:
        return [ref for ref in state.snapshots if self._context.owns(ref.tag)]

    async def _look(self, vm_ids: Sequence[VmId]) -> None:
        """Ask for the states of these VMs, all vCenters at once; says who gives no answer."""
        by_vcenter: dict[VCenterId, list[VmId]] = {}
        for vm_id in vm_ids:
            vcenter_id = self._context.topology.vm(vm_id).vcenter_id
            by_vcenter.setdefault(vcenter_id, []).append(vm_id)
        self._states = {}
        async with asyncio.TaskGroup() as tasks:
            for vcenter_id, members in by_vcenter.items():
                if vcenter_id not in self._silent:
                    tasks.create_task(self._look_at(vcenter_id, members))

    async def _look_at(self, vcenter_id: VCenterId, vm_ids: Sequence[VmId]) -> None:
        driver = self._context.hypervisors[vcenter_id]
        for start in range(0, len(vm_ids), LISTED_AT_ONCE):
            some = vm_ids[start : start + LISTED_AT_ONCE]
            listed = await list_patiently(self._context, CLEARING, driver, some)
            if listed is None:
                self._silent[vcenter_id] = None
                self._left(f"{vcenter_id} does not list its snapshots; what is left there is left")
                return
            self._states.update((state.vm_id, state) for state in listed)

    async def _remove(self) -> list[VmId]:
        """Remove what the last look found of the job; the VMs on which it found something."""
        found = {
            vm_id: refs for vm_id, state in self._states.items() if (refs := self._refs(state))
        }
        self._ours = found
        works = [self._work(vm_id) for vm_id in found]
        await in_turn(self._context, self._release, [(work, work.remove_scopes) for work in works])
        self._say_failures(works)
        return list(found)

    def _work(self, vm_id: VmId) -> VmWork:
        work = self._works.get(vm_id)
        if work is None:
            vm = self._context.topology.vm(vm_id)
            work = self._works[vm_id] = self._factory.work(vm, VmOutcome(vm_id, vm.name, CLEARING))
        return work

    async def _release(self, context: Context, work: VmWork) -> None:
        """Remove the snapshots of the job on one VM; stops at the first that stays."""
        location = self._states[work.vm.id].location
        refs = self._ours[work.vm.id]
        while refs:
            ref = refs[0]
            work.snapshot = VmSnapshot(ref, ConsistencyLevel.UNKNOWN, location, context.now_s())
            await release_vm(context, work)
            if work.outcome.left_behind:
                return
            self._removed(f"removed VM snapshot {ref.tag} of {work.vm.name} ({work.vm.id})")
            refs.pop(0)

    async def _tidy(self) -> None:
        """Merge deltas without a snapshot, on the VMs that the last look was for."""
        works = [
            self._work(vm_id) for vm_id, state in self._states.items() if state.needs_consolidation
        ]
        async with asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(tidy_vm(self._context, work))
        for work in works:
            if not work.outcome.left_behind:
                self._removed(f"merged the delta left on {work.vm.name} ({work.vm.id})")
        self._say_failures(works)

    def _say_failures(self, works: Sequence[VmWork]) -> None:
        failed = [work for work in works if work.outcome.left_behind]
        reasons = self._last_details(Kind.VM_RELEASE_FAILED) if failed else {}
        for work in failed:
            self._failed[work.vm.id] = None
            tags = ", ".join(ref.tag for ref in self._ours.get(work.vm.id, ()))
            what = f"VM snapshot {tags}" if tags else "a delta"
            where = f"{work.vm.name} ({work.vm.id})"
            self._left(f"{what} on {where} is not removed: {reasons[work.vm.id]}")

    def _last_details(self, kind: str) -> dict[str, str]:
        """By subject, what the last event of this kind says."""
        return {row[3]: row[4] for row in self._context.log.of(kind)}

    async def clear_array(self, array_id: ArrayId) -> None:
        """Delete the array snapshots of the job that its catalogue does not name, one by one."""
        context = self._context
        listed = await list_array_patiently(context, CLEARING, array_id)
        if listed is None:
            self._left(f"array {array_id} does not list its snapshots; what is left there is left")
            return
        for snapshot in listed:
            tag = snapshot.ref.tag
            if not context.owns(tag) or tag in self._earlier.kept_tags:
                continue
            if await delete_array_snapshot(context, CLEARING, snapshot.ref):
                self._removed(f"deleted array snapshot {tag} on {array_id}")
            else:
                reason = self._last_details(Kind.CALL_RETRIED)[array_id]
                self._left(f"array snapshot {tag} on {array_id} is not deleted: {reason}")
