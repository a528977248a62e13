"""Cutting units: one atomic call per group and array, within what the array can do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from ..drivers.contracts import (
    ArrayDriver,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
)
from ..drivers.errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    HappenedError,
    NeverWillError,
    NotFoundError,
    PoolFullError,
    UnknownOutcomeError,
)
from ..drivers.records import ArrayId, UnitId
from .context import Context
from .events import Kind
from .journal import Intent, IntentKind
from .limits import Scope
from .result import ArrayCall


def batches(
    together: Iterable[Sequence[UnitId]], units: Sequence[UnitId], limit: int | None
) -> list[list[UnitId]]:
    """Divide the units of one array into calls of at most ``limit`` units.

    Parameters
    ----------
    together:
        For each VM its units on this array: they stay in one call wherever the limit allows it.
    units:
        All units to cut, in order.
    limit:
        Most units per call; None for no limit.
    """
    if limit is None or len(units) <= limit:
        return [list(units)]
    batch: list[UnitId] = []
    done = []
    for piece in _pieces(together, units):
        for start in range(0, len(piece), limit):
            part = piece[start : start + limit]
            if len(batch) + len(part) > limit:
                done.append(batch)
                batch = []
            batch.extend(part)
    done.append(batch)
    return [units for units in done if units]


def _pieces(together: Iterable[Sequence[UnitId]], units: Sequence[UnitId]) -> list[list[UnitId]]:
    """Connected pieces of the units under "some VM needs both", in order of first unit."""
    leader = {unit: unit for unit in units}

    def find(unit: UnitId) -> UnitId:
        while leader[unit] != unit:
            leader[unit] = leader[leader[unit]]
            unit = leader[unit]
        return unit

    for needed in together:
        for unit in needed[1:]:
            leader[find(unit)] = find(needed[0])
    pieces: dict[UnitId, list[UnitId]] = {}
    for unit in units:
        pieces.setdefault(find(unit), []).append(unit)
    return list(pieces.values())


class PartialGroupError(DriverError):
    """The array made a snapshot, and not of all the units that it was asked for.

    It protects nobody, and a repetition under its tag would return it again: its intent stays open
    and has it deleted at the end of the job, when no VM waits for that.
    """


class ArrayCutter:
    """Issues group snapshot calls; keeps to each array's limit on calls at once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._scopes: dict[ArrayId, tuple[Scope, ...]] = {}

    async def cut(self, group_id: str, array_id: ArrayId, unit_ids: Sequence[UnitId]) -> ArrayCall:
        """One group snapshot; the returned call has either ``ref`` or ``error`` set."""
        context = self._context
        tag = context.new_tag()
        call = ArrayCall(array_id, group_id, tag, tuple(unit_ids), context.now_s())
        scopes = self._scopes_of(array_id)
        call.wait_s = await context.limiter.acquire(scopes)
        try:
            await self._attempts(call, context.arrays[array_id])
        finally:
            context.limiter.release(scopes)
        return call

    def _scopes_of(self, array_id: ArrayId) -> tuple[Scope, ...]:
        scopes = self._scopes.get(array_id)
        if scopes is None:
            capacity = self._context.arrays[array_id].capabilities.group_operations
            wanted = self._context.spec.limits.calls_per_array
            if wanted is not None:
                capacity = min(capacity, wanted)
            scope = self._context.limiter.scope("calls_per_array", array_id, capacity)
            scopes = self._scopes[array_id] = (scope,) if scope is not None else ()
        return scopes

    async def _attempts(self, call: ArrayCall, driver: ArrayDriver) -> None:
        context = self._context
        in_doubt = False
        while True:
            call.attempts += 1
            self._intend(call)
            try:
                _completed(context, call, await self._once(call, driver))
                return
            except DriverError as error:
                in_doubt = in_doubt or not isinstance(error, DidNotHappenError | NeverWillError)
                if not in_doubt:
                    context.journal.settle(call.tag)
                if isinstance(error, NeverWillError | PoolFullError | PartialGroupError):
                    _failed(context, call, str(error))
                    return
                if call.attempts >= context.spec.retry.attempts:
                    _failed(context, call, f"{error}; gave up after {call.attempts} attempts")
                    return
                # Repeating is safe even where the outcome is unknown: a create with a tag that
                # exists returns that snapshot (contract of snapshot_group).
                context.emit(Kind.CALL_RETRIED, call.group_id, call.array_id, error.reason)
                hint_s = error.retry_after_s if isinstance(error, BusyError) else None
                await context.pause(call.attempts, hint_s)

    def _intend(self, call: ArrayCall) -> None:
        context, array_id = self._context, call.array_id
        now_s = context.now_s()
        context.journal.intend(
            Intent(call.tag, IntentKind.ARRAY_SNAPSHOT, array_id, array_id, now_s)
        )
        units = " ".join(call.unit_ids)
        context.log.add(now_s, Kind.ARRAY_SNAPSHOT_REQUESTED, call.group_id, array_id, units)

    async def _once(self, call: ArrayCall, driver: ArrayDriver) -> GroupSnapshot:
        timeouts = self._context.spec.timeouts
        request = GroupSnapshotRequest(call.unit_ids, call.tag, timeouts.fence)
        try:
            async with asyncio.timeout(timeouts.array):
                snapshot = await driver.snapshot_group(request)
        except TimeoutError:
            return await self._listed(call, driver, "no answer in time")
        except (UnknownOutcomeError, HappenedError) as error:
            return await self._listed(call, driver, error.reason)
        return _whole(call, snapshot)

    async def _listed(self, call: ArrayCall, driver: ArrayDriver, why: str) -> GroupSnapshot:
        """The snapshot whose answer was lost, as the array lists it."""
        try:
            async with asyncio.timeout(self._context.spec.timeouts.query):
                listed = await driver.list_snapshots(call.tag)
        except TimeoutError:
            listed = []
        for snapshot in listed:
            if snapshot.ref.tag == call.tag:
                self._context.emit(Kind.LATE_SUCCESS, call.group_id, call.array_id, call.tag)
                return _whole(call, snapshot)
        raise UnknownOutcomeError(
            "snapshot_group", call.array_id, f"{why}, and its tag {call.tag} is not to be found"
        )


