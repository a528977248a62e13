"""Canaries for sessions that expire, an array that cannot be reached, and a wrong clock."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

from ...drivers.contracts import GroupSnapshot, Window
from ...drivers.errors import DidNotHappenError, DriverError, UnknownOutcomeError
from ..array_target import ArrayTarget
from ..canary import BrokenDriver, Canary, with_driver
from .array_breaking import Dying

LOOK_S = 0.1


class _Sessions(BrokenDriver):
    """Knows whether its first session has expired (otherwise than by a restart)."""

    def __init__(self, inner: Any, target: Any = None) -> None:
        super().__init__(inner, target)
        self.before = self._expired()

    def _expired(self) -> int:
        return int(self.target.front.epoch) - int(self.target.front.restarts)

    @property
    def void(self) -> bool:
        """Whether it has."""
        return self._expired() != self.before


class _StaysLoggedOut(_Sessions, Dying):
    def dead(self) -> bool:
        return self.void


class _ExpiryIsNo(_Sessions):
    async def snapshot_group(self, request: Any) -> Any:
        before = self._expired()
        try:
            return await self.inner.snapshot_group(request)
        except UnknownOutcomeError as error:
            if self._expired() == before:
                raise
            raise DidNotHappenError(error.operation, error.subject, error.reason) from error


class _FromMemory(BrokenDriver):
    """Lists what it listed last when the array does not answer."""

    def __init__(self, inner: Any, target: Any = None) -> None:
        super().__init__(inner, target)
        self.last: list[Any] = []

    async def list_snapshots(self, tag_prefix: str) -> Any:
        if self.target.front.reachable:
            self.last = await self.inner.list_snapshots(tag_prefix)
        return self.last


class _DoesItLater(BrokenDriver):
    """Says that nothing happened, and sends the request again when it can."""

    async def snapshot_group(self, request: Any) -> Any:
        if self.target.front.reachable:
            return await self.inner.snapshot_group(request)
        later = asyncio.get_running_loop().create_task(self._later(request))
        self.target.__dict__.setdefault("canary_tasks", set()).add(later)
        raise DidNotHappenError("snapshot_group", request.tag, "the array cannot be reached")

    async def _later(self, request: Any) -> None:
        while not self.target.front.reachable:  # noqa: ASYNC110  # nothing tells when
            await asyncio.sleep(LOOK_S)
        with contextlib.suppress(DriverError):
            await self.inner.snapshot_group(request)


class _DeadAfterSilence(Dying):
    """Gives its connection up for good when one call got no answer."""

    def __init__(self, inner: Any, target: Any = None) -> None:
        super().__init__(inner, target)
        self.given_up = False

    def dead(self) -> bool:
        return self.given_up

    def failed(self, operation: str, error: Exception) -> None:  # noqa: ARG002
        if not self.target.front.reachable and isinstance(error, UnknownOutcomeError):
            self.given_up = True


class _ArraysClock(BrokenDriver):
    """Tells the times that the array's clock showed."""

    def shown(self, made: GroupSnapshot, ahead_s: float) -> GroupSnapshot:
        fence, cut_s = made.fence, made.cut_s
        return replace(
            made,
            cut_s=None if cut_s is None else cut_s + ahead_s,
            fence=fence and Window(fence.start_s + ahead_s, fence.end_s + ahead_s),
        )

    async def snapshot_group(self, request: Any) -> Any:
        made = await self.inner.snapshot_group(request)
        return self.shown(made, self.target.front.clock_ahead_s)


class _NotYetMade(BrokenDriver):
    """Looks under a tag for what the array's clock says was made in the past."""

    async def snapshot_group(self, request: Any) -> Any:
        made = await self.inner.snapshot_group(request)
        stamps = self.target.__dict__.setdefault("canary_stamps", {})
        stamps.setdefault(request.tag, self.target.front.clock_s())
        return made

    async def list_snapshots(self, tag_prefix: str) -> Any:
        found = await self.inner.list_snapshots(tag_prefix)
        stamp_s = self.target.__dict__.get("canary_stamps", {}).get(tag_prefix, 0.0)
        return [] if stamp_s > self.target.front.clock_s() else found


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    Canary(
        "stays-logged-out",
        "ARR-FLT-29",
        "Opens no new session when its session has expired.",
        with_driver(_StaysLoggedOut),
    ),
    Canary(
        "expiry-told-as-none",
        "ARR-FLT-30",
        "Says that a group snapshot did not happen during which its session expired.",
        with_driver(_ExpiryIsNo),
    ),
    Canary(
        "lists-out-of-reach",
        "ARR-FLT-31",
        "Lists from memory what it cannot ask the array.",
        with_driver(_FromMemory),
    ),
    Canary(
        "does-it-later",
        "ARR-FLT-32",
        "Says that nothing happened on an array that cannot be reached, and does it later.",
        with_driver(_DoesItLater),
    ),
    Canary(
        "dead-after-silence",
        "ARR-FLT-33",
        "Gives its connection up for good when the array did not answer once.",
        with_driver(_DeadAfterSilence),
    ),
    Canary(
        "arrays-clock",
        "ARR-FLT-34",
        "Tells times on the array's own clock.",
        with_driver(_ArraysClock),
    ),
    Canary(
        "not-yet-made",
        "ARR-FLT-35",
        "Does not find under its tag what the array's clock dates in the future.",
        with_driver(_NotYetMade),
    ),
)
