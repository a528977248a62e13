"""Drivers that refuse with the wrong class, or do not refuse at all."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from ...drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest
from ...drivers.errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    NeverWillError,
    NotFoundError,
    UnknownOutcomeError,
)
from ...drivers.records import DeviceIdentity, StorageUnit
from ..array_target import ArrayTarget
from ..canary import BrokenDriver, Canary
from .array_wrapping import Known, canary

T = TypeVar("T")
_GROUP = "snapshot_group"


class _Grouping(BrokenDriver):
    """Refuses a group that the driver refuses in another way, or takes it."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        try:
            made: GroupSnapshot = await self.inner.snapshot_group(request)
        except DriverError as error:
            return await self.refused(request, error)
        return made

    async def refused(self, request: GroupSnapshotRequest, error: DriverError) -> GroupSnapshot:
        raise NotImplementedError

    async def unknown(self, request: GroupSnapshotRequest) -> list[str]:
        """The units of a request that the array does not have."""
        own = {unit.unit_id for unit in await self.target.units()}
        return [one for one in request.unit_ids if one not in own]


class _UnknownIsBusy(_Grouping):
    async def refused(self, request: GroupSnapshotRequest, error: DriverError) -> GroupSnapshot:
        unknown = await self.unknown(request)
        if unknown and not unknown[0].startswith("elsewhere"):
            raise BusyError(_GROUP, request.tag, error.reason) from error
        raise error


class _TakesOthersUnits(_Grouping):
    """It looks at the last part of an identifier only."""

    async def refused(self, request: GroupSnapshotRequest, error: DriverError) -> GroupSnapshot:
        unknown = await self.unknown(request)
        if not unknown or not all(one.startswith("elsewhere") for one in unknown):
            raise error
        own = {(unit.unit_id or "").rpartition("/")[2] for unit in await self.target.units()}
        names = [one.rpartition("/")[2] for one in unknown]
        if not own.issuperset(names):
            raise error
        unit_ids = tuple(f"modelled/{name}" for name in names)
        made: GroupSnapshot = await self.inner.snapshot_group(
            GroupSnapshotRequest(unit_ids, request.tag, request.fence_timeout_s)
        )
        return made


class _EmptyIsDone(_Grouping):
    async def refused(self, request: GroupSnapshotRequest, error: DriverError) -> GroupSnapshot:
        if request.unit_ids:
            raise error
        return GroupSnapshot(GroupSnapshotRef("modelled", "modelled/nothing", request.tag), ())


class _FailureIsUnknown(_Grouping):
    async def refused(self, request: GroupSnapshotRequest, error: DriverError) -> GroupSnapshot:
        if type(error) is DidNotHappenError and "cannot be snapshotted" in error.reason:
            raise UnknownOutcomeError(_GROUP, request.tag, error.reason) from error
        raise error


class _ReadsByTag(BrokenDriver):
    """It reads from whatever has the tag now."""

    async def read_back(self, ref: GroupSnapshotRef, *place: Any) -> bytes:
        held: list[GroupSnapshot] = await self.inner.list_snapshots(ref.tag)
        now = next((one.ref for one in held if one.ref.tag == ref.tag), ref)
        data: bytes = await self.inner.read_back(now, *place)
        return data


class _ReadsZeros(BrokenDriver):
    """It reads zeros from a unit that the snapshot does not hold."""

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: str, offset_bytes: int, length_bytes: int
    ) -> bytes:
        try:
            data: bytes = await self.inner.read_back(ref, unit_id, offset_bytes, length_bytes)
        except NeverWillError as error:
            if "not in this snapshot" in error.reason:
                return bytes(length_bytes)
            raise
        return data


class _ReadsLess(BrokenDriver):
    """It reads up to the end of the unit and answers with that."""

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: str, offset_bytes: int, length_bytes: int
    ) -> bytes:
        sizes = {unit.unit_id: unit.capacity_bytes for unit in await self.target.units()}
        end = min(offset_bytes + length_bytes, sizes.get(unit_id, offset_bytes + length_bytes))
        place = (offset_bytes, max(0, end - offset_bytes))
        data: bytes = await self.inner.read_back(ref, unit_id, *place)
        return data


