"""Canaries for callers that stop waiting and for lost answers."""

from __future__ import annotations

import asyncio
from typing import Any

from ...drivers.contracts import GroupSnapshot, GroupSnapshotRef
from ...drivers.errors import (
    BusyError,
    DidNotHappenError,
    NeverWillError,
    NotFoundError,
    UnknownOutcomeError,
)
from ..array_target import ArrayTarget
from ..canary import BrokenDriver, Canary, with_driver
from .array_breaking import Seconds

LONG_S = 0.3


class _Stopped(BrokenDriver):
    """Remembers the tags whose callers stopped waiting, and for how long they had waited."""

    def __init__(self, inner: Any, target: Any = None) -> None:
        super().__init__(inner, target)
        self.stopped: dict[str, float] = {}

    async def snapshot_group(self, request: Any) -> Any:
        """Notes a caller that stops waiting."""
        start_s = asyncio.get_running_loop().time()
        try:
            return await self.make(request)
        except asyncio.CancelledError:
            self.stopped[request.tag] = asyncio.get_running_loop().time() - start_s
            raise

    async def make(self, request: Any) -> Any:
        """What the canary does."""
        return await self.inner.snapshot_group(request)


class _SecondAfterStop(_Stopped, Seconds):
    async def make(self, request: Any) -> Any:
        made = await self.inner.snapshot_group(request)
        if self.stopped.pop(request.tag, None) is not None:
            await self.second(request)
        return made


class _HidesLate(_Stopped):
    async def make(self, request: Any) -> Any:
        made = await self.inner.snapshot_group(request)
        self.stopped.pop(request.tag, None)
        return made

    async def list_snapshots(self, tag_prefix: str) -> Any:
        found = await self.inner.list_snapshots(tag_prefix)
        return [one for one in found if tag_prefix != one.ref.tag or tag_prefix not in self.stopped]


class _SuccessTooEarly(_Stopped):
    async def make(self, request: Any) -> Any:
        try:
            return await self.inner.snapshot_group(request)
        except BusyError:
            if self.stopped.get(request.tag, 0.0) < LONG_S:
                raise
            return GroupSnapshot(
                GroupSnapshotRef("modelled", "modelled/pending", request.tag), request.unit_ids
            )


class _LostIsNo(BrokenDriver):
    """Takes a lost answer for a call that did nothing."""

    operation = ""

    async def call(self, *given: Any) -> Any:
        try:
            return await getattr(self.inner, self.operation)(*given)
        except UnknownOutcomeError as error:
            if self.operation in self.target.front.lost:
                raise DidNotHappenError(error.operation, error.subject, error.reason) from error
            raise


class _LostSnapshotIsNo(_LostIsNo):
    operation = "snapshot_group"
    snapshot_group = _LostIsNo.call


class _LostDeletionIsNo(_LostIsNo):
    operation = "delete_snapshot"
    delete_snapshot = _LostIsNo.call


class _SecondAfterLost(Seconds):
    lost: set[str]

    def __init__(self, inner: Any, target: Any = None) -> None:
        super().__init__(inner, target)
        self.lost = set()

    async def snapshot_group(self, request: Any) -> Any:
        try:
            made = await self.inner.snapshot_group(request)
        except UnknownOutcomeError:
            self.lost.add(request.tag)
            raise
        if request.tag in self.lost:
            self.lost.discard(request.tag)
            await self.second(request)
        return made


class _HidesLost(BrokenDriver):
    def __init__(self, inner: Any, target: Any = None) -> None:
        super().__init__(inner, target)
        self.lost: set[str] = set()

    async def snapshot_group(self, request: Any) -> Any:
        try:
            made = await self.inner.snapshot_group(request)
        except UnknownOutcomeError:
            if "snapshot_group" in self.target.front.lost:
                self.lost.add(request.tag)
            raise
        self.lost.discard(request.tag)
        return made

    async def list_snapshots(self, tag_prefix: str) -> Any:
        return [] if tag_prefix in self.lost else await self.inner.list_snapshots(tag_prefix)


class _GoneRefused(BrokenDriver):
    """Does not understand that what it deletes again may be gone."""

    def __init__(self, inner: Any, target: Any = None) -> None:
        super().__init__(inner, target)
        self.begun: set[str] = set()

    def counts(self, error: BaseException) -> bool:
        raise NotImplementedError

    async def delete_snapshot(self, ref: Any) -> None:
        try:
            await self.inner.delete_snapshot(ref)
        except NotFoundError as error:
            if ref.snapshot_id in self.begun:
                raise NeverWillError(error.operation, error.subject, error.reason) from error
            raise
        except (UnknownOutcomeError, asyncio.CancelledError) as error:
            if self.counts(error):
                self.begun.add(ref.snapshot_id)
            raise


