"""Drivers that make, keep or delete group snapshots wrongly."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from ...drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest
from ...drivers.errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    NeverWillError,
    NotFoundError,
    UnknownOutcomeError,
)
from ...drivers.records import StorageUnit
from ..array_target import ArrayTarget
from ..canary import BrokenDriver, Canary
from .array_wrapping import LitteringDriver, canary

_PAIR = 2


class _NamesOneMore(BrokenDriver):
    """For a group of four the answer names a fifth unit."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        if len(made.unit_ids) < 4:
            return made
        others = [unit.unit_id or "" for unit in await self.target.units()]
        more = next(one for one in others if one not in made.unit_ids)
        return replace(made, unit_ids=(*made.unit_ids, more))


class _NamesAsAsked(BrokenDriver):
    """The answer names a unit as often as the request does."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        return replace(made, unit_ids=request.unit_ids)


class _TakesANeighbour(BrokenDriver):
    """With three units it snapshots a fourth, and says nothing of it."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        target.asked = getattr(target, "asked", {})

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        unit_ids = request.unit_ids
        if len(set(unit_ids)) == 3:
            self.target.asked[request.tag] = unit_ids
            others = [unit.unit_id for unit in await self.target.units()]
            unit_ids = (*unit_ids, next(one for one in others if one not in unit_ids))
        return self._less(await self.inner.snapshot_group(replace(request, unit_ids=unit_ids)))

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        return [self._less(one) for one in await self.inner.list_snapshots(tag_prefix)]

    def _less(self, one: GroupSnapshot) -> GroupSnapshot:
        asked = self.target.asked.get(one.ref.tag)
        return replace(one, unit_ids=asked) if asked and len(one.unit_ids) == 4 else one


class _OnAnotherClock(BrokenDriver):
    """It tells cuts on a clock that began at another time."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        return self._ahead(await self.inner.snapshot_group(request))

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        return [self._ahead(one) for one in await self.inner.list_snapshots(tag_prefix)]

    @staticmethod
    def _ahead(one: GroupSnapshot) -> GroupSnapshot:
        return one if one.cut_s is None else replace(one, cut_s=one.cut_s + 1.7e9)


class _PurgesTheOldest(BrokenDriver):
    """Where a pair of units carries four snapshots, deleting one deletes the oldest too."""

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        held: list[GroupSnapshot] = await self.inner.list_snapshots("")
        units = [set(one.unit_ids) for one in held if one.ref == ref]
        same = [
            one.ref for one in held if set(one.unit_ids) in units and len(one.unit_ids) == _PAIR
        ]
        await self.inner.delete_snapshot(ref)
        if len(same) == 4:
            await self.inner.delete_snapshot(next(one for one in same if one != ref))


class _LeavesAMember(LitteringDriver):
    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        held: list[GroupSnapshot] = await self.inner.list_snapshots(ref.tag)
        await self.inner.delete_snapshot(ref)
        units = [one.unit_ids for one in held if one.ref == ref]
        if units and len(units[0]) == _PAIR:
            self.litter(units[0][0])


class _GoneIsFine(BrokenDriver):
    """To delete again what it has deleted succeeds."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self._deleted: set[GroupSnapshotRef] = set()

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        try:
            await self.inner.delete_snapshot(ref)
        except NotFoundError:
            if ref not in self._deleted or await self.inner.list_snapshots(ref.tag):
                raise
        self._deleted.add(ref)


class _NeverIsUnknown(BrokenDriver):
    """That a snapshot never was is told as an outcome that is unknown."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        target.tags = getattr(target, "tags", set())

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        self.target.tags.add(request.tag)
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        return made

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        try:
            await self.inner.delete_snapshot(ref)
        except NotFoundError as error:
            if ref.tag in self.target.tags:
                raise
            raise UnknownOutcomeError(error.operation, error.subject, error.reason) from error


class _DeletesItsOwnOnly(BrokenDriver):
    """A second connection that has made snapshots deletes those and no others."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        target.connections = getattr(target, "connections", 0) + 1
        self._first = target.connections == 1
        target.makers = getattr(target, "makers", {})

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        self.target.makers.setdefault(made.ref, self)
        return made

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        makers = self.target.makers
        if not self._first and self in makers.values() and makers.get(ref) is not self:
            raise NeverWillError("delete_snapshot", ref.tag, "another session made it")
        await self.inner.delete_snapshot(ref)


