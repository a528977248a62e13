"""Drivers whose groups are not cut at one point in time, each under other circumstances."""

from __future__ import annotations

import asyncio
from typing import Any

from ...drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest
from ...drivers.errors import BusyError
from ...drivers.records import UnitId
from ..array_target import BLOCK_BYTES, ArrayTarget
from ..canary import BrokenDriver, Canary
from .loaded import HEAVY_WRITES, Retelling, Retold, loaded


class Smeared(Retelling):
    """Copies a unit block by block while it is written heavily: every second block is older."""

    def apart(self, request: GroupSnapshotRequest) -> bool:
        return len(request.unit_ids) == 1 and self.target.writing >= HEAVY_WRITES

    async def in_pieces(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        (unit_id,) = request.unit_ids
        twice = GroupSnapshotRequest((unit_id, unit_id), request.tag, request.fence_timeout_s)
        old = await self._part(twice, 0)
        await asyncio.sleep(self.gap_s)
        return self.tell(request, {unit_id: old, f"{unit_id}.new": await self._part(twice, 1)})

    async def _part(self, request: GroupSnapshotRequest, number: int) -> GroupSnapshotRef:
        tag = f"{request.tag}.{number}"
        self.hidden.add(tag)
        part = GroupSnapshotRequest(request.unit_ids[:1], tag, request.fence_timeout_s)
        ref: GroupSnapshotRef = (await self.inner.snapshot_group(part)).ref
        return ref

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: UnitId, offset_bytes: int, length_bytes: int
    ) -> bytes:
        old = await super().read_back(ref, unit_id, offset_bytes, length_bytes)
        known = self.told.get(ref.tag)
        if known is None:
            return old
        newer = known.parts[f"{unit_id}.new"]
        new: bytes = await self.inner.read_back(newer, unit_id, offset_bytes, length_bytes)
        starts = range(0, len(old), BLOCK_BYTES)
        return b"".join(
            (old, new)[start // BLOCK_BYTES % 2][start : start + BLOCK_BYTES] for start in starts
        )


class TornWhenHeavy(Retelling):
    """Cuts in pieces under heavy load."""

    def apart(self, request: GroupSnapshotRequest) -> bool:
        return super().apart(request) and self.target.writing >= HEAVY_WRITES


class TornOutOfOrder(Retelling):
    """Cuts in pieces when units are not named in the array's own order."""

    def apart(self, request: GroupSnapshotRequest) -> bool:
        return super().apart(request) and list(request.unit_ids) != sorted(request.unit_ids)


class TornAtOnce(Retelling):
    """Lets a second group wait for the first, and then cuts it in pieces."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self._ours = 0
        target.__dict__.setdefault("calls", 0)

    def late(self) -> bool:
        """Whether another call of this connection is under way."""
        return self._ours > 1

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        self._ours += 1
        self.target.calls += 1
        try:
            if not self.target.writing or not self.late():
                return await self.inner_group(request)
            while self.target.calls > 1:  # noqa: ASYNC110  # calls of other connections too
                await asyncio.sleep(0.001)
            return await self.in_pieces(request)
        finally:
            self._ours -= 1
            self.target.calls -= 1

    async def inner_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """As the driver does it."""
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        return made


class TornBetweenConnections(TornAtOnce):
    """Knows of the groups of other connections only when it is too late."""

    def late(self) -> bool:
        return bool(self.target.calls > self._ours)


class Stale(Retelling):
    """Under heavy load it serves a group that it made beforehand, and makes one for the next."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self.spare: dict[tuple[UnitId, ...], GroupSnapshotRef]
        self.spare = target.__dict__.setdefault("spare", {})

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        if self.target.writing < HEAVY_WRITES or request.tag in self.told:
            return await super()._whole(request)
        ready = self.spare.pop(request.unit_ids, None)
        if ready is None:
            ready = await self._another(request, 0)
        made = self.tell(request, dict.fromkeys(request.unit_ids, ready))
        self.spare[request.unit_ids] = await self._another(request, 1)
        return made

    async def _another(self, request: GroupSnapshotRequest, number: int) -> GroupSnapshotRef:
        tag = f"{request.tag}.{number}"
        self.hidden.add(tag)
        part = GroupSnapshotRequest(request.unit_ids, tag, request.fence_timeout_s)
        ref: GroupSnapshotRef = (await self.inner.snapshot_group(part)).ref
        return ref

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        known = self.told.get(ref.tag)
        if known is not None:
            known.parts = dict(list(known.parts.items())[:1])
        await super().delete_snapshot(ref)

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        if not self.target.writing:
            while self.spare:
                _, ref = self.spare.popitem()
                await self.inner.delete_snapshot(ref)
        return await super().list_snapshots(tag_prefix)


class Premature(Retelling):
    """Under heavy load it says that a group is complete before it is cut."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self._making: set[asyncio.Task[None]] = target.__dict__.setdefault("making", set())

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        if self.target.writing < HEAVY_WRITES or request.tag in self.told:
            return await super()._whole(request)
        array_id = request.unit_ids[0].partition("/")[0]
        ref = GroupSnapshotRef(array_id, f"retold-{request.tag}", request.tag)
        made = GroupSnapshot(ref, request.unit_ids)
        self.told[request.tag] = known = Retold(made, {})
        self._making.add(asyncio.create_task(self._make(request, known)))
        return made

    async def _make(self, request: GroupSnapshotRequest, known: Retold) -> None:
        await asyncio.sleep(self.gap_s)
        part = GroupSnapshotRequest(request.unit_ids, f"{request.tag}.0", request.fence_timeout_s)
        self.hidden.add(part.tag)
        while not known.parts:
            try:
                ref = (await self.inner.snapshot_group(part)).ref
            except BusyError:
                await asyncio.sleep(self.gap_s)
            else:
                known.parts = dict.fromkeys(request.unit_ids, ref)

    async def _made(self) -> None:
        while self._making:
            await self._making.pop()

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: UnitId, offset_bytes: int, length_bytes: int
    ) -> bytes:
        await self._made()
        return await super().read_back(ref, unit_id, offset_bytes, length_bytes)

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        await self._made()
        known = self.told.get(ref.tag)
        if known is not None:
            known.parts = dict(list(known.parts.items())[:1])
        await super().delete_snapshot(ref)


class MixedUp(BrokenDriver):
    """With three snapshots of the same units it takes the first for the second, while written."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self._kept: list[GroupSnapshot] = []

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        self._kept.append(made)
        return made

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        await self.inner.delete_snapshot(ref)
        self._kept = [one for one in self._kept if one.ref != ref]

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: UnitId, offset_bytes: int, length_bytes: int
    ) -> bytes:
        ids = {one.ref: one.unit_ids for one in self._kept}
        same = [one for one, units in ids.items() if units == ids.get(ref)]
        if self.target.writing and len(same) > 2 and ref == same[1]:
            ref = same[0]
        data: bytes = await self.inner.read_back(ref, unit_id, offset_bytes, length_bytes)
        return data


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    Canary(
        "smeared-image",
        "ARR-GRP-01",
        "copies a unit block by block while it is written heavily",
        loaded(Smeared),
    ),
    Canary(
        "torn-group",
        "ARR-GRP-02",
        "cuts the units of a group one after the other, while they are written",
        loaded(Retelling),
        also=("ARR-GRP-03", "ARR-GRP-04", "ARR-GRP-05", "ARR-GRP-06", "ARR-CLN-10"),
        because="every group that is written is torn, whatever its size and however it is read",
    ),
    Canary(
        "torn-under-heavy-load",
        "ARR-GRP-03",
        "cuts the units of a group one after the other when many writes are under way",
        loaded(TornWhenHeavy),
    ),
    Canary(
        "torn-out-of-order",
        "ARR-GRP-04",
        "cuts in pieces when units are not named in the array's own order",
        loaded(TornOutOfOrder),
    ),
    Canary(
        "torn-behind-another",
        "ARR-GRP-05",
        "lets a group wait for one that shares units with it, and then cuts it in pieces",
        loaded(TornAtOnce),
    ),
    Canary(
        "torn-between-connections",
        "ARR-GRP-06",
        "cuts a group in pieces when another connection makes one at the same time",
        loaded(TornBetweenConnections),
    ),
    Canary(
        "stale-group",
        "ARR-GRP-07",
        "answers with a group that it cut before it was asked",
        loaded(Stale),
    ),
    Canary(
        "complete-before-the-cut",
        "ARR-GRP-08",
        "says that a group is complete and cuts it afterwards",
        loaded(Premature),
    ),
    Canary(
        "takes-the-first-for-the-second",
        "ARR-GRP-09",
        "reads the first of three snapshots in the place of the second",
        loaded(MixedUp),
    ),
)
