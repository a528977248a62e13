"""The journal of one job in a durable store; implements :class:`~.journal.Journal`.

Only the holder of the lease writes a job's rows, so it knows them without asking: reads come from
memory once the token is found to be still its own. A write carries its own check, because the row
that it updates first is found by number *and* token, inside the transaction: if another
orchestrator took the job over a moment before, there is no such row and nothing else is done.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ..drivers.contracts import GroupSnapshotRef
from ..drivers.records import VmId
from .journal import Intent, IntentKind, LeaseLostError, StoredEntry
from .result import CatalogueEntry
from .sqlite_files import Database
from .sqlite_schema import (
    SUMS,
    EntryRow,
    IntentRow,
    WithdrawalRow,
    digest,
    entry_of,
    entry_row,
    intent_of,
    intent_row,
    seconds,
)

FOR_EVER_S = float("inf")


class JobRow(NamedTuple):
    """The columns of a job that its digest covers."""

    id: int
    job_id: str
    name: str
    begun_s: float
    status: str
    holder: str
    token: int
    lease_until_s: float
    spec: str


class JobRows(NamedTuple):
    """A job as a store hands it over: its own row, those that belong to it, and their sum."""

    job: JobRow
    intents: Sequence[IntentRow]
    entries: Sequence[EntryRow]
    next_seq: int
    digests: int
    """The sum of the digests of everything but the job's own row."""


