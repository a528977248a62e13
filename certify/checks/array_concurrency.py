"""Concurrency: calls at once are done or refused as busy, and nothing gets lost between them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ...drivers.contracts import ArrayDriver, GroupSnapshot, GroupSnapshotRef
from ...drivers.errors import BusyError, DriverError, NeverWillError, NotFoundError
from ..array_bench import ArrayBench, BenchUnit
from ..requirement import Level, NotTested, Topic
from .array_common import (
    SLOW_S,
    expect_answer,
    group_of,
    in_the_end,
    made_or_busy,
    room_for,
    together,
    units_of,
)

TOPIC: Topic[ArrayBench] = Topic("concurrency", "ARR-CON")

MOST_AT_ONCE = 12
"""Calls that are made at once where the driver declares that it takes more."""


@TOPIC.shall(
    1,
    Level.CORE,
    "A driver shall make as many groups of different units at once as it declares in "
    "group_operations.",
    units=2,
)
async def declared_at_once(bench: ArrayBench) -> None:
    declared = bench.capabilities.group_operations
    count = min(declared, len(bench.units))
    if count < 2:
        raise NotTested(f"the driver declares {declared} group calls at once")
    for _ in range(bench.effort.repeats):
        calls = [bench.driver.snapshot_group(bench.request(unit)) for unit in bench.units[:count]]
        came = await together(calls)
        for unit, one in zip(bench.units, came, strict=False):
            said = f"{type(one).__name__}: {one}"
            sentence = f"of {count} groups at once one was refused; it declares {declared}"
            bench.expect(isinstance(one, GroupSnapshot), sentence, said=said, unit=unit.id)
        for one in came:
            if isinstance(one, GroupSnapshot):
                await bench.delete(one.ref)
    bench.note(at_once=count, rounds=bench.effort.repeats)


@TOPIC.shall(
    2,
    Level.CORE,
    "A driver shall make each of more groups at once than it declares, or refuse it with "
    "BusyError; it lists those that it made.",
    units=2,
)
async def more_than_declared(bench: ArrayBench) -> None:
    count = min(bench.capabilities.group_operations + 3, MOST_AT_ONCE)
    room_for(bench, -(-count // len(bench.units)))
    groups = [(bench.units[number % len(bench.units)],) for number in range(count)]
    await _made_or_busy(bench, groups, "one of many groups at once")


@TOPIC.shall(
    3,
    Level.GROUP,
    "A driver shall make each of several groups at once that have units in common whole, or refuse "
    "it with BusyError; it lists those that it made.",
    units=3,
)
async def overlapping(bench: ArrayBench) -> None:
    room_for(bench, 3)
    first, second, third = group_of(bench, 3)
    for _ in range(bench.effort.repeats):
        groups = [(first, second), (second, third), (third, first, second)]
        bench.rng.shuffle(groups)
        await _made_or_busy(bench, groups, "one of several groups with common units")


async def _made_or_busy(
    bench: ArrayBench, groups: Sequence[Sequence[BenchUnit]], doing: str
) -> None:
    requests = [bench.request(*group) for group in groups]
    came = await together([bench.driver.snapshot_group(one) for one in requests])
    made = made_or_busy(bench, came, doing)
    bench.expect(made, f"all of {len(groups)} groups at once were refused")
    held = await bench.listed()
    wrong = sorted(set(held) ^ set(made))
    bench.expect(not wrong, "what is listed is not what was answered to have been made", tags=wrong)
    for request in requests:
        if request.tag in made:
            group = tuple(unit for unit in bench.units if unit.id in request.unit_ids)
            expect_answer(bench, made[request.tag], request.tag, group)
            expect_answer(bench, held[request.tag], request.tag, group)
            await bench.delete(made[request.tag].ref)
    bench.note(asked=len(groups), made=len(made))


@TOPIC.shall(
    4,
    Level.CORE,
    "A driver shall make what it refused with BusyError when it is asked again and nothing else "
    "goes on.",
    units=3,
)
async def not_busy_for_ever(bench: ArrayBench) -> None:
    room_for(bench, 4)
    group = group_of(bench, 3)
    requests = [bench.request(*group) for _ in range(4)]
    came = await together([bench.driver.snapshot_group(one) for one in requests])
    busy = 0
    for request, one in zip(requests, came, strict=True):
        if isinstance(one, BusyError):
            busy += 1
            expect_answer(bench, await in_the_end(bench, request.tag, group), request.tag, group)
        elif isinstance(one, DriverError):
            bench.expect(False, f"a group was not refused as busy: {type(one).__name__}: {one}")
    if not busy:
        raise NotTested("the driver refused none of several calls at once as busy")
    held = await bench.listed()
    bench.expect(set(held) == {one.tag for one in requests}, "not all of them are listed")
    bench.note(refused_at_first=busy)


@TOPIC.shall(
    5,
    Level.CORE,
    "A driver shall make one snapshot of a tag that several calls at once ask for, and answer each "
    "call with it or with BusyError.",
    units=2,
)
async def one_tag_at_once(bench: ArrayBench) -> None:
    for _ in range(bench.effort.repeats):
        await _one_tag(bench, [bench.driver] * 3)


@TOPIC.shall(
    6,
    Level.CORE,
    "A driver shall make one snapshot of a tag that two connections ask for at once, and answer "
    "each with it or with BusyError.",
    units=2,
)
async def one_tag_on_two_connections(bench: ArrayBench) -> None:
    async with bench.another_driver() as other:
        for _ in range(bench.effort.repeats):
            await _one_tag(bench, [bench.driver, other])


async def _one_tag(bench: ArrayBench, drivers: Sequence[ArrayDriver]) -> None:
    group = group_of(bench, 2)
    request = bench.request(*group)
    came = await together([driver.snapshot_group(request) for driver in drivers])
    made = made_or_busy(bench, came, "a second call with the same tag")
    bench.expect(made, "all calls with the tag were refused")
    refs = {one.ref for one in came if isinstance(one, GroupSnapshot)}
    bench.expect(len(refs) == 1, "a tag names several snapshots", refs=sorted(map(repr, refs)))
    held = await bench.listed()
    bench.expect(list(held) == [request.tag], "not one snapshot is listed", tags=sorted(held))
    bench.expect({held[request.tag].ref} == refs, "another snapshot is listed than was answered")
    for driver in drivers:
        again = await driver.snapshot_group(request)
        bench.expect({again.ref} == refs, "asked again, the tag names another snapshot")
    await bench.delete(held[request.tag].ref)


@TOPIC.shall(
    7,
    Level.CORE,
    "A driver shall make one of several groups that are asked for at once under one tag, and "
    "refuse the others.",
    units=2,
)
async def one_tag_for_two_groups(bench: ArrayBench) -> None:
    tag, groups = bench.tag("both"), bench.units[:2]
    calls = [bench.driver.snapshot_group(bench.request(unit, tag=tag)) for unit in groups]
    came = await together(calls)
    made = [one for one in came if isinstance(one, GroupSnapshot)]
    bench.expect(len(made) == 1, f"a tag was answered with {len(made)} snapshots")
    for one in came:
        if not isinstance(one, GroupSnapshot):
            right = isinstance(one, BusyError | NeverWillError)
            bench.expect(right, f"it was refused with {type(one).__name__}: {one}")
    held = await bench.listed()
    wanted = {tag: units_of(made[0])}
    found = {one: units_of(snapshot) for one, snapshot in held.items()}
    bench.expect(found == wanted, "what is listed is not what was made", tags=sorted(held))


@TOPIC.shall(
    8,
    Level.CORE,
    "A driver shall refuse with BusyError a tag that is being made, or answer with its snapshot.",
    hooks=("slow_calls",),
    units=2,
)
async def tag_being_made(bench: ArrayBench) -> None:
    group = group_of(bench, 2)
    request = bench.request(*group)
    async with bench.target.slow_calls("snapshot_group", SLOW_S):
        making = asyncio.ensure_future(bench.driver.snapshot_group(request))
        try:
            await asyncio.sleep(SLOW_S / 4)
            (second,) = await together([bench.driver.snapshot_group(request)])
        finally:
            (first,) = await together([making])
    bench.expect(isinstance(first, GroupSnapshot), f"the call that made it failed: {first}")
    if isinstance(second, GroupSnapshot):
        bench.expect(second == first, "a tag that is being made is answered with another snapshot")
    else:
        sentence = f"a tag that is being made was refused with {type(second).__name__}: {second}"
        bench.expect(isinstance(second, BusyError), sentence)
    held = await bench.listed()
    bench.expect(list(held) == [request.tag], "not one snapshot is listed", tags=sorted(held))


@TOPIC.shall(
    9,
    Level.CORE,
    "A driver shall delete once what several calls at once ask to delete, and refuse the others "
    "with NotFoundError or BusyError if at all.",
    units=2,
)
async def deleted_at_once(bench: ArrayBench) -> None:
    room_for(bench, 2)
    group = group_of(bench, 2)
    kept = await bench.cut(*group)
    for _ in range(bench.effort.repeats):
        made = await bench.cut(*group)
        came = await together([bench.driver.delete_snapshot(made.ref) for _ in range(3)])
        refused = [one for one in came if isinstance(one, DriverError)]
        bench.expect(len(refused) < len(came), "all of several deletions at once were refused")
        for one in refused:
            right = isinstance(one, BusyError | NotFoundError)
            bench.expect(right, f"a deletion was refused with {type(one).__name__}: {one}")
        held = await bench.listed()
        sentence = "after deletions at once the listing is not what is left"
        bench.expect(list(held) == [kept.ref.tag], sentence, tags=sorted(held))


@TOPIC.shall(
    10,
    Level.CORE,
    "A driver shall list what is left when snapshots are made and deleted at once.",
    units=3,
)
async def made_and_deleted_at_once(bench: ArrayBench) -> None:
    room_for(bench, 4)
    group = group_of(bench, 2)
    left: dict[str, GroupSnapshotRef] = {}
    for _ in range(bench.effort.rounds):
        while len(left) < 2:
            one = await bench.cut(*group)
            left[one.ref.tag] = one.ref
        going = bench.rng.sample(sorted(left), 2)
        request = bench.request(bench.units[2])
        made, *deleted = await together(
            [
                bench.driver.snapshot_group(request),
                *(bench.driver.delete_snapshot(left[tag]) for tag in going),
            ]
        )
        if isinstance(made, GroupSnapshot):
            left[request.tag] = made.ref
        for tag, came in zip(going, deleted, strict=True):
            if came is None:
                del left[tag]
        for came in (made, *deleted):
            right = came is None or isinstance(came, GroupSnapshot | BusyError)
            bench.expect(right, f"a call at once with others failed: {came}")
        held = {tag: found.ref for tag, found in (await bench.listed()).items()}
        sentence = "after calls at once the listing is not what is left"
        bench.expect(held == left, sentence, listed=sorted(held), left=sorted(left))
        if request.tag in left:
            await bench.delete(left.pop(request.tag))


@TOPIC.shall(
    11,
    Level.CORE,
    "A driver shall obey the limits of a group and a tag over two connections as over one: groups "
    "at once are whole or refused with BusyError.",
    units=3,
)
async def two_connections(bench: ArrayBench) -> None:
    room_for(bench, 3)
    first, second, third = group_of(bench, 3)
    async with bench.another_driver() as other:
        for _ in range(bench.effort.repeats):
            mine, theirs = bench.request(first, second), bench.request(second, third)
            came = await together([bench.driver.snapshot_group(mine), other.snapshot_group(theirs)])
            made = made_or_busy(bench, came, "one of two groups on two connections")
            bench.expect(made, "both groups were refused")
            for driver in (bench.driver, other):
                found = await driver.list_snapshots(bench.tag_prefix)
                held = {one.ref.tag: units_of(one) for one in found}
                wanted = {tag: units_of(one) for tag, one in made.items()}
                sentence = "a connection lists other snapshots than were made"
                bench.expect(held == wanted, sentence, listed=sorted(held), made=sorted(wanted))
            for one in made.values():
                await bench.delete(one.ref)
