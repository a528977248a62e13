"""One group: open every VM, find where each lies now, cut those units, release every VM.

Whatever happens between the first open and the last release, every VM snapshot of the group is
removed: the release runs to its end even when the job is cancelled while it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from ..drivers.contracts import HypervisorDriver, VmLocation, VmSnapshot, VmSnapshotState
from ..drivers.errors import DriverError
from ..drivers.records import ArrayId, UnitId, VCenterId, VmId
from ..errors import StillframeError
from .arraycalls import ArrayCutter, batches
from .context import Context, VmWork
from .crew import in_turn
from .events import Kind
from .lease import Tenure
from .mapping import Needs, image_files, levels_of, places_of
from .result import ArrayCall, CatalogueEntry, GroupOutcome, VmStatus
from .spec import OnVmFailure
from .vmcalls import give_tag, list_patiently, open_vm, release_vm, tagged, tidy_vm


class GroupRun:
    """The run of one group.

    ``calls`` are all array calls made for it; after :meth:`run`, a work that is ``verified``
    is held by its ``cuts``, and what was known of its snapshot is in its outcome. ``entries`` are
    those of the verified works, in their order; they have been put into the catalogue.
    """

    def __init__(
        self,
        context: Context,
        cutter: ArrayCutter,
        outcome: GroupOutcome,
        works: Sequence[VmWork],
    ) -> None:
        self._context = context
        self._cutter = cutter
        self.outcome = outcome
        self.works = works
        self.calls: list[ArrayCall] = []
        self.entries: list[CatalogueEntry] = []

    async def run(self) -> None:
        """Run the group to its end; a driver's failure ends up in the outcomes.

        Raises
        ------
        asyncio.CancelledError
            The job was cancelled; every VM snapshot has been released all the same.
        LeaseLostError
            Somebody else has the job; nothing was touched after that was known.
        """
        context, group_id = self._context, self.outcome.group_id
        self.outcome.started_s = context.now_s()
        context.emit(Kind.GROUP_STARTED, group_id, group_id, str(len(self.works)))
        try:
            await self._open_all()
            if self._may_cut():
                await self._map_all()
                await self._cut_where_they_lie()
        finally:
            await to_the_end(self._end(), context.journal)
            self.close()

    async def _open_all(self) -> None:
        works = [(work, work.create_scopes) for work in self.works]
        await in_turn(self._context, open_vm, works, give_tag)

    def _may_cut(self) -> bool:
        usable = sum(work.usable for work in self.works)
        if not usable:
            self.outcome.error = "no VM of the group could be snapshotted"
            return False
        if usable < len(self.works) and self._context.spec.on_vm_failure is OnVmFailure.FAIL_GROUP:
            self.outcome.error = f"{len(self.works) - usable} VMs failed, policy fail-group"
            for work in self.works:
                if work.usable:
                    work.outcome.reason = "another VM of its group could not be snapshotted"
            return False
        return True

    async def _map_all(self) -> None:
        """Take each VM's units from its snapshot's metadata, not from the plan."""
        refreshed = False
        for work in self.works:
            if not work.usable or work.snapshot is None:
                continue
            needs = self._context.mapper.needs_of(work.snapshot.location)
            if needs.unknown_datastores and not refreshed:
                refreshed = True
                await self._refresh()
                needs = self._context.mapper.needs_of(work.snapshot.location)
            self._mapped(work, needs)

    async def _refresh(self) -> None:
        try:
            await self._context.refresh_topology()
        except (TimeoutError, DriverError) as error:
            self._context.emit(
                Kind.CALL_RETRIED,
                self.outcome.group_id,
                "inventory",
                str(error) or "no answer in time",
            )

    def _mapped(self, work: VmWork, needs: Needs) -> None:
        context, outcome = self._context, work.outcome
        work.needs = needs
        outcome.unit_ids = needs.unit_ids
        outcome.datastore_ids = needs.datastore_ids
        outcome.excluded_disks = needs.excluded
        outcome.image_files = (
            () if work.snapshot is None else image_files(work.snapshot.location, needs)
        )
        if needs.problem:
            outcome.reason = needs.problem
            context.emit(Kind.VM_UNMAPPED, outcome.group_id, outcome.vm_id, needs.problem)
            return
        planned = context.topology.units_of_vm(
            work.vm.id,
            physical_raw=context.spec.physical_raw_disks,
            independent=context.spec.independent_disks,
        )
        detail = " ".join(needs.unit_ids)
        context.emit(Kind.VM_LOCATED, outcome.group_id, outcome.vm_id, detail)
        if planned != needs.unit_ids and set(planned) != set(needs.unit_ids):
            outcome.moved = True
            context.emit(Kind.VM_MOVED, outcome.group_id, outcome.vm_id, detail)

    async def _cut_where_they_lie(self) -> None:
        """Cut, then look whether every VM still lies where it was cut; cut movers again."""
        waiting = [work for work in self.works if work.usable]
        for _ in range(self._context.spec.recuts + 1):
            if not waiting:
                return
            await self._cut(waiting)
            waiting = await self._moved_meanwhile([work for work in waiting if work.cuts])
        for work in waiting:
            work.outcome.reason = "it moved to other units during every cut"

    async def _cut(self, works: Sequence[VmWork]) -> None:
        by_array = self._units_by_array(works)
        calls: list[asyncio.Task[ArrayCall]] = []
        async with asyncio.TaskGroup() as tasks:
            for array_id, units in by_array.items():
                limit = self._context.arrays[array_id].capabilities.units_per_group
                together = [_only(work, units) for work in works] if limit else []
                divided = batches(together, list(units), limit)
                self._context.fallbacks += len(divided) - 1
                calls.extend(tasks.create_task(self._call(array_id, batch)) for batch in divided)
        made = [task.result() for task in calls]
        call_of = {unit: call for call in made for unit in call.unit_ids}
        for work in works:
            self._judge(work, call_of)

    async def _call(self, array_id: ArrayId, units: Sequence[UnitId]) -> ArrayCall:
        call = await self._cutter.cut(self.outcome.group_id, array_id, units)
        self.calls.append(call)
        return call

    def _units_by_array(self, works: Sequence[VmWork]) -> dict[ArrayId, dict[UnitId, None]]:
        units = dict.fromkeys(
            unit for work in works if work.needs is not None for unit in work.needs.unit_ids
        )
        by_array: dict[ArrayId, dict[UnitId, None]] = {}
        for unit in units:
            by_array.setdefault(self._context.topology.unit(unit).array_id, {})[unit] = None
        return by_array

    def _judge(self, work: VmWork, call_of: Mapping[UnitId, ArrayCall]) -> None:
        """Decide from completed and failed calls whether, and at which level, the VM is held."""
        needs, snapshot = work.needs, work.snapshot
        if needs is None or snapshot is None:
            return
        used = tuple(dict.fromkeys([call_of[unit] for unit in needs.unit_ids]))
        for call in used:
            if call.ref is None:
                work.outcome.reason = f"array {call.array_id} took no snapshot: {call.error}"
                return
        work.cuts = used
        work.outcome.level, work.outcome.disk_levels = levels_of(
            needs, snapshot.level, live_cut_at_once=self._at_once(needs.live_units, call_of)
        )

    def _at_once(self, units: Sequence[UnitId], call_of: Mapping[UnitId, ArrayCall]) -> bool:
        """Whether one point in time was cut through all these units."""
        if len(units) <= 1:
            return True
        first = call_of[units[0]]
        atomic = self._context.arrays[first.array_id].capabilities.atomic_groups
        return atomic and all(call_of[unit] is first for unit in units)

    async def _moved_meanwhile(self, works: Sequence[VmWork]) -> list[VmWork]:
        """The VMs that lie elsewhere after the cut than before it; a VM without snapshot fails."""
        states, silent = await self._states(works)
        moved = []
        for work in works:
            if work.vm.vcenter_id in silent:
                work.outcome.reason = "nobody could say where it lay when its units were cut"
                continue
            state, snapshot = states.get(work.vm.id), work.snapshot
            if snapshot is None or work.needs is None:
                continue
            if state is None or tagged(state, snapshot.ref.tag) is None:
                work.outcome.reason = "its snapshot was gone when the array had cut its units"
                self._context.emit(Kind.VM_SNAPSHOT_LOST, self.outcome.group_id, work.vm.id)
                continue
            work.loose_before = state.needs_consolidation
            if self._stayed(work, snapshot, state.location):
                work.verified = True
            elif work.usable:
                moved.append(work)
        return moved

    def _stayed(self, work: VmWork, snapshot: VmSnapshot, now: VmLocation) -> bool:
        """Whether the VM lay on the units it was cut on all the time; if not, maps it anew."""
        then = snapshot.location
        if now is then or now == then:
            return True
        if now.moves == then.moves and places_of(now) == places_of(then):
            return True
        needs = self._context.mapper.needs_of(now)
        work.snapshot = snapshot._replace(location=now)
        work.cuts = ()
        work.outcome.moved = True
        self._context.emit(
            Kind.VM_MOVED_DURING_CUT, self.outcome.group_id, work.vm.id, " ".join(needs.unit_ids)
        )
        self._mapped(work, needs)
        return False

    async def _states(
        self, works: Sequence[VmWork]
    ) -> tuple[dict[VmId, VmSnapshotState], dict[VCenterId, None]]:
        """What the hypervisors list now, and the vCenters that gave no answer."""
        by_vcenter: dict[VCenterId, tuple[HypervisorDriver, list[VmId]]] = {}
        for work in works:
            by_vcenter.setdefault(work.vm.vcenter_id, (work.driver, []))[1].append(work.vm.id)
        found: dict[VmId, VmSnapshotState] = {}
        silent: dict[VCenterId, None] = {}
        for vcenter_id, (driver, vm_ids) in by_vcenter.items():
            states = await list_patiently(self._context, self.outcome.group_id, driver, vm_ids)
            if states is None:
                silent[vcenter_id] = None
            else:
                found.update((state.vm_id, state) for state in states)
        return found, silent

    async def _end(self) -> None:
        """Catalogue what was cut, then release every VM.

        In this order, because a release merges deltas and may take hours: whoever dies in the
        middle of it leaves VM snapshots, which recovery removes, but loses no cut that was
        complete. The VMs wait for one write to the journal.
        """
        try:
            self._keep()
        finally:
            await self._release_all()

    def _keep(self) -> None:
        entries = [_entry(work) for work in self.works if work.verified]
        if not entries:
            return
        try:
            self._context.journal.keep(entries, self._context.now_s())
        except StillframeError as error:
            for work in self.works:
                if work.verified:
                    work.verified = False
                    work.outcome.reason = f"its entry was not written: {error}"
            raise
        self.entries = entries

    async def _release_all(self) -> None:
        self._context.journal.check()
        opened = [work for work in self.works if work.snapshot is not None]
        works = [(work, work.remove_scopes) for work in opened]
        await in_turn(self._context, release_vm, works)
        states, silent = await self._states(opened)
        async with asyncio.TaskGroup() as tasks:
            for work in opened:
                state = states.get(work.vm.id)
                if state is not None and state.needs_consolidation:
                    tasks.create_task(self._tidy(work, state))
        for work in opened:
            seen = work.vm.vcenter_id not in silent and not work.outcome.left_behind
            if seen and work.snapshot is not None:
                self._context.journal.settle(work.snapshot.ref.tag)

    async def _tidy(self, work: VmWork, state: VmSnapshotState) -> None:
        """Merge what the removal has left, unless it lay there before and the removal was clean."""
        assert work.snapshot is not None  # noqa: S101  only opened VMs are released
        if work.loose_before and not work.outcome.left_behind:
            return
        if not await tidy_vm(self._context, work) and tagged(state, work.snapshot.ref.tag) is None:
            work.outcome.left_behind = False

    def close(self) -> None:
        """Note the end; also for a group that the job's end found waiting for its turn."""
        context, group = self._context, self.outcome
        if group.finished_s is not None:
            return
        group.finished_s = context.now_s()
        for work in self.works:
            work.snapshot = work.needs = None  # locations add up over a large job
            if not work.verified:
                work.outcome.status = VmStatus.UNPROTECTED
                work.outcome.reason = work.outcome.reason or "the job ended before its cut"
                work.cuts = ()
        context.emit(Kind.GROUP_FINISHED, group.group_id, group.group_id, group.error)


def _only(work: VmWork, units: dict[UnitId, None]) -> list[UnitId]:
    return [unit for unit in (work.needs.unit_ids if work.needs else ()) if unit in units]


def _entry(work: VmWork) -> CatalogueEntry:
    outcome = work.outcome
    assert outcome.opened_s is not None  # noqa: S101  verified says so
    refs = tuple([call.ref for call in work.cuts if call.ref is not None])
    return CatalogueEntry(
        outcome.vm_id, outcome.level, outcome.opened_s, refs, outcome.unit_ids, outcome.name
    )


async def to_the_end(work: Coroutine[Any, Any, None], tenure: Tenure) -> None:
    """Run ``work`` to its end although the caller is cancelled, then let the cancellation on.

    Only the loss of the lease breaks it off.
    """
    task = asyncio.get_running_loop().create_task(work)
    cancelled: asyncio.CancelledError | None = None
    with tenure.ending(task):
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None and not task.cancelled() and task.exception() is None:
        raise cancelled
    task.result()
