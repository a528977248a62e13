"""Requirements that can be broken in several ways: each way is noticed, and told as what it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support_certify_topics import outcomes

from stillframe.certify.canary import BrokenDriver, with_driver
from stillframe.certify.outcome import Verdict
from stillframe.certify.targets.modelled_array import RedirectOnWriteArray
from stillframe.drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest
from stillframe.drivers.errors import (
    BusyError,
    DriverError,
    NeverWillError,
    NotFoundError,
    UnknownOutcomeError,
)
from stillframe.drivers.records import StorageUnit

_GROUP, _DELETE = "snapshot_group", "delete_snapshot"


class _Second(BrokenDriver):
    """A driver that is different on every connection but the first."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        target.connections = getattr(target, "connections", 0) + 1
        self.first = target.connections == 1


class _ListsItsOwn(_Second):
    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        return await self.inner.list_snapshots(tag_prefix) if self.first else []


class _ListsThemAlone(_Second):
    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        held: list[GroupSnapshot] = await self.inner.list_snapshots(tag_prefix)
        return held if self.first else [replace(one, unit_ids=one.unit_ids[:1]) for one in held]


class _MakesTheRest(BrokenDriver):
    """Of a group that it refuses it makes what it can."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        own = {unit.unit_id for unit in await self.target.units()}
        known = tuple(one for one in request.unit_ids if one in own)
        made: GroupSnapshot = await self.inner.snapshot_group(replace(request, unit_ids=known))
        if len(known) < len(request.unit_ids):
            raise NeverWillError(_GROUP, request.tag, "a unit is not known")
        return made


class _ReplacesAndRefuses(BrokenDriver):
    """What has the tag is gone when it refuses the tag for more units."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        try:
            made: GroupSnapshot = await self.inner.snapshot_group(request)
        except NeverWillError:
            for one in await self.inner.list_snapshots(request.tag):
                if len(request.unit_ids) > 1:
                    await self.inner.delete_snapshot(one.ref)
            raise
        return made


class _OneHandleForATag(BrokenDriver):
    """The handle says no more than the tag."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        return self._out(await self.inner.snapshot_group(request))

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        return [self._out(one) for one in await self.inner.list_snapshots(tag_prefix)]

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        held = await self.inner.list_snapshots(ref.tag)
        found = [one.ref for one in held if one.ref.tag == ref.tag]
        await self.inner.delete_snapshot(found[0] if found else ref)

    @staticmethod
    def _out(one: GroupSnapshot) -> GroupSnapshot:
        return replace(one, ref=replace(one.ref, snapshot_id=one.ref.tag))


class _DeletesAndRefuses(BrokenDriver):
    """By a stale handle it deletes what has the tag, and says that there was nothing."""

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        try:
            await self.inner.delete_snapshot(ref)
        except NotFoundError:
            for one in await self.inner.list_snapshots(ref.tag):
                await self.inner.delete_snapshot(one.ref)
            raise


class _ListsAnotherHandle(BrokenDriver):
    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        held: list[GroupSnapshot] = await self.inner.list_snapshots(tag_prefix)
        return [
            replace(one, ref=replace(one.ref, snapshot_id=f"{one.ref.snapshot_id}/listed"))
            for one in held
        ]

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        plain = replace(ref, snapshot_id=ref.snapshot_id.removesuffix("/listed"))
        await self.inner.delete_snapshot(plain)


class _ClonesByTag(BrokenDriver):
    async def clone(self, ref: GroupSnapshotRef, unit_id: str, name: str) -> StorageUnit:
        held = await self.inner.list_snapshots(ref.tag)
        now = held[0].ref if held else ref
        made: StorageUnit = await self.inner.clone(now, unit_id, name)
        return made


class _WipesAndRefuses(BrokenDriver):
    """It refuses to discard a unit, after it has wiped it."""

    async def discard(self, unit_id: str) -> None:
        for unit in await self.target.units():
            if unit.unit_id == unit_id:
                await self.target.write(unit, 0, bytes(4 << 20))
        await self.inner.discard(unit_id)


class _NeverDeletesAtOnce(BrokenDriver):
    """Deletions that meet are all refused."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self._asked: dict[GroupSnapshotRef, int] = {}

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        self._asked[ref] = self._asked.get(ref, 0) + 1
        try:
            await self.inner.list_snapshots("")  # until the others have come
            if self._asked[ref] > 1:
                raise BusyError(_DELETE, ref.tag, "somebody else deletes it")
            await self.inner.delete_snapshot(ref)
        finally:
            await self.inner.list_snapshots("")
            self._asked[ref] -= 1


class _ListsPartsWhileDeleting(BrokenDriver):
    """While it deletes, listed groups and units are cut short."""

    at_work = 0

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        self.at_work += 1
        try:
            await self.inner.delete_snapshot(ref)
        finally:
            self.at_work -= 1

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        short = self.at_work > 0
        held: list[GroupSnapshot] = await self.inner.list_snapshots(tag_prefix)
        return [replace(one, unit_ids=()) if short else one for one in held]


class _UnsureOfReads(BrokenDriver):
    """What it cannot read any more is an unknown outcome to it."""

    async def read_back(self, ref: GroupSnapshotRef, *place: Any) -> bytes:
        try:
            data: bytes = await self.inner.read_back(ref, *place)
        except DriverError as error:
            raise UnknownOutcomeError("read_back", ref.tag, error.reason) from error
        return data


WAYS: list[tuple[type[BrokenDriver], str, str]] = [
    (_ListsItsOwn, "ARR-LIF-09", "a connection does not list what another one made"),
    (_ListsThemAlone, "ARR-LIF-09", "two connections list it differently"),
    (_MakesTheRest, "ARR-LIF-10", "a group that was refused is listed"),
    (_ReplacesAndRefuses, "ARR-TAG-03", "the listing has changed"),
    (_OneHandleForATag, "ARR-TAG-04", "it has the handle of the one that was deleted"),
    (_DeletesAndRefuses, "ARR-TAG-05", "the later snapshot of the tag is deleted instead"),
    (_ListsAnotherHandle, "ARR-LST-01", "it is listed under another handle"),
    (_ClonesByTag, "ARR-ERR-05", "cloning from a snapshot that is gone succeeded"),
    (_WipesAndRefuses, "ARR-ERR-08", "the unit: "),
    (_NeverDeletesAtOnce, "ARR-CON-09", "all of several deletions at once were refused"),
    (_ListsPartsWhileDeleting, "ARR-ASK-03", "a snapshot is listed with other units"),
    (_UnsureOfReads, "ARR-ASK-07", "a read failed with UnknownOutcomeError"),
]


@pytest.mark.parametrize(("driver", "broken", "told"), WAYS, ids=[w[0].__name__ for w in WAYS])
def test_another_way_to_break_it_is_noticed_too(
    driver: type[BrokenDriver], broken: str, told: str
) -> None:
    found = outcomes(with_driver(driver)(RedirectOnWriteArray), broken)[broken]
    assert found.verdict is Verdict.FAIL, found
    assert told in found.reason
