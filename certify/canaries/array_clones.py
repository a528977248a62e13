"""Arrays whose clones hold something else, or touch what they must leave alone."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from ...drivers.contracts import GroupSnapshot, GroupSnapshotRef
from ...drivers.records import StorageUnit, UnitId
from ..array_target import BLOCK_BYTES, ArrayTarget, ScratchUnit
from ..canary import BrokenDriver, Canary, with_driver
from .loaded import changed, loaded, scratch_of

_SHOWN_BYTES = 256 << 10


class Cloning(BrokenDriver):
    """Knows its clones: the snapshot and the unit that each was made of."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self.clones: dict[UnitId, tuple[StorageUnit, GroupSnapshotRef, UnitId]]
        self.clones = target.__dict__.setdefault("known_clones", {})

    async def clone(self, ref: GroupSnapshotRef, unit_id: UnitId, name: str) -> StorageUnit:
        made: StorageUnit = await self.inner.clone(ref, unit_id, name)
        self.clones[made.id] = (made, ref, unit_id)
        return made

    async def discard(self, unit_id: UnitId) -> None:
        await self.inner.discard(unit_id)
        self.clones.pop(unit_id, None)

    async def spoil(self, clone: StorageUnit) -> None:
        """Clear the first block of a clone, if it still exists."""
        with suppress(OSError):
            await self.target.write_clone(clone, 0, bytes(BLOCK_BYTES))


class OfNow(Cloning):
    """Clones the unit as it is now, while nobody writes."""

    async def clone(self, ref: GroupSnapshotRef, unit_id: UnitId, name: str) -> StorageUnit:
        made = await super().clone(ref, unit_id, name)
        if self.target.writing:
            return made
        await self._copy(unit_id, made)
        return made

    async def _copy(self, unit_id: UnitId, clone: StorageUnit) -> None:
        scratch = await scratch_of(self.target, unit_id)
        now = await self.target.read(scratch, 0, _SHOWN_BYTES)
        await self.target.write_clone(clone, 0, now)


class OfNowUnderLoad(OfNow):
    """Clones the unit as it is now, while it is written."""

    async def clone(self, ref: GroupSnapshotRef, unit_id: UnitId, name: str) -> StorageUnit:
        made = await Cloning.clone(self, ref, unit_id, name)
        if self.target.writing:
            await self._copy(unit_id, made)
        return made


class Small(Cloning):
    """Tells a clone as large as what is written of it."""

    async def clone(self, ref: GroupSnapshotRef, unit_id: UnitId, name: str) -> StorageUnit:
        made = await super().clone(ref, unit_id, name)
        return replace(made, capacity_bytes=_SHOWN_BYTES)


class TakesClonesAlong(Cloning):
    """Spoils clones when their snapshot is deleted, or when another one of the unit is."""

    own = True

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        if ref not in [parent for _, parent, _ in self.clones.values()]:
            await self._delete_other(ref)
            return
        if self.own:
            for clone, parent, _ in list(self.clones.values()):
                if parent == ref:
                    await self.spoil(clone)
        await self.inner.delete_snapshot(ref)

    async def _delete_other(self, ref: GroupSnapshotRef) -> None:
        found = await self.inner.list_snapshots(ref.tag)
        units = {unit_id for one in found if one.ref == ref for unit_id in one.unit_ids}
        await self.inner.delete_snapshot(ref)
        for clone, _, unit_id in list(self.clones.values()):
            if unit_id in units and not self.own:
                await self.spoil(clone)


class TakesNeighboursClones(TakesClonesAlong):
    """Only when another snapshot of the unit is deleted."""

    own = False


class DiscardsMore(Cloning):
    """Spoils the other clones of a snapshot when one is discarded."""

    async def discard(self, unit_id: UnitId) -> None:
        _, parent, _ = self.clones.get(unit_id, (None, None, None))
        await super().discard(unit_id)
        for clone, ref, _ in list(self.clones.values()):
            if ref == parent:
                await self.spoil(clone)


