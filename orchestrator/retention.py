"""Which catalogue entries may go: by number, by age, and to make room on the arrays.

A policy only proposes. Whatever it says, the newest good entry of each VM stays, and so does an
entry about which an array gave no answer: :func:`spared` and :func:`make_room` see to that outside
the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, NamedTuple

from pydantic import Field

from ..drivers.contracts import ConsistencyLevel
from ..drivers.records import UnitId, VmId
from ..quantity import Seconds
from .journal import StoredEntry
from .spec import Count, Section

RetentionPolicy = Callable[[Sequence[StoredEntry], float], Collection[StoredEntry]]
"""From the catalogue and the time on the store's clock, in seconds, the entries that may go."""


class Retention(Section):
    """What stays in the catalogue; without ``keep_last`` and ``keep_within`` age is no reason.

    ``keep_last`` entries of each VM stay, and so do those younger than ``keep_within``: what one
    of the two keeps, stays. ``snapshots_per_unit`` bounds the array snapshots on one unit; the
    lower of it and what the array's driver says counts, less ``reserve`` for the next job.
    """

    keep_last: Count | None = None
    keep_within: Seconds | None = None
    snapshots_per_unit: Count | None = None
    reserve: Annotated[int, Field(ge=0)] = 1


class UnitSnapshots(NamedTuple):
    """The array snapshots of one unit: their tags, foreign ones included, and how many may be."""

    unit_id: UnitId
    tags: tuple[str, ...]
    room: int


def choose(entries: Sequence[StoredEntry], retention: Retention, now_s: float) -> list[StoredEntry]:
    """The entries that neither their number nor their age keeps.

    Parameters
    ----------
    now_s:
        Seconds on the clock of the store, which the entries' points in time are on.
    """
    if retention.keep_last is None and retention.keep_within is None:
        return []
    seen: dict[VmId, int] = {}
    kept = set()
    for entry in newest_first(entries):
        seen[entry.vm_id] = seen.get(entry.vm_id, 0) + 1
        young = (
            retention.keep_within is not None
            and now_s - entry.point_in_time_s <= retention.keep_within
        )
        if young or seen[entry.vm_id] <= (retention.keep_last or 0):
            kept.add(key(entry))
    return [entry for entry in entries if key(entry) not in kept]


def policy_of(retention: Retention) -> RetentionPolicy:
    """The policy that these settings ask for."""
    return lambda entries, now_s: choose(entries, retention, now_s)


def key(entry: StoredEntry) -> tuple[str, VmId]:
    """What names an entry: a job has one of each VM at most."""
    return entry.job_id, entry.vm_id


def newest_first(entries: Sequence[StoredEntry]) -> list[StoredEntry]:
    """By point in time; of equal ones, that which the catalogue lists later comes first."""
    return sorted(entries, key=lambda entry: entry.point_in_time_s)[::-1]


def last_good(entries: Sequence[StoredEntry], listed: Collection[str]) -> set[tuple[str, VmId]]:
    """Of each VM the newest entry of a known level all of whose cuts are listed."""
    floor: dict[VmId, tuple[str, VmId]] = {}
    for entry in newest_first(entries):
        if entry.level is not ConsistencyLevel.UNKNOWN and all(
            cut.tag in listed for cut in entry.cuts
        ):
            floor.setdefault(entry.vm_id, key(entry))
    return set(floor.values())


def spared(
    chosen: Collection[StoredEntry], floor: Collection[tuple[str, VmId]]
) -> list[StoredEntry]:
    """What of the entries that a policy chose may go."""
    return [entry for entry in chosen if key(entry) not in floor]


def make_room(
    entries: Sequence[StoredEntry],
    floor: Collection[tuple[str, VmId]],
    units: Sequence[UnitSnapshots],
) -> tuple[list[StoredEntry], list[UnitSnapshots]]:
    """The entries that have to go so that no unit carries too many snapshots.

    A snapshot goes with all entries that name it, oldest first; one that an entry of ``floor``
    names stays.

    Parameters
    ----------
    entries:
        Those that stay so far.

    Returns
    -------
    The entries, and the units on which there is too little to give up.
    """
    needing = _entries_by_tag(entries)
    fixed = {cut.tag for entry in entries if key(entry) in floor for cut in entry.cuts}
    going: set[tuple[str, VmId]] = set()
    gone: set[str] = set()
    full = []
    for unit in units:
        excess = sum(tag not in gone for tag in unit.tags) - unit.room
        removable = [tag for tag in unit.tags if tag in needing and tag not in fixed | gone]
        for tag in sorted(removable, key=lambda tag: _newest_s(needing[tag])):
            if excess <= 0:
                break
            if tag not in gone:
                freed = _give_up(needing, tag, going) - gone
                gone |= freed
                excess -= sum(one in freed for one in unit.tags)
        if excess > 0:
            full.append(unit)
    return [entry for entry in entries if key(entry) in going], full


def _give_up(
    needing: Mapping[str, Sequence[StoredEntry]], tag: str, going: set[tuple[str, VmId]]
) -> set[str]:
    """Mark the entries that name a tag; the tags that only marked entries name now."""
    going.update(key(entry) for entry in needing[tag])
    touched = {cut.tag for entry in needing[tag] for cut in entry.cuts}
    return {one for one in touched if all(key(entry) in going for entry in needing[one])}


def _entries_by_tag(entries: Sequence[StoredEntry]) -> Mapping[str, list[StoredEntry]]:
    by_tag: dict[str, list[StoredEntry]] = {}
    for entry in entries:
        for cut in entry.cuts:
            by_tag.setdefault(cut.tag, []).append(entry)
    return by_tag


def _newest_s(entries: Sequence[StoredEntry]) -> float:
    """The point in time that would be lost with a snapshot."""
    return max(entry.point_in_time_s for entry in entries)