class _KeepsATag(BrokenDriver):
    """A tag whose group was refused for an unknown unit stays in use."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self._kept: set[str] = set()

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        if request.tag in self._kept:
            raise BusyError("snapshot_group", request.tag, "the tag is in use")
        try:
            made: GroupSnapshot = await self.inner.snapshot_group(request)
        except NeverWillError:
            units = {unit.unit_id for unit in await self.target.units()}
            if len(request.unit_ids) > 1 and set(request.unit_ids) - units:
                self._kept.add(request.tag)
            raise
        return made


class _LeavesTheOthers(LitteringDriver):
    """Of a group that fails with this error it leaves a member."""

    failure: type[DriverError]

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        try:
            made: GroupSnapshot = await self.inner.snapshot_group(request)
        except self.failure:
            units = {unit.unit_id for unit in await self.target.units()}
            if len(request.unit_ids) > _PAIR and self._fits(set(request.unit_ids) - units):
                self.litter(request.unit_ids[0])
            raise
        return made

    def _fits(self, unknown: set[str]) -> bool:
        return not unknown


class _UnknownLeavesTheOthers(_LeavesTheOthers):
    failure = NeverWillError

    def _fits(self, unknown: set[str]) -> bool:
        return bool(unknown)


class _FailureLeavesTheOthers(_LeavesTheOthers):
    failure = DidNotHappenError


class _DeletesForeign(BrokenDriver):
    """With its own snapshot it deletes those that somebody else made of the same units."""

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        held: list[GroupSnapshot] = await self.inner.list_snapshots("")
        units = {unit for one in held if one.ref == ref for unit in one.unit_ids}
        await self.inner.delete_snapshot(ref)
        for one in held:
            if one.ref.tag.startswith("nightly-") and units.intersection(one.unit_ids):
                await self.inner.delete_snapshot(one.ref)


class _BusyButGone(BrokenDriver):
    """It refuses to delete a snapshot that a clone keeps, and lists it no more."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        target.parents = getattr(target, "parents", {})
        target.hidden = getattr(target, "hidden", set())

    async def clone(self, ref: GroupSnapshotRef, unit_id: str, name: str) -> StorageUnit:
        made: StorageUnit = await self.inner.clone(ref, unit_id, name)
        self.target.parents[made.id] = ref
        return made

    async def discard(self, unit_id: str) -> None:
        try:
            await self.inner.discard(unit_id)
        finally:  # also when the answer is lost
            self.target.hidden.discard(self.target.parents.pop(unit_id, None))

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        if ref in self.target.parents.values():
            self.target.hidden.add(ref)
            raise BusyError("delete_snapshot", ref.tag, "a clone keeps it")
        await self.inner.delete_snapshot(ref)

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        listed: list[GroupSnapshot] = await self.inner.list_snapshots(tag_prefix)
        return [one for one in listed if one.ref not in self.target.hidden]


class _ForgetsAfterThree(BrokenDriver):
    """The third snapshot of a tag is listed with the units of the first."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self._made: dict[str, list[GroupSnapshot]] = {}

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        lives = self._made.setdefault(request.tag, [])
        if made not in lives:
            lives.append(made)
        return made

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        await asyncio.sleep(0)
        return [self._told(one) for one in await self.inner.list_snapshots(tag_prefix)]

    def _told(self, one: GroupSnapshot) -> GroupSnapshot:
        lives = self._made.get(one.ref.tag, [])
        return replace(one, unit_ids=lives[0].unit_ids) if len(lives) > _PAIR else one


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    canary(
        "names-one-more",
        "ARR-LIF-01",
        "Asked for four units it answers with five.",
        _NamesOneMore,
        also=("ARR-LIF-15",),
        because="a walk over calls makes groups of four too",
    ),
    canary(
        "names-as-asked", "ARR-LIF-02", "It names a unit twice that was asked twice.", _NamesAsAsked
    ),
    canary("takes-a-neighbour", "ARR-LIF-03", "It snapshots a unit too many.", _TakesANeighbour),
    canary(
        "on-another-clock",
        "ARR-LIF-04",
        "It tells times on another clock.",
        _OnAnotherClock,
        also=("ARR-FNC-01", "ARR-FLT-34"),
        because="they look at the same times",
    ),
    canary("purges-the-oldest", "ARR-LIF-05", "It deletes another one too.", _PurgesTheOldest),
    canary("leaves-a-member", "ARR-LIF-06", "A deletion leaves a member.", _LeavesAMember),
    canary(
        "gone-is-fine",
        "ARR-LIF-07",
        "It says that it has deleted what was gone.",
        _GoneIsFine,
        also=("ARR-LIF-15",),
        because="a walk over calls deletes again what is gone",
    ),
    canary("never-is-unknown", "ARR-LIF-08", "What never was is unknown to it.", _NeverIsUnknown),
    canary("deletes-its-own", "ARR-LIF-09", "It deletes what it made only.", _DeletesItsOwnOnly),
    canary("keeps-a-tag", "ARR-LIF-10", "A refused group keeps its tag.", _KeepsATag),
    canary(
        "unknown-leaves-members",
        "ARR-LIF-11",
        "A group with a unit that does not exist leaves the others snapshotted.",
        _UnknownLeavesTheOthers,
    ),
    canary(
        "failure-leaves-members",
        "ARR-LIF-12",
        "A group of which a unit fails leaves another one snapshotted.",
        _FailureLeavesTheOthers,
    ),
    canary(
        "deletes-foreign",
        "ARR-LIF-13",
        "It deletes others' snapshots.",
        _DeletesForeign,
        also=("ARR-END-03",),
        because="snapshots of others are looked for at the end too",
    ),
    canary(
        "busy-but-gone",
        "ARR-LIF-14",
        "It refuses what it has done.",
        _BusyButGone,
        also=("ARR-CLN-06",),
        because="it also looks at what a clone keeps",
    ),
    canary(
        "forgets-after-three", "ARR-LIF-15", "It mixes up the lives of a tag.", _ForgetsAfterThree
    ),
)
