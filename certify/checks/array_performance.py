"""How long calls take, by size of the group and by load; judged only against stated limits.

Everything is measured and told in the certificate. A vendor who states a limit is held to it, and
the requirement counts as tested then.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from ..array_bench import ArrayBench, BenchUnit
from ..cuts import Cut, take
from ..requirement import Level, NotTested, Topic
from ..writers import HEAVY, LIGHT, Writers

TOPIC: Topic[ArrayBench] = Topic("performance", "ARR-PRF")

LIMITS: Mapping[str, str] = {
    "snapshot_p95_s": "95th percentile of a group snapshot of any size, with no other load",
    "loaded_snapshot_p95_s": "95th percentile of a group snapshot of any size, under any load",
    "fence_p95_s": "95th percentile of the fence that the driver tells, under load",
    "held_write_p95_s": "95th percentile of the longest write that a group snapshot delays",
    "delete_p95_s": "95th percentile of the deletion of a group snapshot",
    "list_p95_s": "95th percentile of listing, among many snapshots",
    "clone_p95_s": "95th percentile of making a clone",
}
"""What a vendor may state, in seconds: the sample's name, and what it bounds."""


_WRITTEN_BYTES = 1 << 20


def percentile_s(values_s: list[float] | tuple[float, ...], share: float = 0.95) -> float:
    """The least of the values that so large a share of them does not exceed."""
    ordered = sorted(values_s)
    return ordered[ceil(share * len(ordered)) - 1]


def _judge(bench: ArrayBench, name: str) -> None:
    """Hold the samples of this name against the limit that is stated, if one is.

    Raises
    ------
    NotTested
        None is.
    Violation
        It is exceeded.
    """
    limit = f"{name}_p95_s"
    limit_s = bench.limits.get(limit)
    if limit_s is None:
        raise NotTested(f"measured, not judged: no limit {limit} is stated")
    for sample in bench.samples:
        if sample.name == name:
            p95_s = percentile_s(sample.values_s)
            bench.expect(
                p95_s <= limit_s,
                f"the 95th percentile is {p95_s:.6g} s, the stated limit {limit_s:g} s",
                p95_s=p95_s,
                limit_s=limit_s,
                measurements=len(sample.values_s),
                **sample.labels,
            )


