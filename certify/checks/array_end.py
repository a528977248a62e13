"""The end: what the kit leaves behind, and what it must not have touched.

These are tried last. Each does some work of its own, so that it says something alone, and then
looks at all that the checks before it have done.
"""

from __future__ import annotations

import asyncio

from ..array_bench import ArrayBench
from ..array_target import BLOCK_BYTES
from ..requirement import Level, NotTested, Topic, Violation
from .array_aftermath import LOOK_S, cut_short, fresh, outcome, settle
from .array_common import group_of, largest_group
from .array_device import DEVICE_LIMIT_S

TOPIC: Topic[ArrayBench] = Topic("end", "ARR-END")

WRITE_LIMIT_S = 30.0


async def _work(bench: ArrayBench) -> None:
    """A little of everything: groups, a clone, a refusal, a caller that dies, a second connection.

    What fails of it is other requirements' business.
    """
    group = group_of(bench, min(2, largest_group(bench)))
    made = await bench.cut(*group)
    if bench.capabilities.clones:
        clone = await bench.clone(made.ref, group[0], "end")
        await outcome(bench.readable.discard(clone.id))
    await outcome(bench.driver.snapshot_group(bench.request()))
    given_up = bench.request(group[-1])
    async with fresh(bench) as other:
        await bench.setup(other.snapshot_group(bench.request(*group)), "a group snapshot")
        await cut_short(other.snapshot_group(given_up), 0.01)
    await settle(bench, bench.driver, given_up)


async def _all_deleted(bench: ArrayBench) -> list[str]:
    """Delete until nothing of the run is listed, soon; what is left, one sentence each."""
    left: list[str] = []

    async def empty() -> bool:
        left[:] = await bench.clean()
        return not left and not await bench.listed()

    await bench.until(empty, bench.effort.call_timeout_s, 0.2)
    return left


@TOPIC.shall(
    1,
    Level.CORE,
    "A driver shall have deleted all that it was told to delete: nothing of the run is listed.",
    units=2,
)
async def nothing_listed(bench: ArrayBench) -> None:
    await _work(bench)
    left = await _all_deleted(bench)
    bench.expect(not left, "not all can be deleted", left=left)
    tags = sorted(await bench.listed())
    bench.expect(not tags, "snapshots of the run are listed at its end", tags=tags)
    bench.expect(not bench.left, "something could not be deleted", left=list(bench.left))


@TOPIC.shall(
    2,
    Level.CORE,
    "A driver shall leave no snapshot and no clone on the array that was not there before.",
    hooks=("snapshots_on_device",),
    units=2,
)
async def nothing_on_device(bench: ArrayBench) -> None:
    before = _before(bench)
    await _work(bench)
    await _all_deleted(bench)

    async def clear() -> bool:
        return not await bench.target.snapshots_on_device() - before

    await bench.until(clear, DEVICE_LIMIT_S, LOOK_S)
    left = sorted(await bench.target.snapshots_on_device() - before)
    bench.expect(not left, f"the array holds {len(left)} snapshots that it did not", left=left)


@TOPIC.shall(
    3,
    Level.CORE,
    "A driver shall leave everything on the array that was there before and is not the kit's.",
    hooks=("foreign_snapshot", "snapshots_on_device"),
    units=2,
)
async def foreign_kept(bench: ArrayBench) -> None:
    before = _before(bench)
    async with bench.target.foreign_snapshot(bench.units[0].scratch) as foreign:
        await _work(bench)
        await _all_deleted(bench)
        there = await bench.target.snapshots_on_device()
    gone = sorted((before | {foreign}) - there)
    bench.expect(not gone, "snapshots of others are gone", gone=gone)


def _before(bench: ArrayBench) -> frozenset[str]:
    if bench.before is None:
        raise NotTested("it is not known what was on the array before")
    return bench.before


@TOPIC.shall(
    4,
    Level.DATA,
    "A driver shall leave every unit writable, and what a host writes there as it was written.",
    units=2,
)
async def units_writable(bench: ArrayBench) -> None:
    written = []
    for unit in bench.units:
        offset, data = bench.block(), bench.random_bytes(BLOCK_BYTES)
        await bench.write(unit, offset, data)
        written.append((unit, offset, data))
    await _work(bench)
    await _all_deleted(bench)
    for unit, offset, data in written:
        got = await bench.read(unit, offset, BLOCK_BYTES)
        bench.compare(got, data, "what a host wrote before the end")
        new = bench.random_bytes(BLOCK_BYTES)
        try:
            async with asyncio.timeout(WRITE_LIMIT_S):
                await bench.write(unit, offset, new)
        except TimeoutError:
            what = f"a write waits for {WRITE_LIMIT_S:g} s at the end"
            raise Violation(what, unit=unit.id) from None
        bench.compare(await bench.read(unit, offset, BLOCK_BYTES), new, "what a host wrote last")


@TOPIC.shall(
    5,
    Level.CORE,
    "A driver shall leave a snapshot in place when the connection that made it is closed.",
    units=2,
)
async def outlives_connection(bench: ArrayBench) -> None:
    group = group_of(bench, 2)
    unit, offset, data = group[0], bench.block(), bench.random_bytes(BLOCK_BYTES)
    await bench.write(unit, offset, data)
    async with fresh(bench) as other:
        made = await bench.setup(other.snapshot_group(bench.request(*group)), "a group snapshot")
    await bench.write(unit, offset, bench.random_bytes(BLOCK_BYTES))
    listed = await bench.listed()
    there = listed.get(made.ref.tag)
    if there is None:
        raise Violation("a snapshot is gone with the connection that made it", tag=made.ref.tag)
    same = set(there.unit_ids) == set(made.unit_ids)
    bench.expect(same, "a snapshot has other units since its connection was closed")
    if bench.capabilities.reads_back:
        got = await bench.held(made.ref, unit, offset, BLOCK_BYTES)
        bench.compare(got, data, "what a snapshot holds whose connection was closed")
