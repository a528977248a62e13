"""Drivers whose tags do not name one snapshot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest
from ...drivers.errors import NeverWillError
from ..array_target import ArrayTarget
from ..canary import BrokenDriver, Canary
from .array_wrapping import LitteringDriver, canary


async def _existing(driver: Any, tag: str) -> GroupSnapshot | None:
    held: list[GroupSnapshot] = await driver.list_snapshots(tag)
    return next((one for one in held if one.ref.tag == tag), None)


class _OrderMatters(BrokenDriver):
    """The same units in another order are another group: the old snapshot is replaced."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        old = await _existing(self.inner, request.tag)
        if old is not None and old.unit_ids == request.unit_ids[::-1] != request.unit_ids:
            await self.inner.delete_snapshot(old.ref)
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        return made


class _MakesAnother(LitteringDriver):
    """Asked for a tag that exists, the array makes another snapshot that nobody knows of."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        if await _existing(self.inner, request.tag) is not None:
            self.litter(request.unit_ids[0])
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        return made


class _AnswersWithWhatThereIs(BrokenDriver):
    """Asked for more units under a tag, it answers with the snapshot of fewer."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        old = await _existing(self.inner, request.tag)
        if old is not None and set(old.unit_ids) < set(request.unit_ids):
            return replace(old, unit_ids=request.unit_ids)
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        return made


class _NeverAgain(BrokenDriver):
    """The tag of a snapshot that was deleted is not to be had for a group of two."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self._used: set[str] = set()

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        if request.tag in self._used and len(request.unit_ids) == 2:
            raise NeverWillError("snapshot_group", request.tag, "the tag was used before")
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        return made

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        await self.inner.delete_snapshot(ref)
        self._used.add(ref.tag)


class _DeletesByTag(BrokenDriver):
    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        held = await _existing(self.inner, ref.tag)
        await self.inner.delete_snapshot(ref if held is None else held.ref)


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    canary(
        "order-matters",
        "ARR-TAG-01",
        "A tag that is asked for with its units in another order is made anew.",
        _OrderMatters,
    ),
    canary("makes-another", "ARR-TAG-02", "The array makes what it has already.", _MakesAnother),
    canary(
        "answers-with-fewer",
        "ARR-TAG-03",
        "It answers with a snapshot that lacks units.",
        _AnswersWithWhatThereIs,
    ),
    canary(
        "never-again",
        "ARR-TAG-04",
        "A tag cannot be used again.",
        _NeverAgain,
        also=("ARR-LIF-15",),
        because="a walk over calls uses tags again",
    ),
    canary("deletes-by-tag", "ARR-TAG-05", "It deletes by the tag alone.", _DeletesByTag),
)
