"""Canaries for restarts of the system."""

from __future__ import annotations

from typing import Any

from ...drivers.errors import BusyError, DidNotHappenError, UnknownOutcomeError
from ..array_target import ArrayTarget
from ..canary import BrokenDriver, Canary, with_driver
from .array_breaking import Dying, hold, leave


class _Restarts(BrokenDriver):
    """Counts how often the system had restarted when the connection was opened."""

    def __init__(self, inner: Any, target: Any = None) -> None:
        super().__init__(inner, target)
        self.before: int = target.front.restarts

    @property
    def since(self) -> int:
        """Restarts since then."""
        return int(self.target.front.restarts) - self.before


class _DeadAfterRestart(_Restarts, Dying):
    def dead(self) -> bool:
        return self.since > 0


class _ForgetsAtRestart(_Restarts):
    async def list_snapshots(self, tag_prefix: str) -> Any:
        found = await self.inner.list_snapshots(tag_prefix)
        short = self.before and len(found) > 1
        return found[1:] if short else found


class _OtherBytes(_Restarts):
    async def read_back(self, ref: Any, unit_id: str, offset: int, length: int) -> Any:
        data = await self.inner.read_back(ref, unit_id, offset, length)
        return bytes(length) if self.before else data


class _RestartIsNo(_Restarts):
    async def snapshot_group(self, request: Any) -> Any:
        before = self.since
        try:
            return await self.inner.snapshot_group(request)
        except UnknownOutcomeError as error:
            if self.since == before:
                raise
            raise DidNotHappenError(error.operation, error.subject, error.reason) from error


class _BusyForEver(_Restarts):
    async def snapshot_group(self, request: Any) -> Any:
        stuck = self.target.__dict__.setdefault("canary_stuck", set())
        if request.tag in stuck:
            raise BusyError("snapshot_group", request.tag, "it is being made")
        before = self.since
        try:
            return await self.inner.snapshot_group(request)
        except UnknownOutcomeError:
            if self.since != before:
                stuck.add(request.tag)
            raise


def _at_restart(reference: type[Any], after: Any) -> type[Any]:
    """A target that does ``after(target, groups, deletions)`` when it has restarted.

    ``groups`` are the tags and units of the group snapshots that were on their way, ``deletions``
    the units of deletions.
    """

    class Broken(reference):  # type: ignore[misc]
        async def restart(self) -> None:
            array = self.array
            groups, deletions = array.in_the_making(), array.being_deleted()
            await super().restart()
            after(self, groups, deletions)

    return Broken


def _leaves_members(target: Any, groups: dict[str, Any], _: Any) -> None:
    for tag, unit_ids in groups.items():
        if not target.array.holds(tag):
            leave(target, unit_ids[-1])


def _keeps_fence(target: Any, groups: dict[str, Any], _: Any) -> None:
    for unit_ids in groups.values():
        hold(target, *unit_ids)


def _half_deleted(target: Any, _: Any, deletions: list[Any]) -> None:
    for unit_ids in deletions:
        leave(target, unit_ids[-1])


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    Canary(
        "dead-after-restart",
        "ARR-FLT-21",
        "Never uses a new connection to the system after a restart.",
        with_driver(_DeadAfterRestart),
    ),
    Canary(
        "forgets-at-restart",
        "ARR-FLT-22",
        "Lists one snapshot too few on connections from after a restart.",
        with_driver(_ForgetsAtRestart),
    ),
    Canary(
        "bytes-lost-at-restart",
        "ARR-FLT-23",
        "Gives zeros for a snapshot on connections from after a restart.",
        with_driver(_OtherBytes),
        also=("ARR-HIS-04",),
        because="it reads back after restarts too",
    ),
    Canary(
        "members-left-at-restart",
        "ARR-FLT-24",
        "A group that a restart interrupts leaves the snapshot of one unit.",
        lambda reference: _at_restart(reference, _leaves_members),
    ),
    Canary(
        "restart-told-as-none",
        "ARR-FLT-25",
        "Says that what a restart interrupted did not happen.",
        with_driver(_RestartIsNo),
    ),
    Canary(
        "busy-for-ever",
        "ARR-FLT-26",
        "Takes a tag whose group a restart interrupted to be in the making for ever.",
        with_driver(_BusyForEver),
    ),
    Canary(
        "fence-outlives-restart",
        "ARR-FLT-27",
        "A restart in mid-call leaves the writes to the group held.",
        lambda reference: _at_restart(reference, _keeps_fence),
    ),
    Canary(
        "half-deleted-at-restart",
        "ARR-FLT-28",
        "A restart in the middle of a deletion leaves the snapshot of one unit.",
        lambda reference: _at_restart(reference, _half_deleted),
    ),
)
