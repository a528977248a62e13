"""A modelled array in real time that keeps its snapshots in a file, across processes.

A real array outlives the process that called it, holds its snapshots afterwards, and finishes what
it has accepted. For rehearsing a crash and a recovery against live hypervisors the array that
stands in has to do the same.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from ..drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest
from ..drivers.errors import DriverError, UnknownOutcomeError
from ..drivers.records import ArrayId, UnitId
from ..errors import InputError
from ..orchestrator.events import EventLog
from .array import ModelArray
from .array_calls import ArrayEvent, Held

APPLICATION_ID = 0x5346_4D41
"""In the header of the file: ``SFMA``; another SQLite file is refused."""
BUSY_S = 10.0
"""How long to wait for another process that is writing to the file."""


class KeptSnapshot(NamedTuple):
    """A group snapshot in the file; one that is not ``complete`` was accepted and goes on."""

    tag: str
    snapshot_id: str
    unit_ids: tuple[UnitId, ...]
    complete: bool


class KeptSnapshots:
    """The file: an SQLite database that several processes may have open.

    Survives the death of any process. Not synchronised with the disk: it stands for an array, which
    does not lose power with the host that calls it.

    Parameters
    ----------
    path:
        Made if it does not exist.
    array_id:
        The array whose snapshots are wanted; one file can hold those of several.

    Raises
    ------
    InputError
        The file cannot be opened, or is something else.
    """

    def __init__(self, path: Path, array_id: ArrayId) -> None:
        self._array_id = array_id
        try:
            # Every statement is a transaction of its own.
            self._database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        except sqlite3.Error as error:
            raise InputError(str(path), "", f"cannot be opened: {error}") from None
        try:
            self._prepare(path)
        except sqlite3.Error as error:
            self._database.close()
            raise InputError(str(path), "", f"cannot be used: {error}") from None
        except InputError:
            self._database.close()
            raise

    def _prepare(self, path: Path) -> None:
        (application,) = self._database.execute("PRAGMA application_id").fetchone()
        (objects,) = self._database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application != APPLICATION_ID and (application or objects):
            problem = "this is not a file of a modelled array"
            raise InputError(str(path), "", problem, "name another file, or none that exists")
        self._database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS snapshots (array_id TEXT, tag TEXT, snapshot_id TEXT, "
            "unit_ids TEXT, complete INTEGER, PRIMARY KEY (array_id, tag)) STRICT"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._database.close()

    def all(self) -> list[KeptSnapshot]:
        """Every snapshot of the array, oldest first."""
        rows = self._database.execute(
            "SELECT tag, snapshot_id, unit_ids, complete FROM snapshots "
            "WHERE array_id = ? ORDER BY rowid",
            (self._array_id,),
        )
        return [
            KeptSnapshot(tag, snapshot_id, tuple(json.loads(units)), bool(complete))
            for tag, snapshot_id, units, complete in rows
        ]

    def accept(self, tag: str, unit_ids: Sequence[UnitId]) -> None:
        """Note that a snapshot is on its way; nothing happens if there is one of this tag."""
        self._write(
            "INSERT INTO snapshots VALUES (?, ?, '', ?, 0) ON CONFLICT DO NOTHING",
            (tag, json.dumps(list(unit_ids))),
        )

    def complete(self, tag: str, snapshot_id: str) -> None:
        """The snapshot is there, under this identifier of the array's."""
        self._write(
            "UPDATE snapshots SET complete = 1, snapshot_id = ?3 WHERE array_id = ?1 AND tag = ?2",
            (tag, snapshot_id),
        )

    def refuse(self, tag: str) -> None:
        """Nothing came of a snapshot that was on its way."""
        self._write("DELETE FROM snapshots WHERE array_id = ? AND tag = ? AND NOT complete", (tag,))

    def drop(self, tag: str) -> None:
        """The snapshot is gone."""
        self._write("DELETE FROM snapshots WHERE array_id = ? AND tag = ?", (tag,))

    def _write(self, statement: str, values: tuple[str, ...]) -> None:
        self._database.execute(statement, (self._array_id, *values))


class _Watching(EventLog):
    """The array's event log; what it tells reaches the file before anybody gets an answer."""

    def __init__(self, array: KeptArray) -> None:
        super().__init__()
        self._array = array

    def add(self, t_s: float, kind: str, group: str, subject: str, detail: str = "") -> None:
        super().add(t_s, kind, group, subject, detail)
        self._array.happened(kind, detail)


class KeptArray(ModelArray):
    """A modelled array with its snapshots in a file.

    Before each call it takes over what other processes have done to the file. What it had accepted
    when a process ended, it has finished by the time the next one opens it.
    """

    def __init__(self, kept: KeptSnapshots, *args: Any) -> None:
        self._kept = kept
        super().__init__(*args)
        self._log = _Watching(self)
        for one in kept.all():
            if not one.complete:
                kept.complete(one.tag, f"{self.id}/{one.tag}")
        self._take_over()

    def happened(self, kind: str, tag: str) -> None:
        """Called by the event log, in the middle of the model's work."""
        if kind == ArrayEvent.COMPLETED:
            held = self._by_tag[tag]
            self._kept.complete(tag, held.snapshot.ref.snapshot_id)
        elif kind in (ArrayEvent.ABORTED, ArrayEvent.DELETED, ArrayEvent.INVALIDATED):
            self._kept.drop(tag)

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """See :meth:`ModelArray.snapshot_group`."""
        self._take_over()
        self._kept.accept(request.tag, request.unit_ids)
        try:
            return await super().snapshot_group(request)
        except UnknownOutcomeError:
            raise
        except DriverError:
            if request.tag not in self._running:
                self._kept.refuse(request.tag)
            raise

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        """See :meth:`ModelArray.list_snapshots`."""
        self._take_over()
        return await super().list_snapshots(tag_prefix)

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """See :meth:`ModelArray.delete_snapshot`."""
        self._take_over()
        await super().delete_snapshot(ref)

    def _take_over(self) -> None:
        """Hold what the file holds: other processes may have made and deleted snapshots."""
        in_file = {one.tag: one for one in self._kept.all() if one.complete}
        for tag, held in list(self._by_tag.items()):
            if tag not in in_file and not held.deleting:
                self._forget(held)
                self.pool.drop(held.number)
        for tag, one in in_file.items():
            if tag not in self._by_tag and tag not in self._running:
                self._restore(one)

    def _restore(self, one: KeptSnapshot) -> None:
        """Hold a snapshot of another process; when it was cut is on that one's clock, unknown."""
        self._number += 1
        ref = GroupSnapshotRef(self.id, one.snapshot_id, one.tag)
        held = self._held[self._number] = Held(self._number, GroupSnapshot(ref, one.unit_ids))
        held.complete = True
        self._by_tag[one.tag] = held
        known = tuple(unit_id for unit_id in one.unit_ids if unit_id in self._unit_ids)
        self.pool.cut(self._number, known)
        self._count()
