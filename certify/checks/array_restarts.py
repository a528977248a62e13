"""Faults: the system restarts, in mid-call too."""

from __future__ import annotations

import asyncio

from ...drivers.contracts import GroupSnapshot
from ..array_bench import ArrayBench, BenchUnit
from ..array_target import BLOCK_BYTES
from ..requirement import Level, Topic, Violation
from .array_aftermath import (
    again,
    answers,
    duration_s,
    during,
    expect_more,
    expect_once,
    expect_whole,
    fresh,
    members,
    moments_s,
    outcome,
    remove,
    told_truly,
    under,
)

TOPIC: Topic[ArrayBench] = Topic("faults: restarts", "ARR-FLT")

MOST_RESTARTS = 6
MOST_TOLD = 12
WRITE_LIMIT_S = 30.0


async def _restarted_cuts(bench: ArrayBench, units: tuple[BenchUnit, ...]) -> list[float]:
    """Moments of a group snapshot at which to restart; a few, for a restart takes its time."""
    return moments_s(bench, await duration_s(bench, *units), MOST_RESTARTS)


@TOPIC.shall(
    21,
    Level.FAULT,
    "A driver shall serve again, on the connection that is open, after the system restarted.",
    hooks=("restart",),
)
async def restarted(bench: ArrayBench) -> None:
    await bench.listed()
    await bench.target.restart()
    await answers(bench, "after a restart")
    made = await again(bench, bench.driver, bench.request(bench.units[0]), "after a restart")
    await bench.delete(made.ref)


@TOPIC.shall(
    22,
    Level.FAULT,
    "A driver shall list after a restart of the system just what it listed before.",
    hooks=("restart",),
    units=3,
)
async def restart_keeps(bench: ArrayBench) -> None:
    for units in (bench.units[:1], bench.units[:2], bench.units[2:3]):
        await bench.cut(*units)
    before = await bench.listed()
    await bench.target.restart()
    async with fresh(bench) as driver:
        found = await bench.setup(driver.list_snapshots(bench.tag_prefix), "listing snapshots")
    after = {one.ref.tag: one for one in found}
    lost, new = sorted(set(before) - set(after)), sorted(set(after) - set(before))
    bench.expect(not lost and not new, "a restart changed what is listed", lost=lost, new=new)
    for tag, one in before.items():
        same = after[tag].ref == one.ref and set(after[tag].unit_ids) == set(one.unit_ids)
        bench.expect(same, "a snapshot has another handle or other units after a restart", tag=tag)


@TOPIC.shall(
    23,
    Level.FAULT,
    "A driver shall give the bytes of a snapshot after a restart of the system as before it.",
    capability="reads_back",
    hooks=("restart",),
    units=2,
)
async def restart_keeps_bytes(bench: ArrayBench) -> None:
    units = bench.units[:2]
    offset = bench.block()
    held = {unit: bench.random_bytes(BLOCK_BYTES) for unit in units}
    for unit, data in held.items():
        await bench.write(unit, offset, data)
    made = await bench.cut(*units)
    for unit in units:
        await bench.write(unit, offset, bench.random_bytes(BLOCK_BYTES))
    await bench.target.restart()
    async with bench.another_driver() as driver:
        bench.driver, old = driver, bench.driver
        try:
            for unit, data in held.items():
                got = await bench.held(made.ref, unit, offset, BLOCK_BYTES)
                bench.compare(got, data, "what a snapshot holds after a restart")
        finally:
            bench.driver = old


@TOPIC.shall(
    24,
    Level.FAULT,
    "A driver shall have a group snapshot that a restart of the system interrupts be whole or not "
    "be at all.",
    hooks=("restart",),
    units=2,
)
async def restart_whole(bench: ArrayBench) -> None:
    units = bench.units[:2]
    kinds = []
    for moment_s in await _restarted_cuts(bench, units):
        before, request = await members(bench), bench.request(*units)
        said = await during(bench, request, moment_s, bench.target.restart)
        kinds.append(type(said).__name__)
        async with fresh(bench) as driver:
            found = await under(bench, driver, request.tag)
            for one in found:
                expect_whole(bench, one, request.unit_ids, "that a restart interrupted")
            count = len(units) if found else 0
            await expect_more(bench, before, count, "after a restart in mid-call")
            for one in found:
                await remove(bench, driver, one.ref, "after a restart")
    bench.note(calls=kinds)