class _DiscardsUnits(BrokenDriver):
    """It says that it has discarded a unit."""

    async def discard(self, unit_id: str) -> None:
        if unit_id not in {unit.unit_id for unit in await self.target.units()}:
            await self.inner.discard(unit_id)


class _DiscardsAgain(BrokenDriver):
    """To discard again what it has discarded succeeds."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self._gone: set[str] = set()

    async def clone(self, ref: GroupSnapshotRef, unit_id: str, name: str) -> StorageUnit:
        made: StorageUnit = await self.inner.clone(ref, unit_id, name)
        self._gone.discard(made.id)
        return made

    async def discard(self, unit_id: str) -> None:
        if unit_id not in self._gone:
            await self.inner.discard(unit_id)
        self._gone.add(unit_id)


class _Deleting(BrokenDriver):
    """Says something else when it cannot delete."""

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        try:
            await self.inner.delete_snapshot(ref)
        except DriverError as error:
            self.say(error)
            raise

    def say(self, error: DriverError) -> None:
        raise NotImplementedError


class _InternalNames(_Deleting):
    def say(self, error: DriverError) -> None:
        error.operation = "POST /cg-snapshots/_purge"


class _NamesNothing(_Deleting):
    def say(self, error: DriverError) -> None:
        error.subject = "job 17"


class _Traceback(_Deleting):
    def say(self, error: DriverError) -> None:
        error.reason = f"Traceback:\n  line 1\n{error.reason}"
        error.what = f"{error.operation} on {error.subject} failed: {error.reason}"


class _StaleAfterRefusal(BrokenDriver):
    """After a deletion that was refused it lists once what there was at that moment."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self._stale: list[GroupSnapshot] | None = None

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        try:
            await self.inner.delete_snapshot(ref)
        except NotFoundError:
            self._stale = await self.inner.list_snapshots("")
            raise

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        stale, self._stale = self._stale, None
        if stale is not None:
            return [one for one in stale if one.ref.tag.startswith(tag_prefix)]
        listed: list[GroupSnapshot] = await self.inner.list_snapshots(tag_prefix)
        return listed


class _WaitsBackwards(BrokenDriver):
    """Its estimates are below zero."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        return await self._estimated(self.inner.snapshot_group(request))

    async def resolve(self, devices: Sequence[DeviceIdentity]) -> Known:
        return await self._estimated(self.inner.resolve(devices))

    @staticmethod
    async def _estimated(call: Awaitable[T]) -> T:
        try:
            return await call
        except BusyError as error:
            error.retry_after_s = -1.0
            raise


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    canary("unknown-is-busy", "ARR-ERR-01", "An unknown unit is busy to it.", _UnknownIsBusy),
    canary("takes-others", "ARR-ERR-02", "It takes another array's unit.", _TakesOthersUnits),
    canary("empty-is-done", "ARR-ERR-03", "A group of no units is done at once.", _EmptyIsDone),
    canary(
        "failure-is-unknown",
        "ARR-ERR-04",
        "It cannot tell what came of a group that certainly failed.",
        _FailureIsUnknown,
    ),
    canary("reads-by-tag", "ARR-ERR-05", "It reads by the tag alone.", _ReadsByTag),
    canary("reads-zeros", "ARR-ERR-06", "It reads zeros from a unit beside.", _ReadsZeros),
    canary("reads-less", "ARR-ERR-07", "It reads fewer bytes at the end.", _ReadsLess),
    canary("discards-units", "ARR-ERR-08", "It discards units.", _DiscardsUnits),
    canary("discards-again", "ARR-ERR-09", "It discards what is gone.", _DiscardsAgain),
    canary("internal-names", "ARR-ERR-10", "It names its own methods.", _InternalNames),
    canary("names-nothing", "ARR-ERR-11", "Its errors name a job of its own.", _NamesNothing),
    canary("traceback", "ARR-ERR-12", "Its reasons are tracebacks.", _Traceback),
    canary(
        "stale-after-refusal",
        "ARR-ERR-13",
        "After a refusal its listing is out of date.",
        _StaleAfterRefusal,
    ),
    canary("waits-backwards", "ARR-ERR-14", "It estimates waits below zero.", _WaitsBackwards),
)
