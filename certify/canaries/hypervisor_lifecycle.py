"""Drivers that make and remove snapshots wrongly."""

from __future__ import annotations

from typing import Any

from ...drivers.contracts import MergeResult, VmSnapshot, VmSnapshotRef, VmSnapshotRequest
from ...drivers.errors import NeverWillError, NotFoundError
from ..canary import BrokenDriver, Canary, with_driver
from ..hypervisor_target import RAW, HypervisorTarget
from .hypervisor_answers import instead, of_role, told

_EPOCH_S = 1.7e9
"""About the wall clock of a machine in this decade."""


def _lower(made: VmSnapshot) -> VmSnapshot:
    return made._replace(ref=made.ref._replace(tag=made.ref.tag.lower()))


class _TwoNames(BrokenDriver):
    """Lists a snapshot under another identifier than the one that the create answers with."""

    async def list_snapshots(self, vm_ids: Any = None) -> Any:
        states = await self.inner.list_snapshots(vm_ids)
        return [
            state._replace(
                snapshots=tuple(
                    ref._replace(snapshot_id=f"listed/{ref.snapshot_id}") for ref in state.snapshots
                )
            )
            for state in states
        ]

    async def remove_snapshot(self, ref: VmSnapshotRef) -> Any:
        known = ref.snapshot_id.removeprefix("listed/")
        return await self.inner.remove_snapshot(ref._replace(snapshot_id=known))


class _Slow(BrokenDriver):
    """Lists a snapshot that was removed once more."""

    def __init__(self, driver: Any, target: Any) -> None:
        super().__init__(driver, target)
        self._removed: list[VmSnapshotRef] = []

    async def remove_snapshot(self, ref: VmSnapshotRef) -> Any:
        result = await self.inner.remove_snapshot(ref)
        self._removed.append(ref)
        return result

    async def list_snapshots(self, vm_ids: Any = None) -> Any:
        states = await self.inner.list_snapshots(vm_ids)
        removed, self._removed = self._removed, []
        return [
            state._replace(
                snapshots=(*state.snapshots, *(r for r in removed if r.vm_id == state.vm_id))
            )
            for state in states
        ]


async def _remove_by_prefix(driver: Any, ref: VmSnapshotRef) -> Any:
    for other in reversed(await _refs(driver, ref.vm_id)):
        if other.tag.startswith(ref.tag) and other != ref:
            await driver.remove_snapshot(other)
    return await driver.remove_snapshot(ref)


async def _remove_with_children(driver: Any, ref: VmSnapshotRef) -> Any:
    refs = await _refs(driver, ref.vm_id)
    later = refs[refs.index(ref) + 1 :] if ref in refs else []
    for other in reversed(later):
        await driver.remove_snapshot(other)
    return await driver.remove_snapshot(ref)


async def _remove_ends_only(driver: Any, ref: VmSnapshotRef) -> Any:
    if ref in (await _refs(driver, ref.vm_id))[1:-1]:
        reason = "it is neither the first nor the last of its chain"
        raise NeverWillError("remove_snapshot", ref.vm_id, reason)
    return await driver.remove_snapshot(ref)


async def _refs(driver: Any, vm_id: str) -> list[VmSnapshotRef]:
    states = await driver.list_snapshots([vm_id])
    return [ref for state in states for ref in state.snapshots]


class _Remembers(BrokenDriver):
    """Removes only what this connection has made."""

    def __init__(self, driver: Any, target: Any) -> None:
        super().__init__(driver, target)
        self._made: set[str] = set()

    async def create_snapshot(self, request: VmSnapshotRequest) -> VmSnapshot:
        self._made.add(request.tag)
        made: VmSnapshot = await self.inner.create_snapshot(request)
        return made

    async def remove_snapshot(self, ref: VmSnapshotRef) -> MergeResult:
        if ref.tag not in self._made:
            raise NotFoundError("remove_snapshot", ref.vm_id, "it is not known here")
        merged: MergeResult = await self.inner.remove_snapshot(ref)
        return merged


class _OneRequest(BrokenDriver):
    """Keeps one request for all calls that are under way."""

    tag = ""

    async def create_snapshot(self, request: VmSnapshotRequest) -> VmSnapshot:
        self.tag = request.tag
        made: VmSnapshot = await self.inner.create_snapshot(request)
        return made._replace(ref=made.ref._replace(tag=self.tag))


async def _no_raw(driver: Any, request: VmSnapshotRequest) -> Any:
    if request.quiesce and of_role(request.vm_id, RAW):
        raise NeverWillError("create_snapshot", request.vm_id, "it has a raw device")
    return await driver.create_snapshot(request)


CANARIES: tuple[Canary[HypervisorTarget], ...] = (
    Canary(
        "answers-in-lower-case",
        "HYP-LIF-01",
        "A create answers with the tag in lower case.",
        told("create_snapshot", _lower),
    ),
    Canary(
        "two-names-for-one",
        "HYP-LIF-02",
        "A snapshot is listed under another identifier than its create has answered with.",
        with_driver(_TwoNames),
        also=("HYP-CNS-07", "HYP-CNS-09", "HYP-MOV-05", "HYP-MOV-06"),
        because="they look for a snapshot under its reference",
    ),
    Canary(
        "removal-returns-early",
        "HYP-LIF-03",
        "A snapshot is still listed when its removal has returned.",
        with_driver(_Slow),
        also=("HYP-FLT-05",),
        because="there, too, a removal has returned whose snapshot is listed",
    ),
    Canary(
        "removes-by-prefix",
        "HYP-LIF-04",
        "A removal takes every snapshot whose tag begins with that of the one.",
        instead("remove_snapshot", _remove_by_prefix),
    ),
    Canary(
        "removes-children",
        "HYP-LIF-04",
        "A removal takes the later snapshots with it.",
        instead("remove_snapshot", _remove_with_children),
        also=("HYP-LIF-05", "HYP-DAT-09", "HYP-CNS-09"),
        because="there, too, later snapshots are gone",
    ),
    Canary(
        "removes-ends-only",
        "HYP-LIF-05",
        "A snapshot in the middle of a chain is not removed.",
        instead("remove_snapshot", _remove_ends_only),
        also=("HYP-DAT-09",),
        because="its snapshots are removed in every order",
    ),
    Canary(
        "removes-its-own-only",
        "HYP-LIF-06",
        "A connection removes only the snapshots that it has made.",
        with_driver(_Remembers),
    ),
    Canary(
        "one-request-for-all",
        "HYP-LIF-07",
        "Of two creates at once, both are answered with the tag of the later one.",
        with_driver(_OneRequest),
    ),
    Canary(
        "wall-clock",
        "HYP-LIF-08",
        "The time of a snapshot is told in seconds since 1970.",
        told("create_snapshot", lambda made: made._replace(created_s=made.created_s + _EPOCH_S)),
        also=("HYP-QUI-01", "HYP-FLT-11"),
        because="they hold that time against others on the loop's clock",
    ),
    Canary(
        "no-raw-devices",
        "HYP-LIF-09",
        "A VM with a raw device mapping is not snapshotted.",
        instead("create_snapshot", _no_raw),
    ),
)
