"""Rounds of cutting under load: every image judged, the power told, and a control that is torn.

A control proves that a tear would have been seen in this very run: the same units, cut one by one
while the writers go on, are read and judged in the same way, and have to come out torn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, permutations
from statistics import median
from typing import Any

from .array_bench import ArrayBench
from .cuts import Cut, Image, Moment, moment, moment_of, must_read, read_image, take
from .power import Spans, Turn, gap_found_s, gap_of, least_gaps, unseen_share
from .requirement import NotTested, Violation
from .stamps import Held
from .writers import Chain, Writers

CONFIDENCE = 0.99
_INSTANTS = 200
_SURE = 0.95
"""A gap counts as found in its round when it is found at this share of instants."""

Choose = Callable[[int], Sequence[int]]
"""The units of a round, by its number; units by their place among the writers' units."""


async def judged_rounds(
    bench: ArrayBench, writers: Writers, choose: Choose
) -> list[tuple[Cut, Moment]]:
    """Cut as often as the effort says, and judge each image.

    Raises
    ------
    Violation
        An image is torn; the evidence says in which round.
    Blocked
        A call failed.
    """
    must_read(bench)
    seen = []
    for number in range(bench.effort.rounds):
        await writers.advance()
        cut = await take(bench, writers, choose(number))
        await writers.advance(1)  # so that it is known what would have shown a later cut
        async with writers.resting():
            seen.append((cut, await judged(bench, writers, cut, number)))
            await bench.delete(cut.made.ref)
    return seen


async def judged(bench: ArrayBench, writers: Writers, cut: Cut, number: int) -> Moment:
    """The point in time that a snapshot shows; see :func:`.cuts.moment`."""
    try:
        return await moment(bench, writers, cut)
    except Violation as found:
        ids = [writers.units[unit].id for unit in range(len(writers.units))]
        told = {"round": number + 1, "load": writers.load.name, "group": list(cut.units)}
        raise Violation(found.what, **told, unit_ids=ids, **found.evidence) from found


async def control(
    bench: ArrayBench, writers: Writers, units: Sequence[int], *, through_clones: bool = False
) -> None:
    """Cut the units one by one while they are written: the images have to come out torn.

    Parameters
    ----------
    through_clones:
        Read them as :func:`.cuts.read_image` does.

    Raises
    ------
    NotTested
        They do not, so that a torn group would not have been seen either.
    """
    await writers.advance()
    cuts = []
    for unit in units:
        cuts.append(await take(bench, writers, [unit]))
        await writers.advance()
    image: list[dict[tuple[int, int], Held | None]] = [{} for _ in writers.chains]
    async with writers.resting():
        for cut in cuts:
            ref = cut.made.ref
            part = await read_image(bench, writers, ref, cut.units, through_clones=through_clones)
            for slots, more in zip(image, part, strict=True):
                slots.update(more)
            await bench.delete(ref)
    _must_be_torn(bench, writers, units, image, cuts)


async def control_of_one(bench: ArrayBench, writers: Writers, unit: int) -> None:
    """Put an image together from two of one unit, a slot from each: it has to come out torn.

    Raises
    ------
    NotTested
        It does not, so that a smeared image would not have been seen either.
    """
    cuts = []
    for _ in range(2):
        await writers.advance(max(shape.slots for shape in writers.load.shapes) + 1)
        cuts.append(await take(bench, writers, [unit]))
    async with writers.resting():
        parts = [await read_image(bench, writers, cut.made.ref, cut.units) for cut in cuts]
        for cut in cuts:
            await bench.delete(cut.made.ref)
    image = [
        {place: (old, new)[place[1] % 2][place] for place in old}
        for old, new in zip(*parts, strict=True)
    ]
    _must_be_torn(bench, writers, [unit], image, cuts)


