"""What is true of a VM once nothing works on it any more, and whether a driver has told it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from ...drivers.contracts import HypervisorDriver, MergeResult, VmSnapshot, VmSnapshotState
from ...drivers.errors import (
    DidNotHappenError,
    DriverError,
    HappenedError,
    NeverWillError,
    NotFoundError,
)
from ..hypervisor_bench import HypervisorBench
from ..requirement import Blocked, Violation

SETTLE_S = 120.0
"""How long a system may work on what was asked of it, when somebody has stopped waiting for it."""
LATER_S = 4.0
"""For how long it is looked whether something changes after nothing is under way any more."""
THAW_S = 5.0
"""How long a guest may stay frozen when nothing works on it: VSS lets go of writes after 10 s."""
_QUIET_S = 5.0
"""Of a driver that cannot tell whether something is under way: so long nothing has to change."""
_LOOK_S = 0.1


async def told(call: Awaitable[VmSnapshot]) -> VmSnapshot | DriverError:
    """What a driver says came of a create."""
    try:
        return await call
    except DriverError as error:
        return error


async def told_of_removal(call: Awaitable[MergeResult]) -> MergeResult | DriverError:
    """What a driver says came of a removal."""
    try:
        return await call
    except DriverError as error:
        return error


async def look(bench: HypervisorBench, role: str) -> VmSnapshotState | None:
    """What is listed for a VM, on a new connection if need be; None when it cannot be listed."""
    try:
        return await bench.state(role)
    except Blocked:
        pass
    try:
        async with bench.another_driver() as driver:
            (state,) = await driver.list_snapshots([bench.ids[role]])
            return state
    except (Blocked, DriverError, ValueError):
        return None


async def settled(bench: HypervisorBench, role: str) -> VmSnapshotState:
    """What is listed for a VM once nothing is queued or under way on it.

    Raises
    ------
    Violation
        It does not come to an end.
    Blocked
        It cannot be listed.
    """
    end_s = bench.now_s() + SETTLE_S
    last: VmSnapshotState | None = None
    since_s = bench.now_s()
    while True:
        state = await look(bench, role)
        if state is None or last is None or _shows(state) != _shows(last):
            since_s = bench.now_s()
        last = state
        if state is not None and state.operation_running is False:
            return state
        quiet_s = bench.now_s() - since_s
        if state is not None and state.operation_running is None and quiet_s >= _QUIET_S:
            return state
        if bench.now_s() >= end_s:
            if state is None:
                raise Blocked(f"the snapshots of {role} cannot be listed any more")
            raise Violation(f"an operation on {role} has not ended within {SETTLE_S:g} s")
        await asyncio.sleep(_LOOK_S)


def _shows(state: VmSnapshotState) -> tuple[object, ...]:
    return state.snapshots, state.needs_consolidation


async def stays(bench: HypervisorBench, role: str, tag: str, *, listed: bool) -> bool:
    """Whether a tag goes on being listed, or not being listed, for a while."""

    async def changed() -> bool:
        state = await look(bench, role)
        return state is not None and listed is not (tag in tags_of(state))

    return not await bench.until(changed, LATER_S, _LOOK_S)


def tags_of(state: VmSnapshotState) -> list[str]:
    """The names of the snapshots."""
    return [one.tag for one in state.snapshots]


async def expect_truth(
    bench: HypervisorBench, role: str, tag: str, answer: VmSnapshot | DriverError
) -> bool:
    """The driver breaks the requirement if what it said of a create is not so.

    Returns
    -------
    bool
        Whether the snapshot is there.

    Raises
    ------
    Violation
        It is not so, or the operation never ends.
    """
    listed = tag in tags_of(await settled(bench, role))
    said = f"{type(answer).__name__}: {answer}" if isinstance(answer, DriverError) else "success"
    if isinstance(answer, VmSnapshot | HappenedError):
        bench.expect(
            listed, "a create has told that it made a snapshot that is not there", said=said
        )
    elif isinstance(answer, DidNotHappenError | NeverWillError):
        what = "a create has told that it did not happen, and its snapshot exists"
        listed = listed or not await stays(bench, role, tag, listed=False)
        bench.expect(not listed, what, said=said)
    return listed


async def expect_removal_truth(
    bench: HypervisorBench,
    role: str,
    tag: str,
    answer: MergeResult | DriverError,
    *,
    loose: bool = False,
) -> bool:
    """The driver breaks the requirement if what it said of a removal is not so.

    Parameters
    ----------
    loose:
        The VM needed consolidation before.

    Returns
    -------
    bool
        Whether the snapshot is still there.

    Raises
    ------
    Violation
        It is not so, or the operation never ends.
    """
    state = await settled(bench, role)
    listed = tag in tags_of(state)
    said = f"{type(answer).__name__}: {answer}" if isinstance(answer, DriverError) else "success"
    if not isinstance(answer, DriverError):
        done = not listed and (loose or not state.needs_consolidation)
        bench.expect(done, "a removal has told that it is finished, and it is not", said=said)
    elif isinstance(answer, NotFoundError | HappenedError):
        what = "a removal has told that the snapshot is gone, and it is there"
        bench.expect(not listed, what, said=said)
    elif isinstance(answer, DidNotHappenError | NeverWillError):
        listed = listed and await stays(bench, role, tag, listed=True)
        what = "a removal has told that it did not happen, and the snapshot is gone"
        bench.expect(listed, what, said=said)
    return listed


async def finish(bench: HypervisorBench, role: str, tag: str) -> None:
    """Remove a snapshot if it is still there, and merge what it has left.

    Raises
    ------
    Blocked
        That fails.
    """
    state = await settled(bench, role)
    async with _working(bench, role) as driver:
        for ref in state.snapshots:
            if ref.tag == tag:
                await bench.setup(driver.remove_snapshot(ref), f"removing a snapshot of {role}")
        if state.needs_consolidation and bench.capabilities.consolidates:
            await bench.setup(driver.consolidate(state.vm_id), f"consolidating {role}")


@asynccontextmanager
async def _working(bench: HypervisorBench, role: str) -> AsyncIterator[HypervisorDriver]:
    """The connection of the bench, or another one if that does not work any more."""
    try:
        await bench.driver.list_snapshots([bench.ids[role]])
    except DriverError:
        async with bench.another_driver() as driver:
            yield driver
        return
    yield bench.driver


def moments(
    bench: HypervisorBench, whole_s: float, most: int = 8, *, costly: bool = False
) -> list[float]:
    """Times within something that takes so long, each from another part of it.

    Parameters
    ----------
    most:
        How many, if the effort allows so many rounds.
    costly:
        A round may take a system or a guest down and up again, and counts four times.
    """
    count = max(2, min(most, bench.effort.rounds // (4 if costly else 1)))
    return [whole_s * (part + bench.rng.random()) / count for part in range(count)]


async def create_s(bench: HypervisorBench, role: str) -> float:
    """How long a quiesced create takes."""
    start_s = bench.now_s()
    made = await bench.create(role)
    took_s = bench.now_s() - start_s
    await bench.remove(made.ref)
    return took_s


async def remove_s(bench: HypervisorBench, role: str) -> float:
    """How long a removal takes of a snapshot that has just been made."""
    made = await bench.create(role)
    start_s = bench.now_s()
    await bench.remove(made.ref)
    return bench.now_s() - start_s


async def thaws(bench: HypervisorBench, role: str, since_s: float) -> bool:
    """Whether every freeze of the guest since then has ended, or does at once."""

    async def thawed() -> bool:
        spans = await bench.target.frozen_spans(bench.vms[role], since_s)
        return all(one.end_s <= bench.now_s() for one in spans)

    return await bench.until(thawed, THAW_S)
