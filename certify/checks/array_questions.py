"""Questions at once: what is there is told while other calls go on, each caller's own answer."""

from __future__ import annotations

import asyncio
from typing import Any

from ...drivers.contracts import GroupSnapshot, GroupSnapshotRef
from ...drivers.errors import BusyError, DriverError, NotFoundError
from ..array_bench import ArrayBench, BenchUnit
from ..array_target import BLOCK_BYTES
from ..requirement import Blocked, Level, Topic
from .array_common import (
    SLOW_S,
    ended,
    expect_answer,
    group_of,
    in_the_end,
    largest_group,
    room_for,
    together,
    units_of,
)
from .array_identities import asked_alone, expect_same

Place = tuple[GroupSnapshotRef, BenchUnit, int]
"""A block of a unit in a snapshot."""

TOPIC: Topic[ArrayBench] = Topic("questions at once", "ARR-ASK")

_LOOK_S = 0.005
"""Between two listings: so short that the deletion of a neighbour falls into one."""


@TOPIC.shall(
    1,
    Level.CORE,
    "A driver shall list complete snapshots only: none that is being made, unless it is all there.",
    hooks=("slow_calls",),
    units=2,
)
async def complete_only(bench: ArrayBench) -> None:
    room_for(bench, 2)
    group = group_of(bench, 2)
    kept, request = await bench.cut(*group), bench.request(*group)
    offset_bytes, stamp = bench.block(), bench.random_bytes(BLOCK_BYTES)
    early: GroupSnapshot | None = None
    looks = 0
    async with bench.target.slow_calls("snapshot_group", SLOW_S):
        making = asyncio.ensure_future(bench.driver.snapshot_group(request))
        try:
            while not making.done():
                held = await bench.listed()
                looks += 1
                bench.expect(kept.ref.tag in held, "a complete snapshot is not listed meanwhile")
                if request.tag in held and early is None:
                    # It may be complete, though the call has not ended: then nothing of it changes.
                    early = held[request.tag]
                    expect_answer(bench, early, request.tag, group)
                    await bench.write(group[0], offset_bytes, stamp)
                await asyncio.sleep(SLOW_S / 10)
        finally:
            (made,) = await together([making])
    bench.note(looks=looks)
    if not isinstance(made, GroupSnapshot):
        bench.expect(False, f"the call that made it failed: {made}")
    elif early is not None:
        sentence = "a snapshot was listed before it was complete"
        bench.expect(early.ref == made.ref, sentence, listed=repr(early), made=repr(made))
        if bench.capabilities.reads_back:
            data = await bench.held(made.ref, group[0], offset_bytes, BLOCK_BYTES)
            bench.expect(data != stamp, f"{sentence}: it holds what was written after that")


@TOPIC.shall(
    2,
    Level.CORE,
    "A driver shall answer which units and snapshots there are while a group is being made.",
    hooks=("slow_calls",),
)
async def answers_meanwhile(bench: ArrayBench) -> None:
    room_for(bench, 2)
    unit = bench.units[0]
    kept = await bench.cut(unit)
    device = unit.scratch.devices[0]
    alone = await asked_alone(bench, device)
    async with bench.target.slow_calls("snapshot_group", SLOW_S):
        making = asyncio.ensure_future(bench.driver.snapshot_group(bench.request(unit)))
        try:
            await asyncio.sleep(SLOW_S / 4)
            known = await bench.driver.resolve([device])
            found = await bench.driver.list_snapshots(kept.ref.tag)
        finally:
            (made,) = await together([making])
    expect_same(bench, known, alone, "while a group is being made")
    bench.expect([one.ref for one in found] == [kept.ref], "a snapshot is not listed meanwhile")
    bench.expect(isinstance(made, GroupSnapshot), f"the call that made it failed: {made}")


@TOPIC.shall(
    3,
    Level.CORE,
    "A driver shall list a snapshot that exists in every listing while others are made and "
    "deleted.",
    units=3,
)
async def listed_throughout(bench: ArrayBench) -> None:
    room_for(bench, 3)
    kept = {one.ref.tag: units_of(one) for one in [await bench.cut(u) for u in bench.units]}

    async def churn() -> None:
        for _ in range(bench.effort.rounds):
            made = await bench.cut(*bench.units[: min(2, largest_group(bench))])
            await bench.delete(made.ref)

    churning, looks = asyncio.ensure_future(churn()), 0
    try:
        while not churning.done():
            held = await bench.listed()
            looks += 1
            lacking = sorted(set(kept) - set(held))
            bench.expect(not lacking, "a snapshot that exists is not listed", tags=lacking)
            changed = sorted(tag for tag, units in kept.items() if units_of(held[tag]) != units)
            bench.expect(not changed, "a snapshot is listed with other units", tags=changed)
            await asyncio.sleep(_LOOK_S)
    finally:
        await ended(churning)
    churning.result()
    bench.note(listings=looks)


