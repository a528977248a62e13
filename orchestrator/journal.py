"""What the orchestrator intends, before it does it, and what it has made that stays.

A create whose answer never comes may still happen. So every create is noted with its unique tag
*before* the call and struck out when its outcome is known; what is left open is looked for by its
tag, by the job itself at its end or by whoever recovers it.

One :class:`Journal` belongs to one job in the hands of one orchestrator. A :class:`Store` holds
the journals of many jobs and the catalogue that came of them. Holding a journal means holding the
job's lease; whoever takes the job over gets a higher fencing token, and from then on the journal
refuses the earlier holder everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from ..drivers.contracts import ConsistencyLevel, GroupSnapshotRef
from ..drivers.records import UnitId, VmId
from ..errors import StillframeError
from .result import CatalogueEntry


class IntentKind(StrEnum):
    """What may be left behind."""

    VM_SNAPSHOT = "vm-snapshot"
    ARRAY_SNAPSHOT = "array-snapshot"


class Intent(NamedTuple):
    """One create that was begun: its tag, and the driver and object it was begun on.

    ``system_id`` is a vCenter or an array, ``object_id`` the VM (or the array again). ``begun_s``
    is given on the loop's clock and handed back on the store's.
    """

    tag: str
    kind: IntentKind
    system_id: str
    object_id: str
    begun_s: float


class LeaseLostError(StillframeError):
    """Another orchestrator has taken the job over; this one must touch nothing any more."""


class LeaseHeldError(StillframeError):
    """The job is in the hands of another orchestrator that is alive as far as one can tell."""


class Journal(Protocol):
    """The durable memory of one job, in the hands of one orchestrator.

    Every method raises LeaseLostError once another orchestrator has taken the job over.
    """

    @property
    def lease_s(self) -> float | None:
        """How long a renewal holds, in seconds; None when there is nothing to renew."""
        ...

    def renew(self) -> None:
        """Hold the lease for another ``lease_s`` seconds."""
        ...

    def intend(self, intent: Intent) -> None:
        """Note an intent; when this returns, it is as durable as the journal gets."""
        ...

    def settle(self, tag: str) -> None:
        """The outcome of this intent is known, and nothing of it is left to look for.

        May become durable later than it returns: a settled intent that comes back is looked for
        once more, and nothing is found.
        """
        ...

    def open_intents(self) -> list[Intent]:
        """Intents that are not settled, oldest first."""
        ...

    def keep(self, entries: Sequence[CatalogueEntry], now_s: float) -> None:
        """Put entries into the catalogue and settle the intents of their cuts, all or nothing.

        ``now_s`` is the time on the loop's clock, which ``point_in_time_s`` of the entries is on
        too. Durable at return. An entry of a VM that this job has one of already replaces it; a
        cut that no entry of the job names any more becomes an open intent, as in ``withdraw``.
        """
        ...

    def withdraw(self, vm_ids: Sequence[VmId], reason: str) -> None:
        """Take the job's entries of these VMs out of the catalogue, all or nothing.

        A cut that no entry of the job names any more becomes an open intent again in the same
        step, so that whatever happens next, its array snapshot is not forgotten. The reason is
        kept for :meth:`Store.withdrawn`. Durable at return.
        """
        ...

    def kept(self) -> list[StoredEntry]:
        """The job's entries in the catalogue, in the order in which they were kept."""
        ...

    def finish(self, status: str) -> None:
        """The job is over: give the lease back. Intents that are open stay open. Durable."""
        ...


class StoredEntry(NamedTuple):
    """A catalogue entry as a store holds it; times are seconds on the store's clock."""

    job_id: str
    vm_id: VmId
    vm_name: str
    level: ConsistencyLevel
    point_in_time_s: float
    cuts: tuple[GroupSnapshotRef, ...]
    unit_ids: tuple[UnitId, ...]


RUNNING = "running"
"""The status of a job that nobody has finished."""


class JobRecord(NamedTuple):
    """What a store knows of a job; times are seconds on the store's clock.

    ``status`` is :data:`RUNNING` until somebody finishes the job. ``holder`` and ``lease_until_s``
    tell who holds its lease; an empty holder is nobody. ``spec`` is the job's specification as
    JSON, ``token`` the fencing token, one higher at each hand-over.
    """

    job_id: str
    name: str
    spec: str
    begun_s: float
    status: str
    holder: str
    token: int
    lease_until_s: float
    open_intents: int
    entries: int

    @property
    def unfinished(self) -> bool:
        """Whether there is something to recover: it never ended, or left intents open."""
        return self.status == RUNNING or self.open_intents > 0


class Withdrawal(NamedTuple):
    """Entries that left the catalogue together; the time is in seconds on the store's clock."""

    job_id: str
    withdrawn_s: float
    reason: str
    vm_ids: tuple[VmId, ...]


class Store(Protocol):
    """The journals of many jobs, and their catalogue."""

    def begin(self, job_id: str, *, name: str, spec: str, holder: str, lease_s: float) -> Journal:
        """A new job in the hands of ``holder``.

        Raises StillframeError when there is a job of this identifier.
        """
        ...

    def take_over(self, job_id: str, *, holder: str, lease_s: float, breaking: str = "") -> Journal:
        """An existing job, running or finished, in new hands: the token rises by one.

        Raises LeaseHeldError while the lease of another holder has not run out, unless that is
        exactly ``breaking``, of which somebody knows that it is dead or wants it to stop; raises
        StillframeError when there is no such job. Its status does not change until somebody
        finishes it.
        """
        ...

    def jobs(self) -> list[JobRecord]:
        """Every job, oldest first."""
        ...

    def entries(self) -> list[StoredEntry]:
        """The catalogue: job by job, oldest first, in the order in which entries were kept."""
        ...

    def withdrawn(self) -> list[Withdrawal]:
        """What was in the catalogue and why it no longer is, job by job, oldest first."""
        ...

    def close(self) -> None:
        """Let go of the store; what was settled becomes durable first."""
        ...