async def list_array_patiently(
    context: Context, group_id: str, array_id: ArrayId
) -> list[GroupSnapshot] | None:
    """This job's snapshots on an array, asking again when there is no answer; None: never any."""
    for attempt in range(1, context.spec.retry.attempts + 1):
        try:
            async with asyncio.timeout(context.spec.timeouts.query):
                return await context.arrays[array_id].list_snapshots(context.tag_prefix)
        except (TimeoutError, DriverError) as error:
            reason = str(error) or "no answer in time"
            context.emit(Kind.CALL_RETRIED, group_id, array_id, reason)
        if attempt < context.spec.retry.attempts:
            await context.pause(attempt)
    return None


async def delete_array_snapshot(context: Context, group_id: str, ref: GroupSnapshotRef) -> str:
    """Delete one of our array snapshots; the last problem, or "" when it is certainly gone."""
    problem = ""
    for attempt in range(1, context.spec.retry.attempts + 1):
        context.journal.check()
        try:
            async with asyncio.timeout(context.spec.timeouts.array):
                await context.arrays[ref.array_id].delete_snapshot(ref)
        except NotFoundError:
            pass
        except (TimeoutError, DriverError) as error:
            problem = str(error) or "no answer in time"
            context.emit(Kind.CALL_RETRIED, group_id, ref.array_id, problem)
            if isinstance(error, NeverWillError) or attempt == context.spec.retry.attempts:
                return problem
            await context.pause(attempt)
            continue
        context.journal.settle(ref.tag)
        context.emit(Kind.ARRAY_SNAPSHOT_DISCARDED, group_id, ref.array_id, ref.tag)
        return ""
    return problem


def _whole(call: ArrayCall, snapshot: GroupSnapshot) -> GroupSnapshot:
    """The snapshot, if it is what was asked for: a group is cut as a whole or not at all."""
    if snapshot.ref.tag != call.tag:
        reason = f"it answered with snapshot {snapshot.ref.tag} when asked for {call.tag}"
        raise PartialGroupError("snapshot_group", call.array_id, reason)
    held = frozenset(snapshot.unit_ids)
    missing = [unit_id for unit_id in call.unit_ids if unit_id not in held]
    if missing:
        reason = (
            f"its snapshot {call.tag} lacks {len(missing)} of {len(call.unit_ids)} units, "
            f"among them {missing[0]}"
        )
        raise PartialGroupError("snapshot_group", call.array_id, reason)
    return snapshot


def _completed(context: Context, call: ArrayCall, snapshot: GroupSnapshot) -> None:
    call.completed_s = context.now_s()
    call.cut_s = snapshot.cut_s
    call.fence = snapshot.fence
    call.ref = snapshot.ref
    context.emit(
        Kind.ARRAY_SNAPSHOT_COMPLETED, call.group_id, call.array_id, " ".join(snapshot.unit_ids)
    )


def _failed(context: Context, call: ArrayCall, reason: str) -> None:
    call.error = reason
    context.emit(Kind.ARRAY_SNAPSHOT_FAILED, call.group_id, call.array_id, reason)
