"""What there is after a call whose caller stopped waiting, or whose answer was lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from ...drivers.contracts import (
    ArrayDriver,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
)
from ...drivers.errors import (
    DidNotHappenError,
    DriverError,
    HappenedError,
    NeverWillError,
    NotFoundError,
    PoolFullError,
    UnknownOutcomeError,
)
from ...drivers.records import UnitId
from ..array_bench import ArrayBench, BenchUnit
from ..requirement import Blocked, NotTested
from .array_device import DEVICE_LIMIT_S

T = TypeVar("T")

LOOK_S = 0.05
"""How often to look again for what may still come."""
SETTLE_S = 15.0
"""For so long to wait for what a check leaves on its way."""
LATER_S = 3.0
"""For so long nothing may come of a call that is told not to have happened."""


async def duration_s(bench: ArrayBench, *units: BenchUnit) -> float:
    """How long a group snapshot of these units takes now, in seconds; it is deleted again."""
    start_s = bench.now_s()
    made = await bench.cut(*units)
    took_s = bench.now_s() - start_s
    await bench.delete(made.ref)
    return took_s


def moments_s(bench: ArrayBench, within_s: float, most: int) -> list[float]:
    """Moments all over a time, in seconds: more of them late, when most has been done.

    One in each of so many parts, whose widths fall towards the end as those of equal shares of a
    square do.
    """
    count = min(bench.effort.repeats, most)
    shares = [(part + bench.rng.random()) / count for part in range(count)]
    return [within_s * share**0.5 for share in shares]


async def cut_short(call: Coroutine[Any, Any, Any], after_s: float) -> bool:
    """Stop waiting for a call after a time; whether it was still on its way.

    Raises
    ------
    Blocked
        It failed before.
    """
    task = asyncio.create_task(call)
    try:
        await asyncio.wait({task}, timeout=after_s)
    finally:
        on_its_way = not task.done()
        task.cancel()
    await asyncio.wait({task})
    error = None if task.cancelled() else task.exception()
    if isinstance(error, DriverError) and not on_its_way:
        raise Blocked(f"a call failed before its caller stopped waiting: {error}")
    if error is not None and not isinstance(error, DriverError):
        raise error
    return on_its_way


def needs_one(interrupted: int, what: str) -> None:
    """Raises NotTested when no call was still on its way."""
    if not interrupted:
        raise NotTested(f"every {what} was over before its caller could stop waiting")


async def outcome(call: Coroutine[Any, Any, T]) -> T | DriverError:
    """What came of a call: its answer or the driver's error."""
    try:
        return await call
    except DriverError as error:
        return error


@asynccontextmanager
async def fresh(bench: ArrayBench) -> AsyncIterator[ArrayDriver]:
    """A new connection, so that nothing depends on what became of the old one."""
    context = bench.another_driver()
    driver = await context.__aenter__()
    try:
        yield driver
    finally:
        with contextlib.suppress(DriverError):  # the system may have ended it already
            await context.__aexit__(None, None, None)


async def again(
    bench: ArrayBench, driver: ArrayDriver, request: GroupSnapshotRequest, when: str
) -> GroupSnapshot:
    """The snapshot of a tag: the call is repeated as long as the driver says that it may be.

    Raises
    ------
    Violation
        It is refused for good, or for too long.
    """
    made: list[GroupSnapshot] = []
    said: list[DriverError] = []

    async def taken() -> bool:
        try:
            made.append(await driver.snapshot_group(request))
        except PoolFullError:
            raise
        except (DidNotHappenError, HappenedError, UnknownOutcomeError) as error:
            said.append(error)
        return bool(made)

    limit_s = bench.effort.call_timeout_s
    if not await bench.until(taken, limit_s, LOOK_S):
        last = f"{type(said[-1]).__name__}: {said[-1]}"
        bench.expect(False, f"a group snapshot {when} is refused for {limit_s:g} s", last=last)
    return made[0]


async def settle(bench: ArrayBench, driver: ArrayDriver, request: GroupSnapshotRequest) -> None:
    """Leave nothing on its way: call again until the tag has its snapshot, or never will.

    Whatever goes wrong with that is another requirement's business.
    """

    async def over() -> bool:
        said = await outcome(driver.snapshot_group(request))
        return isinstance(said, GroupSnapshot | NeverWillError)

    await bench.until(over, SETTLE_S, LOOK_S)


async def under(bench: ArrayBench, driver: ArrayDriver, tag: str) -> list[GroupSnapshot]:
    """What is listed under exactly this tag. Raises Blocked when listing fails."""
    found = await bench.setup(driver.list_snapshots(tag), "listing snapshots")
    return [one for one in found if one.ref.tag == tag]


