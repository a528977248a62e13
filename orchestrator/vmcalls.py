"""Taking and removing one VM's snapshot: limits, time limits, repetition, lost answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..drivers.contracts import (
    ConsistencyLevel,
    HypervisorDriver,
    VmSnapshot,
    VmSnapshotRef,
    VmSnapshotRequest,
    VmSnapshotState,
)
from ..drivers.errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    HappenedError,
    NeverWillError,
    NotFoundError,
    PoolFullError,
    QuiesceFailedError,
    QuiesceTimeoutError,
    UnknownOutcomeError,
)
from ..drivers.records import VmId
from .context import Context, VmWork
from .events import Kind
from .journal import Intent, IntentKind
from .spec import QuiescePolicy

NOT_WORTH_REPEATING = (NeverWillError, NotFoundError, PoolFullError)


def give_tag(context: Context, work: VmWork) -> None:
    """Give the VM the tag of its first create: when that begins, or before it if it has to wait."""
    if not work.tag:
        work.tag = context.new_tag()


async def open_vm(context: Context, work: VmWork) -> None:
    """Take the VM's snapshot; ``work.snapshot`` is set when it exists.

    Works in the places that it finds taken. Never raises for a driver's failure: the outcome
    carries the reason. A call that timed out leaves its intent open in the journal, because it may
    still complete.
    """
    give_tag(context, work)
    outcome = work.outcome
    quiesce = work.policy is not QuiescePolicy.SKIP
    repeated = 0
    while True:
        outcome.attempts += 1
        try:
            work.snapshot = await _create(context, work, quiesce=quiesce)
        except (QuiesceFailedError, QuiesceTimeoutError) as error:
            if work.policy is not QuiescePolicy.DEGRADE or not quiesce:
                _failed(context, work, str(error))
                return
            quiesce = False
            outcome.degraded = True
            context.fallbacks += 1
            context.emit(Kind.VM_QUIESCE_DEGRADED, outcome.group_id, outcome.vm_id, error.reason)
            await _line_up_again(context, work, renew_tag=True)
        except NOT_WORTH_REPEATING as error:
            _failed(context, work, str(error))
            return
        except DidNotHappenError as error:
            repeated += 1
            if repeated >= context.spec.retry.attempts:
                _failed(context, work, f"{error}; gave up after {repeated} attempts")
                return
            context.emit(Kind.CALL_RETRIED, outcome.group_id, outcome.vm_id, error.reason)
            await _line_up_again(context, work, repeated, _hint_s(error), renew_tag=True)
        except DriverError as error:
            _failed(context, work, str(error))
            return
        else:
            _opened(context, work, work.snapshot)
            return


async def _create(context: Context, work: VmWork, *, quiesce: bool) -> VmSnapshot:
    outcome = work.outcome
    limits = context.spec.timeouts
    tag = work.tag
    now_s = context.now_s()
    if outcome.requested_s is None:
        outcome.requested_s = now_s
    context.journal.intend(
        Intent(tag, IntentKind.VM_SNAPSHOT, work.vm.vcenter_id, work.vm.id, now_s)
    )
    context.log.add(now_s, Kind.VM_SNAPSHOT_REQUESTED, outcome.group_id, outcome.vm_id, tag)
    request = VmSnapshotRequest(work.vm.id, tag, quiesce, context.spec.quiesce.timeout)
    try:
        async with asyncio.timeout(limits.create + (request.quiesce_timeout_s if quiesce else 0)):
            return await work.driver.create_snapshot(request)
    except TimeoutError:
        return await _adopt(context, work, request, "no answer in time")
    except (UnknownOutcomeError, HappenedError) as error:
        return await _adopt(context, work, request, error.reason, patience_s=limits.query)
    except DriverError:  # what is left says that nothing was created
        context.journal.settle(tag)
        raise


async def _line_up_again(
    context: Context,
    work: VmWork,
    attempt: int = 0,
    at_least_s: float | None = None,
    *,
    renew_tag: bool = False,
) -> None:
    """Before a call is repeated: let others have the places, and wait if it is an ``attempt``."""
    scopes, work.places = work.places, ()
    context.limiter.release(scopes)
    if attempt:
        await context.pause(attempt, at_least_s)
    if renew_tag:
        work.tag = context.new_tag()
    work.outcome.wait_s += await context.limiter.acquire(scopes)
    work.places = scopes


async def _adopt(
    context: Context,
    work: VmWork,
    request: VmSnapshotRequest,
    why: str,
    *,
    patience_s: float = 0.0,
) -> VmSnapshot:
    """Look for a snapshot whose answer was lost, by its tag.

    An answer may be lost while the work goes on: unless the hypervisor says that nothing runs on
    the VM, the look is repeated for ``patience_s`` seconds. What is found is worth a
    crash-consistent image: nobody said whether the guest was frozen. Where that is not enough, or
    nothing is found, the VM fails; the open intent has the sweep remove what may still appear.
    """
    state = await _look_for(context, work, request.tag, patience_s)
    ref = tagged(state, request.tag)
    if state is None or ref is None:
        raise UnknownOutcomeError(
            "create_snapshot", work.vm.id, f"{why}, and its tag {request.tag} is not to be found"
        )
    adopted = VmSnapshot(ref, ConsistencyLevel.CRASH, state.location, context.now_s())
    if work.policy is QuiescePolicy.REQUIRE:
        work.snapshot = adopted  # to be removed with the group, not to be relied on
        raise UnknownOutcomeError(
            "create_snapshot",
            work.vm.id,
            f"{why}; the snapshot exists, but nobody can say that the guest was frozen",
        )
    context.emit(Kind.LATE_SUCCESS, work.outcome.group_id, work.vm.id, request.tag)
    if request.quiesce:
        work.outcome.degraded = True
        context.fallbacks += 1
    return adopted


async def _look_for(
    context: Context, work: VmWork, tag: str, patience_s: float
) -> VmSnapshotState | None:
    """The VM's snapshots as soon as the tag is among them, or when it is time to give up."""
    give_up_s = context.now_s() + patience_s
    pause_s = 1.0
    while True:
        state = await state_of(context, work)
        settled = state is not None and state.operation_running is False
        if settled or tagged(state, tag) is not None or context.now_s() >= give_up_s:
            return state
        await asyncio.sleep(min(pause_s, give_up_s - context.now_s()))
        pause_s *= 2


