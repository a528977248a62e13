"""Finding what was created and is not wanted, by its tag, and removing it.

A create that timed out, was cancelled, or whose orchestrator died may have happened, may happen
yet, or may never. Its intent is open in the journal. A reconciliation asks both sides for the tags
of the open intents, round by round, until each is removed or may be ruled out. The job does it at
its end, whoever recovers a job does it for a dead one, and so does whoever clears what a job named
by its result has left; they differ in how long they wait, and in what they make of a tag that
never appears.

Only what carries a tag of the job is removed. A loose delta carries none: it is merged where the
job has an open intent, because what it left may lie there. Should another's lie on the same VM,
the hypervisor merges both; it offers nothing finer, and no data is lost by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..drivers.contracts import GroupSnapshotRef, VmSnapshotRef, VmSnapshotState
from ..drivers.records import ArrayId, VCenterId, VmId
from .arraycalls import delete_array_snapshot, list_array_patiently
from .context import Context, VmWork
from .crew import in_turn
from .events import Kind
from .journal import Intent, IntentKind
from .vmcalls import list_patiently, remove_vm_snapshot, tidy_vm

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
LISTED_AT_ONCE = 200
"""VMs in one call for snapshots: an estate in one call would outlast the time limit of a query."""

WorkOf = Callable[[VmId], VmWork | None]
"""The work on a VM; None when nobody knows where it runs."""

Survey = Callable[[VCenterId], Awaitable[bool]]
"""Finds out where the VMs of a vCenter run; whether it answered."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a reconciliation goes about it.

    Attributes
    ----------
    label:
        Stands for the group in events.
    wait_for_unseen:
        A tag that is not listed is waited for, until ``timeouts.settle`` seconds after the begin,
        unless the system says that it cannot appear any more.
    settle_unseen:
        When the wait is over, a tag that a system has answered about and does not list counts as
        never created.
    try_again:
        What could not be removed is tried again until the same time.
    """

    label: str
    wait_for_unseen: bool = True
    settle_unseen: bool = False
    try_again: bool = True


@dataclass(slots=True)
class Findings:
    """Sentences: what was ``removed``, and what is ``left`` and why."""

    removed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


class Reconciliation:
    """One search for what a job may have left, under the limits and time limits of its spec.

    Parameters
    ----------
    survey:
        Is awaited before VMs of a vCenter are worked on; None when all is known already.
    kept_tags:
        Tags of array snapshots that stay.
    completed:
        Tags of array snapshots that are known to have been created: once they are not listed any
        more, they are gone.
    tell:
        Hears each sentence of ``findings`` when it becomes true.
    """

    def __init__(
        self,
        context: Context,
        manner: Manner,
        work_of: WorkOf,
        *,
        survey: Survey | None = None,
        kept_tags: Iterable[str] = (),
        completed: Iterable[str] = (),
        tell: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        self._context = context
        self._manner = manner
        self._work_of = work_of
        self._survey = survey
        self._kept = frozenset(kept_tags)
        self._completed = frozenset(completed)
        self._tell = tell
        self._states: dict[VmId, VmSnapshotState] = {}
        self._over = False
        self._silent: dict[str, str] = {}
        """Systems that gave no answer when they were asked last, and how to say so."""
        self._gone: dict[str, None] = {}
        """Tags of VM snapshots that have been removed."""
        self._problems: dict[str, str] = {}
        """By VM, or by tag of an array snapshot: why it was not removed."""
        self.findings = Findings()

    def removed(self, sentence: str) -> None:
        """Something is gone."""
        self.findings.removed.append(sentence)
        self._tell(sentence)

    def left(self, sentence: str) -> None:
        """Something stays."""
        self.findings.left.append(sentence)
        self._tell(sentence)

    # -- the search -----------------------------------------------------------------------------

    async def intend_all(self, vm_ids: Sequence[VmId]) -> None:
        """Note an intent for each VM snapshot of the job that these VMs carry now."""
        by_vcenter: dict[VCenterId, list[VmId]] = {}
        for vm_id in vm_ids:
            vcenter_id = self._context.topology.vm(vm_id).vcenter_id
            by_vcenter.setdefault(vcenter_id, []).append(vm_id)
        async with asyncio.TaskGroup() as tasks:
            for vcenter_id, members in by_vcenter.items():
                tasks.create_task(self._look(vcenter_id, members))
        for vm_id, state in self._states.items():
            vcenter_id = self._context.topology.vm(vm_id).vcenter_id
            for ref in self._ours(state):
                self._context.journal.intend(
                    Intent(ref.tag, IntentKind.VM_SNAPSHOT, vcenter_id, vm_id, 0.0)
                )

    async def run(self, array_ids: Sequence[ArrayId] = ()) -> list[Intent]:
        """Search until nothing is open or the time is over; the intents that are still open.

        Parameters
        ----------
        array_ids:
            Arrays to look at once, also where no intent is open.
        """
        context = self._context
        deadline_s = context.now_s() + context.spec.timeouts.settle
        pause_s = FIRST_PAUSE_S
        wanted = list(array_ids)
        while True:
            remaining_s = deadline_s - context.now_s()
            self._over = remaining_s <= 0
            await self._round(context.journal.open_intents(), wanted)
            wanted = []
            left = context.journal.open_intents()
            if self._over or not any(map(self._worth_another_round, left)):
                return left
            await asyncio.sleep(min(pause_s, max(0.0, deadline_s - context.now_s())))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _worth_another_round(self, intent: Intent) -> bool:
        if self._manner.try_again:
            return True
        hopeless = intent.object_id in self._problems or intent.tag in self._problems
        return not hopeless and intent.system_id not in self._silent

    async def _round(self, intents: Sequence[Intent], array_ids: Iterable[ArrayId]) -> None:
        vms: dict[VCenterId, dict[VmId, list[Intent]]] = {}
        arrays: dict[ArrayId, list[Intent]] = {array_id: [] for array_id in array_ids}
        for intent in intents:
            if not self._worth_another_round(intent):
                continue
            if intent.kind is IntentKind.VM_SNAPSHOT:
                vms.setdefault(intent.system_id, {}).setdefault(intent.object_id, []).append(intent)
            else:
                arrays.setdefault(intent.system_id, []).append(intent)
        async with asyncio.TaskGroup() as tasks:
            for vcenter_id, wanted in vms.items():
                tasks.create_task(self._vcenter_round(vcenter_id, wanted))
            for array_id, begun in arrays.items():
                tasks.create_task(self._array_round(array_id, begun))

    # -- VMs ------------------------------------------------------------------------------------

    async def _vcenter_round(
        self, vcenter_id: VCenterId, wanted: Mapping[VmId, Sequence[Intent]]
    ) -> None:
        try:
            if await self._remove_and_merge(vcenter_id, list(wanted)):
                for vm_id, intents in wanted.items():
                    self._settle(vm_id, intents, self._states.get(vm_id))
        finally:
            for vm_id in wanted:  # what is known now is not known in the next round
                self._states.pop(vm_id, None)

    async def _remove_and_merge(self, vcenter_id: VCenterId, vm_ids: Sequence[VmId]) -> bool:
        """Whether the vCenter answered, so that ``_states`` is how things are after it."""
        unseen = [vm_id for vm_id in vm_ids if vm_id not in self._states]
        if not await self._look(vcenter_id, unseen):
            return False
        if self._survey is not None and not await self._survey(vcenter_id):
            self._silent[vcenter_id] = f"{vcenter_id} does not list its VMs"
            return False
        for vm_id in vm_ids:
            self._problems.pop(vm_id, None)
        works = [work for work in map(self._work_of, vm_ids) if work is not None]
        touched = await self._remove(works)
        again = [work.vm.id for work in touched if work.vm.id not in self._problems]
        if again and not await self._look(vcenter_id, again):
            return False
        await self._merge(works)
        return True

    async def _look(self, vcenter_id: VCenterId, vm_ids: Sequence[VmId]) -> bool:
        """Ask for the states of these VMs; whether there was an answer."""
        driver = self._context.hypervisors.get(vcenter_id)
        if driver is None:
            self._silent[vcenter_id] = f"{vcenter_id} is not in the configuration"
            return False
        for start in range(0, len(vm_ids), LISTED_AT_ONCE):
            some = vm_ids[start : start + LISTED_AT_ONCE]
            listed = await list_patiently(self._context, self._manner.label, driver, some)
            if listed is None:
                self._silent[vcenter_id] = f"{vcenter_id} does not list its snapshots"
                return False
            self._states.update((state.vm_id, state) for state in listed)
        self._silent.pop(vcenter_id, None)
        return True

    def _ours(self, state: VmSnapshotState | None) -> list[VmSnapshotRef]:
        if state is None:
            return []
        return [ref for ref in state.snapshots if self._context.owns(ref.tag)]

    async def _remove(self, works: Sequence[VmWork]) -> list[VmWork]:
        """Remove what the last look found of the job; the VMs on which it found something."""
        found = [work for work in works if self._ours(self._states.get(work.vm.id))]
        await in_turn(
            self._context, self._remove_from, [(work, work.remove_scopes) for work in found]
        )
        return found

    async def _remove_from(self, context: Context, work: VmWork) -> None:
        """Remove the snapshots of the job on one VM; stops at the first that stays."""
        vm = work.vm
        refs = self._ours(self._states[vm.id])
        for place, ref in enumerate(refs):
            problem = await remove_vm_snapshot(context, work, ref)
            if problem:
                tags = ", ".join(ref.tag for ref in refs[place:])
                self._problems[vm.id] = (
                    f"VM snapshot {tags} on {vm.name} ({vm.id}) is not removed: {problem}"
                )
                return
            self._gone[ref.tag] = None
            context.emit(Kind.SWEPT, self._manner.label, vm.id, ref.tag)
            self.removed(f"removed VM snapshot {ref.tag} of {vm.name} ({vm.id})")

    async def _merge(self, works: Sequence[VmWork]) -> None:
        """Merge deltas without a snapshot, where the last look found some."""
        async with asyncio.TaskGroup() as tasks:
            for work in works:
                state = self._states.get(work.vm.id)
                if state is not None and state.needs_consolidation and not self._ours(state):
                    tasks.create_task(self._merge_on(work, state))

    async def _merge_on(self, work: VmWork, state: VmSnapshotState) -> None:
        vm = work.vm
        problem = await tidy_vm(self._context, work)
        if problem:
            self._problems[vm.id] = f"a delta on {vm.name} ({vm.id}) is not removed: {problem}"
            return
        self._states[vm.id] = state._replace(needs_consolidation=False)
        self._context.emit(Kind.SWEPT, self._manner.label, vm.id, "delta")
        self.removed(f"merged the delta left on {vm.name} ({vm.id})")

    def _settle(
        self, vm_id: VmId, intents: Sequence[Intent], state: VmSnapshotState | None
    ) -> None:
        """Settle what the look has ruled out."""
        if state is None:  # the VM is gone, and its snapshots with it
            self.removed(f"VM {vm_id} is not there any more, nor is a snapshot of it")
        elif state.needs_consolidation or self._ours(state):
            return
        for intent in intents:
            if state is None or intent.tag in self._gone or self._will_not_appear(state):
                self._context.journal.settle(intent.tag)
        work = self._work_of(vm_id)
        if work is not None:
            work.outcome.left_behind = False

    def _will_not_appear(self, state: VmSnapshotState) -> bool:
        """Whether no tag will appear on the VM that is not there now."""
        if state.operation_running is None:
            return self._unseen_is_over()
        return not state.operation_running

    def _unseen_is_over(self) -> bool:
        """Whether a tag that is not listed, and might be to come, is given up now."""
        if not self._manner.wait_for_unseen:
            return True
        return self._over and self._manner.settle_unseen

    # -- arrays ---------------------------------------------------------------------------------

    async def _array_round(self, array_id: ArrayId, intents: Sequence[Intent]) -> None:
        context = self._context
        if array_id not in context.arrays:
            self._silent[array_id] = f"array {self._name(array_id)} is not in the configuration"
            return
        listed = await list_array_patiently(context, self._manner.label, array_id)
        if listed is None:
            self._silent[array_id] = f"array {self._name(array_id)} does not list its snapshots"
            return
        self._silent.pop(array_id, None)
        there = {one.ref.tag: one.ref for one in listed if context.owns(one.ref.tag)}
        known = frozenset(intent.tag for intent in intents)
        for tag, ref in there.items():
            if tag not in self._kept:
                if tag not in known:  # so that it is not forgotten if it cannot be deleted
                    now_s = context.now_s()
                    context.journal.intend(
                        Intent(tag, IntentKind.ARRAY_SNAPSHOT, array_id, array_id, now_s)
                    )
                await self._delete(ref)
        for intent in intents:
            if intent.tag in there:
                continue
            self._problems.pop(intent.tag, None)
            if intent.tag in self._completed or self._unseen_is_over():
                context.journal.settle(intent.tag)

    def _name(self, array_id: ArrayId) -> str:
        for description in self._context.array_descriptions:
            if description.id == array_id and description.name != array_id:
                return f"{description.name} ({array_id})"
        return array_id

    async def _delete(self, ref: GroupSnapshotRef) -> None:
        problem = await delete_array_snapshot(self._context, self._manner.label, ref)
        what = f"array snapshot {ref.tag} on {self._name(ref.array_id)}"
        if problem:
            self._problems[ref.tag] = f"{what} is not deleted: {problem}"
        else:
            self._problems.pop(ref.tag, None)
            self.removed(f"deleted {what}")

    # -- the end --------------------------------------------------------------------------------

    def say_what_is_left(self, intents: Iterable[Intent]) -> None:
        """A sentence for each system, VM or array snapshot that intents are still open for."""
        said: dict[str, None] = {}
        for sentence in self._silent.values():
            said[f"{sentence}; what is left there is left"] = None
        for problem in self._problems.values():
            said[problem] = None
        for intent in intents:
            known = self._problems.keys() | self._silent.keys()
            if not known.isdisjoint((intent.system_id, intent.object_id, intent.tag)):
                continue
            if intent.kind is IntentKind.VM_SNAPSHOT:
                what = f"an operation on {intent.object_id} goes on"
            else:
                what = f"array snapshot {intent.tag} on {intent.object_id} is not to be found"
            said[f"{what}, and a snapshot may yet come of it"] = None
        for sentence in said:
            self.left(sentence)