async def members(bench: ArrayBench) -> frozenset[str] | None:
    """What the array holds; None where the target cannot say."""
    if not bench.target.offers("snapshots_on_device"):
        return None
    return await bench.target.snapshots_on_device()


async def expect_once(
    bench: ArrayBench,
    driver: ArrayDriver,
    request: GroupSnapshotRequest,
    before: frozenset[str] | None,
    when: str,
) -> GroupSnapshot:
    """One whole snapshot is listed under a tag, and the array holds no more than that.

    Parameters
    ----------
    before:
        What the array held before; None for not known.
    """
    found = await under(bench, driver, request.tag)
    bench.expect(len(found) == 1, f"{len(found)} snapshots are listed under one tag {when}")
    expect_whole(bench, found[0], request.unit_ids, when)
    await expect_more(bench, before, len(set(request.unit_ids)), when)
    return found[0]


def expect_whole(
    bench: ArrayBench, found: GroupSnapshot, unit_ids: tuple[UnitId, ...], when: str
) -> None:
    """A snapshot that is listed has all its units."""
    lacking = sorted(set(unit_ids) - set(found.unit_ids))
    bench.expect(not lacking, f"a snapshot lacks units {when}", lacking=lacking)


async def expect_more(
    bench: ArrayBench, before: frozenset[str] | None, wanted: int, when: str
) -> None:
    """The array holds so many snapshots more than before; it has time to clear up first."""
    if before is None:
        return
    base = before

    async def right() -> bool:
        return len(await bench.target.snapshots_on_device() - base) == wanted

    if await bench.until(right, DEVICE_LIMIT_S, LOOK_S):
        return
    more = sorted(await bench.target.snapshots_on_device() - base)
    bench.expect(
        len(more) == wanted,
        f"the array holds {len(more)} snapshots instead of {wanted} {when}",
        more=more,
    )


async def remove(bench: ArrayBench, driver: ArrayDriver, ref: GroupSnapshotRef, when: str) -> None:
    """Delete until it is done: repeated as long as the driver says that it may be.

    Raises
    ------
    Violation
        It is refused for too long.
    """
    said: list[DriverError] = []

    async def gone() -> bool:
        try:
            await driver.delete_snapshot(ref)
        except (NotFoundError, HappenedError):
            return True
        except (DidNotHappenError, UnknownOutcomeError) as error:
            said.append(error)
            return False
        return True

    limit_s = bench.effort.call_timeout_s
    if not await bench.until(gone, limit_s, LOOK_S):
        last = f"{type(said[-1]).__name__}: {said[-1]}"
        bench.expect(False, f"a deletion {when} is refused for {limit_s:g} s", last=last)


async def answers(bench: ArrayBench, what: str) -> None:
    """The connection that was open serves again within the limit."""
    said: list[str] = []

    async def served() -> bool:
        answer = await outcome(bench.driver.list_snapshots(bench.tag_prefix))
        if isinstance(answer, DriverError):
            said.append(f"{type(answer).__name__}: {answer}")
            return False
        return True

    limit_s = bench.effort.call_timeout_s
    served_again = await bench.until(served, limit_s, LOOK_S)
    last = said[-1:]
    bench.expect(served_again, f"a connection is of no use for {limit_s:g} s {what}", last=last)


async def during(
    bench: ArrayBench,
    request: GroupSnapshotRequest,
    after_s: float,
    what: Callable[[], Awaitable[None]],
) -> GroupSnapshot | DriverError:
    """What came of a group snapshot during which something happens to the system."""
    async with fresh(bench) as driver:
        call = asyncio.create_task(outcome(driver.snapshot_group(request)))
        await asyncio.wait({call}, timeout=after_s)
        try:
            await what()
        finally:
            await asyncio.wait({call})
    return await call


async def told_truly(
    bench: ArrayBench, request: GroupSnapshotRequest, said: GroupSnapshot | DriverError, what: str
) -> bool:
    """What a call said of itself is so: made is listed, and not made never comes.

    Returns whether its snapshot was there first of all.
    """
    async with fresh(bench) as driver:
        there = bool(await under(bench, driver, request.tag))
        if isinstance(said, GroupSnapshot | HappenedError):
            bench.expect(there, f"a call took effect {what}, and its snapshot is not there")
        elif isinstance(said, DidNotHappenError | NeverWillError):

            async def came() -> bool:
                return bool(await under(bench, driver, request.tag))

            name = type(said).__name__
            bench.expect(
                not await bench.until(came, LATER_S, LOOK_S),
                f"a call raised {name} {what}, and its snapshot is there",
                said=str(said),
            )
        else:
            await settle(bench, driver, request)
        return there
