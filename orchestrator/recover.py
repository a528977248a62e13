"""Recovering a job whose orchestrator is dead: what it has left is removed, what it has kept stays.

Nothing is created here, and nothing resumed: a group that had not been cut is unprotected, and the
next job protects it. Every step is done before it is noted, so a recovery that dies itself is done
again by the next one, and one that has ended finds nothing to do.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..drivers.contracts import ArrayDriver, HypervisorDriver
from ..drivers.errors import DriverError
from ..drivers.records import Array, ArrayId, Estate, Inventory, VCenterId, VmId
from ..topology.graph import Topology
from .arraycalls import list_array_patiently
from .context import Context, VmWork, WorkFactory
from .discover import merged
from .events import EventLog, Kind
from .journal import IntentKind, Journal, LeaseHeldError, LeaseLostError, Store, StoredEntry
from .lease import holding
from .reconcile import Manner, Reconciliation
from .result import VmOutcome
from .spec import JobSpec

RECOVERY = "recovery"
RECOVERED = "recovered"
"""The status of a job that its own orchestrator did not finish."""

Tell = Callable[[str], None]


@dataclass(slots=True)
class Recovery:
    """What became of one job.

    Attributes
    ----------
    removed, left:
        Sentences: what is gone, and what stays and why. What stays has an open intent: the next
        recovery looks for it again.
    kept, withdrawn:
        Entries of the job that are in the catalogue, and that are not any more because an array
        no longer lists a snapshot that they need.
    held:
        Why the job was not touched: another orchestrator has it. Empty when it was.
    """

    job_id: str
    removed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    kept: int = 0
    withdrawn: int = 0
    held: str = ""

    @property
    def complete(self) -> bool:
        """Nothing of the job is left but its entries, and all of them can be restored."""
        return not self.left and not self.held


async def recover_all(
    store: Store,
    spec: JobSpec,
    hypervisors: Mapping[VCenterId, HypervisorDriver],
    arrays: Mapping[ArrayId, ArrayDriver],
    *,
    holder: str,
    lease_s: float,
    random: random.Random,
    names: Collection[str] | None = None,
    log: EventLog | None = None,
    array_descriptions: Sequence[Array] = (),
    tell: Tell = lambda _sentence: None,
) -> list[Recovery]:
    """Recover every unfinished job that is in nobody's hands, oldest first.

    Parameters
    ----------
    holder, lease_s:
        In whose name each job is taken over, and for how many seconds a renewal holds.
    names:
        Only jobs of these names; None for all.

    Raises
    ------
    StillframeError
        The store could not be read or written.
    """
    recoveries = []
    for record in store.jobs():
        if not record.unfinished or (names is not None and record.name not in names):
            continue
        try:
            journal = store.take_over(record.job_id, holder=holder, lease_s=lease_s)
            recovery = await recover_job(
                journal,
                record.job_id,
                spec,
                hypervisors,
                arrays,
                random=random,
                log=log,
                array_descriptions=array_descriptions,
                tell=tell,
            )
        except (LeaseHeldError, LeaseLostError) as error:
            recovery = Recovery(record.job_id, held=str(error))
            tell(str(error))
        recoveries.append(recovery)
    return recoveries


async def recover_job(
    journal: Journal,
    job_id: str,
    spec: JobSpec,
    hypervisors: Mapping[VCenterId, HypervisorDriver],
    arrays: Mapping[ArrayId, ArrayDriver],
    *,
    random: random.Random,
    log: EventLog | None = None,
    array_descriptions: Sequence[Array] = (),
    tell: Tell = lambda _sentence: None,
) -> Recovery:
    """Reconcile one job with the systems, by its tags, and finish it.

    VM snapshots of open intents are removed and merged, array snapshots that no catalogue entry
    names are deleted. A create that is still under way is waited for: until nothing runs on the
    VM, or where a system cannot tell, until ``timeouts.settle`` seconds after the begin. A tag
    that a system has answered about and does not list by then was never created. A system without
    an answer, or one that is not configured, keeps its intents open.

    Parameters
    ----------
    journal:
        Of the job, taken over by this orchestrator; its lease is renewed.
    spec:
        Its limits, time limits and retries are those of the recovery.
    random:
        The source of jitter between repetitions.
    array_descriptions:
        Names of arrays, where known.
    tell:
        Hears each sentence of the answer when it becomes true.

    Raises
    ------
    LeaseLostError
        Another orchestrator has the job; nothing was touched after that was known.
    StillframeError
        The journal could not be written.
    asyncio.CancelledError
        The caller was cancelled; the next recovery goes on where this one stopped.
    """
    async with holding(journal) as tenure:
        context = Context(
            job_id=job_id,
            spec=spec,
            hypervisors=hypervisors,
            arrays=arrays,
            topology=Topology(Estate(merged([]), (), ())),
            random=random,
            log=log if log is not None else EventLog(),
            journal=tenure,
            array_descriptions=array_descriptions,
        )
        context.now_s = asyncio.get_running_loop().time
        return await _Recovering(context, tell).run()


class _Recovering:
    """One recovery under way."""

    def __init__(self, context: Context, tell: Tell) -> None:
        self._context = context
        self._tell = tell
        self._inventories: dict[VCenterId, Inventory] = {}
        self._factory = WorkFactory(context)
        self._works: dict[VmId, VmWork] = {}

    async def run(self) -> Recovery:
        """Withdraw what is gone, remove what nobody needs, finish the job."""
        context = self._context
        journal = context.journal
        begun = dict.fromkeys(
            intent.system_id
            for intent in journal.open_intents()
            if intent.kind is IntentKind.ARRAY_SNAPSHOT
        )
        entries = journal.kept()
        wanted = dict.fromkeys(ref.array_id for entry in entries for ref in entry.cuts)
        gone = await self._withdraw(entries, wanted)
        kept = journal.kept()
        search = Reconciliation(
            context,
            Manner(RECOVERY, settle_unseen=True),
            self._work,
            survey=self._survey,
            kept_tags=[ref.tag for entry in kept for ref in entry.cuts],
            completed=gone,
            tell=self._tell,
        )
        left = await search.run([*(wanted | begun)])
        search.say_what_is_left(left)
        recovery = Recovery(
            context.job_id,
            search.findings.removed,
            search.findings.left,
            len(kept),
            len(entries) - len(kept),
        )
        detail = f"{len(recovery.removed)} removed, {len(recovery.left)} left"
        context.emit(Kind.JOB_RECOVERED, "", context.job_id, detail)
        journal.finish(RECOVERED)
        return recovery

    async def _withdraw(
        self, entries: Sequence[StoredEntry], array_ids: Iterable[ArrayId]
    ) -> dict[str, None]:
        """Take entries out of the catalogue whose cuts are gone; the tags that are gone."""
        context = self._context
        gone: dict[str, None] = {}
        for array_id in array_ids:
            if array_id not in context.arrays:
                continue
            listed = await list_array_patiently(context, RECOVERY, array_id)
            if listed is None:  # nobody can say
                continue
            there = frozenset(snapshot.ref.tag for snapshot in listed)
            named = [ref for entry in entries for ref in entry.cuts if ref.array_id == array_id]
            gone.update((ref.tag, None) for ref in named if ref.tag not in there)
        lost = [entry for entry in entries if any(ref.tag in gone for ref in entry.cuts)]
        if lost:
            context.journal.withdraw(
                [entry.vm_id for entry in lost], "an array no longer lists a snapshot of it"
            )
        for entry in lost:
            tags = ", ".join(ref.tag for ref in entry.cuts if ref.tag in gone)
            context.emit(Kind.CATALOGUE_REFUSED, RECOVERY, entry.vm_id, tags)
            self._tell(f"{entry.vm_name} ({entry.vm_id}) cannot be restored: {tags} is gone")
        return gone

    async def _survey(self, vcenter_id: VCenterId) -> bool:
        """Read where the VMs of a vCenter are, once: the limits are per host and datastore."""
        context = self._context
        if vcenter_id in self._inventories:
            return True
        inventory = await self._inventory(vcenter_id)
        if inventory is None:
            return False
        self._inventories[vcenter_id] = inventory
        everything = merged([*self._inventories.values()])
        context.topology = Topology(Estate(everything, tuple(context.array_descriptions), ()))
        self._factory = WorkFactory(context)
        return True

    async def _inventory(self, vcenter_id: VCenterId) -> Inventory | None:
        context = self._context
        for attempt in range(1, context.spec.retry.attempts + 1):
            try:
                async with asyncio.timeout(context.spec.timeouts.query):
                    return await context.hypervisors[vcenter_id].inventory()
            except (TimeoutError, DriverError) as error:
                reason = str(error) or "no answer in time"
                context.emit(Kind.CALL_RETRIED, RECOVERY, vcenter_id, reason)
            if attempt < context.spec.retry.attempts:
                await context.pause(attempt)
        return None

    def _work(self, vm_id: VmId) -> VmWork | None:
        work = self._works.get(vm_id)
        if work is None and vm_id in self._context.topology.vm_ids:
            vm = self._context.topology.vm(vm_id)
            work = self._works[vm_id] = self._factory.work(vm, VmOutcome(vm_id, vm.name, RECOVERY))
        return work