class _GoneAfterLost(_GoneRefused):
    def counts(self, error: BaseException) -> bool:
        return (
            isinstance(error, UnknownOutcomeError) and "delete_snapshot" in self.target.front.lost
        )


class _GoneAfterStop(_GoneRefused):
    def counts(self, error: BaseException) -> bool:
        return isinstance(error, asyncio.CancelledError)


class _NothingWhenLost(BrokenDriver):
    """Gives an empty answer where it got none."""

    async def otherwise(self, operation: str, nothing: Any, *given: Any) -> Any:
        try:
            return await getattr(self.inner, operation)(*given)
        except UnknownOutcomeError:
            if operation in self.target.front.lost:
                return nothing
            raise


class _EmptyListing(_NothingWhenLost):
    async def list_snapshots(self, tag_prefix: str) -> Any:
        return await self.otherwise("list_snapshots", [], tag_prefix)


class _EmptyMapping(_NothingWhenLost):
    async def resolve(self, devices: Any) -> Any:
        return await self.otherwise("resolve", {}, devices)


class _ZeroBytes(_NothingWhenLost):
    async def read_back(self, ref: Any, unit_id: str, offset: int, length: int) -> Any:
        return await self.otherwise("read_back", bytes(length), ref, unit_id, offset, length)


class _NeverGone(BrokenDriver):
    def __init__(self, inner: Any, target: Any = None) -> None:
        super().__init__(inner, target)
        self.lost: set[str] = set()

    async def discard(self, unit_id: str) -> None:
        try:
            await self.inner.discard(unit_id)
        except UnknownOutcomeError:
            self.lost.add(unit_id)
            raise
        except NotFoundError:
            if unit_id not in self.lost:
                raise


class _ForgetsTheDead(Seconds):
    """Makes what a caller on another connection began, and did not see the end of, once more."""

    async def snapshot_group(self, request: Any) -> Any:
        begun = self.target.__dict__.setdefault("canary_begun", {})
        try:
            made = await self.inner.snapshot_group(request)
        except asyncio.CancelledError:
            begun[request.tag] = self
            raise
        if begun.pop(request.tag, self) is not self:
            await self.second(request)
        return made


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    Canary(
        "second-after-stop",
        "ARR-FLT-01",
        "Makes a second snapshot when it is called again after its caller stopped waiting.",
        with_driver(_SecondAfterStop),
    ),
    Canary(
        "hides-late-success",
        "ARR-FLT-02",
        "Does not list what was completed after its caller stopped waiting.",
        with_driver(_HidesLate),
    ),
    Canary(
        "success-too-early",
        "ARR-FLT-03",
        "Answers a repeated call with success though the snapshot is not complete.",
        with_driver(_SuccessTooEarly),
    ),
    Canary(
        "lost-snapshot-told-as-none",
        "ARR-FLT-04",
        "Says that a group snapshot did not happen when its answer was lost.",
        with_driver(_LostSnapshotIsNo),
    ),
    Canary(
        "second-after-lost-answer",
        "ARR-FLT-05",
        "Makes a second snapshot when it is called again after a lost answer.",
        with_driver(_SecondAfterLost),
    ),
    Canary(
        "hides-lost-snapshot",
        "ARR-FLT-06",
        "Lists under its tag only what was answered.",
        with_driver(_HidesLost),
    ),
    Canary(
        "lost-deletion-told-as-none",
        "ARR-FLT-07",
        "Says that a deletion did not happen when its answer was lost.",
        with_driver(_LostDeletionIsNo),
    ),
    Canary(
        "gone-after-lost-answer",
        "ARR-FLT-08",
        "Refuses for good to delete again what a deletion with a lost answer took away.",
        with_driver(_GoneAfterLost),
    ),
    Canary(
        "empty-listing",
        "ARR-FLT-09",
        "Lists nothing when the answer to the listing is lost.",
        with_driver(_EmptyListing),
    ),
    Canary(
        "empty-mapping",
        "ARR-FLT-10",
        "Knows no device when the answer to the mapping is lost.",
        with_driver(_EmptyMapping),
    ),
    Canary(
        "zeros-read-back",
        "ARR-FLT-11",
        "Gives zeros when the answer to reading back is lost.",
        with_driver(_ZeroBytes),
    ),
    Canary(
        "discard-always-succeeds",
        "ARR-FLT-12",
        "Never says that a clone is gone whose discard got no answer.",
        with_driver(_NeverGone),
    ),
    Canary(
        "gone-after-stop",
        "ARR-FLT-13",
        "Refuses for good to delete again what a caller took away who stopped waiting.",
        with_driver(_GoneAfterStop),
    ),
    Canary(
        "forgets-the-dead",
        "ARR-FLT-14",
        "Makes a second snapshot of a tag that a caller on another connection began.",
        with_driver(_ForgetsTheDead),
    ),
)
