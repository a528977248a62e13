"""Pruning: entries leave the catalogue, then the array snapshots that nobody needs any more go.

In this order, job by job: the job is taken over, its entries are withdrawn, which makes intents of
their cuts in the same transaction, the snapshots are deleted, the job is finished with the status
that it had. Wherever this is cut off, no entry names a snapshot that is gone, and what is not yet
deleted is an open intent: the next pruning deletes it, and so does a recovery.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ..drivers.contracts import ArrayDriver, GroupSnapshotRef
from ..drivers.records import ArrayId, Estate, UnitId, VmId
from ..topology.graph import Topology
from .arraycalls import delete_array_snapshot
from .context import Context
from .discover import merged
from .events import EventLog
from .journal import (
    RUNNING,
    Intent,
    IntentKind,
    JobRecord,
    LeaseHeldError,
    LeaseLostError,
    Store,
    StoredEntry,
)
from .lease import Tenure, holding
from .retention import (
    Retention,
    RetentionPolicy,
    UnitSnapshots,
    key,
    last_good,
    make_room,
    policy_of,
    spared,
)
from .spec import JobSpec
from .verify import Listings, list_arrays, missing_cuts, owner_of, tags_of

PRUNING = "pruning"
TOO_OLD = "retention"
NO_ROOM = "room on the arrays"
GONE = "an array no longer lists a snapshot of it"

Tell = Callable[[str], None]


@dataclass(slots=True)
class Pruned:
    """What a pruning did.

    Attributes
    ----------
    removed, left:
        Sentences: array snapshots and entries that are gone, and what stays against the wish and
        why.
    withdrawn:
        Entries that retention took out of the catalogue.
    lost:
        Entries taken out because they cannot be restored any more.
    kept:
        Entries in the catalogue at the end.
    """

    removed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    withdrawn: int = 0
    lost: int = 0
    kept: int = 0


async def prune(
    store: Store,
    retention: Retention,
    arrays: Mapping[ArrayId, ArrayDriver],
    *,
    now_s: float,
    holder: str,
    lease_s: float,
    random: random.Random,
    spec: JobSpec,
    policy: RetentionPolicy | None = None,
    log: EventLog | None = None,
    tell: Tell = lambda _sentence: None,
) -> Pruned:
    """Give up what retention does not keep; doing it again at the same time changes nothing.

    The newest good entry of each VM stays whatever the policy says: of a known level, and with all
    its cuts listed by arrays that have answered. Entries with a cut on an array without an answer
    stay, and so do those of jobs that have not ended; both are reported.

    Parameters
    ----------
    now_s:
        Seconds on the clock of the store.
    holder, lease_s:
        In whose name each job is taken over, and for how many seconds a renewal holds.
    random:
        The source of jitter between repetitions.
    spec:
        Its time limits and retries count.
    policy:
        Replaces the rules on number and age of ``retention``; the limits of the arrays stay.
    tell:
        Hears each sentence of the answer when it becomes true.

    Raises
    ------
    StillframeError
        The store could not be read or written.
    asyncio.CancelledError
        The caller was cancelled; the next pruning goes on where this one stopped.
    """
    pruning = _Pruning(store, arrays, spec, random, log or EventLog(), tell)
    await pruning.look()
    pruning.choose(retention, policy or policy_of(retention), now_s)
    for record in pruning.concerned():
        try:
            journal = store.take_over(record.job_id, holder=holder, lease_s=lease_s)
            async with holding(journal) as tenure:
                await pruning.prune_job(record, tenure)
        except (LeaseHeldError, LeaseLostError) as error:
            pruning.leave(str(error))
    pruning.pruned.kept = len(store.entries())
    return pruning.pruned


class _Pruning:
    """One pruning: what it has found, decided and done."""

    def __init__(
        self,
        store: Store,
        arrays: Mapping[ArrayId, ArrayDriver],
        spec: JobSpec,
        source: random.Random,
        log: EventLog,
        tell: Tell,
    ) -> None:
        self._store = store
        self._arrays = arrays
        self._spec = spec
        self._random = source
        self._log = log
        self._tell = tell
        self._listings: Listings = {}
        self._tags: Mapping[ArrayId, Collection[str]] = {}
        self._reasons: dict[str, dict[str, list[VmId]]] = {}
        """By job and reason, the VMs whose entries go."""
        self.pruned = Pruned()

    def leave(self, sentence: str) -> None:
        """Something stays that was to go."""
        self.pruned.left.append(sentence)
        self._tell(sentence)

    def _remove(self, sentence: str) -> None:
        self.pruned.removed.append(sentence)
        self._tell(sentence)

    async def look(self) -> None:
        """Read what the arrays list."""
        self._listings = await list_arrays(self._arrays, self._spec, self._random)
        self._tags = tags_of(self._listings)
        for array_id in self._arrays:
            if array_id not in self._listings:
                self.leave(f"array {array_id} does not list its snapshots; what is there stays")

    def choose(self, retention: Retention, policy: RetentionPolicy, now_s: float) -> None:
        """Decide which entries go, and why."""
        records = self._store.jobs()
        running = {one.job_id for one in records if one.status == RUNNING}
        ended = {one.job_id for one in records} - running
        entries = self._store.entries()
        lost = [entry for entry in entries if missing_cuts(entry, self._tags)]
        gone = {key(entry) for entry in lost}
        entries = [entry for entry in entries if key(entry) not in gone]
        listed = frozenset[str]().union(*self._tags.values())
        floor = last_good(entries, listed) | {
            key(entry)
            for entry in entries
            if entry.job_id in running or any(cut.array_id not in self._tags for cut in entry.cuts)
        }
        old = spared(policy(entries, now_s), floor)
        going = {key(entry) for entry in old}
        staying = [entry for entry in entries if key(entry) not in going]
        more, full = make_room(staying, floor, self._units(retention, staying, ended))
        for unit in full:
            self.leave(
                f"unit {unit.unit_id} carries more than {unit.room} snapshots that must stay"
            )
        self._note(GONE, [entry for entry in lost if entry.job_id not in running])
        self._note(TOO_OLD, old)
        self._note(NO_ROOM, more)

    def _note(self, reason: str, entries: Sequence[StoredEntry]) -> None:
        for entry in entries:
            by_reason = self._reasons.setdefault(entry.job_id, {})
            by_reason.setdefault(reason, []).append(entry.vm_id)

    def _units(
        self, retention: Retention, staying: Sequence[StoredEntry], ended: Collection[str]
    ) -> list[UnitSnapshots]:
        """The units whose snapshots are bounded, with those that will still be there.

        What a job that has ended left there and no entry names goes anyhow.
        """
        needed = {cut.tag for entry in staying for cut in entry.cuts}
        units = []
        for array_id, listed in self._listings.items():
            own = self._arrays[array_id].capabilities.snapshots_per_unit
            bounds = [one for one in (own, retention.snapshots_per_unit) if one is not None]
            if not bounds:
                continue
            tags: dict[UnitId, list[str]] = {}
            for snapshot in listed:
                tag = snapshot.ref.tag
                if tag in needed or owner_of(tag) not in ended:
                    for unit_id in snapshot.unit_ids:
                        tags.setdefault(unit_id, []).append(tag)
            room = max(min(bounds) - retention.reserve, 0)
            units += [UnitSnapshots(unit_id, tuple(some), room) for unit_id, some in tags.items()]
        return units

    def concerned(self) -> list[JobRecord]:
        """The jobs that have entries to give up, or snapshots to delete from an earlier time."""
        concerned = []
        for record in self._store.jobs():
            if record.status == RUNNING:
                if record.entries or record.open_intents:
                    self.leave(f"job {record.job_id} has not ended, and is left as it is")
            elif record.job_id in self._reasons or record.open_intents:
                concerned.append(record)
        return concerned

    async def prune_job(self, record: JobRecord, tenure: Tenure) -> None:
        """Withdraw the entries of one job, and delete what nobody needs then."""
        before = {entry.vm_id for entry in tenure.kept()}
        for reason, vm_ids in self._reasons.get(record.job_id, {}).items():
            tenure.withdraw(vm_ids, reason)
            self._count(record, reason, [vm_id for vm_id in vm_ids if vm_id in before])
        needed = {cut.tag for entry in self._store.entries() for cut in entry.cuts}
        context = self._context(record, tenure)
        for intent in tenure.open_intents():
            if intent.kind is IntentKind.ARRAY_SNAPSHOT and intent.tag not in needed:
                await self._delete(context, intent)
        tenure.finish(record.status)

    def _count(self, record: JobRecord, reason: str, vm_ids: Sequence[VmId]) -> None:
        if reason == GONE:
            self.pruned.lost += len(vm_ids)
        else:
            self.pruned.withdrawn += len(vm_ids)
        for vm_id in vm_ids:
            self._remove(f"{vm_id} of job {record.job_id} left the catalogue: {reason}")

    async def _delete(self, context: Context, intent: Intent) -> None:
        """Delete the snapshot of an intent; what is not listed is left to a recovery to judge."""
        array_id = intent.system_id
        if array_id not in self._listings:
            self.leave(f"array snapshot {intent.tag} on {array_id} stays: the array is silent")
            return
        ref = self._ref(array_id, intent.tag)
        if ref is None or owner_of(intent.tag) != context.job_id:
            return
        problem = await delete_array_snapshot(context, PRUNING, ref)
        if problem:
            self.leave(f"array snapshot {intent.tag} on {array_id} is not deleted: {problem}")
        else:
            self._remove(f"deleted array snapshot {intent.tag} on {array_id}")

    def _ref(self, array_id: ArrayId, tag: str) -> GroupSnapshotRef | None:
        refs = (snapshot.ref for snapshot in self._listings[array_id])
        return next((ref for ref in refs if ref.tag == tag), None)

    def _context(self, record: JobRecord, tenure: Tenure) -> Context:
        context = Context(
            job_id=record.job_id,
            spec=self._spec,
            hypervisors={},
            arrays=self._arrays,
            topology=Topology(Estate(merged([]), (), ())),
            random=self._random,
            log=self._log,
            journal=tenure,
        )
        context.now_s = asyncio.get_running_loop().time
        return context
