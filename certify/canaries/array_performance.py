"""Drivers that are slower than their vendor states, each at one kind of call."""

from __future__ import annotations

import asyncio
from typing import Any

from ...drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest, Window
from ...drivers.records import StorageUnit, UnitId
from ..array_target import ArrayTarget, ScratchUnit
from ..canary import BrokenDriver, Canary, with_driver
from .loaded import loaded

_SLOW_S = 0.2
_LIMIT_S = 0.15


class SlowIdle(BrokenDriver):
    """Slow to make a snapshot, as long as nobody writes."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        if not self.target.writing:
            await asyncio.sleep(_SLOW_S)
        return made


class SlowLoaded(BrokenDriver):
    """Slow to make a snapshot while its units are written."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        if self.target.writing:
            await asyncio.sleep(_SLOW_S)
        return made


class LongFence(BrokenDriver):
    """Tells an upper bound of the fence that is far off."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        clock = asyncio.get_running_loop().time
        begun_s = clock()
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        if not self.target.writing:
            return made
        await asyncio.sleep(_SLOW_S)
        return GroupSnapshot(made.ref, made.unit_ids, made.cut_s, Window(begun_s, clock(), False))


class Busy(BrokenDriver):
    """Says to the target when it makes a snapshot."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        self.target.making += 1
        try:
            made: GroupSnapshot = await self.inner.snapshot_group(request)
        finally:
            self.target.making -= 1
        return made


def _stalling(reference: type[Any]) -> type[Any]:
    """A target whose writes are slow while a snapshot is made."""

    class Stalling(with_driver(Busy)(reference)):  # type: ignore[misc]
        making = 0

        async def write(self, unit: ScratchUnit, offset_bytes: int, data: bytes) -> None:
            if self.making:
                await asyncio.sleep(_SLOW_S)
            await super().write(unit, offset_bytes, data)

    return Stalling


class SlowDelete(BrokenDriver):
    """Slow to delete."""

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        await asyncio.sleep(_SLOW_S)
        await self.inner.delete_snapshot(ref)


class SlowList(BrokenDriver):
    """Slow to list many snapshots."""

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        found: list[GroupSnapshot] = await self.inner.list_snapshots(tag_prefix)
        await asyncio.sleep(_SLOW_S * len(found) / 10)
        return found


class SlowClone(BrokenDriver):
    """Slow to clone, as if it copied."""

    async def clone(self, ref: GroupSnapshotRef, unit_id: UnitId, name: str) -> StorageUnit:
        made: StorageUnit = await self.inner.clone(ref, unit_id, name)
        await asyncio.sleep(_SLOW_S)
        return made


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    Canary(
        "slow-snapshot",
        "ARR-PRF-01",
        "takes twice the stated time for a group snapshot",
        loaded(SlowIdle),
        limits=(("snapshot_p95_s", _LIMIT_S),),
    ),
    Canary(
        "slow-under-load",
        "ARR-PRF-02",
        "takes twice the stated time for a group snapshot while its units are written",
        loaded(SlowLoaded),
        limits=(("loaded_snapshot_p95_s", _LIMIT_S),),
    ),
    Canary(
        "long-fence",
        "ARR-PRF-03",
        "tells twice the stated time as the bound of its fence",
        loaded(LongFence),
        limits=(("fence_p95_s", _LIMIT_S),),
    ),
    Canary(
        "stalls-writes",
        "ARR-PRF-04",
        "lets hosts' writes wait for twice the stated time while it makes a snapshot",
        _stalling,
        limits=(("held_write_p95_s", _LIMIT_S),),
    ),
    Canary(
        "slow-deletion",
        "ARR-PRF-05",
        "takes twice the stated time for a deletion",
        with_driver(SlowDelete),
        limits=(("delete_p95_s", _LIMIT_S),),
    ),
    Canary(
        "slow-list",
        "ARR-PRF-06",
        "takes the longer to list the more snapshots there are",
        with_driver(SlowList),
        limits=(("list_p95_s", _LIMIT_S),),
    ),
    Canary(
        "slow-clone",
        "ARR-PRF-07",
        "takes twice the stated time for a clone",
        with_driver(SlowClone),
        limits=(("clone_p95_s", _LIMIT_S),),
    ),
)