@TOPIC.shall(
    25,
    Level.FAULT,
    "A driver shall tell the outcome of a group snapshot that a restart of the system interrupts "
    "truly, or as unknown.",
    hooks=("restart",),
    units=2,
)
async def restart_told(bench: ArrayBench) -> None:
    units = bench.units[:2]
    rounds = min(bench.effort.repeats + 3, MOST_TOLD)
    early_s, late_s = 0.0, await duration_s(bench, *units)
    width_s, kinds = late_s, []
    for _ in range(rounds):
        moment_s = early_s + (late_s - early_s) * bench.rng.uniform(0.3, 0.7)
        request = bench.request(*units)
        said = await during(bench, request, moment_s, bench.target.restart)
        kinds.append(type(said).__name__)
        there = await told_truly(bench, request, said, "during a restart")
        # Lies show where the snapshot is there and its answer is not: search for that moment.
        if isinstance(said, GroupSnapshot):
            late_s = moment_s
        elif not there:
            early_s = moment_s
        if late_s - early_s < width_s / 10:  # no two calls take the same time
            early_s, late_s = max(0.0, early_s - width_s / 5), late_s + width_s / 5
    bench.note(calls=kinds)


@TOPIC.shall(
    26,
    Level.FAULT,
    "A driver shall make, when it is called again with the tag of a group snapshot that a restart "
    "of the system interrupted, one whole snapshot of it.",
    hooks=("restart",),
    units=2,
)
async def restart_repeated(bench: ArrayBench) -> None:
    units = bench.units[:2]
    for moment_s in await _restarted_cuts(bench, units):
        before, request = await members(bench), bench.request(*units)
        await during(bench, request, moment_s, bench.target.restart)
        async with fresh(bench) as driver:
            await again(bench, driver, request, "that a restart interrupted")
            found = await expect_once(bench, driver, request, before, "after a restart")
            await remove(bench, driver, found.ref, "after a restart")


@TOPIC.shall(
    27,
    Level.FAULT,
    "A driver shall leave no writes held when a restart of the system interrupts a group snapshot.",
    hooks=("restart",),
    units=2,
)
async def restart_releases(bench: ArrayBench) -> None:
    units = bench.units[:2]
    for moment_s in await _restarted_cuts(bench, units):
        await during(bench, bench.request(*units), moment_s, bench.target.restart)
        for unit in units:
            await _kept(bench, unit, "after a restart in mid-call")


async def _kept(bench: ArrayBench, unit: BenchUnit, when: str) -> None:
    """A host can write, and reads what it wrote."""
    offset, data = bench.block(), bench.random_bytes(BLOCK_BYTES)
    try:
        async with asyncio.timeout(WRITE_LIMIT_S):
            await bench.write(unit, offset, data)
    except TimeoutError:
        raise Violation(f"a write waits for {WRITE_LIMIT_S:g} s {when}", unit=unit.id) from None
    bench.compare(await bench.read(unit, offset, BLOCK_BYTES), data, f"what a host wrote {when}")


@TOPIC.shall(
    28,
    Level.FAULT,
    "A driver shall have a snapshot whose deletion a restart of the system interrupts be whole or "
    "be gone, and delete it when it is called again.",
    hooks=("restart",),
    units=2,
)
async def restart_deletes(bench: ArrayBench) -> None:
    units = bench.units[:2]
    probe = await bench.cut(*units)
    start_s = bench.now_s()
    await bench.delete(probe.ref)
    for moment_s in moments_s(bench, bench.now_s() - start_s, MOST_RESTARTS):
        before = await members(bench)
        async with fresh(bench) as driver:
            request = bench.request(*units)
            made = await bench.setup(driver.snapshot_group(request), "a group snapshot")
            call = asyncio.create_task(outcome(driver.delete_snapshot(made.ref)))
            await asyncio.wait({call}, timeout=moment_s)
            await bench.target.restart()
            await asyncio.wait({call})
        async with fresh(bench) as driver:
            found = await under(bench, driver, made.ref.tag)
            for one in found:
                expect_whole(bench, one, made.unit_ids, "whose deletion a restart interrupted")
            if call.result() is None:
                bench.expect(not found, "a deletion succeeded, and the snapshot is there")
            await remove(bench, driver, made.ref, "that a restart interrupted")
            left = await under(bench, driver, made.ref.tag)
            bench.expect(not left, "a snapshot is listed after a second deletion")
            await expect_more(bench, before, 0, "after a deletion that a restart interrupted")
