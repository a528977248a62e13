"""Listings that are wrong in one way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ...drivers.contracts import VmSnapshot, VmSnapshotRef, VmSnapshotRequest, VmSnapshotState
from ...drivers.errors import NotFoundError
from ..bench import TAG_PREFIX
from ..canary import BrokenDriver, Canary, with_driver
from ..hypervisor_target import HypervisorTarget
from .hypervisor_answers import instead, listed

_PAGE = 4
_PAIR = 2
_LONG_S = 33.0


def _ours(state: VmSnapshotState) -> VmSnapshotState:
    """Without the snapshots of others."""
    kept = [ref for ref in state.snapshots if ref.tag.startswith(TAG_PREFIX)]
    return state._replace(snapshots=tuple(kept))


async def _first_page(driver: Any, vm_ids: Sequence[str] | None = None) -> list[VmSnapshotState]:
    states: list[VmSnapshotState] = await driver.list_snapshots(vm_ids)
    return states[:_PAGE] if vm_ids is None else states


async def _none_is_all(driver: Any, vm_ids: Sequence[str] | None = None) -> Any:
    return await driver.list_snapshots(vm_ids or None)


async def _all_or_nothing(driver: Any, vm_ids: Sequence[str] | None = None) -> Any:
    states = await driver.list_snapshots(vm_ids)
    missing = set(vm_ids or ()) - {state.vm_id for state in states}
    if missing:
        raise NotFoundError("list_snapshots", min(missing), "there is no such VM")
    return states


async def _crossed(driver: Any, vm_ids: Sequence[str] | None = None) -> list[VmSnapshotState]:
    states: list[VmSnapshotState] = await driver.list_snapshots(vm_ids)
    if len(vm_ids or ()) != _PAIR or len(states) != _PAIR:
        return states
    one, two = states
    return [one._replace(snapshots=two.snapshots), two._replace(snapshots=one.snapshots)]


def _lower(state: VmSnapshotState) -> VmSnapshotState:
    refs = [ref._replace(tag=ref.tag.lower()) for ref in state.snapshots]
    return state._replace(snapshots=tuple(refs))


def _nothing_meanwhile(state: VmSnapshotState) -> VmSnapshotState:
    return state._replace(snapshots=()) if state.operation_running else state


class _BusyForLong(BrokenDriver):
    """Lists a VM as busy for 33 s after each removal."""

    def __init__(self, driver: Any, target: Any) -> None:
        super().__init__(driver, target)
        self._until_s: dict[str, float] = {}

    async def remove_snapshot(self, ref: VmSnapshotRef) -> Any:
        result = await self.inner.remove_snapshot(ref)
        self._until_s[ref.vm_id] = asyncio.get_running_loop().time() + _LONG_S
        return result

    async def list_snapshots(self, vm_ids: Any = None) -> list[VmSnapshotState]:
        states = await self.inner.list_snapshots(vm_ids)
        now_s = asyncio.get_running_loop().time()
        return [
            state._replace(operation_running=True)
            if now_s < self._until_s.get(state.vm_id, now_s)
            else state
            for state in states
        ]


class _OwnNotCounted(BrokenDriver):
    """Lists a VM as idle while a caller of its own waits for a create."""

    def __init__(self, driver: Any, target: Any) -> None:
        super().__init__(driver, target)
        self._waiting: Counter[str] = Counter()

    async def create_snapshot(self, request: VmSnapshotRequest) -> VmSnapshot:
        self._waiting[request.vm_id] += 1
        try:
            made: VmSnapshot = await self.inner.create_snapshot(request)
        finally:
            self._waiting[request.vm_id] -= 1
        return made

    async def list_snapshots(self, vm_ids: Any = None) -> list[VmSnapshotState]:
        states = await self.inner.list_snapshots(vm_ids)
        return [
            state._replace(operation_running=False) if self._waiting[state.vm_id] else state
            for state in states
        ]


class _OwnOnly(BrokenDriver):
    """Lists of ours only what this connection has made."""

    def __init__(self, driver: Any, target: Any) -> None:
        super().__init__(driver, target)
        self._made: set[str] = set()

    async def create_snapshot(self, request: VmSnapshotRequest) -> VmSnapshot:
        self._made.add(request.tag)
        made: VmSnapshot = await self.inner.create_snapshot(request)
        return made

    async def list_snapshots(self, vm_ids: Any = None) -> list[VmSnapshotState]:
        states = await self.inner.list_snapshots(vm_ids)
        return [state._replace(snapshots=self._known(state)) for state in states]

    def _known(self, state: VmSnapshotState) -> tuple[Any, ...]:
        return tuple(
            ref
            for ref in state.snapshots
            if ref.tag in self._made or not ref.tag.startswith(TAG_PREFIX)
        )


CANARIES: tuple[Canary[HypervisorTarget], ...] = (
    Canary(
        "hides-foreign-snapshots",
        "HYP-LST-01",
        "Snapshots of somebody else are not listed.",
        listed(_ours),
    ),
    Canary(
        "first-page-only",
        "HYP-LST-02",
        "A listing of all VMs ends after the first page.",
        instead("list_snapshots", _first_page),
    ),
    Canary(
        "no-vms-is-all-vms",
        "HYP-LST-03",
        "A listing of no VMs lists all.",
        instead("list_snapshots", _none_is_all),
    ),
    Canary(
        "listing-fails-for-one",
        "HYP-LST-04",
        "A listing fails as a whole when one of its VMs does not exist.",
        instead("list_snapshots", _all_or_nothing),
    ),
    Canary(
        "listing-crosses-vms",
        "HYP-LST-05",
        "Of two VMs, the snapshots of each are listed under the other.",
        instead("list_snapshots", _crossed),
    ),
    Canary(
        "tags-in-lower-case",
        "HYP-LST-06",
        "Tags are listed in lower case.",
        listed(_lower),
    ),
    Canary(
        "lists-its-own-only",
        "HYP-LST-07",
        "A connection lists only the snapshots that it has made.",
        with_driver(_OwnOnly),
    ),
    Canary(
        "busy-for-long",
        "HYP-LST-08",
        "A removal is said to be running for half a minute after it has returned.",
        with_driver(_BusyForLong),
    ),
    Canary(
        "own-creates-not-counted",
        "HYP-LST-09",
        "A create that is under way on the same connection is not said to be running.",
        with_driver(_OwnNotCounted),
    ),
    Canary(
        "lists-nothing-meanwhile",
        "HYP-LST-10",
        "While an operation runs on a VM, its snapshots are not listed.",
        listed(_nothing_meanwhile),
    ),
)
