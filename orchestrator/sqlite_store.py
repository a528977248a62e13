"""The durable store: an SQLite file in write-ahead mode; implements :class:`~.journal.Store`.

Calls to SQLite block the event loop, on purpose. What is noted must be on disk *before* the create
that it announces, so the job has to wait either way, and a write takes as long as one fsync of the
disk: milliseconds at most, against creates and cuts of seconds. A thread would add two switches to
each, and a moment in which the create's caller is cancelled while its intent is half-way.

Several processes may hold one file; who holds a job decides its lease. The clock that leases are
measured by is passed in: give processes that share a file one that they agree on.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError, StillframeError
from .journal import RUNNING, JobRecord, LeaseHeldError, StoredEntry, Withdrawal
from .sqlite_files import Database, look, open_file, open_memory
from .sqlite_journal import JobRow, JobRows, SqliteJournal
from .sqlite_schema import JOB_COLUMNS, SUMS, TABLES, digest, entry_of, seconds

Synchronous = Literal["FULL", "NORMAL", "OFF"]


class SqliteStore:
    """A store in a file, or with ``:memory:`` in SQLite without one.

    Parameters
    ----------
    path:
        The file; made with permissions for its owner only when it is missing.
    clock:
        The time in seconds, for leases and for when things were kept.
    synchronous:
        What survives a power cut. ``FULL``: all that was said to be durable. ``NORMAL``: an
        earlier state. ``OFF``: possibly nothing. A killed process loses nothing in any of them.
    create:
        Make the file when it is missing; otherwise that is an error.

    Raises
    ------
    InputError
        The file is missing or is nothing that this program can use; it is not touched.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        clock: Callable[[], float],
        synchronous: Synchronous = "FULL",
        create: bool = True,
    ) -> None:
        in_memory = str(path) == ":memory:"
        self._begin_use(
            open_memory() if in_memory else open_file(Path(path), synchronous, create=create), clock
        )

    @classmethod
    def open_readonly(cls, path: Path | str, clock: Callable[[], float]) -> SqliteStore:
        """What the file holds at this moment, to read; the file is not touched.

        Raises
        ------
        InputError
            The file is missing or is nothing that this program can use.
        """
        store = cls.__new__(cls)
        store._begin_use(Database(look(Path(path)), str(path)), clock, read_only=True)
        return store

    def _begin_use(
        self, database: Database, clock: Callable[[], float], *, read_only: bool = False
    ) -> None:
        self._database = database
        self._clock = clock
        self._read_only = read_only
        self._held: dict[str, SqliteJournal] = {}

    def begin(
        self, job_id: str, *, name: str, spec: str, holder: str, lease_s: float
    ) -> SqliteJournal:
        """See :meth:`~.journal.Store.begin`."""
        now_s = seconds(self._clock())
        until_s = seconds(now_s + lease_s)

        def work(connection: sqlite3.Connection) -> JobRows:
            if connection.execute("SELECT 1 FROM jobs WHERE job_id = ?", (job_id,)).fetchone():
                problem = f"there is a job {job_id} already"
                raise StillframeError(problem, "give each job its own name")
            number = connection.execute("SELECT MAX(id) FROM jobs").fetchone()[0]
            job = JobRow((number or 0) + 1, job_id, name, now_s, RUNNING, holder, 1, until_s, spec)
            connection.execute(
                f"INSERT INTO jobs ({JOB_COLUMNS}, digests) VALUES (?,?,?,?,?,?,?,?,?,?)",  # noqa: S608
                (*job, digest("jobs", job) % SUMS),
            )
            return JobRows(job, (), (), 1, 0)

        return self._hold(self._transact(work), lease_s)

    def take_over(
        self, job_id: str, *, holder: str, lease_s: float, breaking: str = ""
    ) -> SqliteJournal:
        """See :meth:`~.journal.Store.take_over`."""
        now_s = self._clock()
        self._flush(job_id)

        def work(connection: sqlite3.Connection) -> JobRows:
            rows = _job(connection, job_id)
            if rows is None:
                raise StillframeError(f"the journal knows no job {job_id}")
            left_s = rows.job.lease_until_s - now_s
            if rows.job.holder not in ("", breaking) and left_s > 0:
                raise LeaseHeldError(
                    f"job {job_id} is in the hands of {rows.job.holder}, whose lease holds for "
                    f"another {left_s:.3g} s",
                    "wait for the job to end, or for the lease if its process is dead",
                )
            job = rows.job._replace(
                holder=holder, token=rows.job.token + 1, lease_until_s=seconds(now_s + lease_s)
            )
            connection.execute(
                "UPDATE jobs SET holder = ?, token = ?, lease_until_s = ?, digests = ?"
                " WHERE id = ?",
                (
                    job.holder,
                    job.token,
                    job.lease_until_s,
                    (rows.digests + digest("jobs", job)) % SUMS,
                    job.id,
                ),
            )
            return rows._replace(job=job)

        return self._hold(self._transact(work), lease_s)

    def jobs(self) -> list[JobRecord]:
        """See :meth:`~.journal.Store.jobs`."""
        for journal in self._held.values():
            journal.flush()
        rows: list[Any] = self._database.fetch_all(
            "SELECT job_id, name, spec, begun_s, status, holder, token, lease_until_s,"
            " (SELECT COUNT(*) FROM intents WHERE job = jobs.id),"
            " (SELECT COUNT(*) FROM entries WHERE job = jobs.id) FROM jobs ORDER BY id"
        )
        return [JobRecord(*row) for row in rows]

    def entries(self) -> list[StoredEntry]:
        """See :meth:`~.journal.Store.entries`."""
        rows: list[Any] = self._database.fetch_all(
            "SELECT jobs.job_id, entries.* FROM entries JOIN jobs ON jobs.id = entries.job"
            " ORDER BY entries.job, entries.seq"
        )
        return [entry_of(row[0], row[1:]) for row in rows]

    def withdrawn(self) -> list[Withdrawal]:
        """See :meth:`~.journal.Store.withdrawn`."""
        rows: list[Any] = self._database.fetch_all(
            "SELECT jobs.job_id, withdrawn_s, reason, vm_ids FROM withdrawals"
            " JOIN jobs ON jobs.id = withdrawals.job ORDER BY withdrawals.job, withdrawals.seq"
        )
        return [Withdrawal(row[0], row[1], row[2], tuple(json.loads(row[3]))) for row in rows]

    def close(self) -> None:
        """See :meth:`~.journal.Store.close`."""
        try:
            for journal in self._held.values():
                journal.flush()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of the file as if the process had died: what was only settled is not written."""
        self._held.clear()
        self._database.close()

    def _transact(self, work: Callable[[sqlite3.Connection], JobRows]) -> JobRows:
        if self._read_only:
            raise InputError(self._database.name, "", "the store is open for reading only")
        answer: list[JobRows] = []

        def keep_answer(connection: sqlite3.Connection) -> bool:
            answer.append(work(connection))
            return True

        self._database.transact(keep_answer)
        return answer[0]

    def _hold(self, rows: JobRows, lease_s: float) -> SqliteJournal:
        journal = SqliteJournal(self._database, self._clock, rows, lease_s)
        self._held[rows.job.job_id] = journal
        return journal

    def _flush(self, job_id: str) -> None:
        """Write what an earlier holder in this process settled, so that it is not looked for."""
        if job_id in self._held:
            self._held[job_id].flush()


def _job(connection: sqlite3.Connection, job_id: str) -> JobRows | None:
    """A job with all its rows; raises StillframeError when they do not match their digests."""
    found = connection.execute(
        f"SELECT {JOB_COLUMNS}, digests FROM jobs WHERE job_id = ?",  # noqa: S608
        (job_id,),
    ).fetchone()
    if found is None:
        return None
    job = JobRow(*found[:-1])
    rows = {
        table: connection.execute(
            f"SELECT * FROM {table} WHERE job = ? ORDER BY seq",  # noqa: S608
            (job.id,),
        ).fetchall()
        for table in TABLES
    }
    digests = sum(digest(table, row) for table, some in rows.items() for row in some) % SUMS
    if (digests + digest("jobs", job)) % SUMS != found[-1]:
        raise StillframeError(
            f"the records of job {job_id} do not match their digests",
            "the store is damaged; restore a copy of it",
        )
    next_seq = 1 + max((row[1] for some in rows.values() for row in some), default=0)
    return JobRows(job, rows["intents"], rows["entries"], next_seq, digests)
