"""Arrays that keep one snapshot well, and several of them badly."""

from __future__ import annotations

from typing import Any

from ...drivers.contracts import GroupSnapshotRef
from ..array_target import BLOCK_BYTES, ArrayTarget, ScratchUnit
from ..canary import Canary
from .array_data import Read, Remembering
from .loaded import changed, loaded

_SHORT_BYTES = 64 << 10
_SECTOR_BYTES = 512


class NewestForOldest(Remembering):
    """With three snapshots of a unit it shows the newest in the place of the oldest."""

    async def seen(self, read: Read) -> bytes:
        refs = await self.with_unit(read.unit_id)
        if len(refs) < 3 or read.ref != refs[0] or len(read.data) >= _SHORT_BYTES:
            return read.data
        newest: bytes = await self.inner.read_back(
            refs[-1], read.unit_id, read.offset_bytes, len(read.data)
        )
        return newest


class DropsWhatOthersNeed(Remembering):
    """Deletes with a snapshot the blocks that older ones have in common with it."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self._spoilt: set[GroupSnapshotRef] = set()

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        for unit_id in self.units_of(ref):
            refs = [one.ref for one in self.kept if unit_id in one.unit_ids]
            self._spoilt.update(refs[: refs.index(ref)])
        await super().delete_snapshot(ref)

    async def seen(self, read: Read) -> bytes:
        if read.ref not in self._spoilt or len(read.data) >= _SHORT_BYTES:
            return read.data
        return await self.live(read.unit_id, read.offset_bytes, len(read.data))


async def _without_last_sector(
    _: Any, reference: Any, unit: ScratchUnit, offset_bytes: int, data: bytes
) -> None:
    """A long write that begins within a block loses its last sector."""
    if offset_bytes % BLOCK_BYTES and len(data) >= _SHORT_BYTES:
        data = data[:-_SECTOR_BYTES]
    await reference(unit, offset_bytes, data)


class Forgetful(Remembering):
    """After a restart it shows the first block of every snapshot as zeros."""

    async def seen(self, read: Read) -> bytes:
        before = read.ref in self.target.__dict__.get("before_restart", ())
        if not before or read.offset_bytes or len(read.data) < _SHORT_BYTES:
            return read.data
        return bytes(BLOCK_BYTES) + read.data[BLOCK_BYTES:]


async def _forgetting(target: Any, reference: Any) -> None:
    async with target.connect() as driver:
        refs = [one.ref for one in await driver.list_snapshots("")]
    target.__dict__["before_restart"] = refs
    await reference()


def _forgetful(reference: type[Any]) -> type[Any]:
    return changed(restart=_forgetting)(loaded(Forgetful)(reference))


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    Canary(
        "newest-for-oldest",
        "ARR-HIS-01",
        "shows the newest of three snapshots in the place of the oldest",
        loaded(NewestForOldest),
        also=("ARR-EXH-11",),
        because="as many snapshots as a unit can carry are three at least",
    ),
    Canary(
        "deletes-shared-blocks",
        "ARR-HIS-02",
        "deletes with a snapshot the blocks that older ones share with it",
        loaded(DropsWhatOthersNeed),
    ),
    Canary(
        "loses-the-end-of-odd-writes",
        "ARR-HIS-03",
        "loses the last sector of a long write that begins within a block",
        changed(write=_without_last_sector),
        also=("ARR-HIS-04",),
        because="what is written before the restart is drawn from the same kinds of writes",
    ),
    Canary(
        "forgets-in-a-restart",
        "ARR-HIS-04",
        "loses the first block of every snapshot in a restart",
        _forgetful,
    ),
)