def _must_be_torn(
    bench: ArrayBench,
    writers: Writers,
    units: Sequence[int],
    image: Image,
    cuts: Sequence[Cut],
) -> None:
    zero_s = cuts[0].before.at_s
    apart_s = cuts[-1].after.at_s - zero_s
    try:
        moment_of(writers, units, image, zero_s)
    except Violation as found:
        torn = {"torn": True, "within_s": round(apart_s, 6), "why": found.what}
        bench.note(control=torn | {k: v for k, v in found.evidence.items() if k != "sequence"})
        return
    bench.note(control={"torn": False, "within_s": round(apart_s, 6)})
    raise NotTested(
        "the control did not come out torn: what was cut in pieces, with writes between, was not "
        "told from what was cut at once"
    )


def tell_power(
    bench: ArrayBench,
    writers: Writers,
    units: Sequence[int],
    rounds: Sequence[tuple[Cut, Moment]],
) -> None:
    """Note which gap between the cuts of two units these rounds would have found.

    The first cut is thought at any instant during the calls. ``gap_found_s`` is the least gap which
    all rounds together find with a confidence of 99 %, for the pair and order of units where it is
    largest; ``torn_share_at_most`` how often cuts may be torn by
    ``gap_found_each_round_s`` or more, at most (95 %), if none of these rounds was.
    """
    calls = [(cut.before.at_s, cut.after.at_s) for cut, _ in rounds]
    instants_s = [bench.rng.uniform(*bench.rng.choice(calls)) for _ in range(_INSTANTS)]
    spans = {unit: [_spans(chain, unit) for chain in writers.chains] for unit in units}
    gaps = {
        (first, second): least_gaps(spans[first], spans[second], instants_s)
        for first, second in permutations(units, 2)
    }
    worst = max(gaps, key=lambda pair: gap_of(gaps[pair], len(rounds), CONFIDENCE))
    each_s = max(sorted(found)[round(_SURE * _INSTANTS) - 1] for found in gaps.values())
    bench.note(
        power={
            "rounds": len(rounds),
            "confidence": CONFIDENCE,
            "gap_found_s": _known(gap_of(gaps[worst], len(rounds), CONFIDENCE)),
            "gap_found_in_theory_s": _known(_theory_s(writers, worst, len(rounds))),
            "units": list(worst),
            "gap_found_each_round_s": _known(each_s),
            "torn_share_at_most": round(unseen_share(len(rounds), _SURE), 6),
        },
        writes=_writes(writers, sum(end_s - begin_s for begin_s, end_s in calls)),
    )


def _known(value_s: float) -> float | None:
    return None if value_s == float("inf") else round(value_s, 6)


def _spans(chain: Chain, unit: int) -> Spans:
    turn = len(chain.plan.order)
    start = chain.plan.order.index(unit)
    acknowledged_s = chain.acknowledged_s[start::turn]
    return Spans(chain.issued_s[start::turn], acknowledged_s)


def _spacing_s(chain: Chain) -> float:
    """From one write to the next, in the middle of them."""
    times_s = chain.acknowledged_s
    return median(b - a for a, b in pairwise(times_s))


def _theory_s(writers: Writers, pair: Sequence[int], rounds: int) -> float:
    turns = []
    for chain in writers.chains:
        order = chain.plan.order
        distance = (order.index(pair[1]) - order.index(pair[0])) % len(order)
        turns.append(Turn(max(_spacing_s(chain), 1e-9), len(order), distance))
    return gap_found_s(turns, rounds, CONFIDENCE)


def _writes(writers: Writers, calls_s: float) -> Mapping[str, Any]:
    spacings_s = [_spacing_s(chain) for chain in writers.chains]
    return {
        "load": writers.load.name,
        "chains": len(writers.chains),
        "acknowledged": sum(len(chain.acknowledged_s) for chain in writers.chains),
        "spacing_s": round(min(spacings_s), 6),
        "longest_s": round(max(max(chain.latencies_s) for chain in writers.chains), 6),
        "calls_took_s": round(calls_s, 6),
    }
