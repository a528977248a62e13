"""The fence and the point in time of a group snapshot, as those who write see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from statistics import median

from ...drivers.contracts import GroupSnapshot, GroupSnapshotRequest, Window
from ...drivers.errors import BusyError, DidNotHappenError, DriverError
from ..array_bench import ArrayBench, BenchUnit
from ..cuts import Cut, Moment, moment, must_read, take
from ..requirement import Blocked, Level, NotTested, Topic, Violation
from ..writers import ADVANCE_LIMIT_S, HEAVY, LIGHT, Chain, Writers

TOPIC: Topic[ArrayBench] = Topic("fence", "ARR-FNC")

_SHORT_FENCES_S = (0.001, 0.01, 0.1)
_LET_GO_S = 0.25
"""From seeing that the time is over to letting writes go."""
_BUSY_LIMIT_S = 20.0
_BUSY_STEP_S = 0.05
_LONG_WRITES = 2.0
"""A fence of so many writes' length would show a write that begins and ends within it."""
_KEPT = 5


def _units(bench: ArrayBench) -> tuple[BenchUnit, ...]:
    return bench.units[: bench.capabilities.units_per_group]


async def _cuts(bench: ArrayBench, writers: Writers) -> AsyncIterator[Cut]:
    """A group snapshot of all units in each round, deleted before the next."""
    for _ in range(bench.effort.rounds):
        await writers.advance()
        cut = await take(bench, writers, range(len(writers.units)))
        async with writers.resting():
            yield cut
            await bench.delete(cut.made.ref)


@TOPIC.shall(
    1,
    Level.GROUP,
    "The point in time that a driver tells for a group snapshot shall lie within the call, and "
    "within the fence where it tells one; and the images shall show a point in time of that fence.",
    capability="atomic_groups",
    units=2,
)
async def told_point(bench: ArrayBench) -> None:
    must_read(bench)
    off_s: list[float] = []
    async with Writers(bench, _units(bench), LIGHT) as writers:
        async for cut in _cuts(bench, writers):
            told_s, fence = cut.made.cut_s, cut.made.fence
            if told_s is None and fence is None:
                continue
            image = await _moment(bench, writers, cut)
            if fence is not None:
                bench.expect(
                    image.not_before_s <= fence.end_s and fence.start_s <= image.not_after_s,
                    "the images show a point in time outside the fence that was told",
                    **_relative(cut, image, fence),
                )
            if told_s is None:
                continue
            bench.expect(
                cut.before.at_s <= told_s <= cut.after.at_s,
                "the point in time that was told lies outside the call",
                **_relative(cut, image, fence),
            )
            bench.expect(
                fence is None or fence.start_s <= told_s <= fence.end_s,
                "the point in time that was told lies outside the fence that was told",
                **_relative(cut, image, fence),
            )
            off_s.append(max(0.0, image.not_before_s - told_s, told_s - image.not_after_s))
    if not off_s:
        raise NotTested("the driver does not tell the point in time of its snapshots")
    bench.note(told=len(off_s), furthest_from_the_images_s=round(max(off_s), 6))


async def _moment(bench: ArrayBench, writers: Writers, cut: Cut) -> Moment:
    """What the images show; that they are torn is another requirement's to judge."""
    try:
        return await moment(bench, writers, cut)
    except Violation as found:
        raise Blocked(found.what) from found


def _relative(cut: Cut, image: Moment, fence: Window | None) -> dict[str, float | None]:
    """Times since the call, for the certificate."""
    zero_s, told_s = cut.before.at_s, cut.made.cut_s
    return {
        "call_took_s": cut.after.at_s - zero_s,
        "told_s": None if told_s is None else told_s - zero_s,
        "fence_start_s": None if fence is None else fence.start_s - zero_s,
        "fence_end_s": None if fence is None else fence.end_s - zero_s,
        "images_not_before_s": image.not_before_s - zero_s,
        "images_not_after_s": image.not_after_s - zero_s,
    }


@TOPIC.shall(
    2,
    Level.GROUP,
    "While a fence lasts that a driver tells as exact, no write to the group's units shall begin "
    "and be acknowledged.",
)
async def writes_stand_still(bench: ArrayBench) -> None:
    fences: list[tuple[Cut, Window]] = []
    async with Writers(bench, _units(bench), LIGHT) as writers:
        async for cut in _cuts(bench, writers):
            fence = cut.made.fence
            if fence is not None and fence.exact:
                fences.append((cut, fence))
        await writers.advance()  # what was held has been acknowledged by now
    if not fences:
        raise NotTested("the driver tells no fence, or an upper bound of it only")
    usual_s = max(median(chain.latencies_s) for chain in writers.chains)
    longest_s = max(fence.duration_s for _, fence in fences)
    bench.note(fences=len(fences), longest_fence_s=longest_s, usual_write_s=usual_s)
    for cut, fence in fences:
        for number, chain in enumerate(writers.chains):
            _must_not_go_on(bench, cut, fence, number, chain)
    if longest_s < _LONG_WRITES * usual_s:
        raise NotTested("fences are too short for a write to begin and end within them")


