"""The event log: what happened, in the order in which it happened.

The orchestrator and, in the modelled world, the model write to one log, so that the order between
"the host froze the guest" and "the array cut its units" is a fact and not a reconstruction. The
model's kinds start with ``world.``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

Row = tuple[float, str, str, str, str]
"""Time in seconds on the loop's clock, kind, group (may be empty), subject, detail."""
FIELDS = 5


class Kind:
    """The orchestrator's event kinds. The subject is a VM, an array or the job."""

    JOB_STARTED = "job.started"
    JOB_FINISHED = "job.finished"
    JOB_RECOVERED = "job.recovered"
    GROUP_STARTED = "group.started"
    GROUP_FINISHED = "group.finished"
    VM_SNAPSHOT_REQUESTED = "vm.snapshot.requested"
    VM_SNAPSHOT_CREATED = "vm.snapshot.created"
    VM_SNAPSHOT_FAILED = "vm.snapshot.failed"
    VM_QUIESCE_DEGRADED = "vm.quiesce.degraded"
    VM_LOCATED = "vm.located"
    VM_MOVED = "vm.moved"
    VM_UNMAPPED = "vm.unmapped"
    VM_MOVED_DURING_CUT = "vm.moved-during-cut"
    VM_SNAPSHOT_LOST = "vm.snapshot.lost"
    ARRAY_SNAPSHOT_REQUESTED = "array.snapshot.requested"
    ARRAY_SNAPSHOT_COMPLETED = "array.snapshot.completed"
    ARRAY_SNAPSHOT_FAILED = "array.snapshot.failed"
    ARRAY_SNAPSHOT_DISCARDED = "array.snapshot.discarded"
    VM_RELEASE_REQUESTED = "vm.release.requested"
    VM_RELEASE_COMPLETED = "vm.release.completed"
    VM_RELEASE_FAILED = "vm.release.failed"
    CALL_RETRIED = "call.retried"
    LATE_SUCCESS = "call.late-success"
    SWEPT = "sweep.removed"
    ORPHAN = "sweep.orphan"
    CATALOGUED = "catalogue.added"
    CATALOGUE_REFUSED = "catalogue.refused"
    JOURNAL_TROUBLE = "journal.trouble"


class EventLog:
    """An append-only sequence of :data:`Row`; appending is all that happens during a run.

    The fields of all rows stand in one flat list: at a dozen events for each VM, a tuple for each
    would be the largest thing in memory of a large run.
    """

    __slots__ = ("_fields",)

    def __init__(self) -> None:
        self._fields: list[Any] = []

    def add(self, t_s: float, kind: str, group: str, subject: str, detail: str = "") -> None:
        """Append one event at ``t_s`` seconds."""
        self._fields += (t_s, kind, group, subject, detail)

    def __len__(self) -> int:
        return len(self._fields) // FIELDS

    @property
    def rows(self) -> list[Row]:
        """All events, in order; made anew at each use."""
        fields = iter(self._fields)
        return list(zip(*(fields,) * FIELDS, strict=True))

    def of(self, *kinds: str) -> list[Row]:
        """The events of these kinds, in order."""
        return [row for row in self.rows if row[1] in kinds]

    def trace_hash(self) -> str:
        """Two runs with this hash in common did the same things at the same times in one order."""
        return hash_rows(self.rows)


def hash_rows(rows: Iterable[Row]) -> str:
    """A 128-bit BLAKE2b hash of event rows, in hexadecimal; times enter with all their digits."""
    digest = hashlib.blake2b(digest_size=16)
    for t_s, kind, group, subject, detail in rows:
        digest.update(f"{t_s!r}\x1f{kind}\x1f{group}\x1f{subject}\x1f{detail}\x1e".encode())
    return digest.hexdigest()