@TOPIC.shall(
    4,
    Level.CORE,
    "A driver shall go on with the other calls on a connection when the caller of one stops "
    "waiting.",
    units=2,
)
async def others_go_on(bench: ArrayBench) -> None:
    room_for(bench, 2)
    first, second = bench.units[:2]
    for _ in range(bench.effort.repeats):
        request = bench.request(first)
        given_up = asyncio.ensure_future(bench.driver.snapshot_group(request))
        call = bench.driver.list_snapshots(bench.tag_prefix)
        asking: list[asyncio.Future[Any]] = [asyncio.ensure_future(call)]
        asking.append(asyncio.ensure_future(bench.driver.resolve(list(second.scratch.devices))))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        for answer in await together(asking):
            said = f"{type(answer).__name__}: {answer}"
            sentence = "a call failed because the caller of another one stopped waiting"
            bench.expect(not isinstance(answer, DriverError), sentence, said=said)
        # Asked for again, the tag has been made for certain, by whichever call.
        for tag, unit in ((bench.tag(), second), (request.tag, first)):
            await bench.delete((await in_the_end(bench, tag, (unit,))).ref)


@TOPIC.shall(
    5,
    Level.CORE,
    "A driver shall give each of several questions at once its own answer.",
    units=3,
)
async def own_answers(bench: ArrayBench) -> None:
    alone = await asked_alone(bench, *(unit.scratch.devices[0] for unit in bench.units))
    made = [(await bench.cut(unit)).ref.tag for unit in bench.units]
    for _ in range(bench.effort.repeats):
        devices = bench.rng.choices(list(alone), k=2 * len(made))
        tags = bench.rng.choices(made, k=2 * len(made))
        known, listed = await asyncio.gather(
            together([bench.driver.resolve([device]) for device in devices]),
            together([bench.driver.list_snapshots(tag) for tag in tags]),
        )
        for device, found in zip(devices, known, strict=True):
            got = {} if isinstance(found, DriverError) else found
            right = device in got and got[device].id == alone[device]
            sentence = f"asked for {device} at once with other questions, it answers something else"
            bench.expect(right, sentence, got=repr(found))
        for tag, rows in zip(tags, listed, strict=True):
            wanted = {one for one in made if one.startswith(tag)}
            right = not isinstance(rows, DriverError) and {row.ref.tag for row in rows} == wanted
            sentence = f"asked for {tag} at once with other questions, it lists something else"
            bench.expect(right, sentence, got=repr(rows))


@TOPIC.shall(
    6,
    Level.DATA,
    "A driver shall give each of several reads at once its own bytes.",
    capability="reads_back",
    units=3,
)
async def own_bytes(bench: ArrayBench) -> None:
    offsets = [number * BLOCK_BYTES for number in range(4)]
    for unit in bench.units:
        await bench.write(unit, 0, bench.random_bytes(len(offsets) * BLOCK_BYTES))
    step = largest_group(bench)
    places: list[Place] = []
    for start in range(0, len(bench.units), step):
        group = bench.units[start : start + step]
        ref = (await bench.cut(*group)).ref
        places += [(ref, unit, offset) for unit in group for offset in offsets]
    alone = [await bench.held(ref, unit, at, BLOCK_BYTES) for ref, unit, at in places]
    if len(set(alone)) < len(bench.units):
        raise Blocked("places that were written differently read alike")
    for _ in range(bench.effort.repeats):
        asked = bench.rng.sample(range(len(places)), len(bench.units) + 3)
        await _read_at_once(bench, [(places[one], alone[one]) for one in asked])


async def _read_at_once(bench: ArrayBench, wanted: list[tuple[Place, bytes]]) -> None:
    reads = [bench.read_back(ref, unit, at, BLOCK_BYTES) for (ref, unit, at), _ in wanted]
    for ((_, unit, at), data), got in zip(wanted, await together(reads), strict=True):
        if isinstance(got, DriverError):
            bench.expect(False, f"a read at once with others failed: {got}")
        else:
            bench.compare(got, data, f"{unit.id} at {at}, read at once with others")


@TOPIC.shall(
    7,
    Level.DATA,
    "A driver shall read what the snapshot holds while it is being deleted, or raise "
    "NotFoundError, and never give other bytes.",
    capability="reads_back",
)
async def read_while_deleted(bench: ArrayBench) -> None:
    unit, whole = bench.units[0], 0
    for _ in range(bench.effort.repeats):
        offset_bytes, stamp = bench.block(), bench.random_bytes(BLOCK_BYTES)
        await bench.write(unit, offset_bytes, stamp)
        made = await bench.cut(unit)
        await bench.write(unit, offset_bytes, bench.random_bytes(BLOCK_BYTES))
        place = (made.ref, unit, offset_bytes, BLOCK_BYTES)
        reads = [asyncio.ensure_future(bench.read_back(*place)) for _ in range(2)]
        deleting = asyncio.ensure_future(bench.driver.delete_snapshot(made.ref))
        reads += [asyncio.ensure_future(bench.read_back(*place)) for _ in range(2)]
        for data in await together(reads):
            if isinstance(data, DriverError):
                right = isinstance(data, BusyError | NotFoundError)
                bench.expect(right, f"a read failed with {type(data).__name__}: {data}")
            else:
                whole += 1
                bench.compare(data, stamp, "a snapshot that is being deleted")
        (deleted,) = await together([deleting])
        if isinstance(deleted, BusyError):
            await bench.delete(made.ref)
        else:
            bench.expect(deleted is None, f"a deletion failed: {deleted}")
    bench.note(whole_reads=whole, reads=4 * bench.effort.repeats)
