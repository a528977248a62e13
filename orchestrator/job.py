"""The job: run every group of a plan, sweep up, and say what is protected."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence

from ..drivers.contracts import ArrayDriver, ConsistencyLevel, HypervisorDriver
from ..drivers.records import Array, ArrayId, UnitId, VCenterId, VmId
from ..topology.graph import Topology
from ..topology.queries import collateral, targeting_ratio
from .arraycalls import ArrayCutter, list_array_patiently
from .context import Context, VmWork, WorkFactory
from .events import EventLog, Kind
from .group import GroupRun, to_the_end
from .journal import Journal, MemoryJournal
from .limits import Limiter
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
    log, journal:
        Where events and intents go; new ones in memory by default.
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
            journal=journal if journal is not None else MemoryJournal(),
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
        """
        context = self._context
        context.now_s = asyncio.get_running_loop().time
        self._started_s = context.now_s()
        context.emit(Kind.JOB_STARTED, "", context.job_id, self._plan.strategy)
        self._prepare()
        cancelled = True
        try:
            async with asyncio.TaskGroup() as tasks:
                for group in self._groups:
                    tasks.create_task(self._run_group(group))
            cancelled = False
        finally:
            await to_the_end(self._finish(cancelled=cancelled))
        assert self.result is not None  # noqa: S101  _finish has just set it
        return self.result

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
        """Catalogue what holds, delete what nobody needs, sweep up, and write the result."""
        for group in self._groups:
            group.close()
        catalogue = await self._catalogue()
        kept = frozenset(ref.tag for entry in catalogue for ref in entry.cuts)
        lost = await self._discard(kept)
        orphans = lost + await sweep(self._context, self._works, kept)
        for tag in kept:
            self._context.journal.settle(tag)
        for outcome in self._outcomes.values():
            if outcome.status is not VmStatus.PROTECTED:
                outcome.level, outcome.disk_levels = ConsistencyLevel.UNKNOWN, ()
        self.result = self._result(catalogue, orphans, cancelled=cancelled)
        self._context.emit(Kind.JOB_FINISHED, "", self._context.job_id, self.result.status.value)
        self.result.finished_s = self._context.now_s()

    def _calls(self) -> list[ArrayCall]:
        return [call for group in self._groups for call in group.calls]

    async def _catalogue(self) -> list[CatalogueEntry]:
        """An entry for each VM whose cuts the arrays still list; the others are not protected."""
        listed = await self._listed_tags()
        entries = []
        for group in self._groups:
            for work in group.works:
                if work.verified:
                    entry = self._entry(work, listed)
                    if entry is not None:
                        entries.append(entry)
        return entries

    def _entry(self, work: VmWork, listed: Mapping[str, None]) -> CatalogueEntry | None:
        outcome = work.outcome
        assert outcome.opened_s is not None  # noqa: S101  verified says so
        for call in work.cuts:
            if call.tag not in listed:
                outcome.status = VmStatus.UNPROTECTED
                outcome.reason = f"array {call.array_id} no longer lists snapshot {call.tag}"
                self._context.emit(
                    Kind.CATALOGUE_REFUSED, outcome.group_id, outcome.vm_id, outcome.reason
                )
                return None
        outcome.status = VmStatus.PROTECTED
        refs = tuple([call.ref for call in work.cuts if call.ref is not None])
        self._context.emit(
            Kind.CATALOGUED, outcome.group_id, outcome.vm_id, " ".join([ref.tag for ref in refs])
        )
        return CatalogueEntry(
            outcome.vm_id, outcome.level, outcome.opened_s, refs, outcome.unit_ids
        )

    async def _listed_tags(self) -> dict[str, None]:
        """Tags of this job's snapshots that the arrays list; an array without answer lists none."""
        context = self._context
        listed: dict[str, None] = {}
        asked = dict.fromkeys(call.array_id for call in self._calls() if call.ref is not None)
        for array_id in asked:
            snapshots = await list_array_patiently(context, "", array_id)
            listed.update((snapshot.ref.tag, None) for snapshot in snapshots or ())
        return listed

    async def _discard(self, kept: frozenset[str]) -> list[str]:
        """Delete completed array snapshots that no entry names."""
        orphans = []
        for group in self._groups:
            for call in group.calls:
                if call.ref is None or call.tag in kept:
                    continue
                if not await group.discard(call):
                    orphans.append(f"array snapshot {call.tag} on {call.array_id} is not deleted")
        return orphans

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
