"""Drivers and arrays whose snapshots do not hold what was written."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from ...drivers.contracts import (
    ArrayCapabilities,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
    SnapshotMethod,
)
from ...drivers.records import UnitId
from ..array_target import BLOCK_BYTES, ArrayTarget, ScratchUnit
from ..canary import BrokenDriver, Canary, with_driver
from .loaded import changed, loaded, scratch_of

_LARGE_BYTES = 1 << 20
_COPIED_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Read:
    """A read of a snapshot, and what it has to show."""

    ref: GroupSnapshotRef
    unit_id: UnitId
    offset_bytes: int
    data: bytes


class Remembering(BrokenDriver):
    """Knows the snapshots that this connection made, the oldest first."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self.kept: list[GroupSnapshot] = []

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        if made not in self.kept:
            self.kept.append(made)
        return made

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        await self.inner.delete_snapshot(ref)
        self.kept = [one for one in self.kept if one.ref != ref]

    def units_of(self, ref: GroupSnapshotRef) -> tuple[UnitId, ...]:
        """The units of a snapshot that this connection made."""
        return next((one.unit_ids for one in self.kept if one.ref == ref), ())

    async def with_unit(self, unit_id: UnitId) -> list[GroupSnapshotRef]:
        """The snapshots of a unit that still exist, the oldest first."""
        there = {one.ref for one in await self.inner.list_snapshots("")}
        return [one.ref for one in self.kept if unit_id in one.unit_ids and one.ref in there]

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: UnitId, offset_bytes: int, length_bytes: int
    ) -> bytes:
        data: bytes = await self.inner.read_back(ref, unit_id, offset_bytes, length_bytes)
        if self.target.writing:
            return data
        return await self.seen(Read(ref, unit_id, offset_bytes, data))

    async def seen(self, read: Read) -> bytes:
        """What a read shows instead of the data, while nobody writes."""
        return read.data

    async def live(self, unit_id: UnitId, offset_bytes: int, length_bytes: int) -> bytes:
        """What the unit holds now."""
        scratch = await scratch_of(self.target, unit_id)
        data: bytes = await self.target.read(scratch, offset_bytes, length_bytes)
        return data


class CutShort(Remembering):
    """Copies only the beginning of the last unit of a large group."""

    async def seen(self, read: Read) -> bytes:
        units = self.units_of(read.ref)
        if len(units) < 3 or read.unit_id != units[-1] or len(read.data) < _LARGE_BYTES:
            return read.data
        return read.data[:_COPIED_BYTES].ljust(len(read.data), b"\0")


class Live(Remembering):
    """Shows the unit as it is now, where a snapshot of two units is read in one piece."""

    async def seen(self, read: Read) -> bytes:
        if len(self.units_of(read.ref)) != 2 or len(read.data) < _LARGE_BYTES:
            return read.data
        return await self.live(read.unit_id, read.offset_bytes, len(read.data))


class Reverting(Remembering):
    """Puts the unit back to the snapshot when it deletes one of a single unit."""

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        units = self.units_of(ref)
        if self.target.writing or len(units) != 1:
            await super().delete_snapshot(ref)
            return
        await asyncio.shield(self._revert(ref, units[0]))

    async def _revert(self, ref: GroupSnapshotRef, unit_id: UnitId) -> None:
        data = await self.inner.read_back(ref, unit_id, 0, _LARGE_BYTES)
        await super().delete_snapshot(ref)
        await self.target.write(await scratch_of(self.target, unit_id), 0, data)


class Rounded(Remembering):
    """Begins every read at a whole block."""

    async def seen(self, read: Read) -> bytes:
        start = read.offset_bytes - read.offset_bytes % BLOCK_BYTES
        earlier: bytes = await self.inner.read_back(read.ref, read.unit_id, start, len(read.data))
        return earlier


class WithoutEnd(Remembering):
    """Does not copy the last block of a unit."""

    async def seen(self, read: Read) -> bytes:
        scratch = await scratch_of(self.target, read.unit_id)
        last = scratch.capacity_bytes - BLOCK_BYTES
        return read.data[: max(0, last - read.offset_bytes)].ljust(len(read.data), b"\0")


class ZerosAreHoles(Remembering):
    """Takes blocks of zeros for unwritten ones, and shows an older snapshot through them."""

    async def seen(self, read: Read) -> bytes:
        refs = await self.with_unit(read.unit_id)
        older = refs[: refs.index(read.ref)] if read.ref in refs else []
        if not older or bytes(BLOCK_BYTES) not in read.data:
            return read.data
        below: bytes = await self.inner.read_back(
            older[-1], read.unit_id, read.offset_bytes, len(read.data)
        )
        starts = range(0, len(read.data), BLOCK_BYTES)
        blocks = ((read.data[at : at + BLOCK_BYTES], below[at : at + BLOCK_BYTES]) for at in starts)
        return b"".join(under if not any(block) else block for block, under in blocks)