def _sizes(bench: ArrayBench) -> list[tuple[BenchUnit, ...]]:
    """Groups of one unit, of as many as one call takes, and of one size between."""
    most = len(bench.units[: bench.capabilities.units_per_group])
    return [bench.units[:size] for size in sorted({1, (most + 1) // 2, most})]


@TOPIC.shall(
    1,
    Level.PERFORMANCE,
    "A group snapshot of any size shall be complete within the time that the vendor states, on an "
    "array without other load.",
)
async def snapshot(bench: ArrayBench) -> None:
    for units in _sizes(bench):
        values_s = []
        for _ in range(bench.effort.repeats):
            start_s = bench.now_s()
            made = await bench.cut(*units)
            values_s.append(bench.now_s() - start_s)
            await bench.delete(made.ref)
        bench.measure("snapshot", values_s, units=len(units), load="idle")
    _judge(bench, "snapshot")


@TOPIC.shall(
    2,
    Level.PERFORMANCE,
    "A group snapshot of any size shall be complete within the time that the vendor states, while "
    "its units are written.",
)
async def loaded_snapshot(bench: ArrayBench) -> None:
    for load in (LIGHT, HEAVY):
        for units in _sizes(bench):
            async with Writers(bench, units, load) as writers:
                cuts = await _cuts(bench, writers)
            values_s = [cut.after.at_s - cut.before.at_s for cut in cuts]
            bench.measure("loaded_snapshot", values_s, units=len(units), load=load.name)
    _judge(bench, "loaded_snapshot")


@TOPIC.shall(
    3,
    Level.PERFORMANCE,
    "The fence that a driver tells shall be no longer than the vendor states, under load.",
)
async def fence(bench: ArrayBench) -> None:
    for units in _sizes(bench):
        async with Writers(bench, units, HEAVY) as writers:
            cuts = await _cuts(bench, writers)
        fences = [cut.made.fence for cut in cuts if cut.made.fence is not None]
        if not fences:
            raise NotTested("the driver does not tell for how long writes were held")
        exact = "exactly" if all(one.exact for one in fences) else "as an upper bound"
        values_s = [one.duration_s for one in fences]
        bench.measure("fence", values_s, units=len(units), told=exact)
    _judge(bench, "fence")


@TOPIC.shall(
    4,
    Level.PERFORMANCE,
    "No write of a host shall take longer than the vendor states because of a group snapshot, the "
    "time that it takes otherwise included.",
)
async def held_write(bench: ArrayBench) -> None:
    for load in (LIGHT, HEAVY):
        for units in _sizes(bench):
            async with Writers(bench, units, load) as writers:
                cuts = await _cuts(bench, writers)
            values_s = [_longest_s(writers, cut) for cut in cuts]
            bench.measure("held_write", values_s, units=len(units), load=load.name)
    _judge(bench, "held_write")


def _longest_s(writers: Writers, cut: Cut) -> float:
    """The longest of the writes that were under way during a call."""
    return max(
        ended_s - begun_s
        for chain in writers.chains
        for begun_s, ended_s in zip(chain.issued_s, chain.acknowledged_s, strict=False)
        if begun_s <= cut.after.at_s and ended_s >= cut.before.at_s
    )


@TOPIC.shall(
    5,
    Level.PERFORMANCE,
    "A group snapshot shall be deleted within the time that the vendor states, when its units have "
    "been written since.",
)
async def delete(bench: ArrayBench) -> None:
    for units in _sizes(bench):
        values_s = []
        for _ in range(bench.effort.repeats):
            made = await bench.cut(*units)
            for unit in units:
                await bench.write(
                    unit, 0, bench.random_bytes(min(_WRITTEN_BYTES, bench.span_bytes))
                )
            start_s = bench.now_s()
            await bench.delete(made.ref)
            values_s.append(bench.now_s() - start_s)
        bench.measure("delete", values_s, units=len(units), load="idle")
    _judge(bench, "delete")


@TOPIC.shall(
    6,
    Level.PERFORMANCE,
    "Snapshots shall be listed within the time that the vendor states, however many there are.",
)
async def listing(bench: ArrayBench) -> None:
    per_unit = bench.capabilities.snapshots_per_unit
    many = bench.effort.many
    if per_unit is not None:
        many = min(many, per_unit * len(bench.units))
    for wanted in (0, many):
        for number in range(wanted):
            await bench.cut(bench.units[number % len(bench.units)])
        values_s = []
        for _ in range(bench.effort.repeats):
            start_s = bench.now_s()
            await bench.listed()
            values_s.append(bench.now_s() - start_s)
        bench.measure("list", values_s, snapshots=wanted)
    _judge(bench, "list")


@TOPIC.shall(
    7,
    Level.PERFORMANCE,
    "A clone shall be made within the time that the vendor states.",
    capability="clones",
)
async def clone(bench: ArrayBench) -> None:
    unit = bench.units[0]
    await bench.write(unit, 0, bench.random_bytes(min(_WRITTEN_BYTES, bench.span_bytes)))
    made = await bench.cut(unit)
    values_s = []
    for _ in range(bench.effort.repeats):
        start_s = bench.now_s()
        copy = await bench.clone(made.ref, unit, "timed")
        values_s.append(bench.now_s() - start_s)
        await bench.setup(bench.readable.discard(copy.id), "discarding a clone")
    bench.measure("clone", values_s, units=1)
    _judge(bench, "clone")


async def _cuts(bench: ArrayBench, writers: Writers) -> list[Cut]:
    """As many group snapshots of all units as the effort says, under load."""
    cuts = []
    for _ in range(bench.effort.repeats):
        await writers.advance()
        cuts.append(await take(bench, writers, range(len(writers.units))))
        await bench.delete(cuts[-1].made.ref)
    await writers.advance()  # what was held has been acknowledged by now
    return cuts