async def state_of(context: Context, work: VmWork) -> VmSnapshotState | None:
    """The VM's snapshots as the hypervisor lists them now; None when it gives no answer."""
    try:
        async with asyncio.timeout(context.spec.timeouts.query):
            states = await work.driver.list_snapshots([work.vm.id])
    except (TimeoutError, DriverError):
        return None
    return states[0] if states else None


async def list_patiently(
    context: Context, group_id: str, driver: HypervisorDriver, vm_ids: Sequence[VmId]
) -> list[VmSnapshotState] | None:
    """The states of these VMs, asking again when there is no answer; None when there is never."""
    for attempt in range(1, context.spec.retry.attempts + 1):
        try:
            async with asyncio.timeout(context.spec.timeouts.query):
                return await driver.list_snapshots(vm_ids)
        except (TimeoutError, DriverError) as error:
            reason = str(error) or "no answer in time"
            context.emit(Kind.CALL_RETRIED, group_id, "list_snapshots", reason)
        if attempt < context.spec.retry.attempts:
            await context.pause(attempt)
    return None


def tagged(state: VmSnapshotState | None, tag: str) -> VmSnapshotRef | None:
    """The snapshot with this tag, if it is listed."""
    if state is not None:
        for ref in state.snapshots:
            if ref.tag == tag:
                return ref
    return None


def _opened(context: Context, work: VmWork, snapshot: VmSnapshot) -> None:
    outcome = work.outcome
    outcome.level = snapshot.level
    outcome.quiesce = snapshot.quiesce
    outcome.stun_create = snapshot.stun
    outcome.opened_s = snapshot.created_s
    context.emit(Kind.VM_SNAPSHOT_CREATED, outcome.group_id, outcome.vm_id, str(snapshot.level))


def _failed(context: Context, work: VmWork, reason: str) -> None:
    outcome = work.outcome
    outcome.reason = reason
    context.emit(Kind.VM_SNAPSHOT_FAILED, outcome.group_id, outcome.vm_id, reason)


def _hint_s(error: DidNotHappenError) -> float | None:
    return error.retry_after_s if isinstance(error, BusyError) else None


async def release_vm(context: Context, work: VmWork) -> None:
    """Remove the VM's snapshot and have its delta merged; repeats until it is gone or given up.

    Works in the places that it finds taken. Never raises for a driver's failure: what could not be
    removed is marked as left behind. The intent stays open until somebody has looked.
    """
    assert work.snapshot is not None, "only opened VMs are released"  # noqa: S101
    await remove_vm_snapshot(context, work, work.snapshot.ref)


