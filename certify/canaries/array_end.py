"""Canaries for what a driver leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from ...drivers.contracts import GroupSnapshotRef
from ...drivers.errors import BusyError, DriverError
from ..array_target import ArrayTarget
from ..canary import BrokenDriver, Canary, with_driver
from .array_breaking import closing, hold, leave


class _Making(BrokenDriver):
    """Remembers what this connection made; calls ``given_up`` when a caller then stops waiting."""

    def __init__(self, inner: Any, target: Any = None) -> None:
        super().__init__(inner, target)
        self.made: list[GroupSnapshotRef] = []

    async def snapshot_group(self, request: Any) -> Any:
        try:
            made = await self.inner.snapshot_group(request)
        except asyncio.CancelledError:
            if self.made:
                self.given_up(request)
            raise
        self.made.append(made.ref)
        return made

    def given_up(self, request: Any) -> None:
        """A caller stopped waiting, on a connection that had made something."""


class _KeepsLocks(_Making):
    """Locks its last snapshot for good when the next call of the connection is given up."""

    def given_up(self, request: Any) -> None:  # noqa: ARG002
        if self.target.front.array.staged.late_by_s.get("snapshot_group"):
            return
        self.target.__dict__.setdefault("canary_locked", set()).add(self.made[-1].snapshot_id)

    async def delete_snapshot(self, ref: Any) -> None:
        if ref.snapshot_id in self.target.__dict__.get("canary_locked", ()):
            raise BusyError("delete_snapshot", ref.tag, "it is locked by a connection")
        await self.inner.delete_snapshot(ref)


class _EmptyLeaves(BrokenDriver):
    async def snapshot_group(self, request: Any) -> Any:
        if not request.unit_ids:
            leave(self.target, "modelled/lun-3")
        return await self.inner.snapshot_group(request)


class _HoldsWhenGivenUp(_Making):
    def given_up(self, request: Any) -> None:
        hold(self.target, *request.unit_ids)


async def _tidy(_: Any, target: Any) -> None:
    for name in target.array.data.members():
        if "/scheduled-" in name:
            target.array.remove_on_device(name)


async def _take_along(driver: Any, _: Any) -> None:
    for ref in driver.made:
        with contextlib.suppress(DriverError):
            await driver.inner.delete_snapshot(ref)


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    Canary(
        "keeps-locks",
        "ARR-END-01",
        "Never deletes a snapshot whose connection had a caller that stopped waiting.",
        with_driver(_KeepsLocks),
        also=("ARR-END-02",),
        because="what cannot be deleted is still on the array",
    ),
    Canary(
        "empty-group-leaves-a-member",
        "ARR-END-02",
        "Snapshots a unit when it refuses a group of none.",
        with_driver(_EmptyLeaves),
    ),
    Canary(
        "tidies-up",
        "ARR-END-03",
        "Deletes what it does not know when a connection is closed.",
        closing(BrokenDriver, _tidy),
    ),
    Canary(
        "holds-when-given-up",
        "ARR-END-04",
        "Leaves writes held when a caller stops waiting.",
        with_driver(_HoldsWhenGivenUp),
    ),
    Canary(
        "takes-along",
        "ARR-END-05",
        "Deletes what a connection made when it is closed.",
        closing(_Making, _take_along),
        also=("ARR-LIF-09", "ARR-FLT-25"),
        because="they look on another connection for what a connection made that is closed",
    ),
)
