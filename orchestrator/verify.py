"""Whether the catalogue is true: each entry's array snapshots exist, and each of ours has an entry.

Nothing is changed here. What the arrays say is read by :func:`list_arrays`, for pruning too.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..drivers.contracts import ArrayDriver, GroupSnapshot, GroupSnapshotRef
from ..drivers.errors import DriverError
from ..drivers.records import ArrayId
from .context import pause_s
from .journal import Store, StoredEntry
from .spec import JobSpec

EVERY_TAG = ""
"""Prefix of all tags: foreign snapshots take room too."""

Listings = Mapping[ArrayId, Sequence[GroupSnapshot]]
"""By array, the snapshots that it lists; an array without an answer is left out."""


class LostEntry(NamedTuple):
    """An entry that cannot be restored, and the cuts that its arrays no longer list."""

    entry: StoredEntry
    cuts: tuple[GroupSnapshotRef, ...]


@dataclass(slots=True)
class Verification:
    """What of the catalogue is true.

    Attributes
    ----------
    good:
        Entries whose cuts are all listed.
    lost:
        Entries of which a cut is gone.
    unknown:
        Entries of which no cut is known to be gone and about one no array gave an answer.
    unnamed:
        Snapshots of jobs of this store that no entry names, jobs in somebody's hands left out.
    silent:
        Arrays that gave no answer, and those that entries name and that are not configured.
    """

    good: list[StoredEntry] = field(default_factory=list)
    lost: list[LostEntry] = field(default_factory=list)
    unknown: list[StoredEntry] = field(default_factory=list)
    unnamed: list[GroupSnapshotRef] = field(default_factory=list)
    silent: list[ArrayId] = field(default_factory=list)

    @property
    def true(self) -> bool:
        """All entries can be restored, and no snapshot of ours is forgotten."""
        return not (self.lost or self.unknown or self.unnamed or self.silent)


async def verify_catalogue(
    store: Store,
    arrays: Mapping[ArrayId, ArrayDriver],
    *,
    spec: JobSpec,
    random: random.Random,
) -> Verification:
    """Compare the catalogue with what the arrays list now.

    Parameters
    ----------
    spec:
        Its time limit for queries and its retries count.
    random:
        The source of jitter between repetitions.

    Raises
    ------
    StillframeError
        The store could not be read.
    """
    listings = await list_arrays(arrays, spec, random)
    tags = tags_of(listings)
    entries, records = store.entries(), store.jobs()
    found = Verification()
    for entry in entries:
        missing = missing_cuts(entry, tags)
        if missing:
            found.lost.append(LostEntry(entry, missing))
        elif all(cut.array_id in listings for cut in entry.cuts):
            found.good.append(entry)
        else:
            found.unknown.append(entry)
    named = {cut.tag for entry in entries for cut in entry.cuts}
    at_rest = {record.job_id for record in records if not record.holder}
    found.unnamed = [
        snapshot.ref
        for listed in listings.values()
        for snapshot in listed
        if snapshot.ref.tag not in named and owner_of(snapshot.ref.tag) in at_rest
    ]
    wanted = dict.fromkeys(cut.array_id for entry in entries for cut in entry.cuts)
    asked = wanted | dict.fromkeys(arrays)
    found.silent = [array_id for array_id in asked if array_id not in listings]
    return found


def owner_of(tag: str) -> str | None:
    """The job that gave this tag, if it has the form of ours: its identifier, then a number."""
    begun = tag.removeprefix("stillframe-")
    job_id, _, number = begun.rpartition("-")
    ours = begun != tag and job_id and number.isascii() and number.isdecimal()
    return job_id if ours else None


def tags_of(listings: Listings) -> dict[ArrayId, frozenset[str]]:
    """By array that has answered, the tags that it lists."""
    return {
        array_id: frozenset(snapshot.ref.tag for snapshot in listed)
        for array_id, listed in listings.items()
    }


def missing_cuts(
    entry: StoredEntry, tags: Mapping[ArrayId, Collection[str]]
) -> tuple[GroupSnapshotRef, ...]:
    """The cuts of an entry that an array has answered about and does not list."""
    return tuple(
        cut for cut in entry.cuts if cut.array_id in tags and cut.tag not in tags[cut.array_id]
    )


async def list_arrays(
    arrays: Mapping[ArrayId, ArrayDriver],
    spec: JobSpec,
    random: random.Random,
) -> dict[ArrayId, list[GroupSnapshot]]:
    """Everything that each array lists, all at once, asking again where there is no answer."""
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(_list_array(driver, spec, random)) for driver in arrays.values()
        ]
    answers = zip(arrays, (one.result() for one in running), strict=True)
    return {array_id: listed for array_id, listed in answers if listed is not None}


async def _list_array(
    driver: ArrayDriver, spec: JobSpec, source: random.Random
) -> list[GroupSnapshot] | None:
    for attempt in range(1, spec.retry.attempts + 1):
        try:
            async with asyncio.timeout(spec.timeouts.query):
                return await driver.list_snapshots(EVERY_TAG)
        except (TimeoutError, DriverError):
            if attempt < spec.retry.attempts:
                await asyncio.sleep(pause_s(spec.retry, attempt, source))
    return None