async def remove_vm_snapshot(context: Context, work: VmWork, ref: VmSnapshotRef) -> str:
    """Remove one snapshot of ours; the last problem, or "" when it is gone and merged.

    Works in the places that it finds taken. The intent stays open: a hypervisor may report as
    merged what is not, or somebody else have removed it, so it is settled after the next look.
    """
    outcome = work.outcome
    for attempt in range(1, context.spec.retry.attempts + 1):
        problem, pause_s = await _remove_once(context, work, ref)
        if not problem:
            outcome.left_behind = False
            return ""
        context.emit(Kind.CALL_RETRIED, outcome.group_id, outcome.vm_id, problem)
        if attempt < context.spec.retry.attempts:
            await _line_up_again(context, work, attempt, pause_s)
    outcome.left_behind = True
    context.emit(Kind.VM_RELEASE_FAILED, outcome.group_id, outcome.vm_id, problem)
    return problem


async def _remove_once(
    context: Context, work: VmWork, ref: VmSnapshotRef
) -> tuple[str, float | None]:
    """One attempt: the problem ("" when the snapshot is gone), and how long to wait at least."""
    outcome = work.outcome
    context.journal.check()
    now_s = context.now_s()
    if outcome.removal_s is None:
        outcome.removal_s = now_s
    context.log.add(now_s, Kind.VM_RELEASE_REQUESTED, outcome.group_id, outcome.vm_id, ref.tag)
    try:
        async with asyncio.timeout(context.spec.timeouts.remove):
            merged = await work.driver.remove_snapshot(ref)
    except NotFoundError as error:
        # Gone by an earlier attempt, or by somebody else's hand: either may have left its delta.
        return await _after_lost_answer(context, work, ref, error), None
    except HappenedError:
        return await _consolidate(context, work), None
    except (TimeoutError, UnknownOutcomeError) as error:
        return await _after_lost_answer(context, work, ref, error), None
    except DriverError as error:
        return error.reason, _hint_s(error) if isinstance(error, DidNotHappenError) else None
    outcome.delta_bytes = merged.delta_bytes
    outcome.merged_bytes = merged.merged_bytes
    outcome.passes = merged.passes
    outcome.stun_remove = merged.stun
    _released(context, work)
    return "", None


async def _after_lost_answer(
    context: Context, work: VmWork, ref: VmSnapshotRef, error: Exception
) -> str:
    """The problem that is left of a removal whose answer was lost, or "" when there is none."""
    try:
        async with asyncio.timeout(context.spec.timeouts.query):
            states = await work.driver.list_snapshots([work.vm.id])
    except (TimeoutError, DriverError):
        return str(error) or "no answer in time"
    for state in states:  # none when the VM itself is gone, and its snapshots with it
        if tagged(state, ref.tag) is not None:
            return str(error) or "no answer in time"
        if state.needs_consolidation:
            return await _consolidate(context, work)
    context.emit(Kind.LATE_SUCCESS, work.outcome.group_id, work.vm.id, ref.tag)
    _released(context, work)
    return ""


async def tidy_vm(context: Context, work: VmWork) -> str:
    """Merge what is left of a delta after the VM's snapshot is gone; the problem, or ""."""
    await context.limiter.acquire(work.remove_scopes)
    try:
        problem = await _consolidate(context, work)
    finally:
        context.limiter.release(work.remove_scopes)
    if problem:
        work.outcome.left_behind = True
        context.emit(Kind.VM_RELEASE_FAILED, work.outcome.group_id, work.vm.id, problem)
    return problem


async def _consolidate(context: Context, work: VmWork) -> str:
    """Merge what a removed snapshot left; the problem, or "" when there is none."""
    context.journal.check()
    context.fallbacks += 1
    try:
        async with asyncio.timeout(context.spec.timeouts.remove):
            await work.driver.consolidate(work.vm.id)
    except (TimeoutError, DriverError) as error:
        return f"its delta is not merged: {error or 'no answer in time'}"
    _released(context, work)
    return ""


def _released(context: Context, work: VmWork) -> None:
    work.outcome.merged_s = context.now_s()
    context.log.add(
        work.outcome.merged_s, Kind.VM_RELEASE_COMPLETED, work.outcome.group_id, work.vm.id, ""
    )
