"""Who called what: drivers that note every call, and refuse a process that is dead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..drivers.contracts import (
    ArrayCapabilities,
    ArrayDriver,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
    HypervisorCapabilities,
    HypervisorDriver,
    MergeResult,
    VmSnapshot,
    VmSnapshotRef,
    VmSnapshotRequest,
    VmSnapshotState,
)
from ..drivers.records import DeviceIdentity, Inventory, StorageUnit, VmId
from ..sim.crash import ProcessDeadError

CREATE = "create_snapshot"
REMOVE = "remove_snapshot"
CONSOLIDATE = "consolidate"
SNAPSHOT = "snapshot_group"
DELETE = "delete_snapshot"
LIST_ARRAY = "list_snapshots"


class Call:
    """One driver call, as the world saw it.

    ``subject`` is a VM or an array, ``asked`` the request or handle. ``ended_s`` is when the caller
    had its answer or stopped waiting; None while it waits. ``answer`` is a result or the class of
    an exception.
    """

    __slots__ = ("answer", "asked", "begun_s", "ended_s", "life", "operation", "subject")

    def __init__(self, life: int, operation: str, subject: str, asked: Any, begun_s: float) -> None:
        self.life = life
        self.operation = operation
        self.subject = subject
        self.asked = asked
        self.begun_s = begun_s
        self.ended_s: float | None = None
        self.answer: Any = None


class Caller:
    """One process as far as drivers know it: its number, whether it lives, its calls."""

    __slots__ = ("calls", "dead", "life", "now_s")

    def __init__(self, life: int, calls: list[Call], now_s: Callable[[], float]) -> None:
        self.life = life
        self.calls = calls
        self.now_s = now_s
        self.dead = False

    def check(self) -> None:
        """Raise ProcessDeadError if the process is dead."""
        if self.dead:
            raise ProcessDeadError("its process is dead")

    def begin(self, operation: str, subject: str, asked: Any) -> Call:
        """Note a call that begins now."""
        if self.dead:
            raise ProcessDeadError("its process is dead")
        call = Call(self.life, operation, subject, asked, self.now_s())
        self.calls.append(call)
        return call

    def end(self, call: Call, answer: Any) -> None:
        """Note how a call ended."""
        call.ended_s = self.now_s()
        call.answer = answer


class FencedHypervisor:
    """A hypervisor driver in the hands of one process."""

    def __init__(self, driver: HypervisorDriver, caller: Caller) -> None:
        self._driver = driver
        self._caller = caller

    @property
    def capabilities(self) -> HypervisorCapabilities:
        """See :class:`HypervisorDriver`."""
        return self._driver.capabilities

    async def inventory(self) -> Inventory:
        """See :class:`HypervisorDriver`."""
        self._caller.check()
        return await self._driver.inventory()

    async def list_snapshots(self, vm_ids: Sequence[VmId] | None = None) -> list[VmSnapshotState]:
        """See :class:`HypervisorDriver`."""
        self._caller.check()
        return await self._driver.list_snapshots(vm_ids)

    async def create_snapshot(self, request: VmSnapshotRequest) -> VmSnapshot:
        """See :class:`HypervisorDriver`."""
        caller = self._caller
        call = caller.begin(CREATE, request.vm_id, request)
        try:
            answer = await self._driver.create_snapshot(request)
        except BaseException as error:
            caller.end(call, type(error))
            raise
        caller.end(call, answer)
        return answer

    async def remove_snapshot(self, ref: VmSnapshotRef) -> MergeResult:
        """See :class:`HypervisorDriver`."""
        caller = self._caller
        call = caller.begin(REMOVE, ref.vm_id, ref)
        try:
            answer = await self._driver.remove_snapshot(ref)
        except BaseException as error:
            caller.end(call, type(error))
            raise
        caller.end(call, answer)
        return answer

    async def consolidate(self, vm_id: VmId) -> None:
        """See :class:`HypervisorDriver`."""
        caller = self._caller
        call = caller.begin(CONSOLIDATE, vm_id, None)
        try:
            await self._driver.consolidate(vm_id)
        except BaseException as error:
            caller.end(call, type(error))
            raise
        caller.end(call, None)


class FencedArray:
    """An array driver in the hands of one process."""

    def __init__(self, array_id: str, driver: ArrayDriver, caller: Caller) -> None:
        self._id = array_id
        self._driver = driver
        self._caller = caller

    @property
    def capabilities(self) -> ArrayCapabilities:
        """See :class:`ArrayDriver`."""
        return self._driver.capabilities

    async def resolve(
        self, devices: Sequence[DeviceIdentity]
    ) -> Mapping[DeviceIdentity, StorageUnit]:
        """See :class:`ArrayDriver`."""
        self._caller.check()
        return await self._driver.resolve(devices)

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """See :class:`ArrayDriver`."""
        caller = self._caller
        call = caller.begin(SNAPSHOT, self._id, request)
        try:
            answer = await self._driver.snapshot_group(request)
        except BaseException as error:
            caller.end(call, type(error))
            raise
        caller.end(call, answer)
        return answer

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        """See :class:`ArrayDriver`."""
        caller = self._caller
        call = caller.begin(LIST_ARRAY, self._id, tag_prefix)
        try:
            answer = await self._driver.list_snapshots(tag_prefix)
        except BaseException as error:
            caller.end(call, type(error))
            raise
        caller.end(call, answer)
        return answer

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """See :class:`ArrayDriver`."""
        caller = self._caller
        call = caller.begin(DELETE, self._id, ref)
        try:
            await self._driver.delete_snapshot(ref)
        except BaseException as error:
            caller.end(call, type(error))
            raise
        caller.end(call, None)
