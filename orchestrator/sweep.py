"""Looking for what may have been left behind: creates whose outcome nobody knows.

A create that timed out, or was cancelled, may complete after the caller is gone. Every such create
left an open intent with its tag in the journal; the sweep asks both sides for these tags until it
has found and removed each, or may rule out that it will ever appear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from ..drivers.contracts import VmSnapshotRef, VmSnapshotState
from ..drivers.errors import DriverError, NotFoundError
from ..drivers.records import ArrayId, VmId
from .arraycalls import delete_array_snapshot
from .context import Context, VmWork
from .events import Kind
from .journal import Intent, IntentKind
from .vmcalls import list_patiently, tagged

SWEEP = "sweep"
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


async def sweep(
    context: Context, works: Mapping[VmId, VmWork], kept_tags: frozenset[str]
) -> list[str]:
    """Remove late completions; returns a sentence for each thing that may still be left behind.

    Parameters
    ----------
    works:
        The VMs of the job, by identifier.
    kept_tags:
        Tags of array snapshots that are in the catalogue.

    The search for a tag ends ``timeouts.settle`` seconds after the sweep began; a VM on which
    nothing runs any more and that does not list the tag needs no further search.
    """
    deadline_s = context.now_s() + context.spec.timeouts.settle
    pause_s = FIRST_PAUSE_S
    while True:
        intents = [one for one in context.journal.open_intents() if one.tag not in kept_tags]
        if not intents:
            return []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_sweep_vms(context, works, intents))
            tasks.create_task(_sweep_arrays(context, intents))
        left = [one for one in context.journal.open_intents() if one.tag not in kept_tags]
        remaining_s = deadline_s - context.now_s()
        if not left or remaining_s <= 0:
            return [_orphan(context, intent) for intent in left]
        await asyncio.sleep(min(pause_s, remaining_s))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _orphan(context: Context, intent: Intent) -> str:
    context.emit(Kind.ORPHAN, SWEEP, intent.object_id, intent.tag)
    what = "VM snapshot" if intent.kind is IntentKind.VM_SNAPSHOT else "array snapshot"
    return f"{what} {intent.tag} on {intent.object_id} may exist or may yet appear"


async def _sweep_vms(
    context: Context, works: Mapping[VmId, VmWork], intents: Sequence[Intent]
) -> None:
    by_vcenter: dict[str, list[Intent]] = {}
    for intent in intents:
        if intent.kind is IntentKind.VM_SNAPSHOT:
            by_vcenter.setdefault(intent.system_id, []).append(intent)
    for vcenter_id, wanted in by_vcenter.items():
        vm_ids = list(dict.fromkeys(intent.object_id for intent in wanted))
        driver = context.hypervisors[vcenter_id]
        listed = await list_patiently(context, SWEEP, driver, vm_ids)
        if listed is None:
            continue
        states = {state.vm_id: state for state in listed}
        async with asyncio.TaskGroup() as tasks:
            for intent in wanted:
                tasks.create_task(
                    _sweep_vm(
                        context, works[intent.object_id], states.get(intent.object_id), intent
                    )
                )


async def _sweep_vm(
    context: Context, work: VmWork, state: VmSnapshotState | None, intent: Intent
) -> None:
    if state is None:  # the VM is gone, and its snapshots with it
        context.journal.settle(intent.tag)
        return
    ref = tagged(state, intent.tag)
    if ref is not None:
        await _remove(context, work, ref)
    elif state.needs_consolidation:
        await _merge(context, work, intent)
    elif state.operation_running is False:
        context.journal.settle(intent.tag)


async def _remove(context: Context, work: VmWork, ref: VmSnapshotRef) -> None:
    await context.limiter.acquire(work.remove_scopes)
    try:
        async with asyncio.timeout(context.spec.timeouts.remove):
            await work.driver.remove_snapshot(ref)
    except NotFoundError:
        pass
    except (TimeoutError, DriverError) as error:  # stays open: the next round looks again
        context.emit(Kind.CALL_RETRIED, SWEEP, work.vm.id, str(error) or "no answer in time")
        return
    finally:
        context.limiter.release(work.remove_scopes)
    _swept(context, work, ref.tag)


async def _merge(context: Context, work: VmWork, intent: Intent) -> None:
    await context.limiter.acquire(work.remove_scopes)
    try:
        async with asyncio.timeout(context.spec.timeouts.remove):
            await work.driver.consolidate(work.vm.id)
    except (TimeoutError, DriverError) as error:  # stays open: the next round looks again
        context.emit(Kind.CALL_RETRIED, SWEEP, work.vm.id, str(error) or "no answer in time")
        return
    finally:
        context.limiter.release(work.remove_scopes)
    _swept(context, work, intent.tag)


def _swept(context: Context, work: VmWork, tag: str) -> None:
    work.outcome.left_behind = False
    context.journal.settle(tag)
    context.emit(Kind.SWEPT, SWEEP, work.vm.id, tag)


async def _sweep_arrays(context: Context, intents: Sequence[Intent]) -> None:
    by_array: dict[ArrayId, dict[str, None]] = {}
    for intent in intents:
        if intent.kind is IntentKind.ARRAY_SNAPSHOT:
            by_array.setdefault(intent.system_id, {})[intent.tag] = None
    for array_id, tags in by_array.items():
        try:
            async with asyncio.timeout(context.spec.timeouts.query):
                listed = await context.arrays[array_id].list_snapshots(context.tag_prefix)
        except (TimeoutError, DriverError) as error:
            context.emit(Kind.CALL_RETRIED, SWEEP, array_id, str(error) or "no answer in time")
            continue
        for snapshot in listed:
            if snapshot.ref.tag in tags:
                await delete_array_snapshot(context, SWEEP, snapshot.ref)