class OwnOnly(Remembering):
    """Shows the unit as it is now to a connection that did not make the snapshot."""

    async def seen(self, read: Read) -> bytes:
        if self.units_of(read.ref) or len(read.data) < _LARGE_BYTES:
            return read.data
        return await self.live(read.unit_id, read.offset_bytes, len(read.data))


class OtherMethod(BrokenDriver):
    """Declares the other method."""

    @property
    def capabilities(self) -> ArrayCapabilities:
        """With another method than the array has."""
        known: ArrayCapabilities = self.inner.capabilities
        both = {SnapshotMethod.REDIRECT_ON_WRITE, SnapshotMethod.COPY_ON_WRITE}
        return replace(known, method=(both - {known.method}).pop())


async def _in_two(
    target: Any, reference: Any, unit: ScratchUnit, offset_bytes: int, data: bytes
) -> None:
    """The end of a large write reaches the disk a while after it was acknowledged."""
    if len(data) < _LARGE_BYTES or not offset_bytes or unit.unit_id is None:
        await reference(unit, offset_bytes, data)
        return
    split = len(data) - _COPIED_BYTES
    await reference(unit, offset_bytes, data[:split])
    late = asyncio.create_task(_later(reference, unit, offset_bytes + split, data[split:]))
    target.__dict__.setdefault("late", set()).add(late)


async def _later(reference: Any, unit: ScratchUnit, offset_bytes: int, data: bytes) -> None:
    await asyncio.sleep(0.05)
    await reference(unit, offset_bytes, data)


async def _whole_blocks(
    _: Any, reference: Any, unit: ScratchUnit, offset_bytes: int, data: bytes
) -> None:
    """A write of a byte or two clears the block around it."""
    if len(data) > 2:
        await reference(unit, offset_bytes, data)
        return
    start = offset_bytes - offset_bytes % BLOCK_BYTES
    at = offset_bytes - start
    size = BLOCK_BYTES * (1 if at + len(data) <= BLOCK_BYTES else 2)
    await reference(unit, start, (bytes(at) + data).ljust(size, b"\0"))


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    Canary(
        "cuts-the-last-unit-short",
        "ARR-DAT-01",
        "copies only the beginning of the last unit of a large group",
        loaded(CutShort),
    ),
    Canary(
        "shows-later-writes",
        "ARR-DAT-02",
        "reads the unit as it is now in the place of its snapshot",
        loaded(Live),
        also=("ARR-HIS-03",),
        because="a history overwrites two units after their snapshot too",
    ),
    Canary(
        "reverts-the-unit",
        "ARR-DAT-03",
        "puts the unit back to the snapshot that is deleted",
        loaded(Reverting),
        also=(
            "ARR-DAT-04",
            "ARR-HIS-02",
            "ARR-HIS-03",
            "ARR-HIS-04",
            "ARR-FLT-08",
            "ARR-FLT-13",
        ),
        because="whoever deletes a snapshot loses what hosts wrote since; and it reads before it "
        "deletes, so that a caller who asks twice meets the first deletion before it has begun",
    ),
    Canary(
        "writes-in-two-parts",
        "ARR-DAT-04",
        "acknowledges a large write before its end has reached the disk",
        changed(write=_in_two),
    ),
    Canary(
        "rounds-reads-down",
        "ARR-DAT-05",
        "begins reads of a snapshot at a whole block",
        loaded(Rounded),
    ),
    Canary(
        "clears-the-block",
        "ARR-DAT-06",
        "clears a block of which a byte or two are written",
        changed(write=_whole_blocks),
    ),
    Canary(
        "leaves-out-the-last-block",
        "ARR-DAT-07",
        "does not copy the last block of a unit",
        loaded(WithoutEnd),
    ),
    Canary(
        "takes-zeros-for-holes",
        "ARR-DAT-08",
        "shows an older snapshot where zeros were written",
        loaded(ZerosAreHoles),
        also=("ARR-HIS-03",),
        because="a history writes zeros over data too",
    ),
    Canary(
        "keeps-data-to-itself",
        "ARR-DAT-09",
        "shows the unit as it is now to connections that did not make the snapshot, in long reads",
        loaded(OwnOnly),
        also=("ARR-HIS-04",),
        because="after a restart snapshots are read through a new connection",
    ),
    Canary(
        "declares-the-other-method",
        "ARR-DAT-10",
        "declares copy-on-write where the array redirects writes, or the other way round",
        with_driver(OtherMethod),
    ),
)
