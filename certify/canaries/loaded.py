"""What canaries of arrays share: how busy hosts are, and group snapshots told otherwise.

A defect that shows under one load or for one kind of group only lets a canary break one requirement
and leave its neighbours alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from ...drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest
from ...drivers.errors import DriverError, NotFoundError
from ...drivers.records import StorageUnit, UnitId
from ..array_target import ArrayTarget, ScratchUnit
from ..canary import BrokenDriver, with_driver

HEAVY_WRITES = 4
"""As many hosts' writes under way are a heavy load."""

Make = Callable[[type[Any]], type[Any]]


def loaded(wrap: Callable[[Any, Any], Any]) -> Make:
    """A target that counts writes under way, as ``writing``, with every driver wrapped."""

    def make(reference: type[Any]) -> type[Any]:
        class Loaded(with_driver(wrap)(reference)):  # type: ignore[misc]
            writing = 0

            async def write(self, unit: ScratchUnit, offset_bytes: int, data: bytes) -> None:
                self.writing += 1
                try:
                    await super().write(unit, offset_bytes, data)
                finally:
                    self.writing -= 1

        return Loaded

    return make


def changed(**methods: Any) -> Make:
    """A target some of whose methods are others; each is called with ``super()`` as ``reference``.

    A method is a function of the target, the reference's method, and the arguments.
    """

    def make(reference: type[Any]) -> type[Any]:
        def bound(name: str, function: Any) -> Any:
            inner = getattr(reference, name)

            async def call(self: Any, *args: Any) -> Any:
                return await function(self, lambda *given: inner(self, *given), *args)

            return call

        return type("Changed", (reference,), {n: bound(n, f) for n, f in methods.items()})

    return make


async def scratch_of(target: ArrayTarget, unit_id: UnitId) -> ScratchUnit:
    """The scratch unit of this identifier."""
    return next(one for one in await target.units() if one.unit_id == unit_id)


@dataclass(slots=True)
class Retold:
    """A group snapshot as the broken driver tells it, and what stands behind each unit."""

    made: GroupSnapshot
    parts: dict[UnitId, GroupSnapshotRef]


class Retelling(BrokenDriver):
    """A driver that makes some groups in a way of its own and tells them as if they were whole.

    What it made is kept in the target, so that every connection tells the same.
    """

    gap_s = 0.02

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self.told: dict[str, Retold] = target.__dict__.setdefault("told", {})
        self.hidden: set[str] = target.__dict__.setdefault("hidden", set())

    def apart(self, request: GroupSnapshotRequest) -> bool:
        """Whether the units of this group are cut one after the other."""
        return len(request.unit_ids) > 1 and self.target.writing > 0

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """In pieces, or as the driver does."""
        if request.tag in self.told or not self.apart(request):
            return await self._whole(request)
        return await self.in_pieces(request)

    async def _whole(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        known = self.told.get(request.tag)
        made: GroupSnapshot
        made = known.made if known else await self.inner.snapshot_group(request)
        return made

    async def in_pieces(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """Cut the units one after the other."""
        parts: dict[UnitId, GroupSnapshotRef] = {}
        try:
            for number, unit_id in enumerate(request.unit_ids):
                if number:
                    await asyncio.sleep(self.gap_s)
                part = replace(request, unit_ids=(unit_id,), tag=f"{request.tag}.{number}")
                self.hidden.add(part.tag)
                parts[unit_id] = (await self.inner.snapshot_group(part)).ref
        except DriverError:
            await self._give_up(parts.values())
            raise
        return self.tell(request, parts)

    def tell(
        self, request: GroupSnapshotRequest, parts: dict[UnitId, GroupSnapshotRef]
    ) -> GroupSnapshot:
        """Tell parts as a group."""
        array_id = next(iter(parts.values())).array_id
        ref = GroupSnapshotRef(array_id, f"retold-{request.tag}", request.tag)
        made = GroupSnapshot(ref, request.unit_ids)
        self.told[request.tag] = Retold(made, parts)
        return made

    async def _give_up(self, refs: Collection[GroupSnapshotRef]) -> None:
        for ref in refs:
            await self.inner.delete_snapshot(ref)
            self.hidden.discard(ref.tag)

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        """The driver's, with what is told in the place of what there is."""
        found = await self.inner.list_snapshots(tag_prefix)
        told = [one.made for tag, one in self.told.items() if tag.startswith(tag_prefix)]
        return [*(one for one in found if one.ref.tag not in self.hidden), *told]

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """Delete all parts."""
        known = self.told.get(ref.tag)
        if known is None or known.made.ref != ref:
            await self.inner.delete_snapshot(ref)
            return
        for part in known.parts.values():
            await self.inner.delete_snapshot(part)
            self.hidden.discard(part.tag)
        self.told.pop(ref.tag, None)

    def behind(self, ref: GroupSnapshotRef, unit_id: UnitId) -> GroupSnapshotRef:
        """What stands behind a unit of a snapshot."""
        known = self.told.get(ref.tag)
        if known is None or known.made.ref != ref:
            return ref
        if unit_id not in known.parts:
            raise NotFoundError("read_back", ref.tag, f"{unit_id} is not in this snapshot")
        return known.parts[unit_id]

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: UnitId, offset_bytes: int, length_bytes: int
    ) -> bytes:
        """Of the unit's part."""
        part = self.behind(ref, unit_id)
        data: bytes = await self.inner.read_back(part, unit_id, offset_bytes, length_bytes)
        return data

    async def clone(self, ref: GroupSnapshotRef, unit_id: UnitId, name: str) -> StorageUnit:
        """Of the unit's part."""
        made: StorageUnit = await self.inner.clone(self.behind(ref, unit_id), unit_id, name)
        return made
