"""Callers that stop waiting: the system goes on, and the driver has to keep track of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from ..hypervisor_bench import HypervisorBench
from ..hypervisor_target import PLAIN
from ..requirement import Level, NotTested, Topic
from .guest_load import GuestLoad
from .hypervisor_settling import (
    create_s,
    finish,
    moments,
    remove_s,
    settled,
    stays,
    tags_of,
    thaws,
)

TOPIC: Topic[HypervisorBench] = Topic("callers that stop waiting", "HYP-ABD")

SLOW_S = 2.0
"""How much longer than usual a system takes whose callers give up."""


async def _abandoned(call: Awaitable[object], after_s: float) -> bool:
    """Stop waiting for a call after a time; whether it was still under way then."""
    task = asyncio.ensure_future(call)
    await asyncio.wait([task], timeout=after_s)
    under_way = not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return under_way


@TOPIC.shall(
    1,
    Level.FAULT,
    "A tag that is not listed while nothing is queued or under way on the VM shall never appear, "
    "also if the caller of its create has stopped waiting.",
    hooks=("slow_calls",),
)
async def abandoned_create_is_seen(bench: HypervisorBench) -> None:
    """The system takes its time, the caller does not."""
    tag = bench.tag()
    async with bench.target.slow_calls("create_snapshot", SLOW_S):
        call = bench.driver.create_snapshot(bench.request(PLAIN, tag=tag))
        if not await _abandoned(call, SLOW_S / 2):
            raise NotTested("the create had ended before its caller could give up")
    listed = tag in tags_of(await settled(bench, PLAIN))
    bench.note(completed=listed)
    bench.expect(
        listed or await stays(bench, PLAIN, tag, listed=False),
        "a snapshot has appeared whose create was not listed as under way",
        tag=tag,
    )


@TOPIC.shall(
    2,
    Level.FAULT,
    "A create whose caller stops waiting, at whatever moment, shall leave the guest thawed once "
    "nothing is under way on the VM.",
    hooks=("frozen_spans",),
)
async def abandoned_create_thaws(bench: HypervisorBench) -> None:
    """Several moments of a create."""
    for after_s in moments(bench, await create_s(bench, PLAIN)):
        tag, start_s = bench.tag(), bench.now_s()
        await _abandoned(bench.driver.create_snapshot(bench.request(PLAIN, tag=tag)), after_s)
        await settled(bench, PLAIN)
        bench.expect(
            await thaws(bench, PLAIN, start_s),
            "the caller of a create has stopped waiting, and the guest stays frozen",
            after_s=after_s,
        )
        await finish(bench, PLAIN, tag)


@TOPIC.shall(
    3,
    Level.FAULT,
    "A VM shall be snapshotted again as soon as nothing is under way on it any more, after the "
    "caller of a create has stopped waiting.",
)
async def abandoned_create_blocks_nobody(bench: HypervisorBench) -> None:
    """Several moments of a create."""
    for after_s in moments(bench, await create_s(bench, PLAIN), 4):
        tag = bench.tag()
        call = bench.driver.create_snapshot(bench.request(PLAIN, tag=tag))
        await _abandoned(call, after_s)
        await settled(bench, PLAIN)
        again = await bench.driver.create_snapshot(bench.request(PLAIN))
        await bench.remove(again.ref)
        await finish(bench, PLAIN, tag)


@TOPIC.shall(
    4,
    Level.FAULT,
    "A removal whose caller stops waiting, at whatever moment, shall lose nothing that the guest "
    "wrote.",
    hooks=("write", "read"),
)
async def abandoned_removal_loses_nothing(bench: HypervisorBench) -> None:
    """The removal is finished afterwards as a recovery finishes it."""
    whole_s = await remove_s(bench, PLAIN)
    for after_s in moments(bench, whole_s, 5):
        async with GuestLoad(bench, PLAIN) as load:
            made = await bench.create(PLAIN, quiesce=False)
            await load.more()
            await _abandoned(bench.driver.remove_snapshot(made.ref), after_s)
            await load.more()
            await finish(bench, PLAIN, made.ref.tag)
        await load.check("after a removal that nobody waited for the guest has lost data")
