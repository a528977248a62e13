"""Faults: sessions that expire, an array that cannot be reached, a wrong clock."""

from __future__ import annotations

import asyncio

from ...drivers.errors import DriverError
from ..array_bench import ArrayBench
from ..requirement import Level, NotTested, Topic
from .array_aftermath import (
    again,
    answers,
    duration_s,
    during,
    expect_more,
    fresh,
    members,
    moments_s,
    outcome,
    remove,
    settle,
    told_truly,
    under,
)

TOPIC: Topic[ArrayBench] = Topic("faults: outages", "ARR-FLT")

MOST_MOMENTS = 12
SKEW_S = 3600.0
SKEW_TOLERANCE_S = 1.0
"""Clocks of drivers and hosts may differ a little; an hour is not a little."""


@TOPIC.shall(
    29,
    Level.FAULT,
    "A driver shall serve again, on the connection that is open, after its session expired.",
    hooks=("expire_sessions",),
)
async def session_expired(bench: ArrayBench) -> None:
    await bench.listed()
    await bench.target.expire_sessions()
    await answers(bench, "after its session expired")
    made = await again(bench, bench.driver, bench.request(bench.units[0]), "in a new session")
    await bench.target.expire_sessions()
    await remove(bench, bench.driver, made.ref, "in a new session")


@TOPIC.shall(
    30,
    Level.FAULT,
    "A driver shall tell the outcome of a group snapshot during which its session expires truly, "
    "or as unknown.",
    hooks=("expire_sessions",),
    units=2,
)
async def session_told(bench: ArrayBench) -> None:
    units = bench.units[:2]
    took_s = await duration_s(bench, *units)
    kinds = []
    for moment_s in moments_s(bench, took_s, MOST_MOMENTS):
        request = bench.request(*units)
        said = await during(bench, request, moment_s, bench.target.expire_sessions)
        kinds.append(type(said).__name__)
        await told_truly(bench, request, said, "while its session expired")
    bench.note(calls=kinds)


@TOPIC.shall(
    31,
    Level.FAULT,
    "A driver shall end every call with an error, and in time, while the array cannot be reached.",
    hooks=("unreachable",),
)
async def unreachable(bench: ArrayBench) -> None:
    unit = bench.units[0]
    made, request = await bench.cut(unit), bench.request(unit)
    async with bench.target.unreachable():
        said = await asyncio.gather(
            outcome(bench.driver.list_snapshots(bench.tag_prefix)),
            outcome(bench.driver.resolve(unit.scratch.devices)),
            outcome(bench.driver.snapshot_group(request)),
            outcome(bench.driver.delete_snapshot(made.ref)),
        )
    async with fresh(bench) as driver:
        await settle(bench, driver, request)
    calls = ("list_snapshots", "resolve", "snapshot_group", "delete_snapshot")
    for call, answer in zip(calls, said, strict=True):
        bench.expect(
            isinstance(answer, DriverError),
            f"{call} succeeded on an array that cannot be reached",
            answer=repr(answer),
        )


@TOPIC.shall(
    32,
    Level.FAULT,
    "A driver shall tell that nothing happened only where nothing comes of it when the array can "
    "be reached again.",
    hooks=("unreachable",),
    units=2,
)
async def unreachable_told(bench: ArrayBench) -> None:
    request = bench.request(*bench.units[:2])
    async with bench.target.unreachable():
        said = await outcome(bench.driver.snapshot_group(request))
    bench.note(raised=type(said).__name__)
    await told_truly(bench, request, said, "while the array could not be reached")


@TOPIC.shall(
    33,
    Level.FAULT,
    "A driver shall serve again, on the connection that is open, when the array can be reached "
    "again.",
    hooks=("unreachable",),
)
async def reachable_again(bench: ArrayBench) -> None:
    async with bench.target.unreachable():
        await outcome(bench.driver.list_snapshots(bench.tag_prefix))
    await answers(bench, "after the array could not be reached")
    request = bench.request(bench.units[0])
    await again(bench, bench.driver, request, "when the array can be reached again")


@TOPIC.shall(
    34,
    Level.FAULT,
    "A driver shall tell times on the clock of the event loop, whatever the array's clock shows.",
    hooks=("skewed_clock",),
)
async def skewed_times(bench: ArrayBench) -> None:
    told = 0
    for skew_s in (SKEW_S, -SKEW_S):
        async with bench.target.skewed_clock(skew_s):
            start_s = bench.now_s() - SKEW_TOLERANCE_S
            made = await bench.cut(bench.units[0])
            end_s = bench.now_s() + SKEW_TOLERANCE_S
            listed = (await bench.listed(made.ref.tag)).get(made.ref.tag, made)
        for one in (made, listed):
            times_s = [] if one.cut_s is None else [one.cut_s]
            times_s += [] if one.fence is None else [one.fence.start_s, one.fence.end_s]
            told += len(times_s)
            right = all(start_s <= time_s <= end_s for time_s in times_s)
            bench.expect(right, "a time is told on another clock", times_s=times_s, skew_s=skew_s)
        await bench.delete(made.ref)
    if not told:
        raise NotTested("the driver tells no times")


@TOPIC.shall(
    35,
    Level.FAULT,
    "A driver shall list and delete a snapshot from a time when the array's clock was wrong.",
    hooks=("skewed_clock",),
)
async def skewed_listing(bench: ArrayBench) -> None:
    before = await members(bench)
    for skew_s in (SKEW_S, -SKEW_S):
        async with bench.target.skewed_clock(skew_s):
            made = await bench.cut(bench.units[0])
        found = await under(bench, bench.driver, made.ref.tag)
        bench.expect(found, "a snapshot is not listed when the array's clock is right again")
        await remove(bench, bench.driver, found[0].ref, "when the array's clock is right again")
    await expect_more(bench, before, 0, "that were made while its clock was wrong")
