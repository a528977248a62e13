"""The tables of a durable store, their versions, and what makes damage visible.

SQLite notices a broken page structure, but not a flipped bit in a record, nor pages of two
different moments that fit together by chance. So each job carries the sum of the digests of all
its rows, and every transaction, which is always one of a single job, writes the sum anew. A store
whose sums do not hold is damaged and is not used.

Tables are clustered by job and have no second index that could disagree with them; the one on
``jobs.job_id`` is covered by SQLite's own check.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b

from ..drivers.contracts import ConsistencyLevel, GroupSnapshotRef
from .journal import Intent, IntentKind, StoredEntry

APPLICATION_ID = 0x53544C46
"""``STLF`` in the header of the file: what tells our stores from other SQLite files."""

Migration = Callable[[sqlite3.Connection], None]
Value = str | int | float
SUMS = 2**63
"""Sums of digests are kept modulo this, so that they fit a signed 64-bit column."""


def _first_tables(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE jobs (id INTEGER PRIMARY KEY, job_id TEXT NOT NULL UNIQUE,"
        " name TEXT NOT NULL, begun_s REAL NOT NULL, status TEXT NOT NULL, holder TEXT NOT NULL,"
        " token INTEGER NOT NULL, lease_until_s REAL NOT NULL, digests INTEGER NOT NULL,"
        " spec TEXT NOT NULL)"
    )
    connection.execute(
        "CREATE TABLE intents (job INTEGER NOT NULL, seq INTEGER NOT NULL, tag TEXT NOT NULL,"
        " kind TEXT NOT NULL, system_id TEXT NOT NULL, object_id TEXT NOT NULL,"
        " begun_s REAL NOT NULL, PRIMARY KEY (job, seq)) WITHOUT ROWID"
    )
    connection.execute(
        "CREATE TABLE entries (job INTEGER NOT NULL, seq INTEGER NOT NULL, vm_id TEXT NOT NULL,"
        " vm_name TEXT NOT NULL, level TEXT NOT NULL, point_in_time_s REAL NOT NULL,"
        " cuts TEXT NOT NULL, unit_ids TEXT NOT NULL, PRIMARY KEY (job, seq)) WITHOUT ROWID"
    )
    connection.execute(
        "CREATE TABLE withdrawals (job INTEGER NOT NULL, seq INTEGER NOT NULL,"
        " withdrawn_s REAL NOT NULL, reason TEXT NOT NULL, vm_ids TEXT NOT NULL,"
        " PRIMARY KEY (job, seq)) WITHOUT ROWID"
    )


MIGRATIONS: tuple[Migration, ...] = (_first_tables,)
"""Step k leads from version k to version k + 1; version 0 is a file without tables.

A step that changes rows which digests cover compares the old sums and writes new ones.
"""

TABLES = ("intents", "entries", "withdrawals")
"""What belongs to a job; the first two columns are its number and the row's place in it."""


def version_of(connection: sqlite3.Connection) -> int:
    """The schema version that the file says it has."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, steps: Sequence[Migration]) -> None:
    """Bring the tables to the version that ``steps`` lead to, all or nothing.

    Raises
    ------
    sqlite3.Error
        A step failed; everything is as it was.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in steps[version_of(connection) :]:
            step(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(steps)}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def tables_of(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    """The definitions of everything in the file, for comparison."""
    return connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    ).fetchall()


def seconds(value: float) -> float:
    """A time as SQLite gives it back: always a float, and without the sign of a negative zero."""
    return float(value) + 0.0


def digest(table: str, row: Iterable[Value]) -> int:
    """The digest of one row, its key included."""
    return int.from_bytes(blake2b(repr((table, *row)).encode(), digest_size=8).digest(), "big")


JOB_COLUMNS = "id, job_id, name, begun_s, status, holder, token, lease_until_s, spec"


def wrong_sums(connection: sqlite3.Connection) -> list[str]:
    """What does not hold of the sums of digests: a sentence for each job concerned."""
    sums: dict[int, int] = {}
    for table in TABLES:
        for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608  # our own names
            sums[row[0]] = sums.get(row[0], 0) + digest(table, row)
    wrong = []
    for *row, noted in connection.execute(f"SELECT {JOB_COLUMNS}, digests FROM jobs"):  # noqa: S608
        if (sums.pop(row[0], 0) + digest("jobs", row)) % SUMS != noted:
            wrong.append(f"the records of job {row[1]} do not match their digests")
    return [*wrong, *(f"there are records of a job number {job} and no job" for job in sums)]


IntentRow = tuple[int, int, str, str, str, str, float]
EntryRow = tuple[int, int, str, str, str, float, str, str]
WithdrawalRow = tuple[int, int, float, str, str]


def intent_row(job: int, seq: int, intent: Intent) -> IntentRow:
    """The columns of an intent."""
    return (
        job,
        seq,
        intent.tag,
        intent.kind.value,
        intent.system_id,
        intent.object_id,
        seconds(intent.begun_s),
    )


def intent_of(row: IntentRow) -> Intent:
    """The intent of these columns."""
    return Intent(row[2], IntentKind(row[3]), row[4], row[5], row[6])


def entry_row(job: int, seq: int, entry: StoredEntry) -> EntryRow:
    """The columns of a catalogue entry."""
    cuts = [[cut.array_id, cut.snapshot_id, cut.tag] for cut in entry.cuts]
    return (
        job,
        seq,
        entry.vm_id,
        entry.vm_name,
        entry.level.value,
        seconds(entry.point_in_time_s),
        json.dumps(cuts),
        json.dumps(entry.unit_ids),
    )


def entry_of(job_id: str, row: EntryRow) -> StoredEntry:
    """The catalogue entry of these columns."""
    return StoredEntry(
        job_id,
        row[2],
        row[3],
        ConsistencyLevel(row[4]),
        row[5],
        tuple(GroupSnapshotRef(*cut) for cut in json.loads(row[6])),
        tuple(json.loads(row[7])),
    )
