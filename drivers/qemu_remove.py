"""Removing snapshots of a QEMU VM: merge, and clear away what is left."""

from __future__ import annotations

import asyncio

from ..errors import StillframeError
from .contracts import MergeResult
from .deadman import DeadMan
from .errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    HappenedError,
    NotFoundError,
    UnknownOutcomeError,
)
from .qemu_files import Record, delete, sizes
from .qemu_hold import HeldElsewhereError
from .qemu_merge import Merged, MergeFailedError, merge, mergings
from .qemu_monitor import MonitorHeldError, MonitorLostError, RefusedError, VmOffError
from .qemu_offline import merge_overlays
from .qemu_vm import Look, QemuVm, is_half_removed, leftovers

REMOVE = "remove_snapshot"
CONSOLIDATE = "consolidate"


async def remove_overlays(vm: QemuVm, tag: str, deadman: DeadMan) -> MergeResult:
    """Remove a snapshot of a VM whose lock is held.

    Raises
    ------
    DriverError
        As :meth:`HypervisorDriver.remove_snapshot`. The snapshot is whole as long as all its
        overlays are in their chains.
    """
    look = await _look(vm, REMOVE)
    record = vm.records.get(tag)
    overlays = vm.overlays_of(tag, look)
    if not overlays and record not in leftovers(look):
        vm.records.drop(tag)
        raise NotFoundError(REMOVE, vm.id, f"there is no snapshot {tag}")
    record = record or Record(tag=tag, overlays=overlays)
    return await _remove(vm, look, record, deadman, REMOVE)


async def consolidate(vm: QemuVm, deadman: DeadMan) -> None:
    """Merge and clear away what removed snapshots have left; the VM's lock is held.

    Raises
    ------
    DriverError
        As :meth:`HypervisorDriver.consolidate`.
    """
    look = await _look(vm, CONSOLIDATE)
    for record in leftovers(look):
        await _remove(vm, look, record, deadman, CONSOLIDATE)


async def _look(vm: QemuVm, operation: str) -> Look:
    try:
        look = await vm.look()
    except MonitorLostError as error:
        raise DidNotHappenError(operation, vm.id, str(error)) from error
    if look.is_on is None:
        raise DidNotHappenError(operation, vm.id, "QEMU runs, but does not answer as expected")
    return look


async def _remove(
    vm: QemuVm, look: Look, record: Record, deadman: DeadMan, operation: str
) -> MergeResult:
    # Written down first: a snapshot of which some overlays are gone is told from another's by it.
    begun = record.model_copy(update={"removing": True})
    await asyncio.to_thread(vm.records.put, begun)
    delta_bytes = sizes(record.overlays)
    try:
        merged = await _merge(vm, look, record, deadman)
    except (MergeFailedError, RefusedError, HeldElsewhereError, StillframeError) as error:
        raise await _failure(vm, record, operation, error) from error
    except (MonitorLostError, MonitorHeldError, VmOffError) as error:
        raise UnknownOutcomeError(operation, vm.id, f"QEMU went away: {error}") from error
    try:
        for path in record.leftovers:
            await asyncio.to_thread(delete, path)
    except OSError as error:
        reason = f"it is merged, but a file is left: {error}"
        raise HappenedError(operation, vm.id, reason) from error
    vm.records.drop(record.tag)
    return MergeResult(delta_bytes, merged.merged_bytes, stun=merged.stun)


async def _merge(vm: QemuVm, look: Look, record: Record, deadman: DeadMan) -> Merged:
    if look.is_on:
        todo = mergings(look.chains, record.overlays)
        return await merge(vm.monitor, vm.guest, deadman, todo)
    await merge_overlays(look.chains, record.overlays)
    return Merged(None, None)


async def _failure(vm: QemuVm, record: Record, operation: str, error: Exception) -> DriverError:
    """What a failed merge means: has it done a part?"""
    reason = str(error)
    try:
        look = await vm.look()
    except (MonitorLostError, StillframeError) as lost:
        return UnknownOutcomeError(operation, vm.id, f"{reason}; then {lost}")
    removing = record.model_copy(update={"removing": True})
    if look.in_chains.isdisjoint(record.overlays) or is_half_removed(removing, look):
        return HappenedError(operation, vm.id, f"a part is merged, but: {reason}")
    if isinstance(error, HeldElsewhereError) or "busy" in reason or "lock" in reason:
        return BusyError(operation, vm.id, reason)
    return DidNotHappenError(operation, vm.id, reason)
