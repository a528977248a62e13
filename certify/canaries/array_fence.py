"""Drivers that are wrong about the fence, and arrays that harm the writes of hosts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from ...drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest, Window
from ..array_target import ArrayTarget, ScratchUnit
from ..canary import BrokenDriver, Canary, with_driver
from .loaded import HEAVY_WRITES, loaded

_PATIENT_S = 60.0


class LateCut(BrokenDriver):
    """Tells the end of the call as the point in time of the snapshot, while units are written."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        if not self.target.writing:
            return made
        return replace(made, cut_s=asyncio.get_running_loop().time())


class LongFence(BrokenDriver):
    """Tells the whole call as the fence, and as exact, while units are written."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        clock = asyncio.get_running_loop().time
        begun_s = clock()
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        return replace(made, fence=Window(begun_s, clock())) if self.target.writing else made


class Patient(BrokenDriver):
    """Takes no notice of how long writes may be held."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        made: GroupSnapshot
        made = await self.inner.snapshot_group(replace(request, fence_timeout_s=_PATIENT_S))
        return made


class Counting(BrokenDriver):
    """Tells the target how many snapshots there are, and when the first of many is deleted."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        self.target.kept.add(made.ref)
        return made

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        many = len(self.target.kept) > 4
        await self.inner.delete_snapshot(ref)
        self.target.kept.discard(ref)
        if many and self.target.writing >= HEAVY_WRITES:
            self.target.stuck = True

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        if not self.target.writing:
            self.target.stuck = False
        found: list[GroupSnapshot] = await self.inner.list_snapshots(tag_prefix)
        return found


def _losing(reference: type[Any]) -> type[Any]:
    """A target that acknowledges writes to its first block, and loses them, after a deletion."""

    class Losing(loaded(Counting)(reference)):  # type: ignore[misc]
        stuck = False

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.kept: set[GroupSnapshotRef] = set()

        async def write(self, unit: ScratchUnit, offset_bytes: int, data: bytes) -> None:
            if self.stuck and not offset_bytes:
                data = await self.read(unit, 0, len(data))
            await super().write(unit, offset_bytes, data)

    return Losing


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    Canary(
        "late-point-in-time",
        "ARR-FNC-01",
        "tells the end of the call as the point in time that the images show",
        loaded(LateCut),
    ),
    Canary(
        "fence-of-the-whole-call",
        "ARR-FNC-02",
        "tells the whole call as the exact fence",
        loaded(LongFence),
    ),
    Canary(
        "patient-fence",
        "ARR-FNC-03",
        "holds writes for longer than the request allows",
        with_driver(Patient),
        settings=(("fence", "2 s"),),
    ),
    Canary(
        "loses-writes-after-a-deletion",
        "ARR-FNC-04",
        "acknowledges writes and loses them while one of many snapshots is merged",
        _losing,
    ),
)
