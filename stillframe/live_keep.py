"""The catalogue of live jobs held against the arrays, and pruned on them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .drivers.contracts import (
    ArrayCapabilities,
    ArrayDriver,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
)
from .drivers.errors import DriverError, NeverWillError
from .drivers.records import ArrayId, DeviceIdentity, StorageUnit
from .live_journal import LEASE_S, Holder, is_dead, unfinished
from .live_systems import Tell, modelled_arrays, open_systems, telling
from .orchestrator.journal import JobRecord, Journal, Store, StoredEntry, Withdrawal
from .orchestrator.memory_store import MemoryStore
from .orchestrator.prune import Pruned, prune
from .orchestrator.result import CatalogueEntry
from .orchestrator.retention import Retention
from .orchestrator.verify import Verification, verify_catalogue
from .scenarios.live import LiveConfig

Notice = Callable[[str], None]


class OwnJobs:
    """A journal as if it held the jobs of one configuration only.

    Holders that have certainly died are not waited for.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    def begin(self, job_id: str, *, name: str, spec: str, holder: str, lease_s: float) -> Journal:
        """See :meth:`Store.begin`."""
        return self._store.begin(job_id, name=name, spec=spec, holder=holder, lease_s=lease_s)

    def take_over(self, job_id: str, *, holder: str, lease_s: float, breaking: str = "") -> Journal:
        """See :meth:`Store.take_over`."""
        before = next((job.holder for job in self.jobs() if job.job_id == job_id), "")
        breaking = breaking or (before if is_dead(before) else "")
        return self._store.take_over(job_id, holder=holder, lease_s=lease_s, breaking=breaking)

    def jobs(self) -> list[JobRecord]:
        """See :meth:`Store.jobs`."""
        return [job for job in self._store.jobs() if job.name == self._name]

    def entries(self) -> list[StoredEntry]:
        """See :meth:`Store.entries`."""
        own = {job.job_id for job in self.jobs()}
        return [entry for entry in self._store.entries() if entry.job_id in own]

    def withdrawn(self) -> list[Withdrawal]:
        """See :meth:`Store.withdrawn`."""
        own = {job.job_id for job in self.jobs()}
        return [one for one in self._store.withdrawn() if one.job_id in own]

    def close(self) -> None:
        """See :meth:`Store.close`."""
        self._store.close()


@dataclass(frozen=True, slots=True)
class Verified:
    """What the arrays say of a configuration's catalogue.

    Attributes
    ----------
    unfinished:
        Jobs that nobody works on and that are to be recovered; what they left is not in ``found``.
    models:
        Arrays that are models: nothing can be restored from what they hold.
    """

    found: Verification
    unfinished: list[JobRecord]
    models: list[ArrayId]

    @property
    def agrees(self) -> bool:
        """Everything can be restored, nothing of ours is forgotten, and every array answered."""
        return self.found.true and not self.unfinished


def verify_live(config: LiveConfig, store: Store, tell: Tell, notice: Notice) -> Verified:
    """Ask the arrays of a configuration what they hold of its catalogue; changes nothing.

    Raises
    ------
    InputError
        A system's settings cannot be used.
    DriverError
        No array can be reached.
    """
    own = OwnJobs(store, config.name)

    async def main() -> tuple[Verification, list[ArrayId]]:
        async with (
            telling(tell) as say,
            open_systems(config, say, _missing(notice), only_arrays=True) as systems,
        ):
            say("asking the arrays", None)
            found = await verify_catalogue(
                own, systems.arrays, spec=config.job, random=random.Random(config.name)
            )
            return found, modelled_arrays(systems)

    with asyncio.Runner() as runner:
        found, models = runner.run(main())
    return Verified(found, unfinished(store, config.name).free, models)


def _missing(notice: Notice) -> Callable[[str, DriverError], None]:
    def missing(system_id: str, error: DriverError) -> None:
        notice(f"{system_id} cannot be reached: {error}")

    return missing


def prune_live(
    config: LiveConfig, store: Store, retention: Retention, tell: Tell, notice: Notice
) -> Pruned:
    """Delete on the arrays of a configuration what its retention does not keep.

    Parameters
    ----------
    notice:
        Hears of each thing that goes, and of each that stays against the wish, when it does.

    Raises
    ------
    InputError
        A system's settings cannot be used.
    DriverError
        No array can be reached.
    """
    return _prune_on(
        config, OwnJobs(store, config.name), retention, lambda _, one: one, tell, notice
    )


