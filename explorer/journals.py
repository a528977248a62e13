"""Journals in the hands of processes that die: refused to the dead, robbed of what was not durable.

A process that is killed loses nothing that it has written. A host that loses its power loses what
no durable write has followed; of a journal that is settled intents, which then come back.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..drivers.records import VmId
from ..orchestrator.journal import (
    Intent,
    JobRecord,
    Journal,
    LeaseLostError,
    Store,
    StoredEntry,
    Withdrawal,
)
from ..orchestrator.memory_store import MemoryStore
from ..orchestrator.result import CatalogueEntry
from .calls import Caller
from .options import JournalKind

_FILE = "journal.db"
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of one's own is made in it
"""Where Linux keeps files in memory. Nothing of a run has to outlive the machine, and on a disk
making and removing files takes longer than the run."""
_ROOM_BYTES = 64 << 20
"""Less than this is left to others: a run's files are far smaller."""
_TORN = b"\x00\x00\x00\x07\x00\x00\x00\x00torn"
"""What is left of a last frame that was being written: shorter than a frame, and no frame."""


class Hand(NamedTuple):
    """A process took a job into its hands, or wrote to its journal and was not refused."""

    life: int
    job_id: str
    took: bool


class FencedJournal:
    """A journal in the hands of one process; implements :class:`Journal`."""

    def __init__(self, journal: Journal, caller: Caller, job_id: str, hands: list[Hand]) -> None:
        self._journal = journal
        self._caller = caller
        self._hands = hands
        self._wrote = Hand(caller.life, job_id, False)
        self._intents: dict[str, Intent] = {}
        self._tail: list[str] = []

    @property
    def lease_s(self) -> float | None:
        """See :class:`Journal`."""
        return self._journal.lease_s

    def renew(self) -> None:
        """See :class:`Journal`."""
        self._caller.check()
        self._journal.renew()
        self._hands.append(self._wrote)

    def intend(self, intent: Intent) -> None:
        """See :class:`Journal`."""
        self._caller.check()
        self._journal.intend(intent)
        self._hands.append(self._wrote)
        self._intents[intent.tag] = intent
        self._tail.clear()

    def settle(self, tag: str) -> None:
        """See :class:`Journal`."""
        self._caller.check()
        self._journal.settle(tag)
        self._hands.append(self._wrote)
        self._tail.append(tag)

    def open_intents(self) -> list[Intent]:
        """See :class:`Journal`."""
        self._caller.check()
        found = self._journal.open_intents()
        self._intents.update((intent.tag, intent) for intent in found)
        return found

    def keep(self, entries: Sequence[CatalogueEntry], now_s: float) -> None:
        """See :class:`Journal`."""
        self._caller.check()
        self._journal.keep(entries, now_s)
        self._hands.append(self._wrote)
        self._tail.clear()

    def withdraw(self, vm_ids: Sequence[VmId], reason: str) -> None:
        """See :class:`Journal`."""
        self._caller.check()
        self._journal.withdraw(vm_ids, reason)
        self._hands.append(self._wrote)
        self._tail.clear()

    def kept(self) -> list[StoredEntry]:
        """See :class:`Journal`."""
        self._caller.check()
        return self._journal.kept()

    def finish(self, status: str) -> None:
        """See :class:`Journal`."""
        self._caller.check()
        self._journal.finish(status)
        self._hands.append(self._wrote)
        self._tail.clear()

    def lose_tail(self) -> None:
        """Its process is dead: settled intents that nothing durable has followed come back."""
        try:
            for tag in self._tail:
                if tag in self._intents:
                    self._journal.intend(self._intents[tag])
        except LeaseLostError:
            pass  # whoever took the job over has made everything before it durable
        self._tail.clear()


class FencedStore:
    """A store in the hands of one process; implements :class:`Store`."""

    def __init__(self, store: Store, caller: Caller, hands: list[Hand]) -> None:
        self._store = store
        self._caller = caller
        self._hands = hands
        self.journals: list[FencedJournal] = []

    def begin(self, job_id: str, *, name: str, spec: str, holder: str, lease_s: float) -> Journal:
        """See :class:`Store`."""
        self._caller.check()
        journal = self._store.begin(job_id, name=name, spec=spec, holder=holder, lease_s=lease_s)
        return self._fenced(journal, job_id)

    def take_over(self, job_id: str, *, holder: str, lease_s: float, breaking: str = "") -> Journal:
        """See :class:`Store`."""
        self._caller.check()
        journal = self._store.take_over(job_id, holder=holder, lease_s=lease_s, breaking=breaking)
        return self._fenced(journal, job_id)

    def _fenced(self, journal: Journal, job_id: str) -> Journal:
        self._hands.append(Hand(self._caller.life, job_id, True))
        fenced = FencedJournal(journal, self._caller, job_id, self._hands)
        self.journals.append(fenced)
        return fenced

    def jobs(self) -> list[JobRecord]:
        """See :class:`Store`."""
        self._caller.check()
        return self._store.jobs()

    def entries(self) -> list[StoredEntry]:
        """See :class:`Store`."""
        self._caller.check()
        return self._store.entries()

    def withdrawn(self) -> list[Withdrawal]:
        """See :class:`Store`."""
        self._caller.check()
        return self._store.withdrawn()

    def close(self) -> None:
        """Nothing: the run closes its store."""


def _place() -> Path | None:
    """The folder for files of runs; None for the system's own choice, which TMPDIR names."""
    if os.environ.get("TMPDIR") or not os.access(_MEMORY, os.W_OK):
        return None
    return _MEMORY if shutil.disk_usage(_MEMORY).free >= _ROOM_BYTES else None


class Shelf:
    """Where a run's store lies, beyond the death of any process.

    Attributes
    ----------
    store:
        The store as it is now.
    """

    def __init__(self, kind: JournalKind, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._folder: Path | None = None
        self._copies = 0
        self.store: Store
        if kind is JournalKind.MEMORY:
            self.store = MemoryStore(clock)
        elif kind is JournalKind.SQLITE_MEMORY:
            self.store = self._open(":memory:")
        else:
            self._folder = Path(tempfile.mkdtemp(prefix="stillframe-explore-", dir=_place()))
            self.store = self._open(self._path)

    @property
    def _path(self) -> Path:
        assert self._folder is not None, "only a file has a path"  # noqa: S101
        return self._folder / f"{self._copies}-{_FILE}"

    def _open(self, path: Path | str) -> Store:
        # Imported here: most runs keep their journal in memory.
        from ..orchestrator.sqlite_store import SqliteStore

        return SqliteStore(path, clock=self._clock, synchronous="OFF")

    def after_death(self, *, torn: bool) -> None:
        """Have the store as the next process finds it: read anew from what the files hold.

        ``torn``: the last write was cut short by a loss of power.
        """
        if self._folder is None:
            return
        before = self._path
        self._copies += 1
        for suffix in ("", "-wal"):
            file = before.with_name(before.name + suffix)
            if file.exists():
                shutil.copyfile(file, self._path.with_name(self._path.name + suffix))
        wal = self._path.with_name(self._path.name + "-wal")
        if torn and wal.exists():
            with wal.open("ab") as file_object:
                file_object.write(_TORN)
        self.store.close()
        self.store = self._open(self._path)

    def close(self) -> None:
        """Close the store and remove its files."""
        self.store.close()
        if self._folder is not None:
            shutil.rmtree(self._folder)