def _must_not_go_on(bench: ArrayBench, cut: Cut, fence: Window, number: int, chain: Chain) -> None:
    within = [
        (begun_s, ended_s)
        for begun_s, ended_s in zip(chain.issued_s, chain.acknowledged_s, strict=False)
        if fence.start_s < begun_s and ended_s < fence.end_s
    ]
    if within:
        zero_s = cut.before.at_s
        bench.expect(
            False,
            "writes began and were acknowledged while they were told to be held",
            chain=number,
            writes=len(within),
            first_s=[round(time_s - zero_s, 6) for time_s in within[0]],
            fence_s=[fence.start_s - zero_s, fence.end_s - zero_s],
        )


@TOPIC.shall(
    3,
    Level.GROUP,
    "A group snapshot shall not hold writes for longer than the request allows: if it would, it "
    "is given up, with DidNotHappenError, and nothing of it is left.",
    units=2,
)
async def fence_limit(bench: ArrayBench) -> None:
    refused = told = 0
    async with Writers(bench, _units(bench), LIGHT) as writers:
        for limit_s in _SHORT_FENCES_S:
            request = bench.request(*writers.units, fence_timeout_s=limit_s)
            try:
                made = await _when_free(bench, request)
            except DidNotHappenError:
                refused += 1
                bench.expect(
                    request.tag not in await bench.listed(),
                    "a group snapshot that was given up is listed",
                    fence_timeout_s=limit_s,
                )
            except DriverError as error:
                said = f"{type(error).__name__}: {error}"
                raise Violation(f"a short fence makes the call fail with {said}") from error
            else:
                fence = made.fence
                if fence is not None and fence.exact:
                    told += 1
                    bench.expect(
                        fence.duration_s <= limit_s + _LET_GO_S,
                        "writes were held for longer than the request allows",
                        held_s=fence.duration_s,
                        fence_timeout_s=limit_s,
                    )
                await bench.delete(made.ref)
            await writers.advance()
    bench.note(given_up=refused, made_with_exact_fence=told)
    if not refused and not told:
        raise NotTested("nothing was given up, and the driver tells no exact fence")


async def _when_free(bench: ArrayBench, request: GroupSnapshotRequest) -> GroupSnapshot:
    """A group snapshot; what has just been given up may keep its units busy for a while.

    Raises
    ------
    Blocked
        They stay busy.
    DriverError
        It fails otherwise.
    """
    end_s = bench.now_s() + _BUSY_LIMIT_S
    while True:
        try:
            return await bench.driver.snapshot_group(request)
        except BusyError as error:
            if bench.now_s() >= end_s:
                raise Blocked(f"the array stays busy: {error}") from error
            await asyncio.sleep(_BUSY_STEP_S)


@TOPIC.shall(
    4,
    Level.DATA,
    "Snapshots that are made, kept and deleted shall not fail, stop or lose the writes of hosts.",
)
async def writers_go_on(bench: ArrayBench) -> None:
    units = _units(bench)
    most = bench.capabilities.snapshots_per_unit
    kept = _KEPT if most is None else min(_KEPT, most)
    async with Writers(bench, units, HEAVY) as writers:
        for _ in range(max(1, bench.effort.rounds // kept)):
            cuts = []
            for _ in range(kept):
                cuts.append(await take(bench, writers, range(len(units))))
                await _must_advance(bench, writers)
            for cut in cuts:
                await bench.delete(cut.made.ref)
                await _must_advance(bench, writers)
        try:
            await writers.stop()
        except Blocked as error:
            raise Violation(error.what) from error
        bench.expect(not writers.trouble, writers.trouble)
        for number in range(len(units)):
            await _must_hold_all(bench, writers, number)
    longest_s = max(max(chain.latencies_s) for chain in writers.chains)
    writes = sum(len(chain.acknowledged_s) for chain in writers.chains)
    bench.note(kept_at_once=kept, acknowledged_writes=writes, longest_write_s=longest_s)


async def _must_advance(bench: ArrayBench, writers: Writers) -> None:
    there = await writers.advanced(2)
    bench.expect(there, writers.trouble or f"writes stand still for {ADVANCE_LIMIT_S:g} s")


async def _must_hold_all(bench: ArrayBench, writers: Writers, number: int) -> None:
    unit = writers.units[number]
    data = await bench.read(unit, 0, writers.load.length_bytes)
    for index, chain in enumerate(writers.chains):
        plan = chain.plan
        for slot in range(plan.slots):
            last = plan.last(len(chain.acknowledged_s), number, slot)
            start = plan.offset_bytes(slot)
            bench.compared_bytes += plan.write_bytes
            held = plan.decode(data[start : start + plan.write_bytes])
            bench.expect(
                held is not None and held.low == last,
                "a write that was acknowledged is lost",
                unit_id=unit.id,
                chain=index,
                write=last,
                offset_bytes=start,
                held=held and held.low,
            )