@dataclass(slots=True)
class Foreseen:
    """What a pruning would do.

    Attributes
    ----------
    going, staying:
        Entries.
    deleted:
        Array snapshots that would go.
    listed:
        By array that answered, the tags of all that it holds.
    """

    pruned: Pruned
    going: list[StoredEntry]
    staying: list[StoredEntry]
    deleted: list[GroupSnapshotRef]
    listed: dict[ArrayId, set[str]]

    def is_lost(self, entry: StoredEntry) -> bool:
        """Whether an array does not hold a snapshot that the entry needs."""
        return any(
            cut.array_id in self.listed and cut.tag not in self.listed[cut.array_id]
            for cut in entry.cuts
        )

    def is_good(self, entry: StoredEntry) -> bool:
        """Whether the arrays hold all that the entry needs."""
        return all(cut.tag in self.listed.get(cut.array_id, ()) for cut in entry.cuts)


def foresee_pruning(
    config: LiveConfig, store: Store, retention: Retention, tell: Tell, notice: Notice
) -> Foreseen:
    """What :func:`prune_live` would do now: the same, on a copy, and arrays are only asked.

    Raises like it.
    """
    own = OwnJobs(store, config.name)
    before = own.entries()
    copy = _copied(own)
    deleted: list[GroupSnapshotRef] = []
    listed: dict[ArrayId, set[str]] = {}
    pruned = _prune_on(
        config,
        copy,
        retention,
        lambda array_id, array: _OnlyAsked(array_id, array, deleted, listed),
        tell,
        notice=lambda _sentence: None,
        missing=notice,
    )
    left = {(entry.job_id, entry.vm_id) for entry in copy.entries()}
    going = [entry for entry in before if (entry.job_id, entry.vm_id) not in left]
    staying = [entry for entry in before if (entry.job_id, entry.vm_id) in left]
    return Foreseen(pruned, going, staying, deleted, listed)


def _prune_on(
    config: LiveConfig,
    store: OwnJobs | MemoryStore,
    retention: Retention,
    wrap: Callable[[ArrayId, ArrayDriver], ArrayDriver],
    tell: Tell,
    notice: Notice,
    missing: Notice | None = None,
) -> Pruned:
    away: list[str] = []

    def not_there(system_id: str, error: DriverError) -> None:
        away.append(f"{system_id} cannot be reached, what is there stays: {error}")
        (missing or notice)(away[-1])

    async def main() -> Pruned:
        async with (
            telling(tell) as say,
            open_systems(config, say, not_there, only_arrays=True) as systems,
        ):
            say("pruning", None)
            return await prune(
                store,
                retention,
                {key: wrap(key, array) for key, array in systems.arrays.items()},
                now_s=time.time(),
                holder=str(Holder.here()),
                lease_s=LEASE_S,
                random=random.Random(config.name),
                spec=config.job,
                tell=notice,
            )

    with asyncio.Runner() as runner:
        pruned = runner.run(main())
    pruned.left[:0] = away
    return pruned


def _copied(store: OwnJobs) -> MemoryStore:
    """The jobs and entries of a store in memory; intents that are open are left out."""
    now_s = time.time()
    copy = MemoryStore(lambda: now_s)
    entries = store.entries()
    for job in store.jobs():
        held = copy.begin(
            job.job_id, name=job.name, spec=job.spec, holder=job.holder, lease_s=LEASE_S
        )
        kept = [
            CatalogueEntry(
                one.vm_id, one.level, one.point_in_time_s, one.cuts, one.unit_ids, one.vm_name
            )
            for one in entries
            if one.job_id == job.job_id
        ]
        held.keep(kept, now_s)
        held.finish(job.status)
    return copy


class _OnlyAsked:
    """An array that is asked and never changed; implements ``ArrayDriver``."""

    def __init__(
        self,
        array_id: ArrayId,
        array: ArrayDriver,
        deleted: list[GroupSnapshotRef],
        listed: dict[ArrayId, set[str]],
    ) -> None:
        self._id = array_id
        self._array = array
        self._deleted = deleted
        self._listed = listed

    @property
    def capabilities(self) -> ArrayCapabilities:
        """The array's own."""
        return self._array.capabilities

    async def resolve(
        self, devices: Sequence[DeviceIdentity]
    ) -> Mapping[DeviceIdentity, StorageUnit]:
        """As the array answers."""
        return await self._array.resolve(devices)

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        """As the array answers."""
        found = await self._array.list_snapshots(tag_prefix)
        self._listed.setdefault(self._id, set()).update(one.ref.tag for one in found)
        return found

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """Refused."""
        raise NeverWillError("snapshot_group", request.tag, "nothing is changed in a dry run")

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """Note that it would be deleted."""
        self._deleted.append(ref)
