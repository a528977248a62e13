"""Drivers that refuse wrongly: with the wrong error, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from ...drivers.contracts import MergeResult, VmSnapshotRef, VmSnapshotRequest
from ...drivers.errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    NeverWillError,
    NotFoundError,
    QuiesceFailedError,
    UnknownOutcomeError,
)
from ..canary import BrokenDriver, Canary, with_driver
from ..hypervisor_target import TOOLLESS, HypervisorTarget
from .hypervisor_answers import Make, instead, of_role

_LATER_S = 5.0
_SHALLOW = (("hypervisor", {"snapshot_depth": 6}),)


def _otherwise(method: str, wrong: type[DriverError], right: type[DriverError]) -> Make:
    """A method that raises one class of errors as another."""

    async def call(driver: Any, *arguments: Any) -> Any:
        try:
            return await getattr(driver, method)(*arguments)
        except right as error:
            raise wrong(error.operation, error.subject, error.reason) from error

    return instead(method, call)


def _worded(change: Callable[[DriverError], DriverError]) -> Make:
    """Every error of the three calls that change something, worded otherwise."""

    class Worded(BrokenDriver):
        async def create_snapshot(self, request: Any) -> Any:
            return await self._told(self.inner.create_snapshot(request))

        async def remove_snapshot(self, ref: Any) -> Any:
            return await self._told(self.inner.remove_snapshot(ref))

        async def consolidate(self, vm_id: Any) -> Any:
            return await self._told(self.inner.consolidate(vm_id))

        @staticmethod
        async def _told(call: Any) -> Any:
            try:
                return await call
            except DriverError as error:
                raise change(error) from error

    return with_driver(Worded)


async def _knows(driver: Any, vm_id: str) -> bool:
    return bool(await driver.list_snapshots([vm_id]))


async def _removes_of_nobody(driver: Any, ref: VmSnapshotRef) -> Any:
    if not await _knows(driver, ref.vm_id):
        raise DidNotHappenError("remove_snapshot", ref.vm_id, "the request is not valid")
    return await driver.remove_snapshot(ref)


async def _gone_is_fine(driver: Any, ref: VmSnapshotRef) -> Any:
    try:
        return await driver.remove_snapshot(ref)
    except NotFoundError:
        if not await _knows(driver, ref.vm_id):
            raise
        return MergeResult()


async def _newest_will_do(driver: Any, ref: VmSnapshotRef) -> Any:
    try:
        return await driver.remove_snapshot(ref)
    except NotFoundError:
        states = await driver.list_snapshots([ref.vm_id])
        refs = [one for state in states for one in state.snapshots]
        if not refs:
            raise
        return await driver.remove_snapshot(refs[-1])


async def _nobody_is_consolidated(driver: Any, vm_id: str) -> None:
    if await _knows(driver, vm_id):
        await driver.consolidate(vm_id)


async def _never_without_tools(driver: Any, request: VmSnapshotRequest) -> Any:
    if request.quiesce and of_role(request.vm_id, TOOLLESS):
        raise NeverWillError("create_snapshot", request.vm_id, "it cannot be quiesced")
    return await driver.create_snapshot(request)


async def _leaves_one(driver: Any, request: VmSnapshotRequest) -> Any:
    try:
        return await driver.create_snapshot(request)
    except QuiesceFailedError:
        if of_role(request.vm_id, TOOLLESS):
            await driver.create_snapshot(request._replace(quiesce=False))
        raise


async def _full_is_unknown(driver: Any, request: VmSnapshotRequest) -> Any:
    try:
        return await driver.create_snapshot(request)
    except NeverWillError as error:
        raise UnknownOutcomeError(error.operation, error.subject, error.reason) from error


async def _makes_room(driver: Any, request: VmSnapshotRequest) -> Any:
    try:
        return await driver.create_snapshot(request)
    except NeverWillError:
        (state,) = await driver.list_snapshots([request.vm_id])
        await driver.remove_snapshot(state.snapshots[0])
        raise


class _DoesItLater(BrokenDriver):
    """Refuses a quiesced create on a busy VM, and does it when the VM is free."""

    def __init__(self, driver: Any, target: Any) -> None:
        super().__init__(driver, target)
        self._tasks: set[asyncio.Task[None]] = set()

    async def create_snapshot(self, request: VmSnapshotRequest) -> Any:
        try:
            return await self.inner.create_snapshot(request)
        except BusyError:
            if request.quiesce:
                task = asyncio.create_task(self._later(request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            raise

    async def _later(self, request: VmSnapshotRequest) -> None:
        await asyncio.sleep(_LATER_S)
        with contextlib.suppress(DriverError):
            await self.inner.create_snapshot(request)


def _vendors(error: DriverError) -> DriverError:
    return type(error)("Snapshot_Task", error.subject, error.reason, error.advice)


def _wordy(error: DriverError) -> DriverError:
    reason = f"{error.reason}\n  at line 1 of the vendor's library"
    return type(error)(error.operation, error.subject, reason, error.advice)


CANARIES: tuple[Canary[HypervisorTarget], ...] = (
    Canary(
        "unknown-vm-never-will",
        "HYP-ERR-01",
        "A create for a VM that does not exist raises NeverWillError.",
        _otherwise("create_snapshot", NeverWillError, NotFoundError),
    ),
    Canary(
        "removal-for-nobody",
        "HYP-ERR-02",
        "A removal for a VM that does not exist raises DidNotHappenError.",
        instead("remove_snapshot", _removes_of_nobody),
    ),
    Canary(
        "gone-is-removed-again",
        "HYP-ERR-03",
        "A removal of what is gone succeeds.",
        instead("remove_snapshot", _gone_is_fine),
    ),
    Canary(
        "removes-the-newest",
        "HYP-ERR-04",
        "A removal of what is gone removes the newest snapshot there is.",
        instead("remove_snapshot", _newest_will_do),
    ),
    Canary(
        "consolidates-nobody",
        "HYP-ERR-05",
        "Consolidating a VM that does not exist succeeds.",
        instead("consolidate", _nobody_is_consolidated),
    ),
    Canary(
        "no-tools-never-will",
        "HYP-ERR-06",
        "Quiescing a guest without tools raises NeverWillError.",
        instead("create_snapshot", _never_without_tools),
    ),
    Canary(
        "leaves-the-refused",
        "HYP-ERR-07",
        "A create is refused because the guest has no tools, and its snapshot is there.",
        instead("create_snapshot", _leaves_one),
    ),
    Canary(
        "busy-is-unknown",
        "HYP-ERR-08",
        "A create on a busy VM raises UnknownOutcomeError.",
        _otherwise("create_snapshot", UnknownOutcomeError, BusyError),
    ),
    Canary(
        "refuses-and-does-it",
        "HYP-ERR-09",
        "A quiesced create on a busy VM raises BusyError, and is done later.",
        with_driver(_DoesItLater),
    ),
    Canary(
        "second-removal-unknown",
        "HYP-ERR-10",
        "The second of two removals at once raises UnknownOutcomeError.",
        _otherwise("remove_snapshot", UnknownOutcomeError, BusyError),
    ),
    Canary(
        "vendors-own-names",
        "HYP-ERR-11",
        "Errors name the operation as the vendor calls it.",
        _worded(_vendors),
    ),
    Canary(
        "error-with-a-trace",
        "HYP-ERR-12",
        "The reason of an error has several lines.",
        _worded(_wordy),
    ),
    Canary(
        "full-is-unknown",
        "HYP-ERR-13",
        "A create on a full chain raises UnknownOutcomeError.",
        instead("create_snapshot", _full_is_unknown),
        settings=_SHALLOW,
    ),
    Canary(
        "full-makes-room",
        "HYP-ERR-13",
        "A create on a full chain removes the oldest snapshot.",
        instead("create_snapshot", _makes_room),
        settings=_SHALLOW,
    ),
)
