"""Drivers that answer wrongly while something else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ...drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest
from ...drivers.errors import BusyError, DidNotHappenError
from ...drivers.records import DeviceIdentity
from ..array_target import ArrayTarget
from ..canary import Canary
from .array_wrapping import Known, Running, WatchedDriver, canary

_GROUP, _DELETE = "snapshot_group", "delete_snapshot"
_LONG_S = 0.3
"""A group that is being made for longer was slowed down."""


class _ListsTooEarly(WatchedDriver):
    """It lists what it is still making."""

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        listed: list[GroupSnapshot] = await self.inner.list_snapshots(tag_prefix)
        for one in self.others(_GROUP):
            tag, array_id = one.what.tag, "modelled"
            if one.age_s > _LONG_S and tag.startswith(tag_prefix):
                ref = GroupSnapshotRef(array_id, f"{array_id}/making", tag)
                listed.append(GroupSnapshot(ref, one.what.unit_ids))
        return listed


class _BusyForQuestions(WatchedDriver):
    async def resolve(self, devices: Sequence[DeviceIdentity]) -> Known:
        if any(one.age_s > _LONG_S for one in self.others(_GROUP)):
            raise BusyError("resolve", "modelled", "a group is being made")
        known: Known = await self.inner.resolve(devices)
        return known


class _MovingPages(WatchedDriver):
    """While one is deleted, the page of a listing begins one later."""

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        moved = len(self.others(_DELETE))
        listed: list[GroupSnapshot] = await self.inner.list_snapshots(tag_prefix)
        return listed[moved:]


class _ResetByOthers(WatchedDriver):
    """When a caller stops waiting, the questions of the others fail."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self._resets = 0

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        try:
            return await super().snapshot_group(request)
        except asyncio.CancelledError:
            self._resets += 1
            raise

    async def resolve(self, devices: Sequence[DeviceIdentity]) -> Known:
        before = self._resets
        known: Known = await self.inner.resolve(devices)
        if self._resets != before:
            raise DidNotHappenError("resolve", "modelled", "the connection was reset")
        return known


class _AnswersOfOthers(WatchedDriver):
    """The second of questions at once is given the answer to the first."""

    async def resolve(self, devices: Sequence[DeviceIdentity]) -> Known:
        others = self.others("resolve")
        with self.under_way("resolve", list(devices)) as mine:
            asked = others[0].what if len(others) == 1 else mine.what
            known: Known = await self.inner.resolve(asked)
        return known


class _BytesOfOthers(WatchedDriver):
    """One of reads at once is given the bytes of the one before it."""

    async def read_back(self, *place: Any) -> bytes:
        others: list[Running] = self.others("read_back")
        with self.under_way("read_back", place):
            asked = others[-1].what if len(others) == 3 else place
            data: bytes = await self.inner.read_back(*asked)
        return data


class _ZerosWhileDeleted(WatchedDriver):
    """A snapshot that is being deleted reads as zeros."""

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: str, offset_bytes: int, length_bytes: int
    ) -> bytes:
        if any(one.what == ref for one in self.others(_DELETE)):
            return bytes(length_bytes)
        data: bytes = await self.inner.read_back(ref, unit_id, offset_bytes, length_bytes)
        return data


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    canary("lists-too-early", "ARR-ASK-01", "It lists what is being made.", _ListsTooEarly),
    canary("busy-for-questions", "ARR-ASK-02", "It answers nothing meanwhile.", _BusyForQuestions),
    canary("moving-pages", "ARR-ASK-03", "A deletion hides a neighbour.", _MovingPages),
    canary("reset-by-others", "ARR-ASK-04", "One who leaves disturbs others.", _ResetByOthers),
    canary("answers-of-others", "ARR-ASK-05", "It mixes answers up.", _AnswersOfOthers),
    canary("bytes-of-others", "ARR-ASK-06", "It mixes reads up.", _BytesOfOthers),
    canary("zeros-while-deleted", "ARR-ASK-07", "It reads zeros meanwhile.", _ZerosWhileDeleted),
)
