"""What canaries of array drivers share: units of the reference, what is under way, strays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ...drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest
from ...drivers.records import DeviceIdentity, StorageUnit
from ..array_target import ArrayTarget
from ..canary import BrokenDriver, Canary, with_driver

_MOST_LITTER = 2

Known = Mapping[DeviceIdentity, StorageUnit]


def canary(
    name: str,
    breaks: str,
    sentence: str,
    wrap: Callable[[Any, Any], Any],
    *,
    also: tuple[str, ...] = (),
    because: str = "",
) -> Canary[ArrayTarget]:
    """A canary whose every connection gives ``wrap(driver, target)``."""
    return Canary(name, breaks, sentence, with_driver(wrap), also, because)


def now_s() -> float:
    """The loop's clock."""
    return asyncio.get_running_loop().time()


@dataclass
class Running:
    """A call that is under way."""

    method: str
    what: Any
    start_s: float
    ended: asyncio.Event

    @property
    def age_s(self) -> float:
        """For how long."""
        return now_s() - self.start_s


class WatchedDriver(BrokenDriver):
    """Knows which of its calls are under way; a canary overrides what it breaks.

    Attributes
    ----------
    running:
        Calls under way on this connection, in the order in which they began.
    """

    def __init__(self, inner: Any, target: Any = None) -> None:
        super().__init__(inner, target)
        self.running: list[Running] = []

    @contextmanager
    def under_way(self, method: str, what: Any) -> Iterator[Running]:
        """Meanwhile the call is under way."""
        one = Running(method, what, now_s(), asyncio.Event())
        self.running.append(one)
        try:
            yield one
        finally:
            self.running.remove(one)
            one.ended.set()

    def others(self, method: str) -> list[Running]:
        """Calls of a method that are under way."""
        return [one for one in self.running if one.method == method]

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """As the driver does."""
        with self.under_way("snapshot_group", request):
            made: GroupSnapshot = await self.inner.snapshot_group(request)
            return made

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """As the driver does."""
        with self.under_way("delete_snapshot", ref):
            await self.inner.delete_snapshot(ref)


async def all_ended(calls: Iterable[Running]) -> None:
    """Wait for the end of calls that are under way now."""
    for one in list(calls):
        await one.ended.wait()


class LitteringDriver(BrokenDriver):
    """Leaves a snapshot on the array that only the array knows of.

    So that it does not fill the array up, listing over any connection takes the litter away, and
    of a lot the oldest goes.
    """

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        target.litter = getattr(target, "litter", [])

    def litter(self, unit_id: str) -> None:
        """Leave a snapshot of this unit."""
        _, tag = self.target.array.make_foreign(unit_id)
        self.target.litter.append(tag)
        self._sweep(_MOST_LITTER)

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        """As the driver does; what was left is taken away before."""
        self._sweep(0)
        listed: list[GroupSnapshot] = await self.inner.list_snapshots(tag_prefix)
        return listed

    def _sweep(self, kept: int) -> None:
        left: list[str] = self.target.litter
        while len(left) > kept:
            self.target.array.delete_foreign(left.pop(0))


async def units_of(driver: Any, target: ArrayTarget) -> list[StorageUnit]:
    """The units of the target as the driver knows them, in the target's order."""
    known = await driver.resolve([one.devices[0] for one in await target.units()])
    return list(known.values())


async def own_identities(target: ArrayTarget) -> Sequence[DeviceIdentity]:
    """Every identity of every unit."""
    return [device for one in await target.units() for device in one.devices]


def renamed(unit: StorageUnit, unit_id: str) -> StorageUnit:
    """The same under another identifier."""
    return replace(unit, id=unit_id)