class Listed(Cloning):
    """Lists clones as group snapshots."""

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        found: list[GroupSnapshot] = await self.inner.list_snapshots(tag_prefix)
        for clone, parent, unit_id in list(self.clones.values()):
            if clone.name.startswith(tag_prefix) and await self.inner.resolve(clone.devices):
                ref = GroupSnapshotRef(parent.array_id, clone.id, clone.name)
                found.append(GroupSnapshot(ref, (unit_id,)))
        return found


async def _through(
    target: Any, reference: Any, clone: StorageUnit, offset_bytes: int, data: bytes
) -> None:
    """A whole write to a clone reaches its unit as well."""
    await reference(clone, offset_bytes, data)
    _, _, unit_id = target.known_clones.get(clone.id, (clone, None, ""))
    if unit_id and len(data) >= _SHOWN_BYTES:
        await target.write(await scratch_of(target, unit_id), offset_bytes, data)


async def _down(
    target: Any, reference: Any, unit: ScratchUnit, offset_bytes: int, data: bytes
) -> None:
    """A whole write to a unit reaches its clones as well."""
    await reference(unit, offset_bytes, data)
    if len(data) >= _SHOWN_BYTES:
        for clone, _, unit_id in list(target.__dict__.get("known_clones", {}).values()):
            if unit_id == unit.unit_id:
                with suppress(OSError):  # it was discarded, and its driver does not know
                    await target.write_clone(clone, offset_bytes, data)


async def _whole_blocks(
    _: Any, reference: Any, clone: StorageUnit, offset_bytes: int, data: bytes
) -> None:
    """A part of a block that is written clears the rest of it."""
    start = offset_bytes - offset_bytes % BLOCK_BYTES
    end = -(-(offset_bytes + len(data)) // BLOCK_BYTES) * BLOCK_BYTES
    await reference(clone, start, (bytes(offset_bytes - start) + data).ljust(end - start, b"\0"))


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    Canary(
        "clones-the-unit",
        "ARR-CLN-01",
        "clones what the unit holds now in the place of what the snapshot holds",
        loaded(OfNow),
        also=tuple(f"ARR-CLN-0{number}" for number in (3, 4, 5, 6, 7, 8)),
        because="whatever is compared with a clone is compared with the wrong bytes",
    ),
    Canary(
        "tells-a-small-clone",
        "ARR-CLN-02",
        "tells a clone smaller than its unit",
        with_driver(Small),
    ),
    Canary(
        "writes-through-clones",
        "ARR-CLN-03",
        "writes to a clone reach its unit",
        lambda reference: changed(write_clone=_through)(with_driver(Cloning)(reference)),
        also=("ARR-CLN-08",),
        because="a clone is written before it is discarded, and its unit compared afterwards",
    ),
    Canary(
        "writes-down-to-clones",
        "ARR-CLN-04",
        "writes to a unit reach its clones",
        lambda reference: changed(write=_down)(with_driver(Cloning)(reference)),
    ),
    Canary(
        "clears-blocks-of-clones",
        "ARR-CLN-05",
        "clears the rest of a block of which a part is written",
        changed(write_clone=_whole_blocks),
    ),
    Canary(
        "deletes-what-clones-need",
        "ARR-CLN-06",
        "deletes with a snapshot blocks that its clones show",
        with_driver(TakesClonesAlong),
    ),
    Canary(
        "deletes-what-other-clones-need",
        "ARR-CLN-07",
        "deletes with a snapshot blocks that clones of another one show",
        with_driver(TakesNeighboursClones),
    ),
    Canary(
        "discards-more",
        "ARR-CLN-08",
        "spoils other clones of the snapshot when one is discarded",
        with_driver(DiscardsMore),
    ),
    Canary(
        "lists-clones",
        "ARR-CLN-09",
        "lists a clone as if it were a group snapshot",
        with_driver(Listed),
    ),
    Canary(
        "clones-the-unit-under-load",
        "ARR-CLN-10",
        "clones what a unit holds now, while it is written",
        loaded(OfNowUnderLoad),
    ),
)