class _Change:
    """What one transaction does to the rows of a job."""

    __slots__ = ("entries", "gone_entries", "gone_intents", "intents", "next_seq", "withdrawals")

    def __init__(self, next_seq: int, settled: Iterable[IntentRow]) -> None:
        self.next_seq = next_seq
        self.intents: dict[str, IntentRow] = {}
        self.entries: dict[VmId, EntryRow] = {}
        self.withdrawals: list[WithdrawalRow] = []
        self.gone_intents: list[IntentRow] = list(settled)
        self.gone_entries: list[EntryRow] = []

    def seq(self) -> int:
        """The place of a new row, after all others."""
        self.next_seq += 1
        return self.next_seq - 1

    def digests(self) -> int:
        """By how much the sum of the job's digests changes."""
        come = sum(digest("intents", row) for row in self.intents.values())
        gone = sum(digest("intents", row) for row in self.gone_intents)
        if self.entries or self.gone_entries or self.withdrawals:
            come += sum(digest("entries", row) for row in self.entries.values())
            come += sum(digest("withdrawals", row) for row in self.withdrawals)
            gone += sum(digest("entries", row) for row in self.gone_entries)
        return come - gone

    def execute(self, connection: sqlite3.Connection) -> None:
        """Carry it out in the transaction that is open."""
        for table, gone in (("intents", self.gone_intents), ("entries", self.gone_entries)):
            if gone:
                connection.executemany(
                    f"DELETE FROM {table} WHERE job = ? AND seq = ?",  # noqa: S608  # our names
                    [row[:2] for row in gone],
                )
        for row in self.intents.values():
            connection.execute("INSERT INTO intents VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        if self.entries:
            connection.executemany(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self.entries.values()
            )
        for withdrawal in self.withdrawals:
            connection.execute("INSERT INTO withdrawals VALUES (?, ?, ?, ?, ?)", withdrawal)


class SqliteJournal:
    """A job in somebody's hands. Made by the store only.

    ``settle`` stays in memory until the next write: losing it costs a look for a tag that is not
    there, writing it would cost an fsync for each VM.
    """

    def __init__(
        self, database: Database, clock: Callable[[], float], rows: JobRows, lease_s: float
    ) -> None:
        self._database = database
        self._clock = clock
        self._lease_s = lease_s
        self._job = rows.job
        self._job_digest = digest("jobs", rows.job)
        self._digests = rows.digests
        self._next_seq = rows.next_seq
        self._open = {row[2]: row for row in rows.intents}
        self._entries = {row[2]: row for row in rows.entries}
        self._settled: list[IntentRow] = []

    @property
    def lease_s(self) -> float | None:
        """See :class:`~.journal.Journal`."""
        return None if self._lease_s == FOR_EVER_S else self._lease_s

    def renew(self) -> None:
        """See :class:`~.journal.Journal`."""
        until_s = seconds(self._clock() + self._lease_s)
        self._write(self._change(), self._job._replace(lease_until_s=until_s))

    def intend(self, intent: Intent) -> None:
        """See :class:`~.journal.Journal`; one transaction, one fsync."""
        change = self._change()
        self._reopen(change, intent._replace(begun_s=self._clock()))
        self._write(change, self._job)

    def settle(self, tag: str) -> None:
        """See :class:`~.journal.Journal`."""
        self._check()
        row = self._open.pop(tag, None)
        if row is not None:
            self._settled.append(row)

    def open_intents(self) -> list[Intent]:
        """See :class:`~.journal.Journal`."""
        self._check()
        return [intent_of(row) for row in self._open.values()]

    def keep(self, entries: Sequence[CatalogueEntry], now_s: float) -> None:
        """See :class:`~.journal.Journal`."""
        change = self._change()
        offset_s = self._clock() - now_s
        for entry in entries:
            stored = StoredEntry(
                self._job.job_id,
                entry.vm_id,
                entry.vm_name,
                entry.level,
                entry.point_in_time_s + offset_s,
                entry.cuts,
                entry.unit_ids,
            )
            change.entries.pop(entry.vm_id, None)
            change.entries[entry.vm_id] = entry_row(self._job.id, change.seq(), stored)
        replaced = dict.fromkeys(vm_id for vm_id in change.entries if vm_id in self._entries)
        if replaced:
            self._drop_entries(change, replaced)
        named = dict.fromkeys(cut.tag for row in change.entries.values() for cut in _cuts(row))
        change.gone_intents.extend(self._open[tag] for tag in named if tag in self._open)
        self._write(change, self._job)

    def withdraw(self, vm_ids: Sequence[VmId], reason: str) -> None:
        """See :class:`~.journal.Journal`."""
        change = self._change()
        gone = dict.fromkeys(vm_id for vm_id in vm_ids if vm_id in self._entries)
        if gone:
            self._drop_entries(change, gone)
            now_s = seconds(self._clock())
            change.withdrawals.append(
                (self._job.id, change.seq(), now_s, reason, json.dumps([*gone]))
            )
        self._write(change, self._job)

    def kept(self) -> list[StoredEntry]:
        """See :class:`~.journal.Journal`."""
        self._check()
        return [entry_of(self._job.job_id, row) for row in self._entries.values()]

    def finish(self, status: str) -> None:
        """See :class:`~.journal.Journal`."""
        over = self._job._replace(status=status, holder="", lease_until_s=seconds(self._clock()))
        self._write(self._change(), over)

    def flush(self) -> None:
        """Write what was settled; nothing when the job is in other hands by now."""
        if self._settled:
            try:
                self._write(self._change(), self._job)
            except LeaseLostError:
                self._settled.clear()

    def _change(self) -> _Change:
        return _Change(self._next_seq, self._settled)

    def _reopen(self, change: _Change, intent: Intent) -> None:
        """An intent; one that is open already keeps its place."""
        before = self._open.get(intent.tag)
        if before is not None:
            change.gone_intents.append(before)
        seq = change.seq() if before is None else before[1]
        change.intents[intent.tag] = intent_row(self._job.id, seq, intent)

    def _drop_entries(self, change: _Change, vm_ids: Mapping[VmId, None]) -> None:
        """Take entries out, and make intents of the cuts that no other entry names."""
        rows = [self._entries[vm_id] for vm_id in vm_ids]
        change.gone_entries.extend(rows)
        left = {vm_id: row for vm_id, row in self._entries.items() if vm_id not in vm_ids}
        named = {
            cut.tag for row in (*left.values(), *change.entries.values()) for cut in _cuts(row)
        }
        for cut in dict.fromkeys(cut for row in rows for cut in _cuts(row)):
            if cut.tag not in named:
                kind = IntentKind.ARRAY_SNAPSHOT
                array_id = cut.array_id
                self._reopen(change, Intent(cut.tag, kind, array_id, array_id, self._clock()))

    def _check(self) -> None:
        row = self._database.fetch("SELECT token FROM jobs WHERE id = ?", (self._job.id,))
        if row is None or row[0] != self._job.token:
            raise self._lost()

    def _lost(self) -> LeaseLostError:
        row = self._database.fetch("SELECT holder FROM jobs WHERE id = ?", (self._job.id,))
        holder = row[0] if row is not None else ""
        return LeaseLostError(f"job {self._job.job_id} was taken over by {holder or 'another'}")

    def _write(self, change: _Change, job: JobRow) -> None:
        """One transaction, and what is known in memory only after it."""
        own = self._job_digest if job is self._job else digest("jobs", job)
        digests = (self._digests + change.digests()) % SUMS
        values = (
            job.status,
            job.holder,
            job.lease_until_s,
            (digests + own) % SUMS,
            job.id,
            job.token,
        )

        def work(connection: sqlite3.Connection) -> bool:
            updated = connection.execute(
                "UPDATE jobs SET status = ?, holder = ?, lease_until_s = ?, digests = ?"
                " WHERE id = ? AND token = ?",
                values,
            )
            if updated.rowcount == 1:
                change.execute(connection)  # for another holder its places would be taken
            return updated.rowcount == 1

        if not self._database.transact(work):
            raise self._lost()
        self._job, self._job_digest = job, own
        self._digests, self._next_seq = digests, change.next_seq
        self._settled.clear()
        self._remember(change)

    def _remember(self, change: _Change) -> None:
        for intent in change.gone_intents:
            if intent[2] not in change.intents:
                self._open.pop(intent[2], None)
        self._open.update(change.intents)
        for entry in change.gone_entries:
            del self._entries[entry[2]]
        self._entries.update(change.entries)


def _cuts(row: EntryRow) -> tuple[GroupSnapshotRef, ...]:
    return tuple(GroupSnapshotRef(*cut) for cut in json.loads(row[6]))
