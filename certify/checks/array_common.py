"""What the checks of array drivers share: groups that fit the limits, calls at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

from ...drivers.contracts import GroupSnapshot
from ...drivers.errors import BusyError, DriverError
from ...drivers.records import UnitId
from ..array_bench import ArrayBench, BenchUnit
from ..requirement import NotTested

T = TypeVar("T")

SLOW_S = 2.0
"""How much longer a call takes where another one has to fall into it."""
PATIENCE_S = 60.0
"""How long what was refused as busy may stay busy when nothing goes on any more."""
_PAUSE_S = 0.05


def largest_group(bench: ArrayBench) -> int:
    """The most scratch units that one group can hold."""
    limit = bench.capabilities.units_per_group
    return len(bench.units) if limit is None else min(limit, len(bench.units))


def group_of(bench: ArrayBench, count: int) -> tuple[BenchUnit, ...]:
    """The first scratch units, as many as asked for.

    Raises
    ------
    NotTested
        The array does not take so many in one group.
    """
    if largest_group(bench) < count:
        limit = bench.capabilities.units_per_group
        raise NotTested(f"it takes groups of {count} units, and the driver declares {limit}")
    return bench.units[:count]


def room_for(bench: ArrayBench, count: int) -> None:
    """Make sure that a unit can carry so many snapshots.

    Raises
    ------
    NotTested
        The driver declares a lower limit.
    """
    limit = bench.capabilities.snapshots_per_unit
    if limit is not None and limit < count:
        raise NotTested(f"it takes {count} snapshots of a unit, and the driver declares {limit}")


async def together(calls: Iterable[Awaitable[T]]) -> list[T | DriverError]:
    """What came of calls that run at once, in order: the answer or the driver's error.

    Anything else that was raised is raised, when all calls have ended.
    """
    came = await asyncio.gather(*calls, return_exceptions=True)
    answers: list[T | DriverError] = []
    for one in came:
        if isinstance(one, BaseException) and not isinstance(one, DriverError):
            raise one
        answers.append(one)
    return answers


async def ended(task: asyncio.Future[Any]) -> None:
    """Wait for the end of a task, whatever comes of it."""
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # seen


async def in_the_end(bench: ArrayBench, tag: str, group: tuple[BenchUnit, ...]) -> GroupSnapshot:
    """A snapshot that may be refused as busy some times more.

    Raises
    ------
    Violation
        It stays busy.
    """
    end_s = bench.now_s() + PATIENCE_S
    while True:
        try:
            return await bench.driver.snapshot_group(bench.request(*group, tag=tag))
        except BusyError as error:
            sentence = f"a group is refused as busy for {PATIENCE_S:g} s while nothing goes on"
            bench.expect(bench.now_s() < end_s, sentence, said=str(error))
            await asyncio.sleep(min(max(_PAUSE_S, error.retry_after_s or 0.0), 1.0))


def made_or_busy(
    bench: ArrayBench, came: Iterable[GroupSnapshot | DriverError], doing: str
) -> dict[str, GroupSnapshot]:
    """The snapshots that calls at once made, by tag; the others have to be refused as busy."""
    made = {}
    for one in came:
        if isinstance(one, GroupSnapshot):
            made[one.ref.tag] = one
        else:
            said = f"{type(one).__name__}: {one}"
            bench.expect(isinstance(one, BusyError), f"{doing} was not refused as busy", said=said)
    return made


def units_of(snapshot: GroupSnapshot) -> set[UnitId]:
    """The units that a snapshot names."""
    return set(snapshot.unit_ids)


def ids_of(units: Iterable[BenchUnit]) -> set[UnitId]:
    """The driver's identifiers of scratch units."""
    return {unit.id for unit in units}


def expect_answer(
    bench: ArrayBench, made: GroupSnapshot, tag: str, group: tuple[BenchUnit, ...]
) -> None:
    """The driver breaks the requirement unless a snapshot has this tag and just these units."""
    wanted, got = [unit.id for unit in group], list(made.unit_ids)
    bench.expect(made.ref.tag == tag, f"asked for tag {tag}, it answers with {made.ref.tag}")
    sentence = "it answers with other units than were asked for"
    bench.expect(sorted(got) == sorted(wanted), sentence, asked=wanted, got=got)
