"""How drivers of arrays are broken: what several canaries do to the reference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from ...drivers.contracts import ArrayCapabilities, GroupSnapshot, GroupSnapshotRequest
from ...drivers.errors import DidNotHappenError, NotFoundError
from ..canary import BrokenDriver
from ..checks.array_device import DEVICE_LIMIT_S

STRAY_S = DEVICE_LIMIT_S + 0.3
"""After so long what a canary leaves is gone: a little later than its requirement looks."""
HELD_S = 45.0
"""For so long a canary holds writes: longer than any requirement waits for one."""
SECOND = "~second"


class Declaring(BrokenDriver):
    """Declares something else than the truth."""

    def declared(self, true: ArrayCapabilities) -> ArrayCapabilities:
        """What it says instead."""
        raise NotImplementedError

    @property
    def capabilities(self) -> ArrayCapabilities:
        """What it says."""
        return self.declared(self.inner.capabilities)


class Gated(BrokenDriver):
    """Looks at every call before it goes on, and at the error with which one ended."""

    def gate(self, operation: str) -> None:
        """Raise to refuse a call."""

    def failed(self, operation: str, error: Exception) -> None:
        """A call ended so; raise to let it end otherwise."""

    async def resolve(self, *given: Any) -> Any:
        """Gated."""
        return await self._through("resolve", *given)

    async def snapshot_group(self, *given: Any) -> Any:
        """Gated."""
        return await self._through("snapshot_group", *given)

    async def list_snapshots(self, *given: Any) -> Any:
        """Gated."""
        return await self._through("list_snapshots", *given)

    async def delete_snapshot(self, *given: Any) -> Any:
        """Gated."""
        return await self._through("delete_snapshot", *given)

    async def read_back(self, *given: Any) -> Any:
        """Gated."""
        return await self._through("read_back", *given)

    async def clone(self, *given: Any) -> Any:
        """Gated."""
        return await self._through("clone", *given)

    async def discard(self, *given: Any) -> Any:
        """Gated."""
        return await self._through("discard", *given)

    async def _through(self, operation: str, *given: Any) -> Any:
        self.gate(operation)
        try:
            return await getattr(self.inner, operation)(*given)
        except Exception as error:
            self.failed(operation, error)
            raise


class Dying(Gated):
    """A connection that is of no use any more when something has happened."""

    def dead(self) -> bool:
        """Whether it has."""
        raise NotImplementedError

    def gate(self, operation: str) -> None:
        """Refuse everything."""
        if self.dead():
            raise DidNotHappenError(operation, "modelled", "the connection is closed")


class Seconds(BrokenDriver):
    """Makes second snapshots of a tag, and shows them under the same tag."""

    async def second(self, request: GroupSnapshotRequest) -> None:
        """Make one."""
        await self.inner.snapshot_group(replace(request, tag=request.tag + SECOND))

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        """Everything, each under the tag that was asked for."""
        return [
            replace(one, ref=replace(one.ref, tag=one.ref.tag.removesuffix(SECOND)))
            for one in await self.inner.list_snapshots(tag_prefix)
        ]

    async def delete_snapshot(self, ref: Any) -> None:
        """The one or the other."""
        try:
            await self.inner.delete_snapshot(ref)
        except NotFoundError:
            await self.inner.delete_snapshot(replace(ref, tag=ref.tag + SECOND))


def leave(target: Any, unit_id: str, most: int = 3) -> None:
    """Leave a snapshot of a unit on the device that no list shows, for a while.

    No more than so many at once: a unit that is full would break other requirements.
    """
    left = target.__dict__.setdefault("canary_left", [])

    def end(name: str) -> None:
        target.array.remove_on_device(name)
        left.remove(name)

    if len(left) < most:
        left.append(target.array.leave_on_device(unit_id))
        asyncio.get_running_loop().call_later(STRAY_S, end, left[-1])


def hold(target: Any, *unit_ids: str) -> None:
    """Hold the writes to units for a while, or until the next restart."""
    data, restarts = target.array.data, target.front.restarts

    def end() -> None:
        if target.front.restarts == restarts:
            data.fence_ends(unit_ids)

    data.fence_begins(unit_ids)
    asyncio.get_running_loop().call_later(HELD_S, end)


def closing(
    broken: Callable[[Any, Any], Any], close: Callable[[Any, Any], Any]
) -> Callable[[type[Any]], type[Any]]:
    """A target whose connections do something bad when they are closed.

    Parameters
    ----------
    broken:
        Wraps each connection's driver; called as ``broken(driver, target)``.
    close:
        An asynchronous function, called as ``close(wrapped driver, target)``.
    """

    def make(reference: type[Any]) -> type[Any]:
        class Broken(reference):  # type: ignore[misc]
            @asynccontextmanager
            async def connect(self) -> AsyncIterator[Any]:
                async with super().connect() as inner:
                    driver = broken(inner, self)
                    yield driver
                    await close(driver, self)

        return Broken

    return make
