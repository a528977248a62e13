"""Group atomicity: what images of several units hold while the units are written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

from ...drivers.contracts import ArrayDriver
from ..array_bench import ArrayBench, BenchUnit
from ..cuts import Cut, Image, Moment, must_read, read_image, take, try_take
from ..requirement import Blocked, Level, NotTested, Topic
from ..rounds import control, control_of_one, judged, judged_rounds, tell_power
from ..stamps import Held
from ..writers import HEAVY, LIGHT, Writers

TOPIC: Topic[ArrayBench] = Topic("group atomicity", "ARR-GRP")

_KEPT = 3
"""Snapshots that stand on each other."""


def group(bench: ArrayBench) -> tuple[BenchUnit, ...]:
    """As many scratch units as one group call takes."""
    most = bench.capabilities.units_per_group
    units = bench.units if most is None else bench.units[:most]
    if len(units) < 2:
        raise NotTested("a group call takes one unit only")
    return units


async def _one_group(bench: ArrayBench, writers: Writers) -> None:
    """All units in each round, the control, and the power of it."""
    units = range(len(writers.units))
    seen = await judged_rounds(bench, writers, lambda _: units)
    await control(bench, writers, units)
    tell_power(bench, writers, units, seen)


@TOPIC.shall(
    1,
    Level.DATA,
    "The image of each single unit shall show one point in time: of writes that each begin when "
    "the one before has been acknowledged, it holds a beginning of the sequence.",
)
async def one_unit(bench: ArrayBench) -> None:
    async with Writers(bench, bench.units[:1], HEAVY) as writers:
        seen = await judged_rounds(bench, writers, lambda _: [0])
        await control_of_one(bench, writers, 0)
        writes = sum(len(chain.acknowledged_s) for chain in writers.chains)
        bench.note(rounds=len(seen), acknowledged_writes=writes)


@TOPIC.shall(
    2,
    Level.GROUP,
    "A driver that declares atomic groups shall cut all units of a group at one point in time: of "
    "writes to all units that each begin when the one before has been acknowledged, the images "
    "hold a beginning of the sequence.",
    capability="atomic_groups",
    units=2,
)
async def light_load(bench: ArrayBench) -> None:
    async with Writers(bench, group(bench), LIGHT) as writers:
        await _one_group(bench, writers)


@TOPIC.shall(
    3,
    Level.GROUP,
    "Groups shall be cut at one point in time under heavy load too: several sequences of small and "
    "large writes at once, over all units.",
    capability="atomic_groups",
    units=2,
)
async def heavy_load(bench: ArrayBench) -> None:
    async with Writers(bench, group(bench), HEAVY) as writers:
        await _one_group(bench, writers)


@TOPIC.shall(
    4,
    Level.GROUP,
    "Groups of every size shall be cut at one point in time, whichever units they hold and in "
    "whatever order the request names them, while other units are written as well.",
    capability="atomic_groups",
    units=3,
)
async def every_size(bench: ArrayBench) -> None:
    units = group(bench)

    def choose(number: int) -> Sequence[int]:
        size = len(units) - number % (len(units) - 1)
        if number < len(units) - 1:  # backwards once in each size, then at random
            return range(size - 1, -1, -1)
        return bench.rng.sample(range(len(units)), size)

    async with Writers(bench, units, LIGHT) as writers:
        seen = await judged_rounds(bench, writers, choose)
        await control(bench, writers, [1, 0])
        sizes = [len(cut.units) for cut, _ in seen]
        tell_power(bench, writers, [0, 1], [one for one in seen if len(one[0].units) == 2])
        bench.note(rounds_by_size={str(size): sizes.count(size) for size in sorted(set(sizes))})


@TOPIC.shall(
    5,
    Level.GROUP,
    "Groups that share units and are asked for at once shall each be cut at one point in time, or "
    "be refused as busy.",
    capability="atomic_groups",
    units=3,
)
async def overlapping(bench: ArrayBench) -> None:
    await _at_once(bench, bench.driver)


@TOPIC.shall(
    6,
    Level.GROUP,
    "Groups that are asked for at once through two connections shall each be cut at one point in "
    "time, or be refused as busy.",
    capability="atomic_groups",
    units=3,
)
async def two_connections(bench: ArrayBench) -> None:
    async with bench.another_driver() as other:
        await _at_once(bench, other)


async def _at_once(bench: ArrayBench, other: ArrayDriver) -> None:
    """Rounds of two groups at once, the second through another driver perhaps."""
    must_read(bench)
    units = group(bench)
    if len(units) < 3:
        units = bench.units[:3]
    first, second = range(len(units) - 1), range(1, len(units))
    judged_cuts: list[tuple[Cut, Moment]] = []
    together = 0
    async with Writers(bench, units, LIGHT) as writers:
        for number in range(bench.effort.rounds):
            await writers.advance()
            asked = ((first, bench.driver), (second, other))
            if number % 2:
                asked = asked[::-1]
            answers = await asyncio.gather(*(try_take(bench, writers, *one) for one in asked))
            made = [cut for cut in answers if cut is not None]
            together += len(made) == 2
            await writers.advance(1)
            async with writers.resting():
                for cut in made:
                    judged_cuts.append((cut, await judged(bench, writers, cut, number)))
                    await bench.delete(cut.made.ref)
        if not judged_cuts:
            raise NotTested("groups that share units were all refused as busy")
        shared = [1, 2] if len(units) > 2 else [0, 1]
        await control(bench, writers, shared[: len(units) - 1])
        tell_power(bench, writers, list(first), judged_cuts)
    bench.note(groups_made=len(judged_cuts), rounds_in_which_both_were_made=together)


@TOPIC.shall(
    7,
    Level.DATA,
    "A group snapshot shall hold every write that had been acknowledged before the call.",
)
async def acknowledged_before(bench: ArrayBench) -> None:
    async with Writers(bench, _any_group(bench), HEAVY) as writers:
        async for cut, image in _images(bench, writers):
            for number, (chain, slots) in enumerate(zip(writers.chains, image, strict=True)):
                count = cut.before.acknowledged[number]
                for (unit, slot), held in slots.items():
                    wanted = chain.plan.last(count, unit, slot)
                    bench.expect(
                        held.low >= wanted,
                        "a write that had been acknowledged before the call is not in the image",
                        chain=number,
                        unit=unit,
                        missing=wanted,
                        acknowledged_before_call_s=cut.before.at_s - chain.acknowledged(wanted),
                        held=held.low,
                    )


@TOPIC.shall(
    8,
    Level.DATA,
    "A group snapshot shall hold no write that began after the call had returned.",
)
async def begun_after(bench: ArrayBench) -> None:
    async with Writers(bench, _any_group(bench), HEAVY) as writers:
        async for cut, image in _images(bench, writers, wait=True):
            for number, (chain, slots) in enumerate(zip(writers.chains, image, strict=True)):
                count = cut.after.issued[number]
                for (unit, _), held in slots.items():
                    bench.expect(
                        held.high <= count,
                        "a write that began after the call had returned is in the image",
                        chain=number,
                        unit=unit,
                        held=held.high,
                        begun_after_return_s=chain.issued(held.high) - cut.after.at_s,
                    )


@TOPIC.shall(
    9,
    Level.DATA,
    "Of several snapshots of the same units each shall show a later point in time than the one "
    "before it, and go on showing it while others are made and deleted and the units are written.",
)
async def one_after_another(bench: ArrayBench) -> None:
    must_read(bench)
    units = _any_group(bench)
    numbers = range(len(units))
    most = bench.capabilities.snapshots_per_unit
    kept = _KEPT if most is None else min(_KEPT, most)
    if kept < 2:
        raise NotTested("a unit carries one snapshot only")
    async with Writers(bench, units, LIGHT) as writers:
        for _ in range(max(1, bench.effort.rounds // kept)):
            cuts = []
            for _ in range(kept):
                await writers.advance(LIGHT.shapes[0].slots)
                cuts.append(await take(bench, writers, numbers))
            images = [await read_image(bench, writers, cut.made.ref, numbers) for cut in cuts]
            for old, new in pairwise(images):
                _must_go_on(bench, old, new)
            await bench.delete(cuts[0].made.ref)
            await writers.advance()
            for cut, image in zip(cuts[1:], images[1:], strict=True):
                again = await read_image(bench, writers, cut.made.ref, numbers)
                bench.expect(again == image, "a snapshot does not hold what it held before")
                await bench.delete(cut.made.ref)
    bench.note(kept_at_once=kept, series=max(1, bench.effort.rounds // kept))


def _must_go_on(bench: ArrayBench, old: Image, new: Image) -> None:
    for number, (before, after) in enumerate(zip(old, new, strict=True)):
        for place, held in before.items():
            later = after[place]
            bench.expect(
                held is not None and later is not None and later.low > held.low,
                "a later snapshot does not show a later point in time than an earlier one",
                chain=number,
                unit=place[0],
                earlier=held and held.low,
                later=later and later.low,
            )


def _any_group(bench: ArrayBench) -> tuple[BenchUnit, ...]:
    """As many scratch units as one group call takes; one perhaps."""
    return bench.units[: bench.capabilities.units_per_group]


async def _images(
    bench: ArrayBench, writers: Writers, *, wait: bool = False
) -> AsyncIterator[tuple[Cut, list[dict[tuple[int, int], Held]]]]:
    """Rounds of cutting all units, and what the images hold, torn or not.

    Parameters
    ----------
    wait:
        Let the writers go on between the return of the call and the reading.

    Raises
    ------
    Blocked
        An image holds what no write left, which is another requirement's to judge.
    """
    must_read(bench)
    numbers = range(len(writers.units))
    for _ in range(bench.effort.rounds):
        await writers.advance()
        cut = await take(bench, writers, numbers)
        if wait:
            await writers.advance()
        async with writers.resting():
            image = await read_image(bench, writers, cut.made.ref, numbers)
            await bench.delete(cut.made.ref)
        known = [{place: held for place, held in slots.items() if held} for slots in image]
        if [*map(len, known)] != [*map(len, image)]:
            raise Blocked("an image holds what no write left there")
        yield cut, known
    writes = sum(len(chain.acknowledged_s) for chain in writers.chains)
    bench.note(rounds=bench.effort.rounds, acknowledged_writes=writes)
