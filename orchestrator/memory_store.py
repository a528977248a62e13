"""A store that lives as long as the process: for jobs that need no more, and for exploration.

The rules of :class:`~.journal.Journal` and :class:`~.journal.Store` in the plainest form; the
durable store is held to the same tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..drivers.records import VmId
from ..errors import StillframeError
from .journal import (
    RUNNING,
    Intent,
    IntentKind,
    JobRecord,
    Journal,
    LeaseHeldError,
    LeaseLostError,
    StoredEntry,
    Withdrawal,
)
from .result import CatalogueEntry

_FOR_EVER_S = float("inf")


class _Job:
    def __init__(self, job_id: str, name: str, spec: str, begun_s: float) -> None:
        self.job_id = job_id
        self.name = name
        self.spec = spec
        self.begun_s = begun_s
        self.status = RUNNING
        self.holder = ""
        self.token = 0
        self.lease_until_s = begun_s
        self.open: dict[str, Intent] = {}
        self.entries: dict[VmId, StoredEntry] = {}
        self.withdrawn: list[Withdrawal] = []


class MemoryStore:
    """Implements :class:`~.journal.Store`.

    Parameters
    ----------
    clock:
        The time in seconds, for leases and for when things were kept.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._jobs: dict[str, _Job] = {}

    def begin(self, job_id: str, *, name: str, spec: str, holder: str, lease_s: float) -> Journal:
        """See :meth:`Store.begin`."""
        if job_id in self._jobs:
            raise StillframeError(f"there is a job {job_id} already", "give each job its own name")
        job = self._jobs[job_id] = _Job(job_id, name, spec, self._clock())
        return _Held(self._clock, job, holder, lease_s)

    def take_over(self, job_id: str, *, holder: str, lease_s: float, breaking: str = "") -> Journal:
        """See :meth:`Store.take_over`."""
        job = self._jobs.get(job_id)
        if job is None:
            raise StillframeError(f"the journal knows no job {job_id}")
        left_s = job.lease_until_s - self._clock()
        if job.holder not in ("", breaking) and left_s > 0:
            raise LeaseHeldError(
                f"job {job_id} is in the hands of {job.holder}, whose lease holds for another "
                f"{left_s:.3g} s",
                "wait for the job to end, or for the lease if its process is dead",
            )
        return _Held(self._clock, job, holder, lease_s)

    def jobs(self) -> list[JobRecord]:
        """See :meth:`Store.jobs`."""
        return [
            JobRecord(
                job.job_id,
                job.name,
                job.spec,
                job.begun_s,
                job.status,
                job.holder,
                job.token,
                job.lease_until_s,
                len(job.open),
                len(job.entries),
            )
            for job in self._jobs.values()
        ]

    def entries(self) -> list[StoredEntry]:
        """See :meth:`Store.entries`."""
        return [entry for job in self._jobs.values() for entry in job.entries.values()]

    def withdrawn(self) -> list[Withdrawal]:
        """See :meth:`Store.withdrawn`."""
        return [one for job in self._jobs.values() for one in job.withdrawn]

    def close(self) -> None:
        """Nothing to do."""


class _Held:
    """A job in somebody's hands; implements :class:`~.journal.Journal`."""

    def __init__(self, clock: Callable[[], float], job: _Job, holder: str, lease_s: float) -> None:
        self._clock = clock
        self._job = job
        self._lease_s = lease_s
        self._token = job.token = job.token + 1
        job.holder = holder
        job.lease_until_s = clock() + lease_s

    @property
    def lease_s(self) -> float | None:
        """See :class:`Journal`."""
        return None if self._lease_s == _FOR_EVER_S else self._lease_s

    def _mine(self) -> _Job:
        job = self._job
        if job.token != self._token:
            raise LeaseLostError(f"job {job.job_id} was taken over by {job.holder or 'another'}")
        return job

    def renew(self) -> None:
        """See :class:`Journal`."""
        self._mine().lease_until_s = self._clock() + self._lease_s

    def intend(self, intent: Intent) -> None:
        """See :class:`Journal`."""
        self._mine().open[intent.tag] = intent._replace(begun_s=self._clock())

    def settle(self, tag: str) -> None:
        """See :class:`Journal`."""
        self._mine().open.pop(tag, None)

    def open_intents(self) -> list[Intent]:
        """See :class:`Journal`."""
        return list(self._mine().open.values())

    def keep(self, entries: Sequence[CatalogueEntry], now_s: float) -> None:
        """See :class:`Journal`."""
        job = self._mine()
        offset_s = self._clock() - now_s
        kept: dict[VmId, StoredEntry] = {}
        for entry in entries:
            kept.pop(entry.vm_id, None)
            kept[entry.vm_id] = StoredEntry(
                job.job_id,
                entry.vm_id,
                entry.vm_name,
                entry.level,
                entry.point_in_time_s + offset_s,
                entry.cuts,
                entry.unit_ids,
            )
        replaced = [job.entries.pop(vm_id) for vm_id in kept if vm_id in job.entries]
        job.entries.update(kept)
        for stored in kept.values():
            for cut in stored.cuts:
                job.open.pop(cut.tag, None)
        self._reopen(job, replaced)

    def withdraw(self, vm_ids: Sequence[VmId], reason: str) -> None:
        """See :class:`Journal`."""
        job = self._mine()
        gone = [job.entries.pop(vm_id) for vm_id in vm_ids if vm_id in job.entries]
        if gone:
            self._reopen(job, gone)
            vms = tuple(entry.vm_id for entry in gone)
            job.withdrawn.append(Withdrawal(job.job_id, self._clock(), reason, vms))

    def _reopen(self, job: _Job, gone: Sequence[StoredEntry]) -> None:
        """Make intents of the cuts of these entries that no other entry names."""
        if not gone:
            return
        still = {cut.tag for entry in job.entries.values() for cut in entry.cuts}
        for cut in (cut for entry in gone for cut in entry.cuts if cut.tag not in still):
            array_id = cut.array_id
            job.open[cut.tag] = Intent(
                cut.tag, IntentKind.ARRAY_SNAPSHOT, array_id, array_id, self._clock()
            )

    def kept(self) -> list[StoredEntry]:
        """See :class:`Journal`."""
        return list(self._mine().entries.values())

    def finish(self, status: str) -> None:
        """See :class:`Journal`."""
        job = self._mine()
        job.status = status
        job.holder = ""
        job.lease_until_s = self._clock()


def throwaway_journal(job_id: str, clock: Callable[[], float]) -> Journal:
    """The journal of a job that nobody will ever recover."""
    store = MemoryStore(clock)
    return store.begin(job_id, name=job_id, spec="{}", holder="this process", lease_s=_FOR_EVER_S)
