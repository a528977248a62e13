"""Canaries for space and limits that are used up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...drivers.contracts import ArrayCapabilities, GroupSnapshot
from ...drivers.errors import BusyError, NeverWillError, PoolFullError
from ..array_target import ArrayTarget
from ..bench import TAG_PREFIX
from ..canary import BrokenDriver, Canary, with_driver
from .array_breaking import Declaring, hold, leave


class _Refusing(BrokenDriver):
    """Does something bad when the array refuses a group."""

    async def snapshot_group(self, request: Any) -> Any:
        try:
            return await self.inner.snapshot_group(request)
        except PoolFullError as error:
            return await self.full(request, error)
        except NeverWillError as error:
            if len(request.unit_ids) > (self.inner.capabilities.units_per_group or 99):
                return await self.too_many(request, error)
            if await self.at_limit(request):
                return await self.unit_full(request, error)
            raise

    async def at_limit(self, request: Any) -> list[str]:
        """The units of a request that carry as many snapshots as they can."""
        limit = self.inner.capabilities.snapshots_per_unit
        return [unit for unit in request.unit_ids if len(await self.carried(unit)) == limit]

    async def carried(self, unit_id: str) -> list[GroupSnapshot]:
        """The snapshots of a unit, oldest first."""
        return [one for one in await self.inner.list_snapshots("") if unit_id in one.unit_ids]

    async def full(self, _request: Any, error: PoolFullError) -> Any:
        raise error

    async def unit_full(self, _request: Any, error: NeverWillError) -> Any:
        raise error

    async def too_many(self, _request: Any, error: NeverWillError) -> Any:
        raise error


class _FullForGood(_Refusing):
    async def full(self, _request: Any, error: PoolFullError) -> Any:
        raise NeverWillError(error.operation, error.subject, error.reason) from error


class _FullLeaves(_Refusing):
    async def full(self, request: Any, error: PoolFullError) -> Any:
        if len(request.unit_ids) > 1:
            leave(self.target, request.unit_ids[-1])
        raise error


class _FullDeletes(_Refusing):
    async def full(self, _request: Any, error: PoolFullError) -> Any:
        for one in (await self.inner.list_snapshots(TAG_PREFIX))[:1]:
            await self.inner.delete_snapshot(one.ref)
        raise error


class _FullSpoils(_Refusing):
    def __init__(self, inner: Any, target: Any = None) -> None:
        super().__init__(inner, target)
        self.spoilt: set[str] = set()

    async def full(self, _request: Any, error: PoolFullError) -> Any:
        self.spoilt |= {one.ref.snapshot_id for one in await self.inner.list_snapshots("")}
        raise error

    async def read_back(self, ref: Any, unit_id: str, offset: int, length: int) -> Any:
        data = await self.inner.read_back(ref, unit_id, offset, length)
        return bytes(length) if ref.snapshot_id in self.spoilt else data


class _FullHolds(_Refusing):
    async def full(self, request: Any, error: PoolFullError) -> Any:
        hold(self.target, *request.unit_ids)
        raise error


class _FullForEver(_Refusing):
    def __init__(self, inner: Any, target: Any = None) -> None:
        super().__init__(inner, target)
        self.refused: dict[str, PoolFullError] = {}

    async def snapshot_group(self, request: Any) -> Any:
        if request.tag in self.refused:
            raise self.refused[request.tag]
        return await super().snapshot_group(request)

    async def full(self, request: Any, error: PoolFullError) -> Any:
        self.refused[request.tag] = error
        raise error


class _NoLimitDeclared(Declaring):
    def declared(self, true: ArrayCapabilities) -> ArrayCapabilities:
        return replace(true, snapshots_per_unit=None)


class _LimitIsBusy(_Refusing):
    async def unit_full(self, _request: Any, error: NeverWillError) -> Any:
        raise BusyError(error.operation, error.subject, error.reason) from error


class _TakesTheRest(_Refusing):
    async def unit_full(self, request: Any, error: NeverWillError) -> Any:
        full = await self.at_limit(request)
        for unit_id in request.unit_ids:
            if unit_id not in full:
                leave(self.target, unit_id)
        raise error


class _CountsOnlyUp(_Refusing):
    """Once a unit was full it has room only when all of its snapshots are gone."""

    def __init__(self, inner: Any, target: Any = None) -> None:
        super().__init__(inner, target)
        self.once_full: dict[str, NeverWillError] = {}

    async def snapshot_group(self, request: Any) -> Any:
        for unit_id in request.unit_ids:
            if unit_id in self.once_full and await self.carried(unit_id):
                raise self.once_full[unit_id]
            self.once_full.pop(unit_id, None)
        return await super().snapshot_group(request)

    async def unit_full(self, request: Any, error: NeverWillError) -> Any:
        self.once_full |= dict.fromkeys(await self.at_limit(request), error)
        raise error


class _OldestIsNext(_Refusing):
    """Gives the bytes of the next snapshot for the oldest one of a unit that is full."""

    async def read_back(self, ref: Any, unit_id: str, offset: int, length: int) -> Any:
        carried = await self.carried(unit_id)
        full = len(carried) == self.inner.capabilities.snapshots_per_unit
        if full and carried[0].ref == ref:
            ref = carried[1].ref
        return await self.inner.read_back(ref, unit_id, offset, length)


class _VolumesCountTwice(BrokenDriver):
    async def snapshot_group(self, request: Any) -> Any:
        members = len(request.unit_ids) + sum("/vol-" in one for one in request.unit_ids)
        if members > (self.inner.capabilities.units_per_group or members):
            raise NeverWillError("snapshot_group", request.tag, f"{members} units are too many")
        return await self.inner.snapshot_group(request)


class _Truncates(_Refusing):
    async def too_many(self, request: Any, _error: NeverWillError) -> Any:
        most = self.inner.capabilities.units_per_group
        return await self.inner.snapshot_group(replace(request, unit_ids=request.unit_ids[:most]))


class _TooManyLeaves(_Refusing):
    async def too_many(self, request: Any, error: NeverWillError) -> Any:
        leave(self.target, request.unit_ids[-1])
        raise error


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    Canary(
        "full-for-good",
        "ARR-EXH-01",
        "Raises NeverWillError when no snapshot space is free.",
        with_driver(_FullForGood),
    ),
    Canary(
        "full-leaves-a-member",
        "ARR-EXH-02",
        "Leaves the snapshot of one unit when no space is free for the group.",
        with_driver(_FullLeaves),
    ),
    Canary(
        "full-deletes-the-oldest",
        "ARR-EXH-03",
        "Deletes the oldest snapshot when no space is free, and refuses the new one.",
        with_driver(_FullDeletes),
        also=("ARR-EXH-04",),
        because="the bytes of a snapshot that is gone cannot be read",
    ),
    Canary(
        "full-spoils-the-old",
        "ARR-EXH-04",
        "Gives zeros for the snapshots that there were when no space was free for another.",
        with_driver(_FullSpoils),
    ),
    Canary(
        "full-holds-writes",
        "ARR-EXH-05",
        "Leaves the writes to the group held when no space is free.",
        with_driver(_FullHolds),
    ),
    Canary(
        "full-for-ever",
        "ARR-EXH-06",
        "Refuses a tag for ever that it refused once for want of space.",
        with_driver(_FullForEver),
    ),
    Canary(
        "no-limit-declared",
        "ARR-EXH-07",
        "Declares no limit of snapshots of a unit, and there is one.",
        with_driver(_NoLimitDeclared),
        also=("ARR-EXH-11",),
        because="as many snapshots of a unit cannot be made",
    ),
    Canary(
        "limit-told-as-busy",
        "ARR-EXH-08",
        "Raises BusyError when a unit carries as many snapshots as it can.",
        with_driver(_LimitIsBusy),
    ),
    Canary(
        "takes-the-rest",
        "ARR-EXH-09",
        "Snapshots the other units of a group when one of them carries as many as it can.",
        with_driver(_TakesTheRest),
    ),
    Canary(
        "counts-only-up",
        "ARR-EXH-10",
        "Does not notice that a unit has room again.",
        with_driver(_CountsOnlyUp),
    ),
    Canary(
        "oldest-is-next",
        "ARR-EXH-11",
        "Gives the bytes of the next snapshot for the oldest one of a unit that is full.",
        with_driver(_OldestIsNext),
    ),
    Canary(
        "volumes-count-twice",
        "ARR-EXH-12",
        "Counts a file volume twice towards the limit of a group.",
        with_driver(_VolumesCountTwice),
        also=("ARR-LIF-01", "ARR-LIF-15"),
        because="they make largest groups with the volume too",
    ),
    Canary(
        "truncates-groups",
        "ARR-EXH-13",
        "Snapshots the first units of a group that is too large, and calls it a success.",
        with_driver(_Truncates),
    ),
    Canary(
        "too-many-leaves-a-member",
        "ARR-EXH-14",
        "Leaves the snapshot of one unit when it refuses a group for its size.",
        with_driver(_TooManyLeaves),
    ),
)
