"""Errors: what cannot be done is refused with the class that says what is to be made of it.

Every error here has a real cause: a call that asks for what is not there, or for what cannot be.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from ...drivers.contracts import GroupSnapshotRef, GroupSnapshotRequest
from ...drivers.errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    NeverWillError,
    NotFoundError,
)
from ...drivers.records import UnitId
from ..array_bench import FENCE_TIMEOUT_S, ArrayBench
from ..array_target import BLOCK_BYTES
from ..requirement import Level, NotTested, Topic
from .array_common import group_of, room_for, together

TOPIC: Topic[ArrayBench] = Topic("errors", "ARR-ERR")

REFUSED = (NeverWillError, NotFoundError)
"""What is not there and what cannot be: repeating helps in neither case."""


def _group(*unit_ids: UnitId, tag: str) -> GroupSnapshotRequest:
    return GroupSnapshotRequest(unit_ids, tag, FENCE_TIMEOUT_S)


@TOPIC.shall(
    1,
    Level.CORE,
    "A driver shall refuse a group with a unit that the array does not have with NeverWillError or "
    "NotFoundError.",
)
async def unknown_unit(bench: ArrayBench) -> None:
    own = bench.units[0]
    for nobody in (f"{own.unit.array_id}/no-such-unit", f"{own.id}-that-is-not", ""):
        for unit_ids in ((nobody,), (own.id, nobody)):
            call = bench.driver.snapshot_group(_group(*unit_ids, tag=bench.tag("unknown")))
            await bench.refused(call, *REFUSED, doing=f"a snapshot of unit {nobody!r}")


@TOPIC.shall(
    2,
    Level.CORE,
    "A driver shall refuse a group with a unit of another array with NeverWillError or "
    "NotFoundError.",
)
async def unit_of_another_array(bench: ArrayBench) -> None:
    own = bench.units[0]
    name = own.id.rpartition("/")[2]
    for nobody in (f"elsewhere/{name}", f"elsewhere/{own.id}"):
        call = bench.driver.snapshot_group(_group(nobody, tag=bench.tag("elsewhere")))
        await bench.refused(call, *REFUSED, doing=f"a snapshot of unit {nobody!r}")


@TOPIC.shall(3, Level.CORE, "A driver shall refuse a group of no units with NeverWillError.")
async def no_units(bench: ArrayBench) -> None:
    tag = bench.tag("empty")
    call = bench.driver.snapshot_group(_group(tag=tag))
    await bench.refused(call, NeverWillError, doing="a snapshot of no units")
    held = await bench.listed()
    bench.expect(tag not in held, "a snapshot of no units is listed")


@TOPIC.shall(
    4,
    Level.CORE,
    "A driver shall refuse the snapshot of a unit that cannot be snapshotted with NeverWillError "
    "or an error of DidNotHappenError.",
    hooks=("failing_unit",),
    units=2,
)
async def failing_unit(bench: ArrayBench) -> None:
    good, bad = bench.units[:2]
    async with bench.target.failing_unit(bad.scratch):
        call = bench.driver.snapshot_group(bench.request(bad))
        wanted = (NeverWillError, DidNotHappenError)
        error = await bench.refused(call, *wanted, doing="a snapshot of a unit that fails")
        bench.note(told=f"{type(error).__name__}: {error}")
        made = await bench.driver.snapshot_group(bench.request(good))
        bench.expect(made.unit_ids == (good.id,), "a unit beside the failing one is not taken")
    await bench.driver.snapshot_group(bench.request(bad))


@TOPIC.shall(
    5,
    Level.CORE,
    "A driver shall refuse to read or clone from a snapshot that is gone with NotFoundError.",
    capability="reads_back",
)
async def read_what_is_gone(bench: ArrayBench) -> None:
    unit = bench.units[0]
    made = await bench.cut(unit)
    await bench.delete(made.ref)
    later = await bench.cut(unit, tag=made.ref.tag)
    for ref in (made.ref, GroupSnapshotRef(made.ref.array_id, "never", bench.tag("never"))):
        call: Awaitable[Any] = bench.readable.read_back(ref, unit.id, 0, BLOCK_BYTES)
        await bench.refused(call, NotFoundError, doing="reading from a snapshot that is gone")
        if bench.capabilities.clones:
            call = bench.readable.clone(ref, unit.id, bench.tag("of-nothing"))
            await bench.refused(call, NotFoundError, doing="cloning from a snapshot that is gone")
    await bench.held(later.ref, unit, 0, BLOCK_BYTES)


@TOPIC.shall(
    6,
    Level.CORE,
    "A driver shall refuse to read a unit that is not in the snapshot with NotFoundError or "
    "NeverWillError.",
    capability="reads_back",
    units=2,
)
async def read_another_unit(bench: ArrayBench) -> None:
    inside, outside = bench.units[:2]
    made = await bench.cut(inside)
    for unit_id in (outside.id, f"{inside.unit.array_id}/no-such-unit", f"elsewhere/{inside.id}"):
        call = bench.readable.read_back(made.ref, unit_id, 0, BLOCK_BYTES)
        await bench.refused(call, *REFUSED, doing=f"reading unit {unit_id!r} of another snapshot")


@TOPIC.shall(
    7,
    Level.CORE,
    "A driver shall refuse to read what is not within the unit, and never answer with fewer bytes.",
    capability="reads_back",
)
async def read_past_the_end(bench: ArrayBench) -> None:
    unit = bench.units[0]
    made = await bench.cut(unit)
    # Hosts may reach a part of the unit only.
    reached = unit.scratch.begins_bytes + unit.scratch.capacity_bytes
    size = max(reached, unit.unit.capacity_bytes)
    last = (size - BLOCK_BYTES, BLOCK_BYTES)
    block = await bench.setup(bench.readable.read_back(made.ref, unit.id, *last), "reading back")
    bench.expect(len(block) == BLOCK_BYTES, "the last block of the unit is not read whole")
    for place in ((size - BLOCK_BYTES, 2 * BLOCK_BYTES), (size, 1), (-BLOCK_BYTES, BLOCK_BYTES)):
        call = bench.readable.read_back(made.ref, unit.id, *place)
        doing = f"reading {place[1]} bytes at {place[0]} of {size}"
        await bench.refused(call, NeverWillError, DidNotHappenError, doing=doing)


@TOPIC.shall(
    8,
    Level.CORE,
    "A driver shall refuse to discard what is no clone with NotFoundError, a unit above all, and "
    "leave it as it is.",
    capability="clones",
)
async def discard_no_clone(bench: ArrayBench) -> None:
    unit, offset_bytes = bench.units[0], bench.block()
    stamp = bench.random_bytes(BLOCK_BYTES)
    await bench.write(unit, offset_bytes, stamp)
    for unit_id in (unit.id, f"{unit.unit.array_id}/no-such-clone", "elsewhere/clone"):
        call = bench.readable.discard(unit_id)
        await bench.refused(call, NotFoundError, doing=f"discarding {unit_id!r}")
    bench.compare(await bench.read(unit, offset_bytes, BLOCK_BYTES), stamp, "the unit")
    await bench.driver.snapshot_group(bench.request(unit))


@TOPIC.shall(
    9,
    Level.CORE,
    "A driver shall refuse to discard a clone that is gone with NotFoundError.",
    capability="clones",
)
async def discard_twice(bench: ArrayBench) -> None:
    unit = bench.units[0]
    made = await bench.cut(unit)
    clone, other = [await bench.clone(made.ref, unit, word) for word in ("one", "two")]
    await bench.setup(bench.readable.discard(clone.id), "discarding a clone")
    call = bench.readable.discard(clone.id)
    await bench.refused(call, NotFoundError, doing="discarding a clone that is gone")
    await bench.readable.discard(other.id)


# -- what an error says ----------------------------------------------------------------------------


async def _causes(
    bench: ArrayBench,
) -> AsyncIterator[tuple[str, tuple[str, ...], DriverError]]:
    """Calls that fail: the method, what it was called on, the error.

    That they fail at all is asked by other requirements.
    """
    unit = bench.units[0]
    array_id, tag = unit.unit.array_id, bench.tag("refused")
    nobody = f"{array_id}/no-such-unit"
    never = GroupSnapshotRef(array_id, f"{array_id}/never", tag)
    group = (tag, nobody, unit.id, array_id)
    snapshot = (tag, never.snapshot_id, unit.id, array_id)
    driver, readable = bench.driver, bench.readable
    calls: list[tuple[str, tuple[str, ...], Callable[[], Awaitable[Any]]]] = [
        ("snapshot_group", group, lambda: driver.snapshot_group(_group(nobody, tag=tag))),
        ("snapshot_group", group, lambda: driver.snapshot_group(_group(tag=tag))),
        ("delete_snapshot", snapshot, lambda: driver.delete_snapshot(never)),
    ]
    if bench.capabilities.reads_back:
        calls.append(("read_back", snapshot, lambda: readable.read_back(never, unit.id, 0, 512)))
    if bench.capabilities.clones:
        calls.append(("clone", snapshot, lambda: readable.clone(never, unit.id, tag)))
        calls.append(("discard", (nobody, array_id), lambda: readable.discard(nobody)))
    for method, words, call in calls:
        (error,) = await together([call()])
        if isinstance(error, DriverError):
            yield method, words, error


@TOPIC.shall(10, Level.CORE, "A driver's error shall name the method of the contract that failed.")
async def names_the_method(bench: ArrayBench) -> None:
    async for method, _, error in _causes(bench):
        named = error.operation
        bench.expect(named == method, f"{method} failed, and the error names {named!r}")


@TOPIC.shall(
    11,
    Level.CORE,
    "A driver's error shall name what the method was called on: the tag, the snapshot, the unit or "
    "the array.",
)
async def names_the_object(bench: ArrayBench) -> None:
    async for method, words, error in _causes(bench):
        named = any(word in error.subject for word in words)
        sentence = f"{method} failed, and the error names {error.subject!r}"
        bench.expect(named, sentence, called_on=list(words))


@TOPIC.shall(12, Level.CORE, "A driver's error shall say the reason in one line.")
async def says_the_reason(bench: ArrayBench) -> None:
    async for method, _, error in _causes(bench):
        for line in (error.reason, str(error)):
            plain = bool(line.strip()) and len(line.splitlines()) == 1
            bench.expect(plain, f"{method} failed, and its reason is no line", reason=line)
        said = error.reason in str(error)
        bench.expect(said, f"{method} failed, and its message lacks the reason", told=str(error))


@TOPIC.shall(
    13,
    Level.CORE,
    "A driver shall go on answering on a connection on which calls were refused.",
)
async def goes_on(bench: ArrayBench) -> None:
    unit = bench.units[0]
    async for method, _, _ in _causes(bench):
        made = await bench.driver.snapshot_group(bench.request(unit))
        held = {one.ref for one in await bench.driver.list_snapshots(bench.tag_prefix)}
        sentence = f"after {method} was refused, a new snapshot is not listed"
        bench.expect(made.ref in held, sentence)
        await bench.driver.delete_snapshot(made.ref)
        known = await bench.driver.resolve(list(unit.scratch.devices))
        bench.expect(known, f"after {method} was refused, no unit is known any more")


@TOPIC.shall(
    14,
    Level.CORE,
    "A driver's BusyError shall estimate the wait in seconds as a finite number that is not "
    "negative, or not at all.",
    units=2,
)
async def estimates_the_wait(bench: ArrayBench) -> None:
    room_for(bench, 4)
    group, tag = group_of(bench, 2), bench.tag("busy")
    calls = [bench.driver.snapshot_group(bench.request(*group, tag=tag)) for _ in range(3)]
    calls.append(bench.driver.snapshot_group(bench.request(*group)))
    busy = [one for one in await together(calls) if isinstance(one, BusyError)]
    if not busy:
        raise NotTested("the driver refused none of several calls at once as busy")
    for error in busy:
        told = error.retry_after_s
        right = told is None or (math.isfinite(told) and told >= 0)
        bench.expect(right, f"a busy call is to be repeated after {told} s")
    bench.note(retry_after_s=[error.retry_after_s for error in busy])
