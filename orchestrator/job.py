"""The job: run every group of a plan, sweep up, and say what is protected."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence

from ..drivers.contracts import ArrayDriver, ConsistencyLevel, HypervisorDriver
from ..drivers.records import Array, ArrayId, UnitId, VCenterId, VmId
from ..errors import StillframeError
from ..topology.graph import Topology
from ..topology.queries import collateral, targeting_ratio
from .arraycalls import ArrayCutter, delete_array_snapshot, list_array_patiently
from .context import Context, VmWork, WorkFactory
from .events import EventLog, Kind
from .group import GroupRun, to_the_end
from .journal import Journal
from .lease import Tenure, holding
from .limits import Limiter
from .memory_store import throwaway_journal
from .plan import Plan
from .result import (
    ArrayCall,
    CatalogueEntry,
    GroupOutcome,
    JobResult,
    JobStatus,
    VmOutcome,
    VmStatus,
)
from .spec import JobSpec
from .strategies import PlannedGroup
from .sweep import sweep

Progress = Callable[[int, int], None]
"""Called with the number of VMs whose group has ended, and the number of all VMs."""


class Job:
    """One run of a plan.

    Parameters
    ----------
    job_id:
        Unique among all jobs that ever touch these systems; it is part of every tag.
    hypervisors, arrays:
        The drivers, by the identifiers that the topology uses.
    random:
        The source of jitter between repetitions.
    log:
        Where events go; a new one by default.
    journal:
        Of this job, and held by this orchestrator: where intents and the catalogue go. Its lease
        is renewed while the job runs, and given back at the end. By default it is in memory.
    """

    def __init__(
        self,
        job_id: str,
        spec: JobSpec,
        plan: Plan,
        topology: Topology,
        hypervisors: Mapping[VCenterId, HypervisorDriver],
        arrays: Mapping[ArrayId, ArrayDriver],
        *,
        random: random.Random,
        log: EventLog | None = None,
        journal: Journal | None = None,
        progress: Progress | None = None,
        array_descriptions: Sequence[Array] = (),
    ) -> None:
        self._context = Context(
            job_id=job_id,
            spec=spec,
            hypervisors=hypervisors,
            arrays=arrays,
            topology=topology,
            random=random,
            log=log if log is not None else EventLog(),
            journal=Tenure(journal or throwaway_journal(job_id, lambda: 0.0)),
            array_descriptions=array_descriptions,
        )
        self._plan = plan
        self._progress = progress
        self._groups: list[GroupRun] = []
        self._outcomes: dict[VmId, VmOutcome] = {}
        self._works: dict[VmId, VmWork] = {}
        self._ended_vms = 0
        self._started_s = 0.0
        self.result: JobResult | None = None

    @property
    def limiter(self) -> Limiter:
        """The job's limits, with the peaks they saw."""
        return self._context.limiter

    async def run(self) -> JobResult:
        """Run to the end.

        Raises
        ------
        asyncio.CancelledError
            The job was cancelled. Everything has been released and swept all the same, and
            ``result`` says what had been protected by then.
        LeaseLostError
            Another orchestrator has the job. Nothing was touched after that was known: no release,
            no sweep, no entry in the catalogue.
        StillframeError
            The journal could not be written. What was open has been released, if it still could.
        """
        context = self._context
        context.now_s = asyncio.get_running_loop().time
        self._started_s = context.now_s()
        try:
            async with holding(context.journal):
                await self._run()
        except BaseExceptionGroup as group:
            failure = _failure_in(group)
            if failure is None:
                raise
            raise failure from None
        assert self.result is not None  # noqa: S101  _finish has just set it
        return self.result

    async def _run(self) -> None:
        context = self._context
        context.emit(Kind.JOB_STARTED, "", context.job_id, self._plan.strategy)
        self._prepare()
        cancelled = True
        try:
            async with asyncio.TaskGroup() as tasks:
                for group in self._groups:
                    tasks.create_task(self._run_group(group))
            cancelled = False
        finally:
            await to_the_end(self._finish(cancelled=cancelled), context.journal)

    def _prepare(self) -> None:
        context, plan = self._context, self._plan
        group_of = {vm_id: group.group_id for group in plan.groups for vm_id in group.vm_ids}
        for vm_id in plan.selected:
            outcome = VmOutcome(vm_id, context.topology.vm(vm_id).name, group_of.get(vm_id, ""))
            self._outcomes[vm_id] = outcome
            if vm_id in plan.unprotectable:
                outcome.status = VmStatus.UNPROTECTED
                outcome.reason = plan.unprotectable[vm_id]
        factory = WorkFactory(context)
        cutter = ArrayCutter(context)
        self._groups = [self._group_run(group, factory, cutter) for group in plan.groups]

    def _group_run(
        self, group: PlannedGroup, factory: WorkFactory, cutter: ArrayCutter
    ) -> GroupRun:
        works = []
        for vm_id in group.vm_ids:
            vm = self._context.topology.vm(vm_id)
            work = self._works[vm_id] = factory.work(vm, self._outcomes[vm_id])
            works.append(work)
        return GroupRun(self._context, cutter, GroupOutcome(group.group_id, group.vm_ids), works)

    async def _run_group(self, group: GroupRun) -> None:
        context = self._context
        scope = context.limiter.scope("groups", "job", context.spec.limits.groups)
        scopes = () if scope is None else (scope,)
        await context.limiter.acquire(scopes)
        try:
            await group.run()
        finally:
            context.limiter.release(scopes)
            self._ended_vms += len(group.works)
            if self._progress is not None:
                self._progress(self._ended_vms, len(self._works))

    async def _finish(self, *, cancelled: bool) -> None:
        """Keep in the catalogue what holds, delete what nobody needs, sweep, write the result."""
        context = self._context
        context.journal.check()
        for group in self._groups:
            group.close()
        catalogue = await self._catalogue()
        kept = frozenset(ref.tag for entry in catalogue for ref in entry.cuts)
        await self._discard(kept)
        completed = [call.tag for call in self._calls() if call.ref is not None]
        orphans = await sweep(context, self._works, kept_tags=kept, completed=completed)
        for outcome in self._outcomes.values():
            if outcome.status is not VmStatus.PROTECTED:
                outcome.level, outcome.disk_levels = ConsistencyLevel.UNKNOWN, ()
        self.result = result = self._result(catalogue, orphans, cancelled=cancelled)
        if context.journal.trouble is not None:
            context.emit(Kind.JOURNAL_TROUBLE, "", context.job_id, str(context.journal.trouble))
        context.emit(Kind.JOB_FINISHED, "", context.job_id, result.status.value)
        result.finished_s = context.now_s()
        context.journal.finish(result.status.value)

    def _calls(self) -> list[ArrayCall]:
        return [call for group in self._groups for call in group.calls]

    async def _catalogue(self) -> list[CatalogueEntry]:
        """The entries whose cuts the arrays still list; the others are withdrawn."""
        listed = await self._listed_tags()
        self._context.journal.check()
        entries: list[CatalogueEntry] = []
        lost: list[VmId] = []
        for group in self._groups:
            for entry in group.entries:
                if self._holds(entry, listed):
                    entries.append(entry)
                else:
                    lost.append(entry.vm_id)
        if lost:
            self._context.journal.withdraw(lost, "the array no longer lists a snapshot of it")
        return entries

    def _holds(self, entry: CatalogueEntry, listed: Mapping[str, None]) -> bool:
        outcome = self._outcomes[entry.vm_id]
        for ref in entry.cuts:
            if ref.tag not in listed:
                outcome.status = VmStatus.UNPROTECTED
                outcome.reason = f"array {ref.array_id} no longer lists snapshot {ref.tag}"
                self._context.emit(
                    Kind.CATALOGUE_REFUSED, outcome.group_id, outcome.vm_id, outcome.reason
                )
                return False
        outcome.status = VmStatus.PROTECTED
        self._context.emit(
            Kind.CATALOGUED, outcome.group_id, entry.vm_id, " ".join([r.tag for r in entry.cuts])
        )
        return True

    async def _listed_tags(self) -> dict[str, None]:
        """Tags of this job's snapshots that the arrays list; an array without answer lists none."""
        context = self._context
        listed: dict[str, None] = {}
        asked = dict.fromkeys(call.array_id for call in self._calls() if call.ref is not None)
        for array_id in asked:
            snapshots = await list_array_patiently(context, "", array_id)
            listed.update((snapshot.ref.tag, None) for snapshot in snapshots or ())
        return listed

    async def _discard(self, kept: frozenset[str]) -> None:
        """Delete completed array snapshots that no entry names; the sweep tries again."""
        for call in self._calls():
            if call.ref is not None and call.tag not in kept:
                await delete_array_snapshot(self._context, call.group_id, call.ref)

    def _result(
        self, catalogue: list[CatalogueEntry], orphans: list[str], *, cancelled: bool
    ) -> JobResult:
        context = self._context
        kept = dict.fromkeys(ref.tag for entry in catalogue for ref in entry.cuts)
        units: dict[UnitId, None] = {}
        for call in self._calls():
            if call.tag in kept:
                units.update(dict.fromkeys(call.unit_ids))
        targeting = targeting_ratio(context.topology, tuple(units))
        return JobResult(
            job_id=context.job_id,
            strategy=self._plan.strategy,
            status=self._status(orphans, cancelled=cancelled),
            started_s=self._started_s,
            finished_s=context.now_s(),
            vms=list(self._outcomes.values()),
            groups=[group.outcome for group in self._groups],
            calls=self._calls(),
            catalogue=catalogue,
            collateral=tuple(collateral(context.topology, self._plan.selected, tuple(units))),
            targeted_units=targeting.units,
            targeted_bytes=targeting.bytes,
            estate_units=targeting.units_total,
            estate_bytes=targeting.bytes_total,
            retries=context.retries,
            fallbacks=context.fallbacks,
            orphans=orphans,
            waits=context.limiter.waits(),
            events=context.log,
        )

    def _status(self, orphans: Sequence[str], *, cancelled: bool) -> JobStatus:
        if cancelled:
            return JobStatus.CANCELLED
        done = sum(one.status is VmStatus.PROTECTED for one in self._outcomes.values())
        if not done:
            return JobStatus.FAILED
        return JobStatus.PARTLY if orphans or done < len(self._outcomes) else JobStatus.PROTECTED


def _failure_in(group: BaseExceptionGroup[BaseException]) -> StillframeError | None:
    """The first error in a group of nothing but errors of ours; None if there are others."""
    ours, others = group.split(StillframeError)
    if others is not None or ours is None:
        return None
    leaf: BaseException = ours
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    return leaf if isinstance(leaf, StillframeError) else None
