"""Drivers that go wrong when calls meet."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from ...drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest
from ...drivers.errors import BusyError, NeverWillError, UnknownOutcomeError
from ..array_target import ArrayTarget
from ..canary import Canary
from .array_wrapping import Running, WatchedDriver, all_ended, canary

_GROUP, _DELETE = "snapshot_group", "delete_snapshot"
_POLL_S = 0.01


class _OneAtATime(WatchedDriver):
    """It takes one group at a time, and declares three."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        if self.others(_GROUP):
            raise BusyError(_GROUP, request.tag, "another group is being made")
        return await super().snapshot_group(request)


class _NeverMoreThanDeclared(WatchedDriver):
    """That too much goes on is told as something that never changes."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        try:
            return await super().snapshot_group(request)
        except BusyError as error:
            if "group snapshots are running" in error.reason:
                raise NeverWillError(_GROUP, request.tag, error.reason) from error
            raise


class _SaysItIsDone(WatchedDriver):
    """A group that is refused because it shares units with another one is said to be made."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        units = set(request.unit_ids)
        asked = [set(one.what.unit_ids) for one in self.others(_GROUP)]
        overlaps = any(units & other and units != other for other in asked)
        try:
            return await super().snapshot_group(request)
        except BusyError:
            if not overlaps:
                raise
            ref = GroupSnapshotRef("modelled", "modelled/group-snapshot-0", request.tag)
            return GroupSnapshot(ref, request.unit_ids)


class _StaysBusy(WatchedDriver):
    """What was refused as busy stays busy, unless somebody else makes it."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self._stuck: set[str] = set()

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        if request.tag in self._stuck and not await self.inner.list_snapshots(request.tag):
            raise BusyError(_GROUP, request.tag, "it is locked")
        try:
            return await super().snapshot_group(request)
        except BusyError:
            self._stuck.add(request.tag)
            raise


async def _a_second_one(
    driver: Any, request: GroupSnapshotRequest, until: list[Running]
) -> GroupSnapshot:
    """Wait for calls to end, then make what they made again, under another tag on the array."""
    await all_ended(until)
    other = replace(request, tag=f"{request.tag}~2")
    made: GroupSnapshot = await driver.snapshot_group(other)
    return replace(made, ref=replace(made.ref, tag=request.tag))


class _MakesItAgain(WatchedDriver):
    """The third of calls with one tag at once makes a second snapshot of it."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        same = [one for one in self.others(_GROUP) if one.what.tag == request.tag]
        if len(same) == 2:
            return await _a_second_one(self.inner, request, self.running)
        return await super().snapshot_group(request)


class _MakesItOnEach(WatchedDriver):
    """A tag that another connection is making is made by this one too."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        target.by_tag = getattr(target, "by_tag", {})

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        maker, until = self.target.by_tag.get(request.tag, (self, []))
        if maker is not self and until:
            return await _a_second_one(self.inner, request, until)
        self.target.by_tag[request.tag] = (self, self.running)
        return await super().snapshot_group(request)


class _LastOneWins(WatchedDriver):
    """Of two groups under one tag at once the second replaces the first, and both are made."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        same = [one for one in self.others(_GROUP) if one.what.tag == request.tag]
        if not same or set(same[0].what.unit_ids) == set(request.unit_ids):
            return await super().snapshot_group(request)
        await all_ended(self.running)
        for one in await self.inner.list_snapshots(request.tag):
            if one.ref.tag == request.tag:
                await self.inner.delete_snapshot(one.ref)
        return await super().snapshot_group(request)


class _NeverWhileMade(WatchedDriver):
    """That a tag has been being made for a while is told as something that never changes."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        same = [one for one in self.others(_GROUP) if one.what.tag == request.tag]
        if same and same[0].age_s > 0.3:
            raise NeverWillError(_GROUP, request.tag, "the tag exists")
        return await super().snapshot_group(request)


class _UnsureOfDeletion(WatchedDriver):
    """It does not know what came of a deletion that met another one of the same snapshot."""

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        if any(one.what == ref for one in self.others(_DELETE)):
            raise UnknownOutcomeError(_DELETE, ref.tag, "somebody else deletes it")
        await super().delete_snapshot(ref)


class _LosesTheNew(WatchedDriver):
    """What is made while two snapshots are deleted is not kept."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        making = asyncio.ensure_future(super().snapshot_group(request))
        most = 0
        while not making.done():
            most = max(most, len({one.what for one in self.others(_DELETE)}))
            await asyncio.wait([making], timeout=_POLL_S)
        made = await making
        if most == 2:
            await self.inner.delete_snapshot(made.ref)
        return made


class _ListsFromMemory(WatchedDriver):
    """A later connection does not list what another one made after it was opened."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        target.connections = getattr(target, "connections", 0) + 1
        self._first = target.connections == 1
        target.made = getattr(target, "made", [])
        self._hidden_from = len(target.made)
        self._own: set[GroupSnapshotRef] = set()

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        made = await super().snapshot_group(request)
        self.target.made.append(made.ref)
        self._own.add(made.ref)
        return made

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        listed: list[GroupSnapshot] = await self.inner.list_snapshots(tag_prefix)
        if self._first:
            return listed
        hidden = set(self.target.made[self._hidden_from :]) - self._own
        return [one for one in listed if one.ref not in hidden]


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    canary("one-at-a-time", "ARR-CON-01", "It takes fewer groups than it says.", _OneAtATime),
    canary(
        "never-more", "ARR-CON-02", "Too much at once is refused for ever.", _NeverMoreThanDeclared
    ),
    canary(
        "says-done",
        "ARR-CON-03",
        "It says that it made what was busy.",
        _SaysItIsDone,
        also=("ARR-GRP-05",),
        because="it reads back what overlapping groups are said to hold",
    ),
    canary("stays-busy", "ARR-CON-04", "What was busy stays busy.", _StaysBusy),
    canary("makes-it-again", "ARR-CON-05", "A tag at once names two snapshots.", _MakesItAgain),
    canary(
        "makes-it-on-each",
        "ARR-CON-06",
        "A tag on two connections at once names two snapshots.",
        _MakesItOnEach,
    ),
    canary("last-one-wins", "ARR-CON-07", "A later group takes a tag away.", _LastOneWins),
    canary(
        "never-while-made", "ARR-CON-08", "A tag being made is refused for ever.", _NeverWhileMade
    ),
    canary("unsure-of-deletion", "ARR-CON-09", "It loses count of deletions.", _UnsureOfDeletion),
    canary("loses-the-new", "ARR-CON-10", "Deletions take what is new with them.", _LosesTheNew),
    canary("sees-no-others", "ARR-CON-11", "It does not see other sessions.", _ListsFromMemory),
)
